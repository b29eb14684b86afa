"""Findings, tables and plots as plain data: a page of sections, which any job fills and every reader sees alike.

All figures are in base units (seconds, bytes, FLOPs, cycles, shares of one); the readers put prefixes to them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal, get_args

from llmjax.report.page_html import to_html
from llmjax.report.page_text import print_page
from llmjax.report.provenance import PROVENANCE

__all__ = ["Cell", "Column", "Page", "Plot", "Section", "Series", "Table", "print_page", "to_html", "to_json"]

KINDS = ("", *PROVENANCE)  # "" = text, or what needs no provenance: a size that was chosen
Style = Literal["bars", "lines", "points", "waterfall"]
Value = float | str | None  # None, and what is not finite: not known


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure whose provenance is not its column's; kind "" = the column's."""

    value: Value
    kind: str = ""

    def __post_init__(self) -> None:
        _check_kind(self.kind)


@dataclass(frozen=True, slots=True)
class Column:
    """What a column's or an axis's figures are.

    `unit`: s, B, FLOP, Hz, B/s, FLOP/s and the like stand in each cell, with prefixes; "%" takes shares (0.5 is shown
    as 50.0%) and "x" ratios (2.1×); any other ("cycles", "FLOP/cycle", "tokens/s") stands in the column's head.
    """

    title: str
    unit: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        _check_kind(self.kind)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one a column; a bare value is a Cell of the column's kind."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell | Value, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for k, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: row {k} has {len(row)} cells for {len(self.columns)} columns")
            for cell in row:
                _check_value(cell.value if isinstance(cell, Cell) else cell, f"table {self.title!r}, row {k}")

    def cells(self) -> Iterator[tuple[Cell, ...]]:
        """The rows as Cells, each with its own kind or its column's; text has none but its own."""
        for row in self.rows:
            found = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
            yield tuple(
                Cell(c.value, c.kind or ("" if isinstance(c.value, str) else column.kind))
                for c, column in zip(found, self.columns, strict=True)
            )


@dataclass(frozen=True, slots=True)
class Series:
    """One line, set of points or of bars: y over x, with `low` and `high` ends of an interval where it has one.

    Series of one name and different kinds (predicted and measured) are drawn in one colour.
    """

    name: str
    kind: str
    x: tuple[float | str, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        lengths = {len(self.x), len(self.y)} | {len(ends) for ends in (self.low, self.high) if ends}
        if len(lengths) != 1 or bool(self.low) != bool(self.high):
            sizes = f"{len(self.x)} x, {len(self.y)} y, {len(self.low)} low, {len(self.high)} high"
            raise ValueError(f"series {self.name!r}: as many y, low and high as x, or no low and high; got {sizes}")
        for value in (*self.y, *self.low, *self.high):
            if isinstance(value, str):
                raise TypeError(f"series {self.name!r}: y is a number or None, got {value!r}")
            _check_value(value, f"series {self.name!r}")


@dataclass(frozen=True, slots=True)
class Plot:
    """Series over one pair of axes.

    `bars`: a group of bars for each x. `waterfall`: each bar begins where the one before ended, and the sum of all
    follows. `lines`: lines, but points for what was measured. `points`: points. `equal` draws where y is as large as x.
    """

    title: str
    style: Style
    x: Column
    y: Column
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    note: str = ""
    equal: bool = False

    def __post_init__(self) -> None:
        if self.style not in get_args(Style):
            raise ValueError(f"plot {self.title!r}: style {self.style!r} is none of {', '.join(get_args(Style))}")
        if self.style == "waterfall" and self.log_y:
            raise ValueError(f"plot {self.title!r}: a waterfall adds up, so it has no logarithmic axis")


@dataclass(frozen=True, slots=True)
class Section:
    """One question: `findings` are sentences with this run's own figures, `notes` say what was not measured and why.

    `key` is a word for links: letters, digits, - and _.
    """

    key: str
    title: str
    findings: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.key):
            raise ValueError(f"section {self.title!r}: key {self.key!r} is not letters, digits, - and _")
        for name in ("findings", "tables", "plots", "notes"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"section {self.key!r}: {name} is a tuple, got {type(getattr(self, name)).__name__}")


@dataclass(frozen=True, slots=True)
class Page:
    """Sections under a title; `subtitle` says of what machine, program and versions."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        keys = [section.key for section in self.sections]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"page {self.title!r}: two sections have the key {twice[0]!r}")


def to_json(page: Page) -> str:
    """Returns the page as JSON: its dataclasses as objects, a cell as {"value", "kind"}, what is not known as null."""
    found = asdict(page)
    for section, own in zip(found["sections"], page.sections, strict=True):
        for table, mine in zip(section["tables"], own.tables, strict=True):
            table["rows"] = [[asdict(cell) for cell in row] for row in mine.cells()]
    return json.dumps({"schema": "llmjax.page/1", **_known(found)}, indent=1, ensure_ascii=False, allow_nan=False)


def _known(value: Any) -> Any:
    """The same with None for what is not finite."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    if isinstance(value, Real) and not isinstance(value, int):  # numpy's scalars too
        return float(value) if math.isfinite(value) else None
    return value


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(map(repr, KINDS))}")


def _check_value(value: Any, where: str) -> None:
    if not (value is None or isinstance(value, Real | str)):
        raise TypeError(f"{where}: a value is a number, text or None, got {type(value).__name__} {value!r}")
