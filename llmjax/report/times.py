"""Predicted and measured times on a terminal: the program's, and those of the ops that take most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from llmjax.report.remarks import listed
from llmjax.report.terminal import Figures, Names, table
from llmjax.report.units import percent, seconds, short

if TYPE_CHECKING:
    from llmjax.analysis import Alike, Analysis
    from llmjax.cycles.measured import Profile

LEAST_COVERED = 0.8  # of the measured step, by ops: below it a note says so


def headline(report: Analysis) -> Iterator[str]:
    """Lines of the program's time: predicted, measured, and how far they are apart."""
    device, time, run = report.device, report.time, report.measured
    if time and device:
        kind = "calibrated" if device.fit.get("terms") else "from its datasheet, not calibrated"
        if device.made_with.get("fitted_to"):
            kind = "from its datasheet, fitted to what its compiler expects of other programs, not measured"
        clock = f"{short(device.clock_hz.value, 'Hz')} ({device.clock_hz.provenance})"
        span = f"{seconds(time.low)} to {seconds(time.high)}"
        yield (
            f"predicted: {seconds(time.overlapped)} ({span}), {short(time.cycles)} cycles at {clock};"
            f" {device.title}, {kind}."
        )
    if run:
        cycles = f", {short(run.wall.median * report.hertz)} cycles (time x clock)" if report.hertz else ""
        yield f"measured: {seconds(run.wall.median)}{cycles}; {reconciliation(run)}."
        if run.covered < LEAST_COVERED:
            yield uncovered(run)
        if run.from_trace:
            yield from strangers(report, run)
        if time:
            off = time.overlapped / run.wall.median - 1
            yield f"the prediction is off by {off:+.1%}; the measurement repeats to {run.wall.spread:.1%}."


def reconciliation(run: Profile) -> str:
    """How the ops' times add up to the wall time."""
    ops = sum(op.time.median for op in run.ops.values())
    quartiles = f"quartiles {seconds(run.wall.low)} to {seconds(run.wall.high)}"
    on = f" on {run.devices} devices, ops' times are one's" if run.devices > 1 else ""
    if run.from_trace:
        return (
            f"ops cover {run.covered:.0%} of the step ({seconds(ops)}); {quartiles}, {run.runs} runs in the trace{on}"
        )
    return (
        f"ops cover {run.covered:.0%} of the step ({seconds(ops)} of {seconds(run.traced.median)} traced;"
        f" {seconds(run.wall.median)} without the profiler, {quartiles}, {run.runs} runs{on})"
    )


def strangers(report: Analysis, run: Profile) -> Iterator[str]:
    """Ops that cost something and are not in the trace, and those of the trace that this HLO has not."""
    lacking = [op.name for op in report.ops if op.name not in run.ops and (op.total.memory_bytes or op.total.flops)]
    if lacking:
        yield f"not in the trace: {listed(lacking)}."
    names = {i.name for computation in report.cost.module.computations.values() for i in computation}
    other = [name for name in run.ops if name not in names]
    if other:
        yield f"in the trace, but not in this HLO: {listed(other)}."


def uncovered(run: Profile) -> str:
    """What passes outside of any op."""
    gap = (1 - run.covered) * run.traced.median
    return (
        f"ops cover only {run.covered:.0%} of the measured step: {seconds(gap)} pass outside of any op, in dispatch"
        " from Python, waiting for other programs, and the gaps between ops."
    )


def times_table(report: Analysis, top: int, width: int) -> Table:
    """The `top` ops by time, those alike in several layers as one: measured if it is, with what binds them."""
    every = report.alike()
    groups = every[:top]
    columns: list[Names | Figures] = [
        Names("by time, +alike", [group.name for group in groups], 15),
        Names("of", [group.where for group in groups], 14, keeps_end=True),
    ]
    if report.time:
        columns.append(Figures("predicted", [_time(group.predicted) for group in groups], 3 if report.measured else 0))
    if report.measured:
        columns.append(Figures("measured", [_time(group.measured) for group in groups]))
    if report.time and report.measured:
        columns.append(Figures("off", [_off(group) for group in groups], 2))
    times = [(group.measured if report.measured else group.predicted) or 0.0 for group in every]
    columns.append(Figures("share", [percent(value, sum(times)) for value in times[:top]], 1))
    if report.time:
        columns.append(Figures("bound", [_bound(report, group) for group in groups], 1))
    return table(width, *columns)


def _off(group: Alike) -> str:
    if group.predicted is None or not group.measured:
        return "-"
    return f"{group.predicted / group.measured - 1:+.0%}"


def _bound(report: Analysis, group: Alike) -> str:
    found = report.time.by_name.get(group.ops[0].name) if report.time else None
    return found.bound.removeprefix("memory:") if found else "-"


def _time(value: float | None) -> str:
    return "-" if value is None else seconds(value)
