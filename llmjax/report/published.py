"""The page of predicted against published times. Scores come from cycles/published; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmjax.cycles.published import scores
from llmjax.cycles.published.scores import Outcome, Score
from llmjax.cycles.published.table import TIERS
from llmjax.report.page import Column, Page, Plot, Section, Series, Table


def published_page(table: str, outcomes: Sequence[Outcome], left: Mapping[str, str]) -> Page:
    """The page: scores by tier, by chip and phase, by source, the worst ten, every row, and what was left and why."""
    tests = scores.counted(outcomes)
    sections = (_tiers(outcomes), _kinds(tests), _worst(tests), _rows(outcomes), _left(left))
    subtitle = f"{len(outcomes)} of {len(outcomes) + len(left)} rows of {table}"
    return Page("predicted against published times", subtitle, sections)


def _tiers(outcomes: Sequence[Outcome]) -> Section:
    found = scores.by_tier(outcomes)
    series = tuple(
        Series(f"{tier}: {words}", "modelled", *_points([o for o in outcomes if o.row.tier == tier]))
        for tier, words in TIERS.items()
        if any(o.row.tier == tier for o in outcomes)
    )
    plot = Plot(
        "predicted over published", "points",
        Column("published", "s", "published"), Column("predicted", "s", "modelled"), series,
        log_x=True, log_y=True, equal=True,
    )  # fmt: skip
    swapped = scores.inversions(scores.counted(outcomes))
    pairs = "1 pair of chips stands" if len(swapped) == 1 else f"{len(swapped)} pairs of chips stand"
    said = f"{pairs} in another order than published, by more than 20% on both sides"
    named = "; ".join(f"{a.row.id} {a.chip} and {b.row.id} {b.chip}" for a, b in swapped[:5])
    notes = (
        "Error: the median of |ln(predicted / published)| as a share. Bias: of the ratio. Rank: Spearman's.",
        "A kernel of the very source that its card was fitted to is no test, and counts in no other table.",
    )
    finding = f"{said}: {named}." if swapped else f"{said}."
    return Section("tiers", "By tier", (finding,), (_scored("by tier", found, "tier"),), (plot,), notes)


def _points(outcomes: Sequence[Outcome]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(o.published for o in outcomes), tuple(o.predicted for o in outcomes)


def _kinds(tests: Sequence[Outcome]) -> Section:
    tables = (
        _scored("by chip and phase", scores.grouped(tests, lambda o: f"{o.chip} {o.phase}"), "chip, phase"),
        _scored("by source", scores.grouped(tests, lambda o: o.row.stack), "what ran it"),
    )
    return Section("kinds", "By chip, phase and source", (), tables)


def _scored(title: str, found: Mapping[str, Score], head: str) -> Table:
    columns = (Column(head), Column("rows", "", "counted"), Column("error", "%", "modelled"))
    columns += (Column("bias", "%", "modelled"), Column("rank", "", "modelled"))
    rows = tuple((name, s.rows, s.error, s.bias, s.rank) for name, s in found.items())
    return Table(title, columns, rows)


def _worst(tests: Sequence[Outcome]) -> Section:
    rows = tuple((o.row.id, o.chip, o.phase, o.row.model, o.ratio, scores.reason(o)) for o in scores.worst(tests))
    columns = (
        Column("row"),
        Column("chip"),
        Column("phase"),
        Column("model"),
        Column("predicted / published", "x", "modelled"),
    )
    return Section("worst", "Worst ten", (), (Table("worst ten", (*columns, Column("why")), rows),))


def _rows(outcomes: Sequence[Outcome]) -> Section:
    columns = (
        Column("row"), Column("chip"), Column("phase"), Column("model"), Column("what ran it"),
        Column("predicted", "s", "modelled"), Column("published", "s", "published"),
        Column("ratio", "x", "modelled"), Column("taken for granted"),
    )  # fmt: skip
    rows = tuple(
        (
            o.row.id,
            o.chip,
            o.phase,
            o.row.model,
            o.row.stack,
            o.predicted,
            o.published,
            o.ratio,
            "; ".join(o.told) or "–",
        )
        for o in outcomes
    )
    return Section("rows", "Every row", (), (Table("every row", columns, rows),))


def _left(left: Mapping[str, str]) -> Section:
    reasons: dict[str, list[str]] = {}
    for name, why in left.items():
        reasons.setdefault(why, []).append(name)
    ordered = sorted(reasons.items(), key=lambda item: -len(item[1]))
    rows = tuple(
        (why, len(names), ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")) for why, names in ordered
    )
    finding = f"{len(left)} rows were not predicted." if left else "No row was left."
    table = Table("not predicted", (Column("why"), Column("rows", "", "counted"), Column("which")), rows)
    return Section("left", "Not predicted", (finding,), (table,) if rows else ())
