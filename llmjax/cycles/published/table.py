"""A table of published figures: a CSV file, one figure a row (docs/published.md has its columns). No JAX import."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmjax.errors import UserError, did_you_mean
from llmjax.schema import shown

NEEDED = ("id", "tier", "hardware", "model", "phase", "value", "unit")
COLUMNS = (
    *("id", "tier", "stack", "hardware", "n_chips", "model", "phase", "batch_per_step", "seq_or_in", "out_or_past"),
    *("dtype", "attention", "parallel", "metric", "value", "unit", "source", "note", "seen"),
)
_RENAMED = {"batch_per_step": "batch", "seq_or_in": "length", "out_or_past": "more"}
# What a tier can prove: how alike the compiler is that made the program.
TIERS: Mapping[str, str] = {
    "A": "same compiler, one chip",
    "B": "same compiler, many chips",
    "C": "other compilers and hand kernels",
    "D": "eager PyTorch",
    "K": "kernels",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure, as the table has it: texts, but for `value` and `chips`.

    `value` is in `unit`; `chips` is how many the program ran on, 1 where the table does not say. `batch`, `length` and
    `more` are rows of a step, tokens of a row, and new or past tokens.
    """

    id: str
    tier: str
    stack: str
    hardware: str
    chips: int
    model: str
    phase: str
    batch: str
    length: str
    more: str
    dtype: str
    attention: str
    parallel: str
    metric: str
    value: float
    unit: str
    source: str
    note: str


def read_table(path: Path) -> tuple[Row, ...]:
    """Reads a table.

    Raises:
        UserError: there is no such file, it lacks a column, or a row holds no figure; the line is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, lines = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"table={str(path)!r} cannot be read: {why}.") from error
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        near = did_you_mean(missing[0], [c for c in columns if c])
        raise UserError(f"table={str(path)!r} has no column {missing[0]!r}; docs/published.md has them all.{near}")
    if not lines:
        raise UserError(f"table={str(path)!r} holds no figure.")
    rows = tuple(_row(line, f"table={str(path)!r}, row {n}") for n, line in enumerate(lines, start=1))
    twice = _repeated([row.id for row in rows])
    if twice:
        raise UserError(f"table={str(path)!r}: two rows have the id {twice!r}.")
    return rows


def _row(line: Mapping[str, str | None], where: str) -> Row:
    texts = {name: (line.get(name) or "").strip() for name in COLUMNS}
    if texts["tier"] not in TIERS:
        raise UserError(f"{where}: tier={shown(texts['tier'])} must be one of {', '.join(TIERS)}.")
    try:
        value = float(texts["value"])
        chips = float(texts["n_chips"] or 1)
    except ValueError as error:
        raise UserError(f"{where}: value and n_chips must be numbers ({error}).") from error
    if not 0 < value < math.inf or not (chips >= 1 and chips == int(chips)):
        raise UserError(f"{where}: value={value:g} must be above 0 and n_chips={chips:g} a whole number from 1.")
    named = {name: texts[name] for name in COLUMNS if name not in (*_RENAMED, "n_chips", "value", "seen")}
    renamed = {ours: texts[theirs] for theirs, ours in _RENAMED.items()}
    return Row(value=value, chips=int(chips), **named, **renamed)


def _repeated(names: Sequence[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
