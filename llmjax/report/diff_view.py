"""A diff on a terminal and as an HTML page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llmjax.report.diff import Change, Diff, Line, size_of
from llmjax.report.html import render
from llmjax.report.terminal import Figures, Names, table
from llmjax.report.units import seconds, short

HEADS = {"cycles": "cycles", "flops": "FLOPs", "bytes": "bytes"}
HEADS |= {"collective_bytes": "sent", "on_chip_bytes": "on chip", "host_bytes": "host"}
TOP = 12
ROWS = 500  # so many ops stand in the page; diff.json has them all
_MARKS = {"new": "+", "gone": "-", "changed": "~"}


@dataclass(frozen=True)
class Group:
    """Ops that changed alike and differ in their layer only: the first one's line, how many, and their sum."""

    line: Line
    count: int
    changes: dict[str, Change]

    @property
    def name(self) -> str:
        renamed = f"{self.line.was} → {self.line.name}" if self.line.was else self.line.name
        return f"{renamed} +{self.count - 1}" if self.count > 1 else renamed

    @property
    def where(self) -> str:
        return _where(self.line) if self.count > 1 else self.line.module_path or self.line.role


def print_diff(found: Diff, console: Console, top: int = TOP) -> None:
    """Prints totals, roles and the `top` largest changes of ops, as wide as `console`."""
    before, after = found.before, found.after
    title = f"{before['module']} ({before['ops']:,} ops) → {after['module']} ({after['ops']:,} ops)"
    console.print(Text(title, style="bold"), soft_wrap=True)
    for note in found.missing:
        if note.startswith("LOWER BOUND"):
            console.print(Panel(Text(note), border_style="bold red", title="warning", title_align="left"))
        else:
            console.print(Text(f"{note[0].upper()}{note[1:]}.", style="dim"))
    console.print(_totals(found, console.width))
    changed = [line for line in found.roles if line.status != "same"]
    if changed:
        console.print()
        console.print(_roles(found, changed, console.width))
    lines = groups(found)
    if lines and top > 0:
        console.print()
        console.print(_ops(found, lines[:top], console.width))
    same = sum(line.status == "same" for line in found.ops)
    renamed = sum(line.was is not None for line in found.ops)
    parts = [f"{same:,} ops have the figures they had" if same else "", f"{renamed:,} were renamed" if renamed else ""]
    if len(lines) > top:
        parts.append(f"{len(lines) - top:,} smaller changes are not shown")
    note = "; ".join(part for part in parts if part)
    if note:
        console.print(Text(f"{note[0].upper()}{note[1:]}.", style="dim"))


def groups(found: Diff) -> list[Group]:
    """The ops that changed, those that did alike in several layers as one, the largest change of cycles first."""
    alike: dict[object, list[Line]] = {}
    for line in found.ops:
        if line.status != "same":
            changes = tuple((c.before, c.after) for c in line.changes.values())
            alike.setdefault((_where(line), line.opcode, line.status, changes), []).append(line)
    grouped = []
    for lines in alike.values():
        sums = {
            metric: Change(sum(x.changes[metric].before for x in lines), sum(x.changes[metric].after for x in lines))
            for metric in lines[0].changes
        }
        grouped.append(Group(lines[0], len(lines), sums))
    size = size_of(found.totals)
    return sorted(grouped, key=lambda group: size(group.changes), reverse=True)


def to_html(found: Diff, title: str, before: str, after: str) -> str:
    """Returns the diff as one HTML page that needs no network; `before` and `after` say where each program is from."""
    lines = groups(found)
    return render(
        "diff.html.j2",
        title=title,
        diff=found,
        before=before,
        after=after,
        heads={metric: HEADS[metric] for metric in found.metrics},
        roles=[line for line in found.roles if line.status != "same"],
        ops=lines[:ROWS],
        left_out=max(0, len(lines) - ROWS),
        same=sum(line.status == "same" for line in found.ops),
        renamed=sum(line.was is not None for line in found.ops),
        tell=lambda metric, value: tell(found.metrics[metric])(value),
        gain=lambda metric, change: signed(change.change, tell(found.metrics[metric])),
        percent=percent,
        width=lambda metric, change: _width(found, metric, change),
        direction=lambda change: "loss" if change.change > 0 else "gain" if change.change < 0 else "",
    )


def tell(unit: str) -> Callable[[float], str]:
    """How a figure of a unit is told."""
    if unit == "s":
        return seconds
    return lambda value: short(value, "" if unit == "cycles" else unit)


def signed(value: float, telling: Callable[[float], str]) -> str:
    """Returns a change with its sign; "" for none."""
    return f"{'+' if value > 0 else '−'}{telling(abs(value))}" if value else ""


def percent(change: Change) -> str:
    """Returns a change as a share of what was: "+2.1%", "−40.0%", "×12" from ten times on, "new" where nothing was, ""
    for none."""
    if change.share is None:
        return "new"
    if not change.share:
        return ""
    if change.share >= 9:
        return f"×{short(round(change.after / change.before))}"
    text = f"{abs(100 * change.share):.1f}%"
    return f"{'+' if change.share > 0 else '−'}{'<0.1%' if text == '0.0%' else text}"


def _width(found: Diff, metric: str, change: Change) -> float:
    most = max((abs(line.changes[metric].change) for line in found.roles), default=0)
    return 100 * abs(change.change) / most if most else 0


def _where(line: Line) -> str:
    path = line.module_path or line.role
    return re.sub(rf"(?<=[_/.]){line.layer}(?=/|$)", "*", path, count=1) if line.layer is not None else path


def _totals(found: Diff, width: int) -> Table:
    told = {metric: tell(found.metrics[metric]) for metric in found.totals}
    changes = found.totals.items()
    return table(
        width,
        Names("in all", [HEADS[metric] for metric in found.totals]),
        Figures("before", [told[metric](change.before) for metric, change in changes]),
        Figures("after", [told[metric](change.after) for metric, change in changes]),
        Figures("change", [signed(change.change, told[metric]) or "none" for metric, change in changes], 1),
        Figures("%", [Text(percent(change), style=_style(change)) for _, change in changes]),
    )


def _roles(found: Diff, lines: Sequence[Line], width: int) -> Table:
    columns = []
    for rank, metric in enumerate(found.metrics):
        changes = [line.changes[metric] for line in lines]
        columns.append(_gains(found, metric, changes, 2 * rank + 1))
        columns.append(Figures("%", [Text(percent(c), style=_style(c)) for c in changes], 2 * rank))
    return table(width, Names("by role", [line.role for line in lines], 22), *columns)


def _ops(found: Diff, lines: Sequence[Group], width: int) -> Table:
    names = [f"{_MARKS[group.line.status]} {group.name}" for group in lines]
    return table(
        width,
        Names("ops, +alike", names, 18),
        Names("of", [group.where for group in lines], 16, keeps_end=True),
        *(_gains(found, m, [g.changes[m] for g in lines], rank) for rank, m in enumerate(found.metrics)),
    )


def _gains(found: Diff, metric: str, changes: Sequence[Change], rank: int) -> Figures:
    telling = tell(found.metrics[metric])
    return Figures(HEADS[metric], [Text(signed(c.change, telling), style=_style(c)) for c in changes], rank)


def _style(change: Change) -> str:
    return "red" if change.change > 0 else "green" if change.change < 0 else ""
