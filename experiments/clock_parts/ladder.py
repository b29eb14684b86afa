"""What optimisation buys: cycles of a token, from the plainest code that XLA writes to the best we have, rung by rung.

There are two flights. The first keeps the program and adds hardware: scalar code, vectors, cores. The second keeps the
hardware and changes the program. The first one's products are written out as sums: only those does XLA compile itself,
into scalar code if it is told so; a library's have vectors whatever the flags.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.clock_parts import code
from experiments.clock_parts.cases import Case, Timing, attempt_cases
from experiments.clock_parts.phases import say
from experiments.clock_parts.settings import Machine, Settings
from experiments.clock_parts.words import bound, clear, limits, noisy, ratios, reason, roof_of, times
from llmjax.report.page import Cell, Column, Plot, Section, Series, Table
from llmjax.report.units import short

# YNNPACK's kernels use the widest vectors of the processor, whatever XLA is told, so that it is off.
NARROW = "--xla_cpu_max_isa=SSE4_2 --xla_cpu_experimental_ynn_fusion_type="
SCALAR = f"{NARROW} --xla_backend_optimization_level=0"


class Rung(NamedTuple):
    """A step of the ladder: its name, the case that shows it, its flight, and what it adds to the one before."""

    title: str
    case: Case
    flight: str
    adds: str = ""


HARDWARE, PROGRAM = "hardware", "program"


def section(settings: Settings, machine: Machine) -> Section:
    """Measures the rungs and explains each by the counts of its program."""
    with tempfile.TemporaryDirectory(prefix="llmjax-ladder-") as folder:
        rungs, dumps = with_dumps(rungs_of(settings, machine), Path(folder))
        found, failed = attempt_cases((rung.case for rung in rungs), settings.runs, say)
        codes = {case: _code(dump) for case, dump in dumps.items() if case in found}
    return make_section(settings, machine, rungs, found, failed, codes)


def rungs_of(settings: Settings, machine: Machine) -> tuple[Rung, ...]:
    """The rungs that this subject and machine have, in order; each flight starts anew."""
    rows = max(settings.batches)
    plain = "float32"
    if settings.generates:
        step = Case(settings.model, "decode", settings.batch, settings.length, plain)
    else:
        step = Case(settings.model, "classify", settings.batch, settings.length, plain)
    sums = dataclasses.replace(step, written_out=settings.generates)
    found = [
        Rung("one core, not optimised, no library", dataclasses.replace(sums, threads=1, flags=SCALAR), HARDWARE),
        Rung(
            "one core, optimised, 128-bit vectors",
            dataclasses.replace(sums, threads=1, flags=NARROW),
            HARDWARE,
            "the compiler keeps values in registers and works on 4 numbers at a time",
        ),
        Rung(
            "one core, its own vectors and libraries",
            dataclasses.replace(sums, threads=1),
            HARDWARE,
            "wider vectors, and YNNPACK's kernels",
        ),
    ]
    cores = round(machine.device.cores.value)
    if cores > 1:
        found.append(Rung(f"all {cores} cores", sums, HARDWARE, f"{cores} cores share them"))
    if settings.generates:
        bare = dataclasses.replace(step, cached=False)
        found += [
            Rung("no cache, op by op", dataclasses.replace(bare, jit=False), PROGRAM),
            Rung("jit: one compiled program", bare, PROGRAM),
            Rung("KV cache", dataclasses.replace(step, prepared=False), PROGRAM),
            Rung("weights arranged for reading", step, PROGRAM, "a row of a weight is what one output reads, in order"),
        ]
    else:
        found += [
            Rung("op by op", dataclasses.replace(step, jit=False), PROGRAM),
            Rung("jit: one compiled program", step, PROGRAM),
        ]
    if rows > settings.batch:
        step = dataclasses.replace(step, batch=rows)
        found.append(Rung(f"batch of {rows}", step, PROGRAM))
    step = dataclasses.replace(step, dtype="bfloat16")
    found.append(Rung("bfloat16", step, PROGRAM))
    if settings.generates:
        step = dataclasses.replace(step, dtype="int8")
        found.append(Rung("int8", step, PROGRAM))
        step = dataclasses.replace(step, kv_cache="int8")
        found.append(Rung("keys and values in 8 bits", step, PROGRAM, "the cache has a scale a token and head"))
    found.append(Rung("half of the MLPs' channels", dataclasses.replace(step, pruned="mlp-50"), PROGRAM))
    return tuple(found)


def with_dumps(rungs: Sequence[Rung], folder: Path) -> tuple[tuple[Rung, ...], dict[Case, Path]]:
    """The rungs of one core made to leave XLA's object files, each in a folder of its own."""
    changed, dumps = [], {}
    for k, rung in enumerate(rungs):
        if rung.case.threads == 1:
            dump = folder / str(k)
            flags = f"{rung.case.flags} {code.DUMP.format(dump)}".strip()
            # What comes from XLA's cache is not compiled, and leaves nothing.
            rung = rung._replace(case=dataclasses.replace(rung.case, flags=flags, fresh=True))
            dumps[rung.case] = dump
        changed.append(rung)
    return tuple(changed), dumps


def _code(dump: Path) -> str:
    lines = code.disassemble(dump)
    return code.describe(None if lines is None else code.widths(lines))


def make_section(
    settings: Settings,
    machine: Machine,
    rungs: Sequence[Rung],
    found: Mapping[Case, Timing],
    failed: Mapping[Case, str],
    codes: Mapping[Case, str],
) -> Section:
    """The section of what was measured; pure."""
    kept = [rung for rung in rungs if rung.case in found]
    notes = [f"{rung.title}: not measured, {failed[rung.case]}" for rung in rungs if rung.case in failed]
    notes += [
        "What a smaller model or a shorter format costs in quality is on the board (configs/board.py), not here.",
        "Weights are random numbers of the model's size. Counts are llmjax's own, of the very program that was timed;"
        " op by op they are those of the program before XLA fuses it, and ops are the primitives that JAX dispatches.",
    ]
    if settings.generates:
        notes.append(
            "On the rungs of the machine, products are written out as sums, which XLA compiles itself; below, a library"
            " does them where that is faster. Wholly scalar code is not to be had from XLA: it writes products of a"
            " vector (here attention's) with vector instructions at any level of optimisation. The first rung is also"
            " compiled without optimisation, so that more than the vectors sets it apart from the next."
        )
    else:
        notes.append(
            "A classifier has no KV cache, and llmjax none in int8. Its products of many rows call a library (Eigen"
            " where YNNPACK is off), which has vectors on every rung: no scalar rung is to be had."
        )
    tables = tuple(
        _table(title, [rung for rung in kept if rung.flight == flight], machine, found, codes)
        for flight, title in (
            (HARDWARE, "The same step, more of the machine"),
            (PROGRAM, "The same machine, better programs"),
        )
        if any(rung.flight == flight for rung in kept)
    )
    return Section(
        "ladder",
        "What optimisation buys",
        tuple(findings(settings, machine, kept, found, codes)),
        tables,
        (_plot(kept, machine, found),) if kept else (),
        tuple(notes),
    )


def _pairs(kept: Sequence[Rung]) -> list[tuple[Rung, Rung]]:
    return [(a, b) for a, b in itertools.pairwise(kept) if a.flight == b.flight]


def _per_token(rung: Rung, found: Mapping[Case, Timing]) -> float:
    return found[rung.case].seconds.median / rung.case.tokens


def _why(before: Rung, after: Rung, machine: Machine, found: Mapping[Case, Timing]) -> str:
    a, b = (before.case, found[before.case]), (after.case, found[after.case])
    factor = _per_token(before, found) / _per_token(after, found)
    # The card's peaks are those of all cores.
    roof = None if before.case.threads or after.case.threads else roof_of(a, b, machine.device)
    return reason(factor, ratios(a, b), after.adds, roof)


def findings(
    settings: Settings,
    machine: Machine,
    kept: Sequence[Rung],
    found: Mapping[Case, Timing],
    codes: Mapping[Case, str],
) -> list[str]:
    """Sentences with the figures of the rungs."""
    hertz = machine.device.clock_hz.value
    told = []
    for flight, what in ((HARDWARE, "The machine"), (PROGRAM, "The program")):
        mine = [rung for rung in kept if rung.flight == flight]
        if len(mine) < 2:
            continue
        first, last = _per_token(mine[0], found), _per_token(mine[-1], found)
        told.append(
            f"{what}: a token takes {short(first * hertz)} cycles with “{mine[0].title}” and"
            f" {short(last * hertz)} with “{mine[-1].title}”: {times(first / last)}."
        )
        if mine[0].case in codes:
            told.append(f"The code of “{mine[0].title}”: {codes[mine[0].case]}.")
    gains = [(_per_token(a, found) / _per_token(b, found), a, b) for a, b in _pairs(kept)]
    if gains:
        factor, a, b = max(gains, key=lambda gain: gain[0])
        if noisy(found[a.case], found[b.case]):
            told.append(f"Which step is the largest is too noisy to tell: “{b.title}” by the medians.")
        else:
            told.append(f"The largest step is “{b.title}”, {times(factor)}: {_why(a, b, machine, found)}.")
        for factor, a, b in gains:
            if factor > 1 / 1.05 or not clear((a.case, found[a.case]), (b.case, found[b.case])):
                continue
            told.append(f"“{b.title}” does not pay after “{a.title}”: {times(factor)}; {_why(a, b, machine, found)}.")
    return told


def _table(
    title: str,
    rungs: Sequence[Rung],
    machine: Machine,
    found: Mapping[Case, Timing],
    codes: Mapping[Case, str],
) -> Table:
    device, hertz = machine.device, machine.device.clock_hz.value
    columns = (
        Column("rung"),
        Column("time a token", "s", "measured"),
        Column("quartiles", "%", "measured"),
        Column("cycles a token", "cycles", "measured"),
        Column("against the one before", "x", "measured"),
        Column("against the first", "x", "measured"),
        Column("FLOPs a token", "FLOP", "counted"),
        Column("bytes a token", "B", "counted"),
        Column("ops a token", "", "counted"),
        Column("limited by"),
        Column("of that limit", "%", "modelled"),
        Column("why"),
    )
    rows = []
    for k, rung in enumerate(rungs):
        case, timing = rung.case, found[rung.case]
        seconds = _per_token(rung, found)
        before = rungs[k - 1] if k else None
        why = _why(before, rung, machine, found) if before else ""
        if case in codes:
            why = f"{codes[case]}; {why}" if why else codes[case]
        # The card's peaks are of all cores.
        whole = not case.threads
        least = max(limits(case, timing, device).values())
        rows.append(
            (
                rung.title,
                seconds,
                timing.seconds.spread,
                seconds * hertz,
                _per_token(before, found) / seconds if before else None,
                _per_token(rungs[0], found) / seconds,
                timing.flops / case.tokens,
                timing.bytes / case.tokens,
                timing.ops / case.tokens,
                bound(case, timing, device) if whole else "",
                Cell(least / timing.seconds.median, "modelled") if whole else None,
                why,
            )
        )
    note = (
        "quartiles: their distance over the median; limited by: the largest of FLOPs, bytes and launches of ops over"
        " this machine's measured peaks, all cores."
    )
    return Table(title, columns, tuple(rows), note)


def _plot(rungs: Sequence[Rung], machine: Machine, found: Mapping[Case, Timing]) -> Plot:
    hertz = machine.device.clock_hz.value
    series = []
    for flight, name in ((HARDWARE, "more of the machine"), (PROGRAM, "better programs")):
        mine = [rung for rung in rungs if rung.flight == flight]
        y = tuple(_per_token(rung, found) * hertz for rung in mine)
        if mine:
            series.append(Series(name, "measured", tuple(rung.title for rung in mine), y))
    return Plot(
        "Cycles of a token, rung by rung",
        "bars",
        Column("rung"),
        Column("cycles a token", "cycles"),
        tuple(series),
        log_y=True,
    )
