"""What the terminal and HTML make alike of a page: heads of columns, and which kind of figure each column holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from llmjax.report.units import is_prefixed

if TYPE_CHECKING:
    from llmjax.report.page import Cell, Column, Table

_LABEL = 26  # letters of the longest label


class Grid(NamedTuple):
    """A table ready to be shown.

    Each column's kind is that of its figures ("" where they differ, and their cells say). Where all that have a kind
    have the same, it is `kind`, the table's, and columns and cells say nothing.
    """

    columns: tuple[Column, ...]
    is_number: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: str


def grid(table: Table) -> Grid:
    """Settles each column's kind: its own, else the one that its figures agree on."""
    rows = tuple(table.cells())
    columns, numbers = [], []
    for k, column in enumerate(table.columns):
        cells = [row[k] for row in rows]
        kinds = Counter(cell.kind for cell in cells if cell.kind)
        agreed = next(iter(kinds)) if len(kinds) == 1 and kinds.total() == _known(cells) else ""
        # A column none of whose figures are of its kind says what they are.
        kind = column.kind if column.kind in kinds else agreed
        columns.append(replace(column, kind=kind))
        # A column of which nothing is known is one of figures, if it has a unit or a kind.
        unknown = not _known(cells) and bool(column.unit or column.kind)
        numbers.append(unknown or any(not isinstance(cell.value, str | None) for cell in cells))
    found = {cell.kind for row in rows for cell in row if cell.kind}
    mixed = [k for k, column in enumerate(columns) if not column.kind and any(row[k].kind for row in rows)]
    if len(found) != 1 or mixed:
        return Grid(tuple(columns), tuple(numbers), rows, "")
    bare = tuple(tuple(replace(cell, kind="") for cell in row) for row in rows)
    return Grid(tuple(replace(column, kind="") for column in columns), tuple(numbers), bare, found.pop())


def is_prose(made: Grid, k: int) -> bool:
    """Whether a column holds sentences, which may be broken into lines, rather than figures or labels."""
    if made.is_number[k]:
        return False
    return max((len(str(row[k].value or "")) for row in made.rows), default=0) > _LABEL


def head_of(column: Column) -> str:
    """A column's title, with its unit where the figures do not bear it and the title does not name it."""
    unit = column.unit
    if not unit or is_prefixed(unit) or unit.lower() in column.title.lower():
        return column.title
    return f"{column.title}, {unit}" if column.title else unit


def _known(cells: list[Cell]) -> int:
    return sum(cell.value is not None for cell in cells)
