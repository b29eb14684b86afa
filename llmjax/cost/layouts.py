"""In which order an op reads and writes: whether neighbours in memory are neighbours on both sides."""

from __future__ import annotations

import math

from llmjax.cost.values import OpCost
from llmjax.hlo.ir import Computation, Instruction, Module, Shape


def minor_moves(op: OpCost, module: Module) -> bool:
    """Whether an op puts another dimension side by side in memory than the one that lay so: a transpose of the minor.

    Threads that read neighbours then write far apart, or the other way round: uncoalesced on a GPU, unless the op goes
    by tiles through memory on the chip, as fusions of the kind kInput do there.
    """
    parts = [(part.instruction, module.computations[part.computation]) for part in op.fused]
    inside = module.computations.get(op.instruction.attr("calls", "") or "")
    if inside is not None:  # moving costs nothing inside a fusion, so that `fused` may leave it out
        parts += [(i, inside) for i in inside]
    parts = parts or [(op.instruction, module.computations[op.computation])]
    return any(_moved_to(i, computation) is not None for i, computation in parts)


FETCH = (
    64  # bytes a GPU's L2 fetches for one element: two sectors of 32, cudaLimitMaxL2FetchGranularity as NVIDIA sets it
)


def overfetched(op: OpCost, module: Module, cache: float) -> float:
    """Bytes that a GPU fetches for an op and never uses: reads that are not coalesced, and that no cache mends.

    A fusion of the kind kLoop goes through its result in the order in which that lies. What lies side by side in the
    operand of a transpose is then wanted as far apart as the result's dimensions within the moved one are long; where
    what is fetched meanwhile is more than `cache` bytes, each element costs a fetch of its own.
    """
    inside = module.computations.get(op.instruction.attr("calls", "") or "")
    if inside is None or op.instruction.attr("kind") != "kLoop":
        return 0.0
    found = 0.0
    for i in inside:
        place = _moved_to(i, inside)
        if place is None or not _from_parameter(i, inside):
            continue
        order = _order(i.shape)
        between = math.prod(i.shape.dims[d] for d in order[: order.index(place)])
        if between * FETCH > cache:
            neighbours = min(8 * FETCH / i.shape.element_bits, i.shape.dims[place])
            found += i.shape.bytes * max(0.0, neighbours - 1.0)
    return found


def _moved_to(i: Instruction, computation: Computation) -> int | None:
    """Which dimension of a copy or transpose is what lies side by side in its operand; None where it still does so."""
    if i.opcode not in ("copy", "transpose") or not i.operands or not i.shape.is_array:
        return None
    ours, theirs = _minor(i.shape), _minor(computation.by_name[i.operands[0]].shape)
    if ours is None or theirs is None:
        return None
    order = list(i.attr("dimensions", ())) if i.opcode == "transpose" else []
    place = order.index(theirs) if theirs in order else theirs
    return place if place != ours and place < i.shape.rank else None


def _from_parameter(i: Instruction, computation: Computation) -> bool:
    """Whether an instruction inside a fusion reads a parameter element for element."""
    elements, stack, seen = i.shape.elements, [i], set()
    while stack:
        one = stack.pop()
        if one.opcode == "parameter":
            return True
        seen.add(one.name)
        operands = (computation.by_name[name] for name in one.operands if name not in seen)
        stack += [source for source in operands if source.shape.is_array and source.shape.elements == elements]
    return False


def _minor(shape: Shape) -> int | None:
    """The dimension whose elements lie side by side, of those longer than 1."""
    return next((d for d in _order(shape) if shape.dims[d] != 1), None)


def _order(shape: Shape) -> list[int]:
    """Dimensions from the one that lies side by side outwards; row-major where there is no layout."""
    order = (
        shape.layout.minor_to_major if shape.layout and shape.layout.minor_to_major else range(shape.rank - 1, -1, -1)
    )
    return [d for d in order if d < shape.rank]
