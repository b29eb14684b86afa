"""The form of a calibrated machine, and of one of which only peaks are known: seconds of an op's parts. No JAX import.

compute = (FLOPs / peak + vector operations / rate) / efficiency of its sizes, and memory = sum over levels of
bytes / bandwidth. The efficiency of a matrix product with m rows, n columns and k terms is
1 / (1 + m0/m + n0/n + k0/k): half the peak at m = m0. Each kind of work has its own terms, fitted by a calibration
(calibration.py) or DEFAULTS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from llmjax.cycles.device import Device, peak
from llmjax.cycles.features import MANNERS, Features
from llmjax.cycles.times import Parts
from llmjax.errors import UserError
from llmjax.schema import checked, many, number, shown, text

BETWEEN = ("dispatch", "argument", "gap")  # what passes outside of ops: seconds a run, an argument, an op


@dataclass(frozen=True, slots=True)
class Terms:
    """How a kind of work departs from the device's peaks.

    `overhead` in seconds an execution on top of the launch; `compute`, `near`, `far` multiply the time that peak rates,
    the caches' and the main memory's bandwidth give; `m0`, `n0`, `k0` are the sizes at which a matrix product reaches
    half of its rate; `strided` multiplies the traffic of what is put in another order. `spread` is the typical relative
    error, as a factor: times between time/spread and time*spread are as likely as not.
    """

    overhead: float = 0.0
    compute: float = 1.0
    near: float = 1.0
    far: float = 1.0
    m0: float = 0.0
    n0: float = 0.0
    k0: float = 0.0
    strided: float = 1.0
    spread: float = 1.5


def check_fit(fit: Mapping[str, Any]) -> None:
    """Raises `UserError` where what a card holds of a calibration is not what is read of it here."""
    figure = replace(number(), optional=True)
    amounts = {**{field.name: figure for field in fields(Terms)}, "spread": replace(number(above=True), optional=True)}
    checked(fit, dict.fromkeys(BETWEEN, figure), "fit.", strict=False)
    for kind, values in _named(fit, "terms"):
        checked(values if isinstance(values, Mapping) else {"": values}, amounts, f"fit.terms.{kind}.")
    for kind, rows in _named(fit, "table"):
        place = many(number(), least=4 if kind.startswith("gemm") else 3)
        kept = {"place": place, "does": text(), "factor": number(above=True)}
        for row in rows if isinstance(rows, list | tuple) else (rows,):
            told = row if isinstance(row, list | tuple) and len(row) == 3 else ((), row, None)
            checked(dict(zip(kept, told, strict=True)), kept, f"fit.table.{kind}: ")


def _named(fit: Mapping[str, Any], part: str) -> Iterable[tuple[str, Any]]:
    found = fit.get(part, {})
    if not isinstance(found, Mapping):
        raise UserError(f"fit.{part}={shown(found)} must be a table of kinds of work")
    return found.items()


# For a chip that was never calibrated: 80% of peak FLOPs in large products and of bandwidth are what vendors' libraries
# and stream benchmarks reach on the chips of the device files; sizes of half rate are a tile of 128 x 128 x 64. What is
# computed outside of matrix units issues at half the peak. Estimates: nothing was measured.
_STREAM = Terms(compute=2.0, near=1.25, far=1.25, strided=1.5)
DEFAULTS: Mapping[str, Terms] = {
    **dict.fromkeys(("gemm", "attention"), Terms(compute=1.25, near=1.25, far=1.25, m0=16, n0=64, k0=64)),
    "collective": Terms(far=1.25),
    **dict.fromkeys(("gemv", "loop", "reduce", "move"), _STREAM),
    **dict.fromkeys(("gather", "sort", "library"), Terms(compute=4.0, near=2.0, far=2.0, strided=1.5)),
}


def fitted_parts(f: Features, device: Device) -> Parts:
    """One execution's parts: by the terms of its kind, times the correction of its likes."""
    terms = terms_of(f, device)
    factor = correction(f, device)
    compute, memory, overhead, link = parts(f, device, terms)
    memory = tuple(time * factor for time in memory)
    return Parts(compute * factor, memory, overhead * factor, link * factor, terms.spread)


def parts(f: Features, device: Device, terms: Terms) -> tuple[float, list[float], float, float]:
    """Compute, memory by level, overhead and link seconds of one execution."""
    cores = max(1.0, device.cores.value) if device.kind == "cpu" else 1.0
    share = f.threads / cores
    small = 1 + terms.m0 / f.m + terms.n0 / f.n + terms.k0 / f.k
    compute = f.matmul / peak(device.matmul, f.dtype).value
    compute = (compute + f.vector / (peak(device.vector, f.dtype).value * share)) * small
    strided = terms.strided if f.strided else 1.0
    factors = [terms.near] * (len(f.bytes) - 1) + [terms.far]
    # One core draws more than its share of the main memory's bandwidth; of its own caches' just that.
    lanes = [share] * (len(f.bytes) - 1) + [math.sqrt(share)]
    memory = [
        size / level.bandwidth.value * factor * strided / lane
        for size, level, factor, lane in zip(f.bytes, device.memory, factors, lanes, strict=True)
    ]
    overhead = device.launch.value + terms.overhead
    link = f.wire / device.link.value * terms.far if f.wire and device.link else 0.0
    link += f.host / device.host_link.value * terms.far if f.host and device.host_link else 0.0
    return compute * terms.compute, memory, overhead, link


def key_of(f: Features) -> str:
    """The name under which a calibration keeps an op's terms: kind of work, library, dtype of products, and MARKS."""
    marks = {
        "functions": f.functions and f.term in ("loop", "reduce"),
        "one": f.threads <= 1 and not f.library and f.term not in ("gemm", "gemv"),
        "convolution": f.convolution,
        "batch": f.batch > 1,
        "wide": f.wide and f.term not in ("gemm", "gemv"),
        "rows": f.term == "gemm" and min(f.m, f.n) <= ROWS,
        "far": f.bytes[-1] > sum(f.bytes) / 2 and f.term in ("loop", "reduce", "move"),
    }
    dtype = f.dtype if f.term in ("gemm", "gemv") else ""
    return ":".join([part for part in (f.term, f.library, dtype) if part] + [mark for mark in MARKS if marks[mark]])


# What sets ops of one kind apart, the first to be overlooked last: exponentials and the like; one core; a
# convolution; a batch of products; others that run beside; few rows or columns; most data in main memory.
MARKS = ("functions", "one", "convolution", "batch", "wide", "rows", "far")
ROWS = 8  # a matrix product with so few rows or columns reads its matrix once: it has terms of its own


def nearest_key(f: Features, fitted: Mapping[str, Any]) -> str | None:
    """The key of an op's kind among those that were calibrated; of the likest kind, None where there is none."""
    wanted = key_of(f).split(":")
    alike = [key for key in fitted if key.split(":")[0] == f.term]

    def likeness(key: str) -> tuple[int, ...]:
        found = key.split(":")
        kind = sum(part in found for part in wanted if part not in MARKS)
        return (kind, *(int((mark in found) == (mark in wanted)) for mark in MARKS))

    return max(sorted(alike), key=likeness, default=None)


def terms_of(f: Features, device: Device) -> Terms:
    """The fitted terms of an op's kind; of the nearest kind that was calibrated, else the defaults."""
    fitted: Mapping[str, Mapping[str, float]] = device.fit.get("terms", {})
    key = nearest_key(f, fitted)
    return Terms(**fitted[key]) if key else DEFAULTS[f.term]


Row = Sequence[Any]  # of a table: coordinates, what the ops do, the factor
REACH = 1.0  # binary orders of magnitude: how alike the sizes of two ops are that say something of each other
OTHER = 7.0  # reaches: how far apart two ops of the same sizes are that do nothing in common
APART = 2.4  # reaches: how far apart two are of which one takes data in another order, or from other cores
DOUBT = 0.2  # how much the terms count beside the table, in ops of the very same sizes


def coordinates(f: Features) -> tuple[float, ...]:
    """Where an op lies among others of its kind: binary logarithms of what its time depends on."""
    if f.term == "gemm":
        sizes = (f.m, f.n, f.k, f.batch)
    else:
        sizes = (sum(f.bytes), f.bytes[-1] + sum(f.bytes) / 64, f.vector + 1)
    return tuple(round(math.log2(max(size, 1.0)), 3) for size in sizes)


def correction(f: Features, device: Device) -> float:
    """By what factor the ops of its kind that were calibrated took longer than their terms say, the likest first."""
    tables: Mapping[str, Sequence[Row]] = device.fit.get("table", {})
    key = nearest_key(f, device.fit.get("terms", {}))
    return interpolate(tables.get(key or "", ()), coordinates(f), f.does)


def interpolate(rows: Sequence[Row], at: Sequence[float], does: str) -> float:
    """The factor at a place: a mean of the rows' logarithms, weighted by how near and how alike they are.

    It lies between the least and the largest factor and 1, and goes to 1 where no row is near.
    """
    weights, total = DOUBT, 0.0
    for place, theirs, factor in rows:
        weight = math.exp(-0.5 * ((math.dist(place, at) / REACH) ** 2 + unlike(does, theirs)))
        weights += weight
        total += weight * math.log(factor)
    return math.exp(total / weights)


@lru_cache(maxsize=65536)
def unlike(first: str, second: str) -> float:
    """How far apart what two ops do is, in reaches, squared: by their common share of opcodes (Jaccard) and MANNERS."""
    one, other = set(first.split()), set(second.split())
    manners = len((one ^ other) & MANNERS)
    one, other = one - MANNERS, other - MANNERS
    common = len(one & other) / len(one | other) if one | other else 1.0
    return (OTHER * (1 - common)) ** 2 + APART**2 * manners
