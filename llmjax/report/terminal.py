"""Tables for a terminal of any width: the least important columns give way and names are shortened, figures never."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

FEWEST_COLUMNS = 80  # where output goes into a file or a pipe
_GAP = 2
_TOLD = 10  # lines of what was left out


@dataclass(frozen=True, slots=True)
class Names:
    """A column of names, of which `least` letters are shown before a column of figures gives way.

    One that is too long loses its beginning where `keeps_end`, as paths begin alike.
    """

    head: str
    cells: Sequence[str | Text]
    least: int = 8
    keeps_end: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """A column of figures; of those that do not fit the highest `rank` gives way first, and 0 never does."""

    head: str
    cells: Sequence[str | Text]
    rank: int = 0


def console() -> Console:
    """Returns a console as wide as the terminal; of 80 columns at least where output goes elsewhere."""
    found = Console()
    if found.width < FEWEST_COLUMNS and not found.is_terminal:
        return Console(width=FEWEST_COLUMNS)
    return found


def warn_left_out(errors: Sequence[Exception]) -> None:
    """Says on standard error what could not be read: the first of many, and how many more there are."""
    for error in errors[:_TOLD]:
        print(f"warning: left out: {error}", file=sys.stderr)
    if len(errors) > _TOLD:
        print(f"warning: left out: {len(errors) - _TOLD:,} more", file=sys.stderr)


def every_second(doing: str) -> Callable[[int, int, str], None]:
    """Returns what tells standard error how far a long work is, "reading 37 of 1,204: NAME", once a second at most."""
    last = time.monotonic()

    def say(number: int, of: int, name: str) -> None:
        nonlocal last
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            print(f"{doing} {number:,} of {of:,}: {name}", file=sys.stderr)

    return say


def table(width: int, *columns: Names | Figures) -> Table:
    """Returns a table of columns that are equally long, in their order, no wider than `width` where that can be."""
    shown = list(columns)
    while _fewest(shown) > width:
        leaving = max((c for c in shown if isinstance(c, Figures)), key=lambda c: c.rank, default=None)
        if leaving is None or not leaving.rank:
            break
        shown.remove(leaving)
    room = width - sum(_widest(c) for c in shown if isinstance(c, Figures)) - _GAP * (len(shown) - 1)
    names = [c for c in shown if isinstance(c, Names)]
    widths = iter(_shared([_widest(c) for c in names], [_needed(c) for c in names], room))
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    cells: list[list[str | Text]] = []
    for column in shown:
        if isinstance(column, Figures):
            found.add_column(Text(column.head), justify="right", no_wrap=True, min_width=_widest(column))
            cells.append(list(column.cells))
        else:
            size = next(widths)
            found.add_column(Text(shortened(column.head, size)), no_wrap=True, min_width=size)
            cells.append([_shortened(cell, size, column.keeps_end) for cell in column.cells])
    for row in zip(*cells, strict=True):
        found.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return found


def shortened(text: str, size: int, keeps_end: bool = False) -> str:
    """Returns a text of at most `size` letters, … in the place of what is left out."""
    if cell_len(text) <= size:
        return text
    left = text[-size:] if keeps_end else text[:size]
    while cell_len(left) >= size:
        left = left[1:] if keeps_end else left[:-1]
    return f"…{left}" if keeps_end else f"{left}…"


def _shortened(cell: str | Text, size: int, keeps_end: bool) -> Text:
    if isinstance(cell, str):
        return Text(shortened(cell, size, keeps_end))
    return Text(shortened(cell.plain, size, keeps_end), style=cell.style)


def _fewest(columns: Sequence[Names | Figures]) -> int:
    """The fewest columns of the terminal that a table can do with."""
    return sum(map(_needed, columns)) + _GAP * (len(columns) - 1)


def _needed(column: Names | Figures) -> int:
    return min(_widest(column), column.least) if isinstance(column, Names) else _widest(column)


def _widest(column: Names | Figures) -> int:
    return max(cell_len(str(cell)) for cell in (column.head, *column.cells))


def _shared(wanted: Sequence[int], needed: Sequence[int], room: int) -> list[int]:
    """Gives columns of names what they want, the narrow first, and shares out the rest evenly."""
    found = [0] * len(wanted)
    for done, k in enumerate(sorted(range(len(wanted)), key=lambda k: wanted[k])):
        found[k] = max(needed[k], min(wanted[k], room // (len(wanted) - done)))
        room -= found[k]
    return found
