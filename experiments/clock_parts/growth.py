"""How cycles grow with model size, batch and context: measured and predicted, with exponents and crossovers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from experiments._programs import Shape, build
from experiments.clock_parts.phases import Run, phases_of, ran, shape_of
from experiments.clock_parts.settings import Machine, Settings
from llmjax.cycles.growth import Crossing, PowerLaw, crossing, fit_line, fit_power
from llmjax.cycles.model import ProgramTime, predict
from llmjax.models.families import from_size
from llmjax.report.page import Cell, Column, Plot, Section, Series, Table
from llmjax.report.units import short

ATTENTION = ("attention scores", "softmax")  # what grows with the square of the context; projections do not


@dataclass(frozen=True)
class Point:
    """One program of the grid at `x` parameters, rows or tokens a row."""

    x: float
    run: Run
    time: ProgramTime

    def seconds(self, roles: Sequence[str], predicted: bool = False) -> float:
        """Seconds of the ops of these roles, measured or predicted."""
        if predicted:
            by_name = {op.name: op.seconds for op in self.time.ops}
        else:
            assert self.run.report.measured is not None
            by_name = {name: op.time.median for name, op in self.run.report.measured.ops.items()}
        return sum(by_name.get(op.name, 0.0) for op in self.run.report.ops if op.place.role in roles)


@dataclass(frozen=True)
class Line:
    """A phase along one way of growing; cycles are those of a token where `each`, else of a run."""

    along: str
    phase: str
    points: tuple[Point, ...]
    each: bool = False

    @property
    def x(self) -> tuple[float, ...]:
        return tuple(point.x for point in self.points)

    def cycles(self, hertz: float, predicted: bool = False) -> tuple[float, ...]:
        """Cycles at each point."""
        seconds = [p.time.overlapped if predicted else p.run.wall.median for p in self.points]
        return tuple(s * hertz / (p.run.tokens if self.each else 1) for s, p in zip(seconds, self.points, strict=True))


SIZE, BATCH, LENGTH = "parameters", "rows", "tokens a row"
_WITH = {SIZE: "model", BATCH: "batch", LENGTH: "context"}


def section(settings: Settings, machine: Machine) -> Section:
    """Measures the grid and returns the section."""
    return make_section(machine, gather(settings, machine))


def gather(settings: Settings, machine: Machine) -> tuple[Line, ...]:
    """Runs the phases over models, batches and lengths; models one after another, so that weights are made once."""
    common = min(settings.length, *(from_size(model).context for model in settings.models))
    models = sorted(settings.models, key=lambda model: (model == settings.model, _parameters(settings, model)))
    phases = phases_of(settings)
    sized = {
        (phase, model): shape_of(settings, phase, model=model, length=common) for model in models for phase in phases
    }
    runs = {key: ran(shape, settings.runs) for key, shape in sized.items()}

    def line(along: str, phase: str, shapes: dict[float, Shape], each: bool = False) -> Line:
        points = []
        for x, shape in sorted(shapes.items()):
            run = ran(shape, settings.runs)
            points.append(Point(x, run, predict(run.report.cost, machine.device)))
        return Line(along, phase, tuple(points), each)

    found = []
    for phase in phases:
        mine = {_parameters(settings, model): runs[phase, model].shape for model in models}
        found.append(line(SIZE, phase, mine, True))
    main = phases[-1]
    found.append(line(BATCH, main, {b: shape_of(settings, main, batch=b) for b in sorted(settings.batches)}))
    for phase in phases:
        found.append(line(LENGTH, phase, {n: shape_of(settings, phase, length=n) for n in sorted(settings.lengths)}))
    return tuple(found)


def _parameters(settings: Settings, model: str) -> float:
    args = build(shape_of(settings, phases_of(settings)[-1], model=model, length=16)).args
    return float(sum(leaf.size for leaf in jax.tree.leaves(args[0])))


@dataclass(frozen=True)
class Crossover:
    """Where one cost overtakes another, by measured and by predicted times; None where they do not meet.

    `low` and `high` are the ends of the grid that was looked at.
    """

    what: str
    unit: str
    low: float
    high: float
    measured: Crossing | None
    predicted: Crossing | None


def crossovers(lines: Sequence[Line]) -> list[Crossover]:
    """Attention against the MLP along the context, arithmetic against memory along the batch."""
    found = []
    for line in lines:
        ends = (min(line.x), max(line.x))
        if line.along == LENGTH:
            pairs = [
                (
                    [p.seconds(ATTENTION, guessed) for p in line.points],
                    [p.seconds(("MLP",), guessed) for p in line.points],
                )
                for guessed in (False, True)
            ]
            both = [crossing(line.x, *pair) for pair in pairs]
            found.append(Crossover(f"{line.phase}: attention overtakes the MLP", LENGTH, *ends, *both))
        if line.along == BATCH:
            compute = [sum(op.compute for op in p.time.ops) for p in line.points]
            memory = [sum(sum(op.memory.values()) for op in p.time.ops) for p in line.points]
            guessed = crossing(line.x, compute, memory)
            found.append(Crossover(f"{line.phase}: arithmetic overtakes memory", BATCH, *ends, _even(line), guessed))
    return found


def _even(line: Line) -> Crossing | None:
    """Where what grows with the batch takes as long as what does not, by a straight line through the measured times."""
    fit = fit_line(line.x, [p.run.wall.median for p in line.points])
    if fit is None or not fit.even:
        return None
    low, high = min(line.x), max(line.x)
    where = "beyond" if fit.even > high else "before" if fit.even < low else "inside"
    return Crossing(fit.even if where != "before" else low, where)


def make_section(machine: Machine, lines: Sequence[Line]) -> Section:
    """The section of what was measured."""
    hertz = machine.device.clock_hz.value
    return Section(
        "growth",
        "Growth: model, batch, context",
        tuple(findings(machine, lines)),
        (_fits_table(lines, hertz), _crossovers_table(lines)),
        (*(_plot(along, lines, hertz) for along in (SIZE, BATCH, LENGTH)), _roles_plot(lines, hertz)),
        (
            "Exponents are least squares over logarithms and hold for the range that stands beside them. Where XLA"
            " changes library or layout along the way, a line bends.",
        ),
    )


def findings(machine: Machine, lines: Sequence[Line]) -> list[str]:
    """What the numbers say, in words chosen by them."""
    hertz = machine.device.clock_hz.value
    said = []
    for line in lines:
        fit = fit_power(line.x, line.cycles(hertz))
        if fit is None:
            continue
        grown = f"{short(line.cycles(hertz)[0])} to {short(line.cycles(hertz)[-1])}"
        of = "a token" if line.each else "a run"
        said.append(
            f"{line.phase.capitalize()} cycles {of} grow with the {_WITH[line.along]} as {line.along}^{_exponent(fit)}"
            f" ({_whole(fit.low)} to {_whole(fit.high)} {line.along}: {grown} cycles): {_slope(fit.exponent)}."
        )
    return said + [_crossover_finding(c) for c in crossovers(lines)]


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value < 1e5 else short(value)


def _exponent(fit: PowerLaw) -> str:
    return f"{fit.exponent:.2f}" + (f" ± {fit.error:.2f}" if fit.error is not None else "")


def _slope(exponent: float) -> str:
    if exponent < -0.15:
        return "fewer, the larger it is"
    if exponent < 0.15:
        return "hardly at all"
    if exponent < 0.85:
        return "less than in proportion"
    return "about in proportion" if exponent <= 1.15 else "more than in proportion"


def _crossover_finding(c: Crossover) -> str:
    told = [f"{_where(c.measured, c.unit)} by measured times", f"{_where(c.predicted, c.unit)} by predicted ones"]
    grid = f"{c.low:,.0f} to {c.high:,.0f} {c.unit} were looked at"
    return f"{c.what[0].upper()}{c.what[1:]} {told[0]}, {told[1]} ({grid})."


def _where(found: Crossing | None, unit: str) -> str:
    if found is None:
        return "nowhere near the grid"
    if found.where == "before":
        return f"already at {found.at:,.0f} {unit} or fewer"
    return f"at about {found.at:,.0f} {unit}" + (" (extrapolated)" if found.where == "beyond" else "")


def _fits_table(lines: Sequence[Line], hertz: float) -> Table:
    columns = (
        Column("cycles of"),
        Column("against"),
        Column("from"),
        Column("to"),
        Column("exponent", "", "measured"),
        Column("its standard error", "", "measured"),
        Column("exponent", "", "modelled"),
        Column("prediction off, median", "%", "modelled"),
    )
    rows = []
    for line in lines:
        seen, guessed = line.cycles(hertz), line.cycles(hertz, True)
        fit, other = fit_power(line.x, seen), fit_power(line.x, guessed)
        if fit and other:
            off = sorted(abs(g / s - 1) for g, s in zip(guessed, seen, strict=True))[len(seen) // 2]
            what = f"{line.phase}, {'a token' if line.each else 'a run'}"
            rows.append((what, line.along, fit.low, fit.high, fit.exponent, fit.error, other.exponent, off))
    return Table("exponents", columns, tuple(rows))


def _crossovers_table(lines: Sequence[Line]) -> Table:
    columns = (
        Column("where"),
        Column("along"),
        Column("at", "", "measured"),
        Column(""),
        Column("at", "", "modelled"),
        Column(""),
    )
    rows = []
    for c in crossovers(lines):
        cells: list[Cell | float | str | None] = [c.what, c.unit]
        for found in (c.measured, c.predicted):
            place = {"inside": "in the grid", "before": "or fewer", "beyond": "extrapolated"}
            cells += [found.at, place[found.where]] if found else [None, "not near the grid"]
        rows.append(tuple(cells))
    note = (
        "Attention is scores, softmax and the weighted sum, without projections. Arithmetic against memory: measured,"
        " where what a step costs for its rows reaches what it costs without any, by a straight line through the"
        " batches; predicted, where the ops' compute times add up to more than their memory times."
    )
    return Table("crossovers", columns, tuple(rows), note)


def _plot(along: str, lines: Sequence[Line], hertz: float) -> Plot:
    mine = [line for line in lines if line.along == along]
    series = []
    for line in mine:
        low, high = (_ends(line, hertz, end) for end in (lambda m: m.low, lambda m: m.high))
        series.append(Series(line.phase, "measured", line.x, line.cycles(hertz), low, high))
        series.append(Series(line.phase, "modelled", line.x, line.cycles(hertz, True)))
    title = f"cycles {'a token' if mine[0].each else 'a run'} against {along}"
    return Plot(title, "lines", Column(along), Column("cycles", "cycles"), tuple(series), log_x=True, log_y=True)


def _ends(line: Line, hertz: float, end: Callable) -> tuple[float, ...]:
    return tuple(end(p.run.wall) * hertz / (p.run.tokens if line.each else 1) for p in line.points)


def _roles_plot(lines: Sequence[Line], hertz: float) -> Plot:
    line = next(line for line in lines if line.along == LENGTH)
    series = []
    for name, roles in (("attention", ATTENTION), ("MLP", ("MLP",))):
        for kind, guessed in (("measured", False), ("modelled", True)):
            y = tuple(p.seconds(roles, guessed) * hertz for p in line.points)
            series.append(Series(name, kind, line.x, y))
    title = f"{line.phase}: attention against the MLP"
    return Plot(title, "lines", Column(LENGTH), Column("cycles a run", "cycles"), tuple(series), log_x=True, log_y=True)
