"""What a sharded program sends between devices: a row an op's kind and mesh axis. No JAX import."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from llmjax.analysis import Analysis
from llmjax.cost import asynchronous
from llmjax.cost.attribution import AttributedOp
from llmjax.cost.collectives import axes_crossed, collective_in, exchanges
from llmjax.cost.values import Number
from llmjax.cycles.links import links_of
from llmjax.cycles.timeline import is_asynchronous
from llmjax.report.terminal import Figures, Names, table
from llmjax.report.units import quantity
from llmjax.report.units import seconds as duration


@dataclass(frozen=True)
class Sent:
    """All executions of one kind of collective along the same axes.

    axes: "?" where the groups are none of the mesh's. beside: how many of the `runs` may run beside other ops. bytes:
    that one device sends. links: that it sends them on; "" where no device was named. seconds: predicted; None where
    none was named. measured: seconds on one device; None where the program was not run. most_for: the path or role that
    sends the most.
    """

    opcode: str
    axes: str
    runs: Number
    beside: Number
    bytes: Number
    links: str
    seconds: float | None
    measured: float | None
    most_for: str


def collectives(report: Analysis) -> list[Sent]:
    """What a program sends along the axes of its mesh, the most first."""
    found: dict[tuple[str, str], list[AttributedOp]] = {}
    for op in report.ops:
        groups = exchanges(op.op, report.cost.module)
        if groups:
            axes = " x ".join(axes_crossed(groups, report.mesh)) or "?"
            found.setdefault((collective_in(op.op).opcode.removesuffix("-start"), axes), []).append(op)
    rows = [_sent(report, opcode, axes, ops) for (opcode, axes), ops in found.items()]
    return sorted(rows, key=lambda row: row.bytes, reverse=True)


def collectives_table(report: Analysis, width: int) -> Table:
    """Returns `collectives` as a table."""
    rows = collectives(report)
    return table(
        width,
        Names("collective", [row.opcode for row in rows], 14),
        Names("mesh axis", [row.axes for row in rows], 9),
        Figures("runs", [f"{row.runs:,}" for row in rows]),
        Figures("beside", [f"{row.beside:,}" for row in rows], rank=2),
        Figures("sent a device", [quantity(row.bytes, "B") for row in rows]),
        *([Figures("links", [row.links for row in rows], rank=3)] if any(row.links for row in rows) else []),
        *(
            Figures(head, ["" if time is None else duration(time) for time in times], rank=1)
            for head, times in (("predicted", [r.seconds for r in rows]), ("measured", [r.measured for r in rows]))
            if any(time is not None for time in times)
        ),
        Names("most for", [row.most_for for row in rows], 10, keeps_end=True),
    )


def _sent(report: Analysis, opcode: str, axes: str, ops: list[AttributedOp]) -> Sent:
    largest = max(ops, key=lambda op: op.total.collective_bytes)
    return Sent(
        opcode,
        axes,
        sum(op.count for op in ops),
        sum(op.count for op in ops if _beside(report, op)),
        sum(op.total.collective_bytes for op in ops),
        links_of(largest.op, report.cost.module, report.device) if report.device else "",
        _sum(report.predicted_of(op) for op in ops),
        _sum(report.measured_of(op) for op in ops),
        largest.place.module_path or largest.place.role,
    )


def _sum(times: Iterable[float | None]) -> float | None:
    known = [seconds for seconds in times if seconds is not None]
    return sum(known) if known else None


def _beside(report: Analysis, op: AttributedOp) -> bool:
    """Whether an op runs beside those that follow it, until another waits for its end."""
    fused = report.cost.module.computations.get(op.op.instruction.attr("calls", "") or "")
    return is_asynchronous(op.op.instruction) or (fused is not None and asynchronous.stage(fused) == "start")
