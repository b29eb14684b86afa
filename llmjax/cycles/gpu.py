"""The form of a GPU whose physics is known by named terms (terms.py): the parts of an op's time. No JAX import.

Figures are of kernels inside a CUDA graph, which is how XLA runs a program's kernels: each has a start of its own, in
which the gap to the one before is contained. What one kernel wrote another finds in the L2 cache or in main memory,
never in an L1.
"""

from __future__ import annotations

from llmjax.cycles import terms as known
from llmjax.cycles.device import Device, peak
from llmjax.cycles.features import Features
from llmjax.cycles.kernels import Unit, collective, decode, product, prompt
from llmjax.cycles.times import Parts

_BYTES = {"f64": 8.0, "f32": 4.0, "tf32": 4.0, "s8": 1.0, "u8": 1.0, "s4": 0.5, "u4": 0.5}
# Which share of bandwidth each kind of work sustains.
_SHARES = {"reduce": "reduce", "gemv": "reduce", "gather": "gather", "sort": "gather", "library": "gather"}
SPREADS = {"gemm": 1.07, "collective": 1.1, "attention": 1.2, "loop": 1.15, "reduce": 1.3}
# The algorithm whose figures a collective borrows, where it has none of its own.
_ALIKE = {"collective-permute": "all-to-all", "collective-broadcast": "all-gather", "reduce": "reduce-scatter"}
_ALIKE |= {"send": "all-to-all", "ragged-all-to-all": "all-to-all"}


def gpu_parts(f: Features, device: Device) -> Parts:
    """The parts of one execution of an op."""
    terms = known.values(device)
    if f.term == "collective":
        return _collective(f, device, terms)
    if f.term == "gemm" and f.matmul:
        return _product(f, device, terms)
    if f.term == "attention":
        return _attention(f, device, terms)
    share = terms["transpose.bandwidth" if f.minor_moves else f"{_SHARES.get(f.term, 'stream')}.bandwidth"]
    host = f.host / device.host_link.value if f.host and device.host_link else 0.0
    *caches, memory = _memory(f, device, share)
    # What each element fetches for itself comes in no order, as a lookup's.
    memory += f.overfetched / (device.main_memory.bandwidth.value * terms["gather.bandwidth"])
    return Parts(_vector(f, device, terms), (*caches, memory), terms["stream.start"], host, _spread(f))


def unit(device: Device, dtype: str, share: float) -> Unit:
    """What computes products of a dtype on the device; `share` is that of main memory's bandwidth."""
    width = _BYTES.get(dtype, 1.0 if dtype.startswith("f8") else 2.0)
    rate = peak(device.matmul, dtype).value
    return Unit(device.cores.value, rate, device.clock_hz.value, width, device.main_memory.bandwidth.value * share)


def kind_of(device: Device, dtype: str) -> str:
    """Whose terms a product has: "simt" where the vector unit does it, "product" where the matrix unit does."""
    vector = device.vector.get(dtype)
    matrix = device.matmul.get(dtype)
    return "simt" if vector and matrix and matrix.value <= vector.value else "product"


def _product(f: Features, device: Device, terms: dict[str, float]) -> Parts:
    kind = kind_of(device, f.dtype)
    share = terms[f"{kind}.bandwidth"]
    memory = _memory(f, device, share)
    repeated = max(1.0, f.matmul / (2.0 * f.m * f.n * f.k * f.batch))  # several products in one fusion, or passes
    sizes = (f.m, f.n, f.k, f.batch * repeated)
    found = product(sizes, sum(memory), unit(device, f.dtype, share), terms, kind)
    memory = (*memory[:-1], memory[-1] + found.memory - sum(memory))
    return Parts(found.compute + _vector(f, device, terms), memory, found.overhead, 0.0, _spread(f))


def _attention(f: Features, device: Device, terms: dict[str, float]) -> Parts:
    kind = "decode" if f.attention.queries == 1 else "prompt"
    share = terms[f"{kind}.bandwidth"]
    memory = _memory(f, device, share)
    machine, blocks = unit(device, f.dtype, share), f.attention.blocks
    if kind == "decode":
        found = decode(blocks, sum(memory), machine, terms)
    else:
        longest = 2.0 if f.attention.causal else 1.0  # the count is of what the mask leaves (cost/attention.py)
        work = (f.matmul, f.exponentials, blocks, longest)
        found = prompt(work, sum(memory), machine, device.transcendental.value, terms)
    return Parts(found.compute, memory, found.overhead, 0.0, _spread(f))


def _collective(f: Features, device: Device, terms: dict[str, float]) -> Parts:
    memory = _memory(f, device, terms["stream.bandwidth"])
    if device.link is None:
        return Parts(_vector(f, device, terms), memory, terms["stream.start"], 0.0, _spread(f))
    latency, transfer = exchange(device, f.opcode, f.group, f.wire, f.nodes)
    return Parts(0.0, tuple(0.0 for _ in memory), latency, transfer, _spread(f))


def exchange(device: Device, opcode: str, group: int, wire: float, nodes: int) -> tuple[float, float]:
    """Seconds of latency and of transfer of a collective among devices with a link.

    Args:
        wire: bytes that each device of the group sends (cost/collectives.py).
        nodes: hosts on which the group lies. Those of one host share the bytes that go to the next, each over its
            part of the network.
    """
    name = opcode.removesuffix("-start")
    name = name if name in known.COLLECTIVES else _ALIKE.get(name, "all-gather")
    terms, link = known.values(device), device.link
    assert link is not None, "a device that stands alone exchanges nothing"
    seconds, latency = collective(name, group, wire, link.value, terms)
    if device.network and nodes > 1:
        beside = max(1, group // nodes)
        share = terms[f"{name}.bandwidth"] * device.network.value
        seconds = max(seconds, latency + wire / beside / share)
    return latency, max(seconds - latency, 0.0)


def _memory(f: Features, device: Device, share: float) -> tuple[float, ...]:
    return tuple(size / (level.bandwidth.value * share) for size, level in zip(f.bytes, device.memory, strict=True))


def _vector(f: Features, device: Device, terms: dict[str, float]) -> float:
    return f.vector / (peak(device.vector, f.dtype).value * terms["vector.share"])


def _spread(f: Features) -> float:
    return SPREADS.get(f.term, 1.5)
