"""In which order an op reads and writes: whether neighbours in memory are neighbours on both sides."""

from __future__ import annotations

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
    return any(_moves(i, computation) for i, computation in parts)


def _moves(i: Instruction, computation: Computation) -> bool:
    if i.opcode not in ("copy", "transpose") or not i.operands or not i.shape.is_array:
        return False
    source = computation.by_name[i.operands[0]].shape
    ours, theirs = _minor(i.shape), _minor(source)
    if ours is None or theirs is None:
        return False
    order = i.attr("dimensions", ()) if i.opcode == "transpose" else ()
    return (order[ours] if ours < len(order) else ours) != theirs


def _minor(shape: Shape) -> int | None:
    """The dimension whose elements lie side by side, of those longer than 1; row-major where there is no layout."""
    order = (
        shape.layout.minor_to_major if shape.layout and shape.layout.minor_to_major else range(shape.rank - 1, -1, -1)
    )
    return next((d for d in order if d < shape.rank and shape.dims[d] != 1), None)
