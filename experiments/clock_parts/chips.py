"""One token on chips that are not here: compiled for each, its cycles predicted from data sheets."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from experiments._programs import Shape, build
from experiments.clock_parts.phases import phases_of, say, shape_of
from experiments.clock_parts.settings import Settings
from llmjax.analysis import analysis_of
from llmjax.cycles.compiler_clock import compiler_clock, total_cycles
from llmjax.cycles.model import ProgramTime
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.report.page import Cell, Column, Table
from llmjax.targets.aot import compile_for

ABSURD = 100.0  # times apart


@dataclass(frozen=True)
class Chip:
    """One token on a chip that is not here, in its own cycles; `compiler` is the compiler's own estimate."""

    name: str
    cycles: float | None
    seconds: float | None
    bound: str
    compiler: float | None


def other_chips(settings: Settings) -> tuple[tuple[Chip, ...], tuple[str, ...]]:
    """The main phase on each target; a chip that cannot be compiled for is a note."""
    shape = shape_of(settings, phases_of(settings)[-1])
    tokens = shape.batch * (1 if shape.phase == "decode" else shape.length)
    chips, notes = [], []
    for name in settings.targets:
        say(f"compiling {shape.phase} for {name}")
        try:
            chips.append(_chip(name, shape, tokens))
        except UserError as error:
            notes.append(f"Not predicted: {error}")
    return tuple(chips), tuple(notes)


@functools.cache
def _chip(name: str, shape: Shape, tokens: int) -> Chip:
    phase = build(shape)
    program = compile_for(name, phase.function, *phase.args)
    report = analysis_of(parse(program.text), backend=program.backend, target=program.target)
    own = total_cycles(compiler_clock(report.cost))
    compiler = own / tokens if own else None
    time = report.time
    if time is None:
        return Chip(name, None, None, "", compiler)
    return Chip(name, time.cycles / tokens, time.overlapped / tokens, bound(time), compiler)


def bound(time: ProgramTime) -> str:
    """What binds most of a program's time."""
    sums: dict[str, float] = {}
    for op in time.ops:
        sums[op.bound] = sums.get(op.bound, 0.0) + op.seconds
    return max(sums, key=lambda name: sums[name]).removeprefix("memory:") if sums else ""


def chips_table(phase: str, chips: Sequence[Chip], seconds: float, hertz: float, binds: str) -> Table:
    """A row a chip, this CPU's first: its measured `seconds` a token at `hertz`, and what binds it."""
    columns = (
        Column("chip"),
        Column("cycles a token", "cycles", "modelled"),
        Column("time a token", "s", "modelled"),
        Column("bound by"),
        Column("compiler's own", "cycles", "compiler"),
    )
    here = ("this CPU", Cell(seconds * hertz, "measured"), Cell(seconds, "measured"), binds, None)
    rows = (here, *((c.name, c.cycles, c.seconds, c.bound, c.compiler) for c in chips))
    note = (
        "The same program compiled for each chip; cycles are each chip's own. Chips by their data sheets, TPUs also by"
        " what their compiler expects of other programs."
    )
    return Table(f"{phase} on other chips", columns, rows, note)


def absurd(chips: Sequence[Chip]) -> list[str]:
    """A note for each chip whose prediction and compiler's estimate are worlds apart."""
    found = []
    for c in chips:
        apart = c.compiler / c.cycles if c.compiler and c.cycles else 1.0
        if not 1 / ABSURD < apart < ABSURD:
            found.append(
                f"The compiler's own estimate for {c.name} and the prediction are {max(apart, 1 / apart):,.0f} times"
                " apart: one of them means nothing."
            )
    return found
