"""How far off whole programs of a chip are expected to be: what configs/published.py found, kept as a small table.

`expected.json` holds medians of |error| by chip and kind of program, nothing of the rows they were found on. No JAX
import.
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


class Expected(NamedTuple):
    """A median |error| as a share; `of` names the chip it was found on, or "gpu" or "tpu": others of that sort."""

    error: float
    of: str


def expected_error(chip: str, phase: str, table: Mapping[str, Mapping[str, float]] | None = None) -> Expected | None:
    """The expected error of a phase's program on a chip; where that was not found the median of the chips alike.

    Args:
        table: by chip and kind; None = what comes with llmjax.
    """
    found = shipped() if table is None else table
    kind = _KINDS.get(phase, phase)
    if kind in found.get(chip, {}):
        return Expected(found[chip][kind], chip)
    sort = chip.partition(":")[0]
    others = [errors[kind] for name, errors in found.items() if name.partition(":")[0] == sort and kind in errors]
    return Expected(statistics.median(others), sort) if others else None


@cache
def shipped() -> Mapping[str, Mapping[str, float]]:
    """The table that comes with llmjax."""
    return json.loads(FILE.read_text("utf-8"))
