"""How far predictions are from what was published: medians, bias, ranks, worst ones. No JAX import."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llmjax.cycles.device import Device
from llmjax.cycles.published.table import TIERS, Row

# What a row has in common with the measurements that the card of its chip was fitted to.
NEW = "new"  # neither its source nor its kernel
SOURCE = "source"  # its source gave kernels to the fit; whole programs of it were not seen
FITTED = "fitted"  # a kernel of the very source that the terms were fitted to
_PROJECTS = ("aiconfigurator", "neusight", "accelerator-microbenchmarks", "tpu-recipes", "jax-llm-examples")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row that was predicted: seconds by the model and as published, what the fit had seen, what is assumed."""

    row: Row
    chip: str
    phase: str
    predicted: float
    published: float
    seen: str
    told: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Predicted over published."""
        return self.predicted / self.published


@dataclass(frozen=True, slots=True)
class Score:
    """Of some rows: the median of |predicted / published - 1|, counted alike both ways, the median bias, the rank.

    `error` is exp(median |ln ratio|) - 1, `bias` exp(median ln ratio) - 1, `rank` Spearman's, None for
    fewer than three different times.
    """

    rows: int
    error: float
    bias: float
    rank: float | None


def score(outcomes: Sequence[Outcome]) -> Score | None:
    """The score of some rows, None of none."""
    if not outcomes:
        return None
    logs = [math.log(outcome.ratio) for outcome in outcomes]
    error = math.expm1(statistics.median(abs(log) for log in logs))
    return Score(len(logs), error, math.expm1(statistics.median(logs)), rank(outcomes))


def rank(outcomes: Sequence[Outcome]) -> float | None:
    """Spearman's rank correlation of predicted and published times."""
    from scipy.stats import spearmanr

    ours, theirs = [o.predicted for o in outcomes], [o.published for o in outcomes]
    if min(len(set(ours)), len(set(theirs))) < 3:
        return None
    return float(spearmanr(ours, theirs)[0])  # pyright: ignore[reportArgumentType]


def grouped(outcomes: Iterable[Outcome], key: Callable[[Outcome], str]) -> dict[str, Score]:
    """Scores by what `key` gives, in its order."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(key(outcome), []).append(outcome)
    scores = {name: score(found[name]) for name in sorted(found)}
    return {name: each for name, each in scores.items() if each is not None}


def by_tier(outcomes: Iterable[Outcome]) -> dict[str, Score]:
    """Scores by tier in words, and by what the fit had seen of it."""

    def name(outcome: Outcome) -> str:
        words = f"{outcome.row.tier}: {TIERS[outcome.row.tier]}"
        return words if outcome.seen == NEW else f"{words}, of a source that gave kernels to the fit"

    return grouped(outcomes, name)


def counted(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that count as a test: all but kernels of the source that the card was fitted to."""
    return [outcome for outcome in outcomes if outcome.seen != FITTED]


def worst(outcomes: Iterable[Outcome], most: int = 10) -> list[Outcome]:
    """The rows furthest off, by their ratio."""
    return sorted(outcomes, key=lambda outcome: -abs(math.log(outcome.ratio)))[:most]


def inversions(outcomes: Sequence[Outcome], margin: float = 0.2) -> list[tuple[Outcome, Outcome]]:
    """Pairs of chips that ran the same program, where the published order is clear and the predicted one is the other.

    Clear is a difference above `margin`, of both the published and the predicted times.
    """
    programs: dict[tuple[str, ...], list[Outcome]] = {}
    for o in outcomes:
        row = o.row
        same = (
            row.stack,
            row.model,
            row.phase,
            row.batch,
            row.length,
            row.more,
            row.dtype.split(" ")[0],
            str(row.chips),
        )
        programs.setdefault(same, []).append(o)
    found = []
    for same in programs.values():
        for first in same:
            for other in same:
                quicker = other.published > first.published * (1 + margin)
                if first.chip != other.chip and quicker and first.predicted > other.predicted * (1 + margin):
                    found.append((first, other))
    return found


def seen_by_fit(row: Row, device: Device) -> str:
    """NEW, SOURCE or FITTED: whether a row's source is one that the card's terms name."""
    sources = " ".join(figure.source for figure in device.terms.values()).lower()
    theirs = f"{row.source} {row.stack}".lower()
    common = any(name in theirs and name in sources for name in _PROJECTS)
    return (FITTED if row.tier == "K" else SOURCE) if common else NEW


def expected(outcomes: Iterable[Outcome]) -> dict[str, dict[str, dict[str, float]]]:
    """Median |error| of whole programs by chip and kind ("train", "decode", ...), and of how many rows, from two on.

    TensorFlow's rows are left out: their times hold what its session took. So are eager PyTorch's, where there are two
    others: it starts every operation from the host.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    whole = [o for o in counted(outcomes) if o.row.tier != "K" and "TensorFlow" not in o.row.stack]
    kinds = Counter((o.chip, o.phase) for o in whole if o.row.tier != "D")
    whole = [o for o in whole if o.row.tier != "D" or kinds[o.chip, o.phase] < 2]
    for name, each in grouped(whole, lambda o: f"{o.chip} {o.phase}").items():
        if each.rows > 1:
            chip, _, phase = name.partition(" ")
            found.setdefault(chip, {})[phase] = {"error": round(each.error, 3), "rows": each.rows}
    return found


def reason(outcome: Outcome) -> str:
    """Why a prediction may be off, in words that follow from the row."""
    row, faster = outcome.row, outcome.ratio < 1
    if "TensorFlow" in row.stack:
        return "XLA of about 2021; the session's overhead is hidden" if faster else "XLA of about 2021"
    if outcome.phase in ("decode", "prefill", "generate") and row.tier == "B":
        return "llmjax's own program: a residual stream in float32, collectives that nothing hides"
    if row.tier == "D" and faster:
        return "eager PyTorch starts every operation from the host"
    if re.search("mpt|llm-foundry", row.stack, re.IGNORECASE):
        return "PyTorch's FSDP; blocks are GPT-2's"
    if row.chips > 1:
        return "how much of the collectives is hidden is a guess"
    if row.tier == "C" and not faster:
        return "kernels fused by hand there, what XLA makes here"
    return "the compiler there is another" if row.tier in ("C", "D") else "not known"
