"""What one token is, in clock cycles: how many, where they go, and what the same takes on other chips."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.clock_parts import stages
from experiments.clock_parts.chips import Chip, absurd, bound, chips_table, other_chips
from experiments.clock_parts.phases import Run, phases_of, ran, shape_of
from experiments.clock_parts.settings import Machine, Settings
from llmjax.cycles.device import Device, Figure, peak
from llmjax.cycles.model import ProgramTime, predict
from llmjax.cycles.noise import MOST, adds_up
from llmjax.errors import UserError
from llmjax.report.page import Column, Plot, Section, Series, Table
from llmjax.report.units import seconds, short

HLO_DTYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "s8"}

# One instruction of a CPU: (stage, what happens, how many a cycle, cycles that one spends there or None). AMD publishes
# no cycles of the single stages of fetch, decode, rename and retire; what is known is what a wrong guess of a branch
# costs: all of them up to execution once more.
ZEN4, AGNER, GCC = "AMD 57647", "Agner Fog", "GCC"
SOURCES = (
    "Sources: AMD's Software Optimization Guide for the Zen 4 Microarchitecture (57647), as LLVM's X86ScheduleZnver4.td"
    " cites it; Agner Fog's instruction tables; GCC's zn4zn5.md."
)
PIPELINE: tuple[tuple[str, str, float | None, float | None, str], ...] = (
    ("fetch", "macro-ops from the op cache", 9, None, ZEN4),
    ("decode", "instructions, where the op cache has them not", 4, None, GCC),
    ("rename", "macro-ops dispatched in order", 6, None, ZEN4),
    ("issue", "one to each of 4 integer pipes, 3 address units, 6 vector pipes", 13, None, ZEN4),
    ("execute", "integer addition", 4, 1, GCC),
    ("execute", "float multiply-add of a vector", 2, 4, AGNER),
    ("execute", "integer load from the L1 cache", 3, 4, ZEN4),
    ("write back, retire", "in order, of at most 320 macro-ops in flight", None, None, ZEN4),
    ("fetch to execute again", "after a branch that went another way than guessed", None, 13, ZEN4),
)


@dataclass(frozen=True)
class Facts:
    """What was measured. `stages` go by phase: seconds of one run (host stages: a token's times the run's tokens).

    `whole` is seconds a token (a text to classify) from end to end, None where it was not measured.
    """

    runs: Mapping[str, Run]
    predicted: Mapping[str, ProgramTime]
    stages: Mapping[str, Mapping[str, float]]
    whole: float | None
    chips: tuple[Chip, ...] = ()
    missing: tuple[str, ...] = field(default=())


def section(settings: Settings, machine: Machine) -> Section:
    """Measures a token's way and returns the section."""
    return make_section(settings, machine, gather(settings, machine))


def gather(settings: Settings, machine: Machine) -> Facts:
    """Runs the phases and the stages around them, and compiles for the other chips."""
    runs = {phase: ran(shape_of(settings, phase), settings.runs) for phase in phases_of(settings)}
    predicted = {phase: predict(run.report.cost, machine.device) for phase, run in runs.items()}
    missing: list[str] = []
    found: dict[str, dict[str, float]] = {}
    for phase, run in runs.items():
        found[phase] = stages.run_stages(run, stages.dispatch_seconds(run, settings.runs))
    whole = None
    try:
        tokenise = stages.tokenise_seconds(settings, settings.runs)
        for phase in ("prefill", "classify"):
            if phase in found:
                found[phase] = {stages.TOKENISE: tokenise * runs[phase].tokens, **found[phase]}
        if "decode" in found:
            found["decode"][stages.SAMPLE] = stages.sample_seconds(settings, settings.runs)
            found["decode"][stages.DETOKENISE] = (
                stages.detokenise_seconds(settings, settings.runs) * runs["decode"].tokens
            )
        whole = _whole(settings, missing)
    except UserError as error:  # no tokenizer
        missing.append(f"Stages outside of XLA were not measured: {error}")
    chips, notes = other_chips(settings)
    return Facts(runs, predicted, found, whole, chips, (*missing, *notes))


def _whole(settings: Settings, missing: list[str]) -> float | None:
    if not settings.generates:
        return stages.classified_seconds(settings, settings.runs)
    if settings.batch == 1:
        return stages.streamed_seconds(settings)
    missing.append(f"A streamed answer was not timed: it is one row, and batch={settings.batch}.")
    return None


def make_section(settings: Settings, machine: Machine, facts: Facts) -> Section:
    """The section of what was measured."""
    tables = [_rates(settings, machine, facts), _stages_table(machine, facts), _pipeline(machine)]
    if facts.chips:
        phase = main_phase(facts)
        run = facts.runs[phase]
        here = run.wall.median / run.tokens
        hertz = machine.device.clock_hz.value
        tables.append(chips_table(phase, facts.chips, here, hertz, bound(facts.predicted[phase])))
    plots = tuple(_waterfall(phase, facts, machine) for phase in reversed(list(facts.runs)))
    return Section(
        "token",
        "What one token is, in clock cycles",
        tuple(findings(settings, machine, facts)),
        tuple(tables),
        plots,
        tuple(_notes(machine, facts)),
    )


def _noise(facts: Facts) -> list[str]:
    """What makes the figures doubtful: runs that do not repeat themselves, stages that do not add up to the whole."""
    found = [
        f"the quartiles of {phase} lie {run.wall.spread:.0%} apart"
        for phase, run in facts.runs.items()
        if run.wall.spread > MOST
    ]
    if facts.whole is not None and not adds_up(_stages_sum(facts), facts.whole):
        apart = _stages_sum(facts) / facts.whole - 1
        found.append(f"the stages' times are {apart:+.0%} off the whole that they are parts of")
    return found


def _stages_sum(facts: Facts) -> float:
    """Seconds of the stages of a token, or of a text that is classified."""
    phase = main_phase(facts)
    run = facts.runs[phase]
    return sum(facts.stages[phase].values()) / run.tokens * (run.shape.length if phase == "classify" else 1)


def main_phase(facts: Facts) -> str:
    """The phase that makes a token: decoding, or reading a text to classify."""
    return list(facts.runs)[-1]


def findings(settings: Settings, machine: Machine, facts: Facts) -> list[str]:
    """What the numbers say, in words chosen by them."""
    hertz = machine.device.clock_hz.value
    phase = main_phase(facts)
    run = facts.runs[phase]
    cycles = run.wall.median * hertz / run.tokens
    flops, moved = float(run.report.totals.flops) / run.tokens, float(run.report.totals.bytes) / run.tokens
    what = "A new token" if phase == "decode" else "A token of a text"
    said = [
        f"{what} takes {short(cycles)} cycles of a {hertz / 1e9:.2f} GHz core clock ({seconds(run.wall.median)} a"
        f" run of {run.tokens:,} token{'s' if run.tokens > 1 else ''}), for {short(flops, 'FLOP')} and"
        f" {short(moved, 'B')} moved."
    ]
    if "prefill" in facts.runs:
        other = facts.runs["prefill"]
        each = other.wall.median * hertz / other.tokens
        times, word = (cycles / each, "fewer") if each < cycles else (each / cycles, "more")
        said.append(
            f"A token of the prompt takes {short(each)} cycles, {times:.1f} times {word}: {other.shape.length} tokens a"
            " row are computed at once."
        )
    parts = {name: value for name, value in facts.stages[phase].items() if value}
    whole = sum(parts.values())
    if noise := _noise(facts):
        mend = "The figures below say little: measure again on an idle machine."
        said.insert(0, f"Too noisy: {'; '.join(noise)}. {mend}")
    top = sorted(parts, key=lambda name: -parts[name])[:3]
    said.append(f"Most of it goes to {_list([f'{name} ({parts[name] / whole:.0%})' for name in top])}.")
    host = sum(parts.get(name, 0.0) for name in stages.HOST)
    said.append(
        f"Python and the tokenizer take {host / whole:.1%} of it, {short(host * hertz / run.tokens)} cycles a token."
    )
    achieved, possible, bytes_now, bytes_most = _per_cycle(run, machine.device, settings.dtype)
    nearer = "memory bandwidth" if bytes_now / bytes_most > achieved / possible else "arithmetic"
    said.append(
        f"It runs at {achieved:.3g} of {possible:.3g} possible FLOP a cycle ({achieved / possible:.1%}) and moves"
        f" {bytes_now:.3g} B a cycle where main memory gives {bytes_most:.3g}: nearer to the limit of {nearer}."
    )
    return said


def _list(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _per_cycle(run: Run, device: Device, dtype: str) -> tuple[float, float, float, float]:
    """FLOPs a cycle, what the chip could do, bytes a cycle, and what its main memory gives."""
    cycles = run.wall.median * device.clock_hz.value
    most = peak(device.matmul, HLO_DTYPES[dtype]).value / device.clock_hz.value
    memory = device.main_memory.bandwidth.value / device.clock_hz.value
    return float(run.report.totals.flops) / cycles, most, float(run.report.totals.bytes) / cycles, memory


def _rates(settings: Settings, machine: Machine, facts: Facts) -> Table:
    hertz = machine.device.clock_hz.value
    peak_kind = _kind(peak(machine.device.matmul, HLO_DTYPES[settings.dtype]))
    memory_kind = _kind(machine.device.main_memory.bandwidth)
    columns = (
        Column("phase"),
        Column("tokens a run"),
        Column("cycles a token", "cycles", "measured"),
        Column("predicted", "cycles", "modelled"),
        Column("core cycles a token", "cycles", "measured"),
        Column("cores busy", "", "measured"),
        Column("FLOP a cycle", "FLOP/cycle", "measured"),
        Column("possible", "FLOP/cycle", peak_kind),
        Column("bytes a cycle", "B/cycle", "measured"),
        Column("of main memory", "B/cycle", memory_kind),
        Column("instructions a token", "", "measured"),
    )
    rows = []
    for phase, run in facts.runs.items():
        rows.append(
            (
                phase,
                run.tokens,
                run.wall.median * hertz / run.tokens,
                facts.predicted[phase].cycles / run.tokens,
                run.core_seconds * hertz / run.tokens,
                run.core_seconds / run.wall.median,
                *_per_cycle(run, machine.device, settings.dtype),
                run.counts.instructions / run.tokens if run.counts else None,
            )
        )
    note = (
        "cycles = wall time x the core clock; core cycles = time of all threads x the core clock, those that spin while"
        " they wait included. FLOPs and bytes are counted in the compiled program; bytes that a cache holds need no"
        " main memory."
    )
    return Table("cycles, work and traffic of a token", columns, tuple(rows), note)


def _kind(figure: Figure) -> str:
    return figure.provenance


def _stages_table(machine: Machine, facts: Facts) -> Table:
    hertz = machine.device.clock_hz.value
    columns: list[Column] = [Column("stage")]
    for phase in facts.runs:
        columns += [
            Column(f"{phase}: cycles a token", "cycles", "measured"),
            Column("share", "%", "measured"),
            Column("predicted", "cycles", "modelled"),
        ]
    guessed = {phase: _predicted_stages(facts, phase) for phase in facts.runs}
    rows = []
    for stage in stages.STAGES:
        row: list[Any] = [stage]
        for phase, run in facts.runs.items():
            seconds, whole = facts.stages[phase].get(stage), sum(facts.stages[phase].values())
            guess = guessed[phase].get(stage)
            row += [
                seconds * hertz / run.tokens if seconds else None,
                seconds / whole if seconds else None,
                guess * hertz / run.tokens if guess else None,
            ]
        if any(value is not None for value in row[1:]):
            rows.append(tuple(row))
    note = (
        "An op counts with the stage of its largest part. Python's dispatch is what an empty program with the same"
        " arguments takes; programs that generate a whole batch pay it once an answer, a stream once a token."
    )
    return Table("a token's stages", tuple(columns), tuple(rows), note)


def _predicted_stages(facts: Facts, phase: str) -> dict[str, float]:
    seconds = {op.name: op.seconds for op in facts.predicted[phase].ops}
    return stages.op_stages(facts.runs[phase].report, seconds)


def _waterfall(phase: str, facts: Facts, machine: Machine) -> Plot:
    hertz = machine.device.clock_hz.value
    run, found = facts.runs[phase], facts.stages[phase]
    names = tuple(name for name in stages.STAGES if found.get(name))
    values = tuple(found[name] * hertz / run.tokens for name in names)
    unit = "new token" if phase == "decode" else "token read"
    return Plot(
        f"{phase}: the cycles of one {unit}, stage after stage",
        "waterfall",
        Column("stage"),
        Column("cycles a token", "cycles", "measured"),
        (Series(phase, "measured", names, values),),
        note="Layers are added up; the sum is one token's cycles.",
    )


def _pipeline(machine: Machine) -> Table:
    columns = (
        Column("stage"),
        Column("what goes through it"),
        Column("at most a cycle", "", "datasheet"),
        Column("latency", "cycles", "datasheet"),
        Column("source"),
    )
    note = (
        f"A Zen 4 core as the example, whatever this machine is ({machine.device.title}). How long the stages before"
        f" execution take is not published; the last row has them all. {SOURCES}"
    )
    return Table("for comparison: the way of one CPU instruction", columns, PIPELINE, note)


def _notes(machine: Machine, facts: Facts) -> list[str]:
    notes = list(facts.missing)
    if not machine.counters:
        notes.append("Instructions were not counted: this machine gives no hardware counters (perf_event_open).")
    notes += absurd(facts.chips)
    if facts.whole is not None:
        phase = main_phase(facts)
        total = _stages_sum(facts)
        unit = "text" if phase == "classify" else "token"
        notes.append(
            f"Check: a {unit} from end to end took {seconds(facts.whole)}; its stages add up to {seconds(total)},"
            f" {total / facts.whole - 1:+.0%}."
        )
    return notes
