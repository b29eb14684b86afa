"""Terms of a GPU's physics fitted to published kernel times, each within its physical range, and held-out errors.

A third of the widths is left out of every fit, so that the terms of a card have not seen them; the error by source
comes from further fits that leave one framework's measurements out as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from llmjax.cycles import terms as known
from llmjax.cycles.cards.tables import Attentions, Collectives, Products, Streams
from llmjax.cycles.contracted import ROWS
from llmjax.cycles.device import Device
from llmjax.cycles.gpu import kind_of, unit
from llmjax.cycles.kernels import collective, decode, product, prompt

Array = np.ndarray
Terms = Mapping[str, float]
Predict = Callable[[Terms], Array]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of kernel as a fit sees it: the terms it has, seconds measured, seconds by terms, who measured, what is
    held out."""

    names: tuple[str, ...]
    seconds: Array
    predict: Callable[[Terms, Array], Array]
    source: Array
    held: Array


@dataclass(frozen=True, slots=True)
class Check:
    """A held-out error: the median of |log(predicted / measured)| as a share, its bias, and over how many kernels."""

    error: float
    bias: float
    kernels: int


def products_kind(rows: Products, device: Device, dtype: str, names: Sequence[str] = ()) -> Kind:
    """Matrix products; every third width is held out. `names` are the terms to fit, if not all that they have."""
    kind = kind_of(device, dtype)
    names = tuple(names) or ("product.start", "product.share", "product.step", "product.split", "product.bandwidth")

    def predict(terms: Terms, chosen: Array) -> Array:
        machine = unit(device, dtype, terms[f"{kind}.bandwidth"])
        m, n, k, batch = (column[chosen] for column in rows[:4])
        memory = batch * (m * k + k * n + m * n) * machine.width / machine.bandwidth
        found = product((m, n, k, batch), memory, machine, terms, kind).total
        return found + terms.get("timed.start", 0.0)

    return Kind(names, rows.seconds, predict, rows.source, _every_third(rows.n))


def prompt_kind(rows: Attentions, device: Device) -> Kind:
    """Fused attention over prompts; every third length is held out."""
    rows = Attentions(*(column[rows.queries > 1] for column in rows))
    scores = rows.batch * rows.heads * rows.queries * rows.keys / 2
    work = (
        4 * scores * rows.width,
        scores,
        rows.batch * rows.heads * np.ceil(rows.queries / ROWS),
        np.full_like(scores, 2),
    )
    moved = 4 * rows.batch * rows.width * rows.queries * (rows.heads + rows.groups)

    def predict(terms: Terms, chosen: Array) -> Array:
        machine = unit(device, "bf16", terms["prompt.bandwidth"])
        parts = tuple(column[chosen] for column in work)
        functions = device.transcendental.value
        return prompt(parts, moved[chosen] / machine.bandwidth, machine, functions, terms).total  # pyright: ignore[reportArgumentType]

    names = tuple(f"prompt.{what}" for what in ("start", "share", "softmax", "block", "bandwidth"))
    return Kind(names, rows.seconds, predict, rows.source, _every_third(rows.keys))


def decode_kind(rows: Attentions, device: Device) -> Kind:
    """Fused attention of one query a row; every third length of the cache is held out."""
    rows = Attentions(*(column[rows.queries == 1] for column in rows))
    moved = 4 * rows.batch * rows.width * rows.keys * rows.groups

    def predict(terms: Terms, chosen: Array) -> Array:
        machine = unit(device, "bf16", terms["decode.bandwidth"])
        return decode((rows.batch * rows.groups)[chosen], moved[chosen] / machine.bandwidth, machine, terms).total

    return Kind(
        ("decode.start", "decode.block", "decode.bandwidth"),
        rows.seconds,
        predict,
        rows.source,
        _every_third(rows.keys),
    )


PASSES = {"all-reduce": 2.0}  # of the ring over the data (cost/collectives.py)


def collective_kind(rows: Mapping[str, Collectives], device: Device) -> Kind:
    """All collectives of a chip, which share the ramp and the contention; every third message size is held out."""
    names = [f"{name}.{what}" for name in rows for what in ("start", "hop", "bandwidth")]
    names += ["collective.ramp"]
    if on_bus(device):
        names += ["collective.contention"]
    which = np.concatenate([np.full(len(each.seconds), name, dtype=object) for name, each in rows.items()])
    joined = Collectives(*(np.concatenate(columns) for columns in zip(*rows.values(), strict=True)))
    passes = np.array([PASSES.get(name, 1.0) for name in which])
    wire = passes * joined.bytes * (joined.group - 1) / joined.group
    link = device.link.value if device.link else 1.0

    def predict(terms: Terms, chosen: Array) -> Array:
        found = np.zeros(len(chosen))
        for name in rows:
            mine = which[chosen] == name
            picked = chosen[mine]
            found[mine] = collective(name, joined.group[picked], wire[picked], link, terms)[0]
        return found

    return Kind(tuple(names), joined.seconds, predict, joined.source, _every_third(joined.bytes))


def on_bus(device: Device) -> bool:
    """Whether a device's link to others is the bus of its host, which they share."""
    return device.link is not None and "PCIe" in device.link.source


def stream_kind(rows: Streams, device: Device, names: tuple[str, str]) -> Kind:
    """Kernels that are bound by bandwidth; `names` are those of a fixed time and of a share of bandwidth."""

    def predict(terms: Terms, chosen: Array) -> Array:
        share = terms[names[1]] * device.main_memory.bandwidth.value
        return terms.get("timed.start", 0.0) + terms["stream.start"] + rows.bytes[chosen] / share

    return Kind(names, rows.seconds, predict, rows.name, _every_third(rows.bytes))


def _every_third(values: Array) -> Array:
    """Whether each value is among every third of the different ones."""
    held = np.unique(values)[1::3]
    return np.isin(values, held)


# What is fitted but belongs to a measurement, not to a chip: the time of one kernel that the host launches and times by
# itself, on top of its own start.
MEASURED = {"timed.start": known.Term("s", 1e-7, 1e-4, 5e-6, "launching one kernel and timing it from the host")}
PULL = 0.01  # of a term towards where it started: decides of those that the measurements say nothing of
MOST = 3000  # kernels that a fit looks at, spread over all


def fit(kind: Kind, device: Device, given: Terms, without: str = "") -> dict[str, float]:
    """Terms that bring predicted times nearest to measured ones by their ratio, each within its range.

    Args:
        given: of terms that the kind does not fit; the start of those that it does.
        without: a source that is left out.
    """
    chosen = _spread(np.flatnonzero(~kind.held & (kind.source != without)), MOST)
    ranges = [{**known.TERMS[device.kind], **MEASURED}[name] for name in kind.names]
    low = np.array([_scale(term.low, term) for term in ranges])
    high = np.array([_scale(term.high, term) for term in ranges])
    pairs = list(zip(kind.names, ranges, strict=True))
    first = np.array([_scale(given.get(name, term.typical), term) for name, term in pairs])
    measured = np.log(kind.seconds[chosen])

    def terms(at: Array) -> dict[str, float]:
        return {**given, **{n: _unscale(x, t) for (n, t), x in zip(pairs, at, strict=True)}}

    def residuals(at: Array) -> Array:
        errors = np.log(kind.predict(terms(at), chosen)) - measured
        return np.concatenate([errors, PULL * np.sqrt(len(errors)) * (at - first)])

    inside = np.clip(first, low + 0.02 * (high - low), high - 0.02 * (high - low))
    found = least_squares(residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=0.05, diff_step=1e-2)
    return {name: terms(found.x)[name] for name in kind.names}


def _scale(value: float, term: known.Term) -> float:
    """Times lie on a logarithmic axis, where they may not be 0; shares and exponents on their own."""
    return float(np.log(value)) if term.low > 0 and term.unit in ("s", "cycles") else value / term.high


def _unscale(at: float, term: known.Term) -> float:
    return float(np.exp(at)) if term.low > 0 and term.unit in ("s", "cycles") else float(at * term.high)


def check(kind: Kind, terms: Terms, source: str = "") -> Check:
    """The error of terms on what is held out, of one source where it is named."""
    chosen = _spread(np.flatnonzero(kind.held & ((kind.source == source) if source else True)), 4 * MOST)
    errors = np.log(kind.predict(terms, chosen) / kind.seconds[chosen])
    return Check(float(np.exp(np.median(np.abs(errors))) - 1), float(np.exp(np.median(errors)) - 1), len(chosen))


def by_source(kind: Kind, device: Device, given: Terms) -> Check | None:
    """The median over sources of the held-out error of each, by terms fitted to the others; None where there is one."""
    names = [str(name) for name in np.unique(kind.source)]
    if len(names) < 2:
        return None
    found = [check(kind, {**given, **fit(kind, device, given, name)}, name) for name in names]
    error, bias = (float(np.median([getattr(c, what) for c in found])) for what in ("error", "bias"))
    return Check(error, bias, sum(c.kernels for c in found))


def carried(names: Sequence[str], others: Sequence[Terms]) -> dict[str, float]:
    """Terms for a chip that no fit has seen: the median of other chips'."""
    return {name: float(np.median([terms[name] for terms in others])) for name in names}


def _spread(indices: Array, most: int) -> Array:
    """At most so many of them, by chance of a fixed seed."""
    if len(indices) <= most:
        return indices
    return np.sort(np.random.default_rng(0).choice(indices, most, replace=False))
