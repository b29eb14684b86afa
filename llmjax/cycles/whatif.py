"""The same program timed again with one thing changed: of the device, or of what its ops do. No JAX import.

Each answer is the model's own, not an estimate on top of it: the features of the ops and the numbers of the device go
through the same forms. On a TPU whose compiler wrote its own cycles, which do not change with the numbers of the
device, both sides are timed by physics alone, and their ratio is applied to the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmjax.cost.values import ModuleCost
from llmjax.cycles.batch import kept_of, twice_the_rows
from llmjax.cycles.device import Device, Figure, peak
from llmjax.cycles.features import Features, features
from llmjax.cycles.model import op_time, timed
from llmjax.cycles.times import ProgramTime

Ops = tuple[Features, ...]
Change = Callable[[Device, Ops], tuple[Device, Ops] | None]
_NOT_FUSED = ("loop", "move")  # kinds of work that a fusion could take along with what stands beside it
_COLLECTIVE = ("all-", "reduce-scatter", "ici.", "collective.", "network.")  # how the names of their terms begin
NARROWER = {"f64": "f32", "f32": "bf16", "tf32": "bf16", "bf16": "s8", "f16": "s8"}
_SIZES = {"f64": 8, "f32": 4, "tf32": 4, "bf16": 2, "f16": 2, "s8": 1}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A run of the model with one thing changed: `name` is its key, `says` the change in words, `seconds` the new time.

    `speedup` is the predicted time over it. `at_most` says that the change leaves out what it would cost. Of twice the
    rows `seconds` is half of what they take.
    """

    name: str
    says: str
    seconds: float
    speedup: float
    at_most: bool = False


def what_ifs(cost: ModuleCost, time: ProgramTime) -> tuple[WhatIf, ...]:
    """Returns every change that applies to a predicted program, the one that gains most first."""
    ops, changes = _physical(features(cost, time.device)), _changes(cost)
    return _answers(time.device, ops, time.overlapped, _of_program(cost), changes)


def op_what_ifs(cost: ModuleCost, time: ProgramTime, names: Collection[str]) -> tuple[WhatIf, ...]:
    """Returns the same of some ops of the program alone, one after another, by their names."""
    ops = tuple(f for f in _physical(features(cost, time.device)) if f.name in names)
    seconds = sum(op.seconds for op in time.ops if op.name in names)
    return _answers(time.device, ops, seconds, _one_by_one, _changes(cost))


def _of_program(cost: ModuleCost) -> Callable[[Device, Ops], float]:
    return lambda device, ops: timed(cost, device, ops).overlapped


def _one_by_one(device: Device, ops: Ops) -> float:
    return sum(op_time(f, device).seconds for f in ops)


def _physical(ops: Ops) -> Ops:
    """The ops without what a compiler expects of them."""
    return tuple(replace(f, estimated=0.0) for f in ops) if any(f.estimated for f in ops) else ops


def _answers(
    device: Device,
    ops: Ops,
    predicted: float,
    time_of: Callable[[Device, Ops], float],
    changes: Mapping[str, Change],
) -> tuple[WhatIf, ...]:
    physics = time_of(device, ops)
    scale = predicted / physics if physics else 1.0
    found = []
    for name, change in changes.items():
        changed = change(device, ops)
        if changed is None or not predicted:
            continue
        seconds = time_of(*changed) * scale / (2 if name == "batch" else 1)
        speedup = predicted / seconds if seconds else math.inf
        found.append(WhatIf(name, _words(name, device, ops), seconds, speedup, name in _AT_MOST))
    kept = [answer for answer in found if math.isfinite(answer.speedup)]
    return tuple(sorted(kept, key=lambda answer: answer.speedup, reverse=True))


def main_dtype(ops: Sequence[Features]) -> str:
    """The element type of most FLOPs of matrix products, or of most bytes where there are none; "" of no ops."""
    weights: dict[str, float] = {}
    products = any(f.matmul for f in ops)
    for f in ops:
        weights[f.dtype] = weights.get(f.dtype, 0.0) + f.count * (f.matmul if products else sum(f.bytes))
    return max(weights, key=lambda dtype: weights[dtype], default="")


def _bandwidth(device: Device, ops: Ops) -> tuple[Device, Ops]:
    *near, main = device.memory
    return replace(device, memory=(*near, replace(main, bandwidth=_times(main.bandwidth, 2)))), ops


def _compute(device: Device, ops: Ops) -> tuple[Device, Ops]:
    peaks = {name: _all_times(getattr(device, name), 2) for name in ("matmul", "vector")}
    return replace(device, transcendental=_times(device.transcendental, 2), **peaks), ops


def _starts(device: Device, ops: Ops) -> tuple[Device, Ops]:
    """Without what passes between ops and at their start; a collective's latency is its own."""
    named = {**device.terms, **{name: _zero() for name in _start_terms(device)}}
    fit: dict[str, Any] = {name: 0.0 if isinstance(value, float) else value for name, value in device.fit.items()}
    if "terms" in fit:
        fit["terms"] = {kind: {**terms, "overhead": 0.0} for kind, terms in fit["terms"].items()}
    return replace(device, launch=_zero(), terms=named if device.terms else {}, fit=fit), ops


def _start_terms(device: Device) -> list[str]:
    from llmjax.cycles.terms import TERMS

    known = TERMS.get(device.kind, {})
    return [name for name in known if name.endswith(".start") and not name.startswith(_COLLECTIVE)]


def _links(device: Device, ops: Ops) -> tuple[Device, Ops] | None:
    if device.link is None or not any(f.wire for f in ops):
        return None
    network = device.network and _times(device.network, 2)
    return replace(device, link=_times(device.link, 2), network=network), ops


def _dtype(device: Device, ops: Ops) -> tuple[Device, Ops] | None:
    old = main_dtype(ops)
    new = NARROWER.get(old)
    if new is None or new not in device.matmul:
        return None
    share = _SIZES[new] / _SIZES[old]
    same = ("f32", "tf32") if old in ("f32", "tf32") else (old,)

    def narrowed(f: Features) -> Features:
        if f.dtype not in same:
            return f
        sizes = {name: getattr(f, name) * share for name in ("strided", "wire", "host", "overfetched")}
        return replace(f, dtype=new, bytes=tuple(size * share for size in f.bytes), **sizes)

    return device, tuple(narrowed(f) for f in ops)


def _fused(device: Device, ops: Ops) -> tuple[Device, Ops] | None:
    """Elementwise ops and copies at no cost in memory or start: computed where their data are in registers already."""
    if not any(f.term in _NOT_FUSED for f in ops):
        return None
    return device, tuple(replace(f, count=0.0) if f.term in _NOT_FUSED else f for f in ops)


def _halved(device: Device, ops: Ops) -> tuple[Device, Ops] | None:
    """Half of every op's work on each of two devices."""
    if not any(f.matmul for f in ops):
        return None

    def half(f: Features) -> Features:
        n = max(1, f.n // 2)
        amounts = {
            name: getattr(f, name) / 2 for name in ("matmul", "vector", "exponentials", "strided", "overfetched")
        }
        return replace(f, n=n, bytes=tuple(size / 2 for size in f.bytes), **amounts)

    return device, tuple(f if f.term == "collective" else half(f) for f in ops)


_CHANGES: Mapping[str, Change] = {
    "bandwidth": _bandwidth,
    "compute": _compute,
    "starts": _starts,
    "links": _links,
    "dtype": _dtype,
    "fusing": _fused,
    "sharding": _halved,
}
_AT_MOST = ("fusing", "sharding")


def _changes(cost: ModuleCost) -> Mapping[str, Change]:
    """The changes of a program, with twice the rows where its text tells weights from rows."""
    kept = kept_of(cost)
    return _CHANGES if kept is None else {**_CHANGES, "batch": lambda device, ops: (device, twice_the_rows(ops, kept))}


def _words(name: str, device: Device, ops: Ops) -> str:
    narrower = NARROWER.get(main_dtype(ops), "")
    words = {
        "bandwidth": f"twice the bandwidth of {device.main_memory.name}",
        "compute": "twice the FLOP/s",
        "starts": "no time between ops",
        "links": "twice the links",
        "dtype": f"{narrower} instead of {main_dtype(ops)}",
        "fusing": "elementwise ops and copies fused away",
        "sharding": "half of it on each of two devices",
        "batch": "a batch twice as large (per row)",
    }
    return words[name]


def _times(figure: Figure, times: float) -> Figure:
    return replace(figure, value=figure.value * times, provenance="user", source=f"{figure.source}, x {times:g}")


def _all_times(figures: Mapping[str, Figure], times: float) -> dict[str, Figure]:
    return {name: _times(figure, times) for name, figure in figures.items()}


def _zero() -> Figure:
    return Figure(0.0, "user", "what if it took no time")


@dataclass(frozen=True, slots=True)
class Rates:
    """How near a program comes to its device's roofs: `dtype` is the element type of most products, `peak_share` its
    FLOP/s over the device's peak for it, `bandwidth_share` the bytes/s from and to main memory over its bandwidth,
    what caches hold left out. `ridge` is the intensity, in FLOPs a byte, from which the device is bound by compute."""

    dtype: str
    peak_share: float
    bandwidth_share: float
    ridge: float


def rates(cost: ModuleCost, device: Device, seconds: float) -> Rates:
    """Returns the rates of a program that takes so many seconds, more than 0, on a device."""
    ops = features(cost, device)
    dtype, memory = main_dtype(ops) or "f32", device.main_memory.bandwidth.value
    top = peak(device.matmul, dtype).value
    far = sum(f.count * f.bytes[-1] for f in ops)
    return Rates(dtype, float(cost.totals.flops) / seconds / top, far / seconds / memory, top / memory)
