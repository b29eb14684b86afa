"""A report on a terminal: one screen that says what was computed and moved, by whom, and what is not known."""

from __future__ import annotations

import html
import io
import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llmjax.cost.attribution import AttributedOp, Row, share_of
from llmjax.cost.values import Cost, Number, total
from llmjax.report.times import headline, times_table
from llmjax.report.units import percent, short

if TYPE_CHECKING:
    from llmjax.analysis import Analysis

TOP = 10
_NAMED = 5  # so many unknown loops or unmodelled ops are named in a warning


def print_report(report: Analysis, console: Console, top: int = TOP, title: str = "") -> None:
    """Prints totals, warnings, roles, layers and the `top` largest ops, as wide as `console`, 80 columns at least."""
    console.print(Text(title or _title(report), style="bold"), soft_wrap=True)
    console.print(_totals(report))
    for warning in warnings(report):
        console.print(Panel(Text(warning), border_style="bold red", title="warning", title_align="left"))
    for note in _notes(report):
        console.print(Text(note, style="dim"))
    for line in headline(report):
        console.print(Text(line))
    totals = report.totals
    console.print()
    console.print(_breakdown("role", [(str(row.key), row) for row in report.by("role")], totals))
    layers = report.by("layer")
    if any(isinstance(row.key, int) for row in layers):
        console.print()
        console.print(_breakdown("layer", list(_alike(layers)), totals))
    if top > 0 and report.ops:
        console.print()
        console.print(_top(report, top, console.width))
        if report.time or report.measured:
            console.print()
            console.print(times_table(report, top, console.width))


def to_text(report: Analysis, width: int | None = None, top: int = TOP) -> str:
    """Returns what `print_report` prints, without colours; `width` defaults to the terminal's, at most 120."""
    width = width or min(120, shutil.get_terminal_size((80, 24)).columns)
    text = io.StringIO()
    print_report(report, Console(file=text, width=max(60, width), color_system=None), top)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def warnings(report: Analysis) -> list[str]:
    """What makes the totals lower bounds: loops of unknown length, ops without a rule. Empty where nothing does."""
    found = []
    loops = report.cost.unknown_trip_counts
    if loops:
        found.append(
            f"LOWER BOUND: the trip count of {_list(loops)} is unknown; one iteration is counted. Give it with"
            f" --config.trip_counts.{loops[0]}=N (trip_counts={{{loops[0]!r}: N}} in Python)."
        )
    missed = report.cost.unmodelled
    if missed:
        share = percent(sum(op.total.memory_bytes for op in missed), report.totals.memory_bytes) or "0%"
        reasons = list(dict.fromkeys(f"{op.name}: {op.unmodelled}" for op in missed))
        count = "1 op is" if len(missed) == 1 else f"{len(missed)} ops are"
        found.append(
            f"LOWER BOUND: {count} unmodelled ({share} of all bytes; their FLOPs are not counted).\n"
            + "\n".join(reasons[:_NAMED])
            + (f"\nand {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else "")
        )
    return found


def modules_table(rows: Iterable[tuple[str, Analysis]]) -> Table:
    """One line a module of a folder: (label, report)."""
    table = _table("module", "ops", "FLOPs", "transc.", "bytes", "coverage")
    for label, report in rows:
        totals, bound = report.totals, "≥ " if report.cost.lower_bound else ""
        figures = (bound + short(totals.flops), short(totals.transcendentals), bound + short(totals.bytes))
        table.add_row(Text(label), f"{len(report.ops):,}", *figures, f"{100 * report.cost.coverage:.1f}%")
    return table


def _title(report: Analysis) -> str:
    return f"{report.name or 'module'} · {report.backend or 'backend unknown'}"


def _totals(report: Analysis) -> Table:
    totals, bound = report.totals, "≥ " if report.cost.lower_bound else ""
    compiler = report.compiler or {}
    elsewhere = [(f"  {where}", of(totals)) for where, of in _ELSEWHERE.items() if of(totals)]
    main = "  main memory, " if elsewhere else "  "
    table = _table("one execution, one device", "counted here", "share", *(["XLA's own count"] if compiler else []))
    # Of XLA's three figures each stands beside ours of the same meaning.
    lines: list[tuple[str, Number, str, str, str]] = [
        ("FLOPs", totals.flops, "FLOP", "", "flops"),
        ("  in matrix products", totals.matmul_flops, "FLOP", percent(totals.matmul_flops, totals.flops), ""),
        ("  elementwise and reductions", totals.vector_flops, "FLOP", percent(totals.vector_flops, totals.flops), ""),
        ("transcendentals", totals.transcendentals, "", "", "transcendentals"),
        ("bytes moved", totals.memory_bytes, "B", "", "bytes"),
        (f"{main}read", totals.bytes_read, "B", percent(totals.bytes_read, totals.memory_bytes), ""),
        (f"{main}written", totals.bytes_written, "B", percent(totals.bytes_written, totals.memory_bytes), ""),
    ]
    lines += [(label, value, "B", percent(value, totals.memory_bytes), "") for label, value in elsewhere]
    if totals.collective_bytes:
        lines.append(("bytes sent to other devices", totals.collective_bytes, "B", "", ""))
    for label, value, unit, share, theirs in lines:
        own = short(compiler[theirs], unit) if theirs in compiler else ""
        table.add_row(label, bound + short(value, unit), share, *([own] if compiler else []))
    if totals.bytes:
        table.add_row("FLOPs a byte", f"{totals.flops / totals.bytes:.2f}")
    return table


def _notes(report: Analysis) -> list[str]:
    cost = report.cost
    modelled = len(report.ops) - len(cost.unmodelled)
    notes = [f"{modelled:,} of {len(report.ops):,} ops modelled, {100 * cost.coverage:.1f}% of all bytes."]
    known = [loop for loop in cost.loops if loop.trip_count is not None]
    if known:
        named = [f"{loop.name} x{loop.trip_count:,} ({loop.source.replace('_', ' ')})" for loop in known]
        notes[0] += f" Loops: {_list(named)}."
    guessed = [c for c in cost.conditionals if not c.stated and c.count]
    if guessed:
        notes[0] += f" Largest branch counted of {_list([c.name for c in guessed])}."
    if cost.dense_flops != report.totals.flops:
        notes[0] += f" What masks hide is left out: with it {short(cost.dense_flops, 'FLOP')}."
    libraries = dict.fromkeys(op.op.library for op in report.ops if op.op.library)
    if libraries:
        flops = sum(op.total.flops for op in report.ops if op.op.library)
        names = ", ".join(str(name) for name in libraries)
        notes[0] += f" In library calls ({names}): {percent(flops, report.totals.flops) or '0%'} of FLOPs."
    return notes


def _breakdown(title: str, rows: Sequence[tuple[str, Row]], totals: Cost) -> Table:
    others = {head: of for head, of in (_ELSEWHERE | _SENT).items() if of(totals)}
    heads = ("ops", "matmul", "vector", "transc.", "bytes", *others, "FLOP%", "byte%")
    table = _table(f"by {title}", *heads)
    for label, row in rows:
        c = row.cost
        work = (_or_blank(c.matmul_flops), _or_blank(c.vector_flops), _or_blank(c.transcendentals), _or_blank(c.bytes))
        table.add_row(
            Text(label), f"{row.ops:,}", *work, *(_or_blank(of(c)) for of in others.values()), *_portions(c, totals)
        )
    return table


# Bytes outside main memory, each a line and a column where a program has some.
_ELSEWHERE: dict[str, Callable[[Cost], Number]] = {
    "on chip": lambda cost: cost.on_chip_bytes,
    "host": lambda cost: cost.host_bytes,
}
_SENT: dict[str, Callable[[Cost], Number]] = {"sent": lambda cost: cost.collective_bytes}


def _portions(cost: Cost, totals: Cost) -> tuple[str, str]:
    """The shares of all FLOPs and of all bytes, without their per cent sign."""
    return percent(cost.flops, totals.flops).rstrip("%"), percent(cost.bytes, totals.bytes).rstrip("%")


def _or_blank(value: Number) -> str:
    return short(value) if value else ""


def _alike(layers: Sequence[Row]) -> Iterable[tuple[str, Row]]:
    """Neighbouring layers of equal cost as one line, with the figures of each of them."""
    for _, group in itertools.groupby(layers, key=lambda row: (row.cost, row.ops, isinstance(row.key, int))):
        rows = list(group)
        yield (f"{rows[0].key}-{rows[-1].key}, each" if len(rows) > 1 else str(rows[0].key)), rows[0]


def _top(report: Analysis, top: int, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, expand=True, show_edge=False)
    table.add_column("top ops, +alike", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("of", no_wrap=True, overflow="ellipsis", ratio=3)
    for head in ("runs", "FLOPs", "bytes", "FLOP%", "byte%"):
        table.add_column(head, justify="right", no_wrap=True)
    room = (width - 36) * 3 // 5 - 1
    for name, where, count, cost, unmodelled in _largest(report, top):
        where = where if len(where) <= room else "…" + where[-(room - 1) :]
        label = Text(name, style="red" if unmodelled else "")
        work = (_or_blank(cost.flops), _or_blank(cost.bytes))
        table.add_row(label, Text(where), f"{count:,}", *work, *_portions(cost, report.totals))
    return table


def _largest(report: Analysis, top: int) -> list[tuple[str, str, Number, Cost, bool]]:
    """The largest ops as (name, where, runs, cost, unmodelled): those that differ in their layer only are one line."""
    groups: dict[object, list[AttributedOp]] = {}
    for op in report.ops:
        groups.setdefault((_where(op), op.opcode, op.op.cost, op.op.unmodelled), []).append(op)
    lines = []
    for (where, *_), ops in ((key, ops) for key, ops in groups.items() if isinstance(key, tuple)):
        name = ops[0].name + (f" +{len(ops) - 1}" if len(ops) > 1 else "")
        cost = total(op.total for op in ops)
        lines.append((name, where, sum(op.count for op in ops), cost, bool(ops[0].op.unmodelled)))
    size = share_of(report.totals)
    return sorted(lines, key=lambda line: size(line[3]), reverse=True)[:top]


def _where(op: AttributedOp) -> str:
    """The module path, with * for the layer's number, or the role where there is none."""
    path = op.place.module_path or op.place.role
    if op.place.layer is not None:
        path = re.sub(rf"(?<=[_/.]){op.place.layer}(?=/|$)", "*", path, count=1)
    return path + (" (bwd)" if op.place.direction == "backward" else "")


def _table(first: str, *heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(first, no_wrap=True, overflow="ellipsis", min_width=14)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def to_html(report: Analysis, top: int = TOP) -> str:
    """Returns the totals, roles and largest ops as an HTML fragment."""
    totals = report.totals
    bound = "&ge; " if report.cost.lower_bound else ""
    sums = f"{bound}{short(totals.flops, 'FLOP')}, {bound}{short(totals.bytes, 'B')}"
    head = f"<b>{html.escape(_title(report))}</b>: {sums}"
    notes = "".join(f"<p><b style='color:#b00'>{html.escape(warning)}</b></p>" for warning in warnings(report))
    roles = [(str(row.key), row.cost) for row in report.by("role")]
    ops = [(f"{name} ({where})", cost) for name, where, _, cost, _ in _largest(report, top)]
    return f"<div>{head}{notes}{_html_rows('role', roles, totals)}{_html_rows('op', ops, totals)}</div>"


def _html_rows(head: str, rows: Iterable[tuple[str, Cost]], totals: Cost) -> str:
    cells = [(head, "FLOPs", "bytes", "of FLOPs", "of bytes")]
    for label, c in rows:
        portions = (percent(c.flops, totals.flops), percent(c.bytes, totals.bytes))
        cells.append((html.escape(label), _or_blank(c.flops), _or_blank(c.bytes), *portions))
    body = "".join(
        "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in row) + "</tr>"
        for tag, row in zip(["th"] + ["td"] * len(cells), cells, strict=False)
    )
    return f"<table>{body}</table>"
