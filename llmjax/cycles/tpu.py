"""The form of a TPU known by named terms (terms.py): its compiler's own cycles, corrected, over physics. No JAX import.

A TPU's compiler schedules every instruction of a fusion and writes how many cycles it expects; matrix products by it
are near published ones. What it says nothing of, copies and collectives, and what it forgets, traffic that stands
apart from a fusion, come from bytes and bandwidths. Figures are those of a JAX device, which is one core of a v2, v3
or 7x and a whole chip of the others.
"""

from __future__ import annotations

import math

from llmjax.cycles import terms as known
from llmjax.cycles.device import Device, peak
from llmjax.cycles.features import Features
from llmjax.cycles.times import Parts, combine

SPREADS = {"gemm": 1.15, "collective": 1.3}
AXES = {"tpu:v2": 2, "tpu:v3": 2, "tpu:v5e": 2, "tpu:v6e": 2}  # of the torus; the others have three
RING = {
    "tpu:v5e": 16,
    "tpu:v6e": 16,
}  # least length of an axis that is a ring, by Google's system architectures; else 4


def tpu_parts(f: Features, device: Device) -> Parts:
    """The parts of one execution of an op."""
    terms = known.values(device)
    if f.term == "collective":
        return _collective(f, device, terms)
    memory = tuple(
        size / (level.bandwidth.value * terms["hbm.bandwidth"])
        for size, level in zip(f.bytes, device.memory, strict=True)
    )
    vector = f.vector / (peak(device.vector, f.dtype).value * terms["vector.share"])
    matrix = f.matmul / peak(device.matmul, f.dtype).value
    if not f.estimated:
        compute = matrix / terms["product.share"] + vector
        return Parts(compute, memory, terms["op.start"], _host(f, device), _spread(f))
    scale = terms["product.scale" if f.term == "gemm" else "vector.scale"]
    seconds = max(f.estimated / device.clock_hz.value * scale, sum(memory))
    return _explained(seconds, matrix + vector, memory, terms["op.start"], _host(f, device), _spread(f))


def _explained(
    seconds: float, compute: float, memory: tuple[float, ...], start: float, host: float, spread: float
) -> Parts:
    """Parts that add up to a known time: work and traffic at their rates, and what they leave as overhead."""
    whole = combine(compute, sum(memory), 0.0, 0.0)
    part = min(1.0, seconds / whole) if whole else 1.0
    compute, memory = compute * part, tuple(time * part for time in memory)
    return Parts(compute, memory, start + seconds - whole * part, host, spread)


def _collective(f: Features, device: Device, terms: dict[str, float]) -> Parts:
    nothing = tuple(0.0 for _ in device.memory)
    if device.link is None:
        return Parts(0.0, nothing, terms["op.start"], 0.0, _spread(f))
    latency, transfer = exchange(device, f.group, f.devices, f.wire)
    return Parts(0.0, nothing, latency, transfer, _spread(f))


def exchange(device: Device, group: int, devices: int, wire: float) -> tuple[float, float]:
    """Seconds of latency and of transfer of a collective in a slice of `devices`; `wire` is what each of a group sends.

    Source of the form: Austin et al., "How to Scale Your Model" (2025): bytes over the links of the axes, a hop each.
    """
    terms, link = known.values(device), device.link
    assert link is not None, "a device that stands alone exchanges nothing"
    steps, width = ring(group, devices, device.name)
    one = link.value / (2 * AXES.get(device.name, 3))  # of an axis, one way
    return terms["ici.start"] + terms["ici.hop"] * steps, wire / (one * width * terms["ici.bandwidth"])


def ring(group: int, devices: int, name: str) -> tuple[int, int]:
    """Hops of the longest axis that a group spans, and how many links, one way, each of its devices sends on.

    The slice is taken to be as near to a square or a cube as its size allows, and a group to span whole axes. An axis
    that is a ring has two links, one that is not (shorter than RING, or of two) one.
    """
    lengths = axes(devices, AXES.get(name, 3))
    spanned: list[int] = []
    for length in lengths:
        if math.prod(spanned) < group:
            spanned.append(min(length, max(2, math.ceil(group / math.prod(spanned)))))
    least = RING.get(name, 4)
    return max(spanned, default=2), sum(2 if length >= least else 1 for length in spanned) or 1


def axes(devices: int, dimensions: int) -> list[int]:
    """The lengths of a slice's axes, longest first: as equal as powers of two allow."""
    left, found = max(1, devices), []
    for n in range(dimensions, 0, -1):
        length = 2 ** math.ceil(math.log2(left) / n) if left > 1 else 1
        found.append(length)
        left = math.ceil(left / length)
    return [length for length in found if length > 1] or [1]


def _host(f: Features, device: Device) -> float:
    return f.host / device.host_link.value if f.host and device.host_link else 0.0


def _spread(f: Features) -> float:
    return SPREADS.get(f.term, 1.4)
