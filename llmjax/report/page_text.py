"""A page on a terminal: of each section its findings, its tables, and bars where they are the quickest to read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

from llmjax.report.page_view import Grid, grid, head_of, is_prose
from llmjax.report.provenance import PROVENANCE
from llmjax.report.units import is_prefixed, quantity

if TYPE_CHECKING:
    from llmjax.report.page import Page, Plot, Section, Table

# Cells that differ from their column in what they are bear a mark.
MARKS = {
    "measured": "ᵐ",
    "modelled": "~",
    "counted": "#",
    "compiler": "^",
    "datasheet": "°",
    "estimate": "?",
    "published": "†",
    "user": "*",
}
_COLOURS = {
    "measured": "green",
    "modelled": "blue",
    "counted": "",
    "compiler": "magenta",
    "datasheet": "yellow",
    "estimate": "cyan",
    "published": "yellow",
    "user": "magenta",
    "": "",
}
_TEXT_MIN, _TEXT_MAX = 14, 60  # columns that a column of text takes at least, and at most asks for
_BARS = 24  # so many bars are drawn at most
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_page(page: Page, console: Console) -> None:
    """Prints a page as wide as `console`, from 80 columns on; of plots only what bars can show."""
    console.print(Text(page.title, style="bold"))
    if page.subtitle:
        console.print(Text(page.subtitle, style="dim"))
    for section in page.sections:
        console.print()
        _print_section(section, console)


def _print_section(section: Section, console: Console) -> None:
    console.print(Rule(Text(section.title, style="bold"), align="left", characters="─"))
    for finding in section.findings:
        _print_item("•", finding, console)
    for plot in section.plots:
        lines = list(_bars(plot, console.width))
        if lines:
            console.print()
            unit = "" if is_prefixed(plot.y.unit) or not plot.y.unit else f", {plot.y.unit}"
            console.print(_title(plot.title + unit, _kinds(plot)))
            for line in lines:
                console.print(line, soft_wrap=True)
            _print_note(plot.note, console)
    for table in section.tables:
        console.print()
        _print_table(table, console)
    if section.notes:
        console.print()
    for note in section.notes:
        _print_item("–", note, console, "dim")


def _print_item(mark: str, text: str, console: Console, style: str = "") -> None:
    line = RichTable.grid(padding=(0, 1, 0, 0))
    line.add_row(Text(mark, style=style), Text(text, style=style, overflow="fold"))
    console.print(line)


def _print_note(note: str, console: Console) -> None:
    if note:
        console.print(Text(note, style="dim"))


def _title(title: str, kinds: Sequence[str]) -> Text:
    found = Text(title, style="bold")
    if kinds:
        found.append(f"  {', '.join(kinds)}", style="dim not bold")
    return found


def _print_table(table: Table, console: Console) -> None:
    made = grid(table)
    console.print(_title(table.title, [made.kind] if made.kind else []))
    shown = [[_cell(made, row, k) for k in range(len(made.columns))] for row in made.rows]
    marks = {
        cell.kind: None
        for row in made.rows
        for cell, column in zip(row, made.columns, strict=True)
        if cell.kind != column.kind
    }
    columns = range(len(made.columns))
    # Sentences beside many columns would be a word wide: they stand below them.
    below = len(list(_parts(made, shown, columns, console.width))) > 1 and is_prose(made, len(columns) - 1)
    for k, part in enumerate(_parts(made, shown, columns[:-1] if below else columns, console.width)):
        if k:
            console.print()
        console.print(_rich(made, shown, part))
    if below:
        console.print()
        for row, cells in zip(shown, made.rows, strict=True):
            if cells[-1].value:
                _print_item("-", f"{row[0].plain}: {row[-1].plain}", console)
    told = [f"{MARKS[kind]} {PROVENANCE[kind]}" for kind in marks if kind]
    if told:
        console.print(Text("; ".join(told), style="dim"))
    _print_note(table.note, console)


def _cell(made: Grid, row: Sequence, k: int) -> Text:
    cell, column = row[k], made.columns[k]
    text = cell.value if isinstance(cell.value, str) else _figure(cell.value, column.unit)
    found = Text(text, style=_COLOURS[cell.kind] if made.is_number[k] else "")
    if cell.kind and cell.kind != column.kind:
        found.append(MARKS[cell.kind], style="dim")
    return found


def _figure(value: float | None, unit: str) -> str:
    return "–" if value is None else quantity(value, unit)


def _parts(made: Grid, shown: Sequence[Sequence[Text]], columns: Sequence[int], width: int) -> Iterator[list[int]]:
    """Those of the columns that fit beside one another, the first of all at the head of each part."""
    room = [_room(made, shown, k) for k in range(len(made.columns))]
    part: list[int] = []
    for k in columns:
        if len(part) > 1 and sum(room[j] + 2 for j in [*part, k]) - 2 > width:
            yield part
            part = [0]
        part.append(k)
    if part:
        yield part


def _room(made: Grid, shown: Sequence[Sequence[Text]], k: int) -> int:
    """The fewest columns of the terminal that a column of a table can do with."""
    widest = max((row[k].cell_len for row in shown), default=0)
    head = max((len(line) for line in _heads(made, shown, k)), default=0)
    return max(head, widest if made.is_number[k] else min(widest, _TEXT_MIN))


def _heads(made: Grid, shown: Sequence[Sequence[Text]], k: int) -> list[str]:
    """The lines of a column's head: as narrow as its cells, where words allow it."""
    column = made.columns[k]
    widest = max((row[k].cell_len for row in shown), default=0)
    head = head_of(column)
    words = max((len(word) for word in head.split()), default=1)
    lines = textwrap.wrap(head, max(widest, words, 10), break_long_words=False, break_on_hyphens=False)
    return [*lines, column.kind] if column.kind else lines


def _rich(made: Grid, shown: Sequence[Sequence[Text]], part: Sequence[int]) -> RichTable:
    found = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for k in part:
        kind = made.columns[k].kind
        head = Text("\n".join(_heads(made, shown, k)))
        if kind:
            head.stylize(f"not bold {_COLOURS[kind]}", len(head) - len(kind))
        if made.is_number[k]:
            found.add_column(head, justify="right", no_wrap=True, vertical="top")
        else:
            found.add_column(head, overflow="fold", min_width=min(_TEXT_MIN, _room(made, shown, k)))
    for row in shown:
        found.add_row(*(row[k] for k in part))
    return found


def _kinds(plot: Plot) -> list[str]:
    return list(dict.fromkeys(series.kind for series in plot.series if series.kind))


def _bars(plot: Plot, width: int) -> Iterator[Text]:
    """A waterfall, or the bars of one series, in block characters; nothing for what they cannot show."""
    if len(plot.series) != 1 or plot.style not in ("bars", "waterfall") or plot.log_y:
        return
    series = plot.series[0]
    rows = [(str(x), y) for x, y in zip(series.x, series.y, strict=True) if y is not None and math.isfinite(y)]
    if not rows or len(rows) > _BARS or min(y for _, y in rows) < 0:
        return
    flows = plot.style == "waterfall"
    whole = sum(y for _, y in rows) if flows else max(y for _, y in rows)
    if not whole > 0 or not math.isfinite(whole):
        return
    label = min(30, max(len(x) for x, _ in rows))
    length = width - label - 20
    before = 0.0
    for x, y in rows:
        name = x if len(x) <= label else x[: label - 1] + "…"
        start = before / whole * length if flows else 0.0
        bar = _bar(start, y / whole * length)
        share = f" {100 * y / whole:4.1f}%" if flows else ""
        figure = quantity(y, plot.y.unit)
        yield Text.assemble(f"{name:<{label}} ", (f"{bar:<{length}}", _COLOURS[series.kind]), f" {figure:>9}", share)
        before += y


def _bar(start: float, size: float) -> str:
    """A bar in eighths of a character; it begins on a whole one."""
    full, rest = divmod(max(1, round(size * 8)), 8)
    return " " * int(start) + "█" * full + (_EIGHTHS[rest] if rest else "")
