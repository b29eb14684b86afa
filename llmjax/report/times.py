"""Predicted and measured times on a terminal: the program's, and those of the ops that take most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from llmjax.report.units import short

if TYPE_CHECKING:
    from llmjax.analysis import Analysis


def headline(report: Analysis) -> Iterator[str]:
    """Lines of the program's time: predicted, measured, and how far they are apart."""
    hertz = report.device.clock_hz if report.device else None
    if report.time and report.device and hertz:
        time = report.time
        kind = "calibrated" if report.device.fit.get("terms") else "from its datasheet, not calibrated"
        if report.device.made_with.get("fitted_to"):
            kind = "from its datasheet, fitted to what its compiler expects of other programs, not measured"
        yield (
            f"predicted: {_ms(time.overlapped)} ({_ms(time.low)} to {_ms(time.high)}), {short(time.cycles)} cycles at"
            f" {hertz.value / 1e9:.2f} GHz ({hertz.provenance}); {report.device.title}, {kind}."
        )
    if report.measured:
        run = report.measured
        cycles = f", {short(run.wall.median * hertz.value)} cycles (time x clock)" if hertz else ""
        yield f"measured: {_ms(run.wall.median)}{cycles}; {run.reconciliation()}."
        if run.note:
            yield run.note
        if report.time:
            off = report.time.overlapped / run.wall.median - 1
            yield f"the prediction is off by {off:+.1%}; the measurement repeats to {run.wall.spread:.1%}."


def times_table(report: Analysis, top: int, width: int) -> Table:
    """The `top` ops by time, measured if it is, with what binds them."""
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    # What the figures leave at 80 columns; a path loses its beginning, which is every path's.
    room = width - 50
    where = min(30, room // 2 + 1)
    found.add_column("by time", no_wrap=True, overflow="ellipsis", max_width=room - where)
    found.add_column("of", no_wrap=True, max_width=where)
    heads = (["predicted"] if report.time else []) + (["measured", "off", "share"] if report.measured else [])
    heads += ["bound"] if report.time else []
    for head in heads:
        found.add_column(head, justify="right", no_wrap=True)
    measured = report.measured.ops if report.measured else {}
    predicted = report.time.by_name if report.time else {}
    whole = sum(op.time.median for op in measured.values())

    def seconds(name: str) -> float:
        if name in measured:
            return measured[name].time.median
        return predicted[name].seconds if name in predicted else 0.0

    for op in sorted(report.ops, key=lambda op: -seconds(op.name))[:top]:
        path = op.place.module_path or "-"
        cells = [op.name, path if len(path) <= where else "…" + path[-(where - 1) :]]
        mine, theirs = predicted.get(op.name), measured.get(op.name)
        if report.time:
            cells.append(_us(mine.seconds) if mine else "-")
        if report.measured:
            real = theirs.time.median if theirs else 0.0
            cells.append(_us(real) if theirs else "-")
            cells.append(f"{mine.seconds / real - 1:+.0%}" if mine and real else "-")
            cells.append(f"{real / whole:.1%}" if whole else "-")
        if report.time:
            cells.append(mine.bound.removeprefix("memory:") if mine else "-")
        found.add_row(*cells)
    return found


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.3f} ms"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"
