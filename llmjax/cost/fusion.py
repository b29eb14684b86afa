"""Bytes at a fusion's border: how much of each parameter its interior needs, how much of each result it writes.

Every instruction of the interior is asked how many of its elements the result needs, from the root back: a slice needs
only itself of its operand, an elementwise operation as many elements of each operand as are needed of it, a matrix
product all. What a parameter is needed for is what is read of it, once at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmjax.cost import asynchronous
from llmjax.cost.values import Traffic
from llmjax.hlo.ir import Computation, Instruction, Shape

# Another name for the same buffer.
RENAMES = frozenset({"bitcast", "reshape"})
# As many elements of each operand of the same size as of the result; of a smaller one (clamp's bounds) all.
_ELEMENT_FOR_ELEMENT = frozenset({"copy", "convert", "transpose", "reverse", "bitcast", "reshape"})
_SOURCES = frozenset({"parameter", "constant", "iota", "partition-id", "replica-id", "after-all"})


def border(
    computation: Computation,
    is_elementwise: Callable[[str], bool],
    inner: Mapping[str, Traffic],
    elsewhere: frozenset[str] = frozenset(),
) -> Traffic:
    """Bytes read of each parameter and written of each result, by one execution of a fused computation.

    `is_elementwise` says of an opcode whether it goes element for element. `inner` has the borders of the fusions
    inside, by computation. `elsewhere` names instructions that move nothing here: another fusion counts them.
    """
    outputs = _outputs(computation)
    need: dict[str, int] = {}
    writes: list[int] = []

    def ask(name: str, elements: int) -> None:
        need[name] = need.get(name, 0) + elements

    for output in outputs:
        if output.name in elsewhere or (output.opcode == "parameter" and elsewhere):
            writes.extend(0 for _ in output.shape.leaves)
            continue
        if output.attr("custom_call_target") in asynchronous.TARGETS:  # a start: what is passed on is not written
            made = computation.operands(output)[0]
            ask(made.name, made.shape.elements)
            writes.extend(leaf.bytes if leaf == made.shape else 0 for leaf in output.shape.leaves)
            continue
        update = in_place_update(computation, output)
        if update is None:
            ask(output.name, output.shape.elements)
            writes.extend(leaf.bytes for leaf in output.shape.leaves)
            continue
        touched, changed = _changes(computation, update)
        writes.extend(touched)
        for name, elements in changed:
            ask(name, elements)

    tuple_reads: dict[str, int] = {}
    for i in reversed(computation.instructions):
        needed = min(need.get(i.name, 0), i.shape.elements)
        need[i.name] = needed
        if not needed or i.opcode in _SOURCES:
            continue
        operands = computation.operands(i)
        if i.opcode == "get-tuple-element" and operands and operands[0].opcode == "parameter":
            tuple_reads[operands[0].name] = tuple_reads.get(operands[0].name, 0) + _bytes(i.shape, needed)
            continue
        for operand, elements in zip(operands, _asked(i, needed, operands, is_elementwise, inner), strict=False):
            ask(operand.name, elements)

    reads = tuple(
        min(p.shape.bytes, tuple_reads.get(p.name, 0)) if p.shape.is_tuple else _bytes(p.shape, need.get(p.name, 0))
        for p in computation.parameters
    )
    constants = sum(
        _bytes(i.shape, need.get(i.name, 0)) for i in computation if i.opcode == "constant" and i.shape.elements > 1
    )
    return Traffic(reads, tuple(writes), constants)


def in_place_update(computation: Computation, output: Instruction) -> Instruction | None:
    """The dynamic-update-slice or scatter that makes `output` by changing a parameter's buffer, None if none does."""
    i = _behind_names(computation, output)
    if i.opcode == "dynamic-update-slice" or (i.opcode == "scatter" and not i.shape.is_tuple):
        target = _behind_names(computation, computation.by_name[i.operands[0]])
        if target.opcode == "parameter" or (
            target.opcode == "get-tuple-element" and computation.by_name[target.operands[0]].opcode == "parameter"
        ):
            return i
    return None


def _behind_names(computation: Computation, i: Instruction) -> Instruction:
    while i.opcode in RENAMES:
        i = computation.by_name[i.operands[0]]
    return i


def _outputs(computation: Computation) -> tuple[Instruction, ...]:
    """The instructions that make the results: a tuple's operands, tuples inside included, or the root."""
    found: list[Instruction] = []
    stack = [computation.root]
    while stack:
        i = stack.pop()
        if i.opcode == "tuple":
            stack.extend(reversed(computation.operands(i)))
        else:
            found.append(i)
    return tuple(found)


def _changes(computation: Computation, update: Instruction) -> tuple[list[int], list[tuple[str, int]]]:
    """Bytes that an in-place update writes, and the elements it needs of its operands."""
    operands = computation.operands(update)
    full = [(o.name, o.shape.elements) for o in operands]
    if update.opcode == "dynamic-update-slice":
        return [operands[1].shape.bytes], full[1:]
    touched = min(operands[0].shape.elements, operands[2].shape.elements)
    return [_bytes(operands[0].shape, touched)], [(operands[0].name, touched), *full[1:]]


def _asked(
    i: Instruction,
    needed: int,
    operands: tuple[Instruction, ...],
    is_elementwise: Callable[[str], bool],
    inner: Mapping[str, Traffic],
) -> list[int]:
    """Elements of each operand that `needed` elements of the result need."""
    full = [o.shape.elements for o in operands]
    mine = i.shape.elements
    match i.opcode:
        case "slice" | "dynamic-slice":
            return [needed, *full[1:]]
        case "gather":
            return [needed, *(_share(n, needed, mine) for n in full[1:])]
        case "broadcast" | "pad" | "concatenate":
            return [min(n, needed) for n in full]
        case "dynamic-update-slice" if len(full) > 1:
            return [min(needed, full[0] - full[1]), min(needed, full[1]), *full[2:]]
        case "reduce" if not i.shape.is_tuple:
            inputs = len(full) // 2
            return [_share(n, needed, mine) for n in full[:inputs]] + full[inputs:]
        case "fusion":
            traffic = inner.get(i.attr("calls", ""))
            if traffic is not None and len(traffic.reads) == len(operands):
                return [_elements(o.shape, read) for o, read in zip(operands, traffic.reads, strict=True)]
            return full
        case opcode if opcode in _ELEMENT_FOR_ELEMENT or is_elementwise(opcode):
            return [needed if n == mine else n for n in full]
    return full


def _share(of: int, needed: int, mine: int) -> int:
    return -(-of * needed // mine) if mine else of


def _bytes(shape: Shape, elements: int) -> int:
    return -(-elements * shape.element_bits // 8) if shape.is_array else 0


def _elements(shape: Shape, size: int) -> int:
    bits = shape.element_bits if shape.is_array else 0
    return min(shape.elements, -(-size * 8 // bits)) if bits else shape.elements
