"""A card of a chip out of published kernel times: which tables give which terms, and how far off they are held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmjax.cycles import terms as known
from llmjax.cycles.cards import tables
from llmjax.cycles.cards.fit import (
    Check,
    Kind,
    by_source,
    carried,
    check,
    collective_kind,
    decode_kind,
    fit,
    on_bus,
    products_kind,
    prompt_kind,
    stream_kind,
)
from llmjax.cycles.device import Device, Figure, load_device

COLLECTIVE = "collective"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What one kind of kernel of a chip gave: its terms, and errors on what the fit did not see.

    `by_shape` is against sizes that were held out (of products the median of those who measured a shape), `by_source`
    besides against a framework that was left out of the fit, `by_chip` by the median terms of chips like it.
    """

    chip: str
    kind: str
    source: str
    terms: Mapping[str, float]
    by_shape: Check
    by_source: Check | None
    by_chip: Check | None = None


def chips(neusight: bool) -> tuple[str, ...]:
    """Cards that can be fitted."""
    return tuple(dict.fromkeys((*tables.CHIPS, *(card for card, _ in tables.NEUSIGHT.values() if neusight))))


def fit_chips(names: tuple[str, ...], folder: Path | None, neusight: Path | None, say: Say) -> list[Result]:
    """Fits each kind of kernel of each chip that is measured.

    Args:
        folder: of aiconfigurator's tables; None = without them.
        neusight: of NeuSight's; None = without them.
    """
    found: list[tuple[Kind, Device, Result]] = []
    for chip in names:
        device = replace(load_device(chip), terms={}, fit={})
        given = known.values(device)
        for label, source, machine, kind, truth in _kinds(chip, device, folder, neusight):
            say(f"{chip}: {label}")
            terms = fit(kind, machine, given)
            given = {**given, **terms}
            error = by_source(kind, machine, given) if source == tables.SOURCE else None
            found.append((truth, machine, Result(chip, label, source, terms, check(truth, given), error)))
    return [_left_out(truth, machine, result, [r for _, _, r in found]) for truth, machine, result in found]


def _left_out(truth: Kind, machine: Device, result: Result, results: list[Result]) -> Result:
    """The result with its error by the terms of chips like it of which the same was measured."""
    others = [r for r in results if r.kind == result.kind and r.chip != result.chip and _alike(r, machine)]
    if not others:
        return result
    terms = {**known.values(machine), **carried(tuple(result.terms), [r.terms for r in others])}
    return replace(result, by_chip=check(truth, terms))


def _alike(result: Result, device: Device) -> bool:
    """Whether a result's chip says something of the device: of its links if both have a switch or both a bus, of its
    kernels if both have HBM or neither. NeuSight measured too few chips to part them."""
    other = load_device(result.chip)
    if result.kind == COLLECTIVE:
        return on_bus(other) == on_bus(device)
    same_memory = (other.main_memory.name == "HBM") == (device.main_memory.name == "HBM")
    return same_memory or result.source == tables.NEUSIGHT_SOURCE


def _kinds(
    chip: str, device: Device, folder: Path | None, neusight: Path | None
) -> Iterator[tuple[str, str, Device, Kind, Kind]]:
    """Label, source, the device that was measured, what is fitted, and what its held-out error is taken of."""
    if folder is not None and chip in tables.CHIPS:
        measured = tables.products(folder, chip)
        truth = products_kind(tables.typical(measured), device, "bf16")
        yield "product", tables.SOURCE, device, products_kind(measured, device, "bf16"), truth
        rows = tables.attentions(folder, chip)
        for label, make in (("prompt attention", prompt_kind), ("decode attention", decode_kind)):
            kind = make(rows, device)
            yield label, tables.SOURCE, device, kind, kind
        kind = collective_kind({name: tables.collectives(folder, chip, name) for name in known.COLLECTIVES}, device)
        yield COLLECTIVE, tables.SOURCE, device, kind, kind
        streams = tables.scalings(folder, chip, device.memory[0].capacity.value)
        if len(streams.seconds):
            kind = stream_kind(streams, device, ("stream.start", "stream.bandwidth"))
            yield "scaling to 8 bits", tables.SOURCE, device, kind, kind
    if neusight is not None:
        yield from _neusight(chip, device, neusight)


def _neusight(chip: str, device: Device, folder: Path) -> Iterator[tuple[str, str, Device, Kind, Kind]]:
    theirs = {card: (name, bandwidth) for name, (card, bandwidth) in tables.NEUSIGHT.items()}
    if chip not in theirs:
        return
    name, bandwidth = theirs[chip]
    main = device.main_memory
    main = replace(main, bandwidth=replace(main.bandwidth, value=bandwidth))
    machine = replace(device, memory=(*device.memory[:-1], main))
    products, elementwise, rowwise = tables.neusight(folder, name)
    for label, theirs_is, names in (
        ("product f32 in full", "linear", ("timed.start", "simt.share", "simt.step", "simt.bandwidth")),
        ("the same, batched", "bmm", ("timed.start",)),
    ):
        rows = tables.Products(*(column[products.source == theirs_is] for column in products))
        if len(rows.seconds):
            kind = products_kind(rows, machine, "f32", names)
            yield label, tables.NEUSIGHT_SOURCE, machine, kind, kind
    for label, rows, share in (("elementwise", elementwise, "stream"), ("softmax and norms", rowwise, "reduce")):
        if len(rows.seconds):
            kind = stream_kind(rows, machine, ("timed.start", f"{share}.bandwidth"))
            yield label, tables.NEUSIGHT_SOURCE, machine, kind, kind


def card(chip: str, results: list[Result]) -> Device:
    """The chip's card with all terms: fitted ones, those it had, the median of chips alike, what most chips have.

    A term that its fit drove to the end of its range is not taken: something else was measured.
    """
    device = load_device(chip)
    terms: dict[str, Figure] = {}
    for name, term in known.TERMS[device.kind].items():
        own = [(r.terms[name], r.source) for r in results if r.chip == chip and term.holds(r.terms.get(name))]
        had = device.terms.get(name)
        others = {
            r.chip: r.terms[name]
            for r in results
            if r.chip != chip and term.holds(r.terms.get(name)) and _alike(r, device)
        }
        if own:
            terms[name] = _figure(own[-1][0], "published", own[-1][1])
        elif had and had.provenance != "estimate" and term.holds(had.value):
            terms[name] = had
        elif others:
            source = f"not measured here: the median of {len(others)} like it that were"
            terms[name] = _figure(float(np.median(list(others.values()))), "estimate", source)
        else:
            terms[name] = had or Figure(term.typical, "estimate", known.TYPICAL)
    checked = {r.kind: round(r.by_shape.error, 4) for r in results if r.chip == chip}
    return replace(device, terms=dict(sorted(terms.items())), checked={**device.checked, **checked})


def _figure(value: float, provenance: str, source: str) -> Figure:
    return Figure(float(f"{value:.4g}"), provenance, source)
