"""The page of a board: strategies side by side, by what they cost and what they keep. No JAX import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmjax.report.page import Column, Page, Plot, Section, Series, Table
from llmjax.report.units import quantity

ACCURACY, PERPLEXITY = "accuracy", "perplexity"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy.

    quality: accuracy, or perplexity; low, high: its interval. parameters: of the model. weights: bytes of what
    inference reads them as. trained: parameters that were trained; train_seconds: how long. flops, bytes: of one
    execution. seconds: of it here; predicted: of it by target. ranks: that AdaLoRA chose, by weight.
    """

    strategy: str
    quality: float
    low: float
    high: float
    parameters: int
    weights: int
    flops: float
    bytes: float
    seconds: float
    trained: int = 0
    train_seconds: float = 0.0
    predicted: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def board_page(about: str, measure: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> Page:
    """The page of rows whose quality is `measure`: accuracy, or perplexity."""
    front = pareto(rows, measure)
    findings = [why(row, rows[0], measure) for row in rows[1:]]
    best = best_of(rows, measure)
    findings.insert(0, f"Best by {measure}: {best.strategy}, {shown(best, measure)}.")
    cheap = [row.strategy for row in front]
    findings.insert(1, f"Nothing is both better and faster here than {', '.join(cheap)}.")
    targets = list(rows[0].predicted) if rows else []
    columns = (
        Column("strategy"),
        Column(measure, "%" if measure == ACCURACY else "", "measured"),
        Column("from", "%" if measure == ACCURACY else "", "measured"),
        Column("to", "%" if measure == ACCURACY else "", "measured"),
        Column("time here", "s", "measured"),
        *(Column(target, "s", "modelled") for target in targets),
        Column("FLOPs", "FLOP", "counted"),
        Column("bytes moved", "B", "counted"),
        Column("weights", "B", "counted"),
        Column("trained", "", "counted"),
        Column("training", "s", "measured"),
    )
    cells = tuple(
        (
            row.strategy, row.quality, row.low, row.high, row.seconds, *(row.predicted.get(name) for name in targets),
            row.flops, row.bytes, float(row.weights), float(row.trained) or None, row.train_seconds or None,
        )
        for row in rows
    )  # fmt: skip
    table = Table("Every strategy", columns, cells, "times, FLOPs and bytes are those of one execution")
    return Page("the board", about, (Section("board", "What each strategy buys", tuple(findings), (table,),
                                             tuple(_plots(rows, front, measure, targets)), tuple(notes)),))  # fmt: skip


def better(a: Row, b: Row, measure: str) -> bool:
    """Whether a row's quality is above another's."""
    return a.quality > b.quality if measure == ACCURACY else a.quality < b.quality


def best_of(rows: Sequence[Row], measure: str) -> Row:
    """Returns the row of the best quality."""
    return max(rows, key=lambda row: row.quality if measure == ACCURACY else -row.quality)


def pareto(rows: Sequence[Row], measure: str) -> list[Row]:
    """Returns the rows than which no other is both better and faster here, the fastest first."""
    kept = [
        row
        for row in rows
        if not any(
            other is not row
            and other.seconds <= row.seconds
            and not better(row, other, measure)
            and (other.seconds < row.seconds or better(other, row, measure))
            for other in rows
        )
    ]
    return sorted(kept, key=lambda row: row.seconds)


def shown(row: Row, measure: str) -> str:
    """Returns a row's quality in words."""
    return f"{row.quality:.4f}" if measure == ACCURACY else f"{row.quality:,.2f}"


def why(row: Row, base: Row, measure: str) -> str:
    """Returns the sentence that says what a row changes against the first one, and why."""
    flops, moved, time = row.flops / base.flops, row.bytes / base.bytes, row.seconds / base.seconds
    parts = [f"{1 - ratio:.0%} fewer {what}" for ratio, what in ((flops, "FLOPs"), (moved, "bytes")) if ratio < 0.98]
    more = [f"{ratio - 1:.0%} more {what}" for ratio, what in ((flops, "FLOPs"), (moved, "bytes")) if ratio > 1.02]
    if not parts and not more:
        reason = "as many FLOPs and bytes: nothing is saved when it runs"
    else:
        reason = " and ".join([*parts, *more])
    trained = f"; {quantity(row.trained)} parameters trained" if row.trained else ""
    kept = f"{measure} {shown(row, measure)}, {time:.2f} of the time of {base.strategy}"
    return f"{row.strategy}: {kept}: {reason}{trained}."


def _plots(rows: Sequence[Row], front: Sequence[Row], measure: str, targets: Sequence[str]) -> list[Plot]:
    unit = "%" if measure == ACCURACY else ""
    quality = Column(measure, unit)
    apart = tuple(
        Series(row.strategy, "measured", (row.seconds,), (row.quality,), (row.low,), (row.high,)) for row in rows
    )
    line = Series(
        "none is better and faster", "measured", tuple(r.seconds for r in front), tuple(r.quality for r in front)
    )
    plots = [
        Plot(f"{measure} against time here", "points", Column("time here", "s"), quality, (*apart, line), log_x=True)
    ]
    for name in targets:
        found = [row for row in rows if row.predicted.get(name)]
        series = tuple(Series(row.strategy, "modelled", (row.predicted[name],), (row.quality,)) for row in found)
        if series:
            axis = Column(f"time on {name}", "s")
            plots.append(
                Plot(f"{measure} against predicted time on {name}", "points", axis, quality, series, log_x=True)
            )
    taught = [row for row in rows if row.train_seconds]
    if taught:
        names = tuple(row.strategy for row in taught)
        series = (Series("training", "measured", names, tuple(row.train_seconds for row in taught)),)
        plots.append(Plot("What it costs to get there", "bars", Column("strategy"), Column("training", "s"), series))
    for row in rows:
        if row.ranks:
            series = (Series(row.strategy, "counted", tuple(row.ranks), tuple(map(float, row.ranks.values()))),)
            plots.append(Plot(f"The ranks that {row.strategy} chose", "bars", Column("weight"), Column("rank"), series))
    return plots
