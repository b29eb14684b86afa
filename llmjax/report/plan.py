"""The page of a plan: meshes or batches side by side, what they need and send, and how a step scales. No JAX import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmjax.report.page import Cell, Column, Page, Plot, Section, Series, Table
from llmjax.report.units import quantity
from llmjax.report.units import seconds as duration


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What every row of a plan has.

    room, memory: bytes that a device has, and that it needs. sends: seconds of collectives by axis, hidden or not.
    error: why there is nothing else.
    """

    pod: str
    room: float
    memory: float = 0.0
    sends: Mapping[str, float] = field(default_factory=dict)
    cost: float | None = None
    error: str = ""

    @property
    def fits(self) -> bool:
        """Whether it was compiled, and needs no more memory than a device has."""
        return not self.error and self.memory <= self.room

    def document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self) | {"fits": self.fits}


@dataclass(frozen=True, kw_only=True)
class Trained(_Row):
    """A training step on a mesh; `days` and `cost` are of a whole run."""

    devices: int
    spread: str
    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0
    tokens_per_second: float = 0.0
    mfu: float = 0.0
    days: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Served(_Row):
    """Requests that a pod serves by groups of `share` devices with a model each, `batch` rows at a time.

    first: seconds to read a prompt. token: seconds of a step. requests: a second, of the whole pod. devices_needed: for
    the load that was asked for. cost: of a million new tokens.
    """

    share: int
    batch: int
    first: float = 0.0
    token: float = 0.0
    token_low: float = 0.0
    token_high: float = 0.0
    requests: float = 0.0
    devices_needed: int | None = None


def plan_page(
    about: str,
    tokens: float,
    rows: Sequence[Trained] | Sequence[Served],
    curves: Mapping[str, Sequence[Any]],
    requests: float = 0.0,
) -> Page:
    """The page of a training plan of so many `tokens` in all, or of a serving plan for so many `requests` a second."""
    trained = [row for row in rows if isinstance(row, Trained)]
    served = [row for row in rows if isinstance(row, Served)]
    sections = [_meshes(trained, tokens)] if trained else [_batches(served, requests)]
    if any(curves.values()):
        sections.append(_scaling(curves))
    return Page("a pod from here", about, tuple(sections))


def _meshes(rows: Sequence[Trained], tokens: float) -> Section:
    columns = (
        Column("pod"), Column("mesh"), Column("fits"), Column("memory", "B", "compiler"),
        Column("step", "s", "modelled"), Column("from", "s", "modelled"), Column("to", "s", "modelled"),
        Column("tokens/s", "tokens/s", "modelled"), Column("MFU", "%", "modelled"), Column("sends", "%", "modelled"),
        Column("most along"), Column("days", "days", "modelled"), Column("cost", "", "modelled"),
    )  # fmt: skip
    ordered = sorted(rows, key=lambda row: (not row.fits, row.seconds or float("inf")))
    made = tuple(_mesh(row) for row in ordered if not row.error)
    good = [row for row in ordered if row.fits]
    findings = []
    if good:
        best = good[0]
        findings.append(
            f"Fastest: {best.pod}, {best.spread}: a step in {duration(best.seconds)} ({duration(best.low)} to"
            f" {duration(best.high)}), {quantity(best.tokens_per_second)} tokens/s, {100 * best.mfu:.0f}% of the peak;"
            f" {quantity(tokens)} tokens take {best.days:.2f} days."
        )
        priced = [row for row in good if row.cost is not None]
        if priced:
            cheap = min(priced, key=lambda row: row.cost or 0.0)
            findings.append(f"Cheapest: {cheap.pod}, {cheap.spread}: {cheap.cost:,.0f} for {quantity(tokens)} tokens.")
    else:
        findings.append("No mesh fits.")
    findings += _errors(rows)
    findings += [_too_much(row.pod, row.spread, row) for row in rows if not row.fits and not row.error]
    notes = (
        "Predicted from programs compiled for the pod with few layers; memory is what the compiler reserves.",
        "Sends: seconds of collectives over those of the step, also where they hide behind computation.",
    )
    names = [f"{row.pod} {row.spread}" for row in ordered if not row.error]
    known = [row for row in ordered if not row.error]
    plots = (
        Plot("a step", "bars", Column("mesh"), Column("seconds", "s", "modelled"),
             (Series("step", "modelled", tuple(names), tuple(r.seconds for r in known),
                     tuple(r.low for r in known), tuple(r.high for r in known)),)),
        Plot("memory of a device", "bars", Column("mesh"), Column("bytes", "B", "compiler"),
             (Series("needed", "compiler", tuple(names), tuple(r.memory for r in known)),
              Series("there", "datasheet", tuple(names), tuple(r.room for r in known)))),
    )  # fmt: skip
    return Section(
        "meshes", "Meshes", tuple(findings), (Table("meshes", columns, made),), plots if known else (), notes
    )


def _mesh(row: Trained) -> tuple[Cell | float | str | None, ...]:
    sends = sum(row.sends.values())
    most = max(row.sends, key=lambda axis: row.sends[axis], default="–")
    fits = "yes" if row.fits else "no"
    return (
        row.pod, row.spread, fits, row.memory, row.seconds, row.low, row.high, row.tokens_per_second, row.mfu,
        sends / row.seconds, most, row.days, row.cost,
    )  # fmt: skip


def _batches(rows: Sequence[Served], requests: float) -> Section:
    columns = (
        Column("pod"), Column("share a model", "", "counted"), Column("batch", "", "counted"), Column("fits"),
        Column("memory", "B", "compiler"), Column("first token", "s", "modelled"), Column("a token", "s", "modelled"),
        Column("tokens/s a request", "tokens/s", "modelled"), Column("requests/s", "requests/s", "modelled"),
        Column("sends", "%", "modelled"), Column("devices needed", "", "modelled"),
        Column("cost of 1M tokens", "", "modelled"),
    )  # fmt: skip
    made = tuple(_batch(row) for row in rows if not row.error)
    good = [row for row in rows if row.fits]
    findings = []
    if good:
        most = max(good, key=lambda row: row.requests)
        quick = min(good, key=lambda row: row.token)
        findings.append(
            f"Most requests: {most.pod}, {most.share} devices a model, batches of {most.batch}: {most.requests:,.2f} a"
            f" second."
        )
        findings.append(
            f"Quickest token: {quick.pod}, {quick.share} devices a model, batches of {quick.batch}:"
            f" {duration(quick.token)} ({duration(quick.token_low)} to {duration(quick.token_high)})."
        )
        needed = [row for row in good if row.devices_needed]
        if needed:
            least = min(needed, key=lambda row: row.devices_needed or 0)
            findings.append(
                f"{requests:g} requests a second need {least.devices_needed} devices of {least.pod}, {least.share} a"
                f" model, batches of {least.batch}."
            )
    else:
        findings.append("Nothing fits.")
    findings += _errors(rows)
    notes = (
        "A batch's prompts are read one after another, then its tokens are made together; nothing comes in between.",
        "Predicted from programs compiled for the chips with two numbers of layers.",
    )
    series = tuple(
        Series(f"{pod}, {share} a model", "modelled", tuple(r.batch for r in same), tuple(r.token for r in same))
        for (pod, share), same in _grouped(good).items()
    )
    axes = (Column("rows", "", "counted"), Column("seconds a token", "s", "modelled"))
    plots = (Plot("time of a token by batch", "lines", *axes, series, log_x=True, log_y=True),) if series else ()
    return Section("batches", "Batches", tuple(findings), (Table("batches", columns, made),), plots, notes)


def _grouped(rows: Sequence[Served]) -> dict[tuple[str, int], list[Served]]:
    found: dict[tuple[str, int], list[Served]] = {}
    for row in rows:
        found.setdefault((row.pod, row.share), []).append(row)
    return found


def _batch(row: Served) -> tuple[Cell | float | str | None, ...]:
    return (
        row.pod, row.share, row.batch, "yes" if row.fits else "no", row.memory, row.first, row.token, 1 / row.token,
        row.requests, sum(row.sends.values()) / row.token, row.devices_needed, row.cost,
    )  # fmt: skip


def _errors(rows: Sequence[Trained] | Sequence[Served]) -> list[str]:
    """What could not be compiled and why, each reason once."""
    reasons: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.error:
            reasons[row.pod, row.error] = reasons.get((row.pod, row.error), 0) + 1
    return [f"{pod}: {count} not compiled: {error}" for (pod, error), count in reasons.items()]


def _too_much(pod: str, spread: str, row: Trained) -> str:
    return f"{pod}, {spread}: needs {quantity(row.memory - row.room, 'B')} more than a device has."


def _scaling(curves: Mapping[str, Sequence[Any]]) -> Section:
    columns = (
        Column("pod"), Column("devices", "", "counted"), Column("best mesh"), Column("step", "s", "estimate"),
        Column("tokens/s", "tokens/s", "estimate"), Column("limit"),
    )  # fmt: skip
    rows = tuple(
        (pod, point.devices, point.spread, point.seconds, point.tokens_per_second, point.limit)
        for pod, curve in curves.items()
        for point in curve
    )
    series = tuple(
        Series(pod, "estimate", tuple(p.devices for p in curve), tuple(p.tokens_per_second for p in curve))
        for pod, curve in curves.items()
    )
    axes = (Column("devices", "", "counted"), Column("tokens/s", "tokens/s", "estimate"))
    plot = Plot("tokens a second by devices", "lines", *axes, series, log_x=True, log_y=True)
    notes = (
        "Estimated from sizes and the card, scaled to the best compiled mesh of the pod; the limit is what most of the"
        " step goes to, or memory where no mesh fits.",
    )
    return Section(
        "scaling", "The same step on other numbers of devices", (), (Table("devices", columns, rows),), (plot,), notes
    )
