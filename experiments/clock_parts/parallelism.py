"""How parallel inference is: what the arithmetic allows, what the ops allow, and what cores and vector lanes took."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments._programs import Shape
from experiments.clock_parts.cases import Case, Timing, attempt_cases
from experiments.clock_parts.chains import Chains, measure_chains
from experiments.clock_parts.phases import Run, phases_of, ran, say, shape_of
from experiments.clock_parts.settings import Machine, Settings
from llmjax.cycles.model import predict
from llmjax.cycles.span import Span, depth, op_span
from llmjax.report.page import Column, Plot, Section, Series, Table
from llmjax.report.units import short

WIDTH_FLAG = "--xla_cpu_prefer_vector_width={}"
OLD_FLAG = "--xla_cpu_max_isa=SSE4_2"
OLD = "code for SSE 4.2 (128 bits, no multiply-add)"


@dataclass(frozen=True)
class Spans:
    """Work and span of one program: between ops by predicted and by measured times, and of its scalar operations."""

    run: Run
    predicted: Span
    measured: Span
    arithmetic: Span

    @property
    def name(self) -> str:
        return f"{self.run.shape.phase}, batch {self.run.shape.batch}"


@dataclass(frozen=True)
class Facts:
    """`timings` go by (phase, way of running); what a way gives is compared with the way "all"."""

    spans: tuple[Spans, ...]
    timings: Mapping[tuple[str, str], Timing]
    failed: Mapping[str, str]
    chains: Chains


ALL, ONE = "all cores, XLA's own choice", "one core"


def section(settings: Settings, machine: Machine) -> Section:
    """Measures and returns the section."""
    return make_section(settings, machine, gather(settings, machine))


def gather(settings: Settings, machine: Machine) -> Facts:
    """Runs the phases at three batches, the main ones in several ways, and multiply-adds in chains."""
    spans = tuple(_spans(ran(shape, settings.runs), machine) for shape in shapes(settings))
    cases = ways(settings, round(machine.device.cores.value))
    found, failed = attempt_cases(cases.values(), settings.runs, say)
    timings = {key: found[case] for key, case in cases.items() if case in found}
    reasons = {way: failed[case] for (_, way), case in cases.items() if case in failed}
    return Facts(spans, timings, reasons, measure_chains(machine.device.clock_hz.value, settings.runs))


def shapes(settings: Settings) -> tuple[Shape, ...]:
    """Reading prompts as the settings have it, and the main phase at the grid's least, middle and largest batch."""
    batches = sorted(settings.batches)
    few = dict.fromkeys((batches[0], batches[len(batches) // 2], batches[-1]))
    phases = phases_of(settings)
    first = [shape_of(settings, phase) for phase in phases[:-1]]
    return (*first, *(shape_of(settings, phases[-1], batch=batch) for batch in few))


def ways(settings: Settings, cores: int) -> dict[tuple[str, str], Case]:
    """Cases by phase and way of running it: threads, and the widest vectors that XLA's own loops may use."""
    found: dict[tuple[str, str], Case] = {}
    for phase in phases_of(settings):
        size = (settings.model, phase, settings.batch, settings.length, settings.dtype)
        found[phase, ALL] = Case(*size)
        if cores > 1:
            found[phase, ONE] = Case(*size, threads=1)
        for width in settings.widths:
            found[phase, f"vectors of {width} bits"] = Case(*size, flags=WIDTH_FLAG.format(width))
        if 128 in settings.widths:
            found[phase, OLD] = Case(*size, flags=OLD_FLAG)
    return found


def _spans(run: Run, machine: Machine) -> Spans:
    cost = run.report.cost
    times = run.report.measured
    assert times is not None
    guessed = {op.name: op.seconds for op in predict(cost, machine.device).ops}
    seen = {name: op.time.median for name, op in times.ops.items()}
    operations = float(cost.totals.flops + cost.totals.transcendentals)
    return Spans(run, op_span(cost, guessed), op_span(cost, seen), Span(operations, depth(cost)))


def make_section(settings: Settings, machine: Machine, facts: Facts) -> Section:
    """The section of what was measured."""
    notes = [f"Not timed: {way}: {why}" for way, why in facts.failed.items()]
    if not machine.counters:
        notes.append(
            "Instructions a cycle (IPC) inside a kernel were not counted: this machine gives no hardware counters."
            " The experiment with chains of multiply-adds stands in for them."
        )
    tables = [_spans_table(machine, facts)]
    if facts.timings:
        tables.append(_ways_table(machine, facts))
    return Section(
        "parallelism",
        "Parallelism: allowed and taken",
        tuple(findings(settings, machine, facts)),
        tuple(tables),
        (_spans_plot(facts), _chains_plot(facts)),
        tuple(notes),
    )


def findings(settings: Settings, machine: Machine, facts: Facts) -> list[str]:
    """What the numbers say, in words chosen by them."""
    cores = round(machine.device.cores.value)
    main = next(s for s in facts.spans if s.run.shape.phase == phases_of(settings)[-1])
    room = cores * facts.chains.in_flight
    offered = main.arithmetic.parallelism
    compared = f"{_times(offered, room)} {'as many as' if offered > room else 'fewer than'}"
    said = [
        f"The arithmetic of {main.name} is {short(main.arithmetic.work)} scalar operations, the longest chain of which"
        f" is {main.arithmetic.span:,.0f}: {short(offered)} could go on at once, {compared} the {room:,.0f}"
        f" multiply-adds that {_cores(cores)} hold in flight (rate x latency)."
    ]
    between = max(s.measured.parallelism for s in facts.spans)
    shape = "a chain: nearly all" if between < 1.1 else "not quite a chain, and most of the"
    said.append(
        f"Between ops the compiled programs are parallel {between:.2f}-fold at most (work over span, measured times):"
        f" {shape} parallelism is inside ops."
    )
    said += _token_chain(settings, machine, facts)
    said += _ways_findings(settings, facts)
    chains = facts.chains
    said.append(
        f"One core does {chains.rates[1]:.1f} multiply-adds a cycle in one chain of vectors and {chains.best:.1f} in"
        f" {max(chains.rates, key=lambda n: chains.rates[n])} independent ones: {chains.gained:.1f} times by"
        f" instruction-level parallelism; one multiply-add after another takes {chains.latency:.1f} cycles."
    )
    return said


def _cores(cores: int) -> str:
    return f"{cores} cores" if cores > 1 else "one core"


def _times(a: float, b: float) -> str:
    return f"{max(a, b) / min(a, b):,.0f} times"


def _token_chain(settings: Settings, machine: Machine, facts: Facts) -> list[str]:
    """Prompt tokens are computed side by side, new ones one after another."""
    by_phase = {s.run.shape.phase: s.run for s in reversed(facts.spans)}
    if "prefill" not in by_phase or "decode" not in by_phase:
        return []
    hertz = machine.device.clock_hz.value
    read, made = by_phase["prefill"], by_phase["decode"]
    each = [run.wall.median * hertz / run.tokens for run in (read, made)]
    return [
        f"Tokens of a prompt are computed side by side, new ones each after the one before: {short(each[0])} cycles a"
        f" token of the prompt against {short(each[1])} a new one at batch {made.shape.batch}, a ratio of"
        f" {each[1] / each[0]:.1f}, though a new token needs {_flops(made) / _flops(read):.1f} times the FLOPs."
    ]


def _flops(run: Run) -> float:
    return float(run.report.totals.flops) / run.tokens


def _ways_findings(settings: Settings, facts: Facts) -> list[str]:
    said = []
    for phase in phases_of(settings):
        base = facts.timings.get((phase, ALL))
        if base is None:
            continue
        parts = []
        for (of, way), timing in facts.timings.items():
            if of == phase and way != ALL:
                parts.append(f"{timing.seconds.median / base.seconds.median:.2f} with {way}")
        if parts:
            said.append(f"Time of {phase} relative to {ALL}: {', '.join(parts)}.")
    return said


def _spans_table(machine: Machine, facts: Facts) -> Table:
    hertz = machine.device.clock_hz.value
    columns = (
        Column("program"),
        Column("scalar operations", "", "counted"),
        Column("longest chain of them", "", "counted"),
        Column("parallelism", "x", "counted"),
        Column("work of ops", "cycles", "measured"),
        Column("their span", "cycles", "measured"),
        Column("parallelism", "x", "measured"),
        Column("parallelism", "x", "modelled"),
        Column("cores busy", "", "measured"),
    )
    rows = tuple(
        (
            s.name,
            s.arithmetic.work,
            s.arithmetic.span,
            s.arithmetic.parallelism,
            s.measured.work * hertz,
            s.measured.span * hertz,
            s.measured.parallelism,
            s.predicted.parallelism,
            s.run.core_seconds / s.run.wall.median,
        )
        for s in facts.spans
    )
    note = (
        "Work is all there is to do, span its longest chain of dependencies, parallelism their ratio. Scalar: sums by"
        " pairs, so n terms take log2 n steps. Ops: each is one step, as long as it took."
    )
    return Table("work and span", columns, rows, note)


def _ways_table(machine: Machine, facts: Facts) -> Table:
    hertz = machine.device.clock_hz.value
    columns = (
        Column("phase"),
        Column("way"),
        Column("cycles a run", "cycles", "measured"),
        Column("quartiles apart", "%", "measured"),
        Column("against all cores", "x", "measured"),
        Column("FLOP a cycle", "FLOP/cycle", "measured"),
    )
    rows = []
    for (phase, way), timing in facts.timings.items():
        base = facts.timings.get((phase, ALL))
        seconds = timing.seconds.median
        cycles = seconds * hertz
        against = seconds / base.seconds.median if base else None
        rows.append((phase, way, cycles, timing.seconds.spread, against, timing.flops / cycles))
    note = (
        "Flags decide about the loops that XLA compiles; libraries (Eigen, YNNPACK) choose their instructions"
        " themselves. Each way runs in a process of its own."
    )
    return Table("what cores and vector lanes take", columns, tuple(rows), note)


def _spans_plot(facts: Facts) -> Plot:
    names = tuple(s.name for s in facts.spans)
    series = (
        Series("arithmetic", "counted", names, tuple(s.arithmetic.parallelism for s in facts.spans)),
        Series("between ops", "measured", names, tuple(s.measured.parallelism for s in facts.spans)),
        Series("cores busy", "measured", names, tuple(s.run.core_seconds / s.run.wall.median for s in facts.spans)),
    )
    return Plot(
        "parallelism allowed and taken", "bars", Column("program"), Column("parallelism", "x"), series, log_y=True
    )


def _chains_plot(facts: Facts) -> Plot:
    rates = facts.chains.rates
    return Plot(
        "multiply-adds a cycle of one core, the same work as one chain or many",
        "lines",
        Column("independent chains"),
        Column("multiply-adds a cycle", "", "measured"),
        (Series("one core", "measured", tuple(float(n) for n in rates), tuple(rates.values())),),
        log_x=True,
        note="A chain is of vectors: its lanes are already side by side.",
    )
