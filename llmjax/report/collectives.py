"""What a sharded program sends between devices: a row an op's kind and mesh axis. No JAX import."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from llmjax.analysis import Analysis
from llmjax.cost.attribution import AttributedOp
from llmjax.cost.collectives import axes_crossed, collective_in, exchanges
from llmjax.report.terminal import Figures, Names, table
from llmjax.report.units import quantity
from llmjax.report.units import seconds as duration


def collectives(report: Analysis, mesh: Mapping[str, int]) -> dict[tuple[str, str], list[AttributedOp]]:
    """Returns the ops that send data, by (opcode, mesh axes), those that send the most first; "?" for no known axis."""
    found: dict[tuple[str, str], list[AttributedOp]] = {}
    for op in report.ops:
        groups = exchanges(op.op, report.cost.module)
        if groups:
            axes = " x ".join(axes_crossed(groups, mesh)) or "?"
            found.setdefault((collective_in(op.op).opcode.removesuffix("-start"), axes), []).append(op)
    return dict(sorted(found.items(), key=lambda item: -_sent(item[1])))


def collectives_table(report: Analysis, mesh: Mapping[str, int], width: int) -> Table:
    """Returns the table of `collectives`: how often, bytes that one device sends, seconds, and whose layers ask."""
    rows = collectives(report, mesh)
    seconds = [[report.predicted_of(op) for op in ops] for ops in rows.values()]
    times = [duration(sum(known)) if (known := [s for s in row if s is not None]) else "" for row in seconds]
    return table(
        width,
        Names("collective", [kind for kind, _ in rows], 14),
        Names("mesh axis", [axes for _, axes in rows], 9),
        Figures("runs", [f"{sum(op.count for op in ops):,}" for ops in rows.values()]),
        Figures("sent a device", [quantity(_sent(ops), "B") for ops in rows.values()]),
        Figures("time", times, rank=1),
        Names("most for", [_most(ops) for ops in rows.values()], 10, keeps_end=True),
    )


def _sent(ops: list[AttributedOp]) -> float:
    return sum(op.total.collective_bytes for op in ops)


def _most(ops: list[AttributedOp]) -> str:
    largest = max(ops, key=lambda op: op.total.collective_bytes)
    return largest.place.module_path or largest.place.role
