"""A diff on a terminal and as an HTML page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llmjax.report.diff import Change, Diff, Line
from llmjax.report.html import render
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
    """Prints totals, roles and the `top` largest changes of ops, as wide as `console`, 80 columns at least."""
    before, after = found.before, found.after
    title = f"{before['module']} ({before['ops']:,} ops) → {after['module']} ({after['ops']:,} ops)"
    console.print(Text(title, style="bold"), soft_wrap=True)
    for note in found.missing:
        if note.startswith("LOWER BOUND"):
            console.print(Panel(Text(note), border_style="bold red", title="warning", title_align="left"))
        else:
            console.print(Text(f"{note[0].upper()}{note[1:]}.", style="dim"))
    console.print(_totals(found))
    changed = [line for line in found.roles if line.status != "same"]
    if changed:
        console.print()
        console.print(_roles(found, changed))
    lines = groups(found.ops)
    if lines and top > 0:
        console.print()
        console.print(_ops(found, lines[:top], console.width))
    same = sum(line.status == "same" for line in found.ops)
    renamed = sum(line.was is not None for line in found.ops)
    parts = [f"{same:,} ops have the figures they had" if same else "", f"{renamed:,} were renamed" if renamed else ""]
    if len(lines) > top:
        parts.append(f"{len(lines) - top:,} smaller changes are in diff.json")
    note = "; ".join(part for part in parts if part)
    if note:
        console.print(Text(f"{note[0].upper()}{note[1:]}.", style="dim"))


def groups(ops: Iterable[Line]) -> list[Group]:
    """The ops that changed, those that did alike in several layers as one, the largest change first."""
    found: dict[object, list[Line]] = {}
    for line in ops:
        if line.status == "same":
            continue
        alike = tuple((c.before, c.after) for c in line.changes.values())
        found.setdefault((_where(line), line.opcode, line.status, alike), []).append(line)
    grouped = []
    for lines in found.values():
        sums = {
            metric: Change(sum(x.changes[metric].before for x in lines), sum(x.changes[metric].after for x in lines))
            for metric in lines[0].changes
        }
        grouped.append(Group(lines[0], len(lines), sums))
    most = (
        {m: max((abs(g.changes[m].change) for g in grouped), default=0) or 1 for m in next(iter(grouped)).changes}
        if grouped
        else {}
    )
    return sorted(grouped, key=lambda g: max(abs(c.change) / most[m] for m, c in g.changes.items()), reverse=True)


def to_html(found: Diff, title: str, before: str, after: str) -> str:
    """Returns the diff as one HTML page that needs no network; `before` and `after` say where each program is from."""
    lines = groups(found.ops)
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


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(first, no_wrap=True, overflow="ellipsis", min_width=14)
    return table


def _totals(found: Diff) -> Table:
    table = _table("in all")
    for head in ("before", "after", "change", "%"):
        table.add_column(head, justify="right", no_wrap=True)
    for metric, change in found.totals.items():
        telling = tell(found.metrics[metric])
        cells = (telling(change.before), telling(change.after), signed(change.change, telling) or "none")
        table.add_row(HEADS[metric], *cells, Text(percent(change), style=_style(change)))
    return table


def _roles(found: Diff, lines: Iterable[Line]) -> Table:
    table = _table("by role")
    for metric in found.metrics:
        table.add_column(HEADS[metric], justify="right", no_wrap=True)
        table.add_column("%", justify="right", no_wrap=True)
    for line in lines:
        table.add_row(Text(line.role), *_cells(found, line.changes))
    return table


def _ops(found: Diff, lines: Iterable[Group], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, expand=True, show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("ops, +alike", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("of", no_wrap=True, overflow="ellipsis", ratio=3)
    for metric in found.metrics:
        table.add_column(HEADS[metric], justify="right", no_wrap=True)
    room = max(8, (width - 2 - 10 * len(found.metrics)) // 2 - 1)
    for group in lines:
        where = group.where if len(group.where) <= room else "…" + group.where[-(room - 1) :]
        gains = [Text(signed(c.change, tell(found.metrics[m])), style=_style(c)) for m, c in group.changes.items()]
        table.add_row(_MARKS[group.line.status], Text(group.name), Text(where), *gains)
    return table


def _cells(found: Diff, changes: Mapping[str, Change]) -> list[Text]:
    cells = []
    for metric, change in changes.items():
        cells.append(Text(signed(change.change, tell(found.metrics[metric])), style=_style(change)))
        cells.append(Text(percent(change), style=_style(change)))
    return cells


def _style(change: Change) -> str:
    return "red" if change.change > 0 else "green" if change.change < 0 else ""
