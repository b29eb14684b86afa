"""How a model may be spread over a pod, what that needs of each device's memory, and about how long a step takes.

The estimates here choose what is worth compiling: products at the share of the peak that the card sustains, traffic of
what is not a product, and collectives by the card's links. What is compiled is predicted from its program instead. No
JAX import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmjax.cycles import terms as known
from llmjax.cycles.device import Device, peak
from llmjax.cycles.published.cases import Layout, Program
from llmjax.cycles.published.models import Model
from llmjax.cycles.published.pricing import added_up, collective, gathered_weights

STATE = 16  # bytes a parameter: float32 weights, their gradients and Adam's two moments
SUMS = 4  # bytes a parameter more, where gradients of several microbatches are added up
MOST_MICROBATCHES = 32


@dataclass(frozen=True, slots=True)
class Spread:
    """Devices on each axis of the mesh, whether layers are computed again in the backward pass, and microbatches."""

    data: int
    fsdp: int
    tensor: int
    remat: bool = False
    microbatches: int = 1

    @property
    def devices(self) -> int:
        """All of them."""
        return self.data * self.fsdp * self.tensor

    @property
    def layout(self) -> Layout:
        """The same, as programs of published tables are laid out."""
        return Layout(self.tensor, self.fsdp, self.data, 1, self.microbatches)

    def __str__(self) -> str:
        sizes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        axes = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
        also = [axes or "1 device", *(["remat"] if self.remat else [])]
        return ", ".join(also + ([f"{self.microbatches} microbatches"] if self.microbatches > 1 else []))


@dataclass(frozen=True, slots=True)
class Work:
    """A training step: so many rows of `length` tokens on all devices, computed in `dtype`.

    parameters: of the whole model.
    """

    model: Model
    parameters: float
    rows: int
    length: int
    dtype: str = "bfloat16"

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.length


class Estimate(NamedTuple):
    """Bytes of memory of a device, and seconds of a step by what they go to; what is hidden does not count."""

    memory: float
    compute: float
    traffic: float
    tensor: float
    fsdp: float
    data: float

    @property
    def seconds(self) -> float:
        """Of a step."""
        return sum(self[1:])

    @property
    def limit(self) -> str:
        """What most of the step goes to."""
        names = {"compute": self.compute, "HBM": self.traffic, "tensor": self.tensor, "fsdp": self.fsdp}
        names["data"] = self.data
        return max(names, key=lambda name: names[name])


def spreads(work: Work, devices: int) -> tuple[Spread, ...]:
    """Every way to spread a step over all of so many devices whose sizes divide what they must.

    `tensor` divides heads, key-value heads and the MLP's inner values; `data` x `fsdp` the rows of each microbatch;
    `fsdp` x `tensor` the model's width.
    """
    model, found = work.model, []
    for tensor in _divisors(devices):
        if not shares(model, tensor):
            continue
        for fsdp in _divisors(devices // tensor):
            data = devices // tensor // fsdp
            if model.width % (fsdp * tensor) or work.rows % (data * fsdp):
                continue
            rows = work.rows // (data * fsdp)
            for microbatches in _divisors(min(rows, MOST_MICROBATCHES)):
                if rows % microbatches == 0:
                    found += [Spread(data, fsdp, tensor, remat, microbatches) for remat in (False, True)]
    return tuple(found)


def shares(model: Model, tensor: int) -> bool:
    """Whether so many devices can share each layer: its heads, key-value heads and the MLP's inner values."""
    return not any(size % tensor for size in (model.heads, model.groups, model.inner))


def estimate(work: Work, spread: Spread, device: Device) -> Estimate:
    """About what a step needs, spread like that."""
    model = work.model.shared(spread.tensor)
    rows = work.rows // (spread.data * spread.fsdp * spread.microbatches)
    tokens = rows * work.length
    program = Program(model, "gradients", rows, work.length, work.dtype, remat=spread.remat)
    forward = 2.0 * tokens * model.layers * model.layer_parameters + _scores(model, rows, work.length)
    head = 2.0 * tokens * model.width * model.vocabulary
    flops = forward * (4 if spread.remat else 3) + 3 * head
    dtype = "bf16" if work.dtype == "bfloat16" else "f32"
    compute = flops / (peak(device.matmul, dtype).value * known.value(device, "product.share"))
    share = known.value(device, "hbm.bandwidth" if device.kind == "tpu" else "stream.bandwidth")
    bandwidth = device.main_memory.bandwidth.value * share
    held = work.parameters / (spread.fsdp * spread.tensor)
    moved = _moved(work, spread, tokens) * spread.microbatches + (STATE + 12) * held
    layers = model.layers * spread.microbatches
    tensor = layers * added_up(program, spread.layout, device, "all-reduce")
    each = compute / model.layers
    fsdp = layers * max(0.0, gathered_weights(program, spread.layout, device) - each)
    replicas = collective(device, "all-reduce", spread.data, 4 * held, spread.fsdp * spread.tensor, spread.devices)
    data = spread.microbatches * max(0.0, replicas - compute / 3)
    steps = spread.microbatches
    return Estimate(memory(work, spread), steps * compute, moved / bandwidth, tensor, fsdp, data)


def memory(work: Work, spread: Spread) -> float:
    """About the bytes of a device that a step needs: the optimiser's state, and what is kept for the backward pass."""
    model = work.model.shared(spread.tensor)
    rows = work.rows // (spread.data * spread.fsdp * spread.microbatches)
    tokens, width = rows * work.length, 2 if work.dtype == "bfloat16" else 4
    held = work.parameters / (spread.fsdp * spread.tensor)
    gathered = 2 * width * model.layer_parameters if spread.fsdp > 1 else 0
    inside = width * tokens * _inside(work, spread, rows)
    inputs = width * tokens * model.width
    layers = model.layers * inputs + inside if spread.remat else model.layers * inside
    logits = 2 * 4 * tokens * model.vocabulary
    return (STATE + (SUMS if spread.microbatches > 1 else 0)) * held + gathered + layers + logits


def _inside(work: Work, spread: Spread, rows: int) -> float:
    """Values a token that a layer keeps for its backward pass: its norms' inputs, products' inputs and the scores."""
    model = work.model.shared(spread.tensor)
    mixed = model.head_width * (2 * model.heads + 2 * model.groups)
    inner = model.inner * (3 if model.family == "llama" else 2)
    return 4 * model.width + mixed + inner + model.heads * work.length


def _moved(work: Work, spread: Spread, tokens: int) -> float:
    """Bytes that a microbatch's activations take to and from main memory: written and read, forward and backward."""
    width = 2 if work.dtype == "bfloat16" else 4
    times = 6 if spread.remat else 4
    return times * width * tokens * work.model.layers * _inside(work, spread, 1)


def _scores(model: Model, rows: int, length: int) -> float:
    """FLOPs of attention's two products, no mask taken off."""
    return 4.0 * rows * length**2 * model.heads * model.head_width * model.layers


def candidates(
    work: Work, devices: int, device: Device, most: int, seen: Mapping[bool, float] | None = None
) -> tuple[tuple[Spread, Estimate], ...]:
    """The spreads that are worth compiling: those that fit, the fastest first; where none fits, the smallest.

    Of one mesh the best remat and microbatches stand for all; meshes of another size of `tensor` come before those that
    divide the same otherwise over `data` and `fsdp`, which are near to one another.

    Args:
        seen: what compiled programs needed of memory over what was estimated, with remat (True) and without (False).
    """
    factors = seen or {}
    found = []
    for spread in spreads(work, devices):
        made = estimate(work, spread, device)
        found.append((spread, made._replace(memory=made.memory * factors.get(spread.remat, 1.0))))
    room = device.main_memory.capacity.value
    ordered = sorted(found, key=lambda each: (max(0.0, each[1].memory - room), each[1].seconds))
    meshes = list(_first_of(ordered, lambda s: (s.data, s.fsdp, s.tensor)))
    other = list(_first_of(meshes, lambda s: s.tensor))
    chosen = (other + [each for each in meshes if each not in other])[:most]
    return tuple(each for each in meshes if each in chosen)


def _first_of(
    ordered: Iterable[tuple[Spread, Estimate]], key: Callable[[Spread], object]
) -> Iterator[tuple[Spread, Estimate]]:
    seen: set[object] = set()
    for spread, found in ordered:
        if key(spread) not in seen:
            seen.add(key(spread))
            yield spread, found


def scaling(
    work: Work, device: Device, counts: Sequence[int], seen: Mapping[bool, float] | None = None
) -> tuple[tuple[int, Spread, Estimate], ...]:
    """The best estimate of the same step on each number of devices that it can be spread over; `seen` as above."""
    found = []
    for count in counts:
        best = candidates(work, count, device, 1, seen)
        found += [(count, *best[0])] if best else []
    return tuple(found)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
