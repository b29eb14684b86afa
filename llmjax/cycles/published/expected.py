"""How far off whole programs of a chip are expected to be: what configs/published.py found, kept as a small table.

`expected.json` holds medians of |error| by chip and kind of program and how many rows they are of; of the rows
nothing. No JAX import.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("expected.json")
# What a phase of configs/compare.py is among the kinds of programs that were held against published times.
_KINDS = {"classify": "forward", "embed": "forward", "lm": "train"}


Table = Mapping[str, Mapping[str, Mapping[str, float]]]


class Expected(NamedTuple):
    """A median |error| as a share, on so many rows; `of` is their chip, or "gpu" or "tpu": others of that sort."""

    error: float
    rows: int
    of: str


def expected_error(chip: str, phase: str, table: Table | None = None) -> Expected | None:
    """The expected error of a phase's program on a chip; where that was not found the median of the chips alike.

    Args:
        table: by chip and kind, `error` and `rows`; None = what comes with llmjax.
    """
    found = shipped() if table is None else table
    kind = _KINDS.get(phase, phase)
    if kind in found.get(chip, {}):
        own = found[chip][kind]
        return Expected(own["error"], int(own["rows"]), chip)
    sort = chip.partition(":")[0]
    others = [kinds[kind] for name, kinds in found.items() if name.partition(":")[0] == sort and kind in kinds]
    if not others:
        return None
    return Expected(statistics.median(o["error"] for o in others), sum(int(o["rows"]) for o in others), sort)


@cache
def shipped() -> Table:
    """The table that comes with llmjax."""
    return json.loads(FILE.read_text("utf-8"))
