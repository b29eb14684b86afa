"""Bytes: what one execution of an instruction reads and writes, outside fusions.

An array is read or written once at most, however often it is used. What only looks at part of an array reads that part;
what changes an array in place writes what changes. Sizes are of the elements, without the padding of a layout's tiles.
"""

from __future__ import annotations

import math
from dataclasses import replace

from llmjax.cost.values import Context, Space, Traffic
from llmjax.hlo.ir import Instruction, Shape

_HOST = 5  # S(5) in a layout: Layout::kHostMemorySpace (xla/layout.h)


def placed(traffic: Traffic, instruction: Instruction, context: Context) -> Traffic:
    """The traffic with the memory that each operand and each leaf of the result lies in.

    On a GPU S(1) and S(2) are parts of its main memory, for collectives and temporaries
    (xla/service/gpu/gpu_memory_space_assignment.h), on a CPU all is one; elsewhere they are on the chip.
    """
    reads = tuple(space_of(shape, context.backend) for shape in context.shapes(instruction))
    writes = tuple(space_of(leaf, context.backend) for leaf in instruction.shape.leaves)
    if all(space == "device" for space in (*reads, *writes)):
        return traffic
    return replace(traffic, read_spaces=reads, write_spaces=writes)


def space_of(shape: Shape, backend: str | None) -> Space:
    """The memory that an array lies in; of a tuple, that of its largest array."""
    if shape.is_tuple or shape.dtype == "buffer":
        shape = max(shape.leaves, key=lambda leaf: leaf.bytes, default=shape)
    number = shape.memory_space
    if number == 0 or backend == "cpu":
        return "device"
    if number == _HOST:
        return "host"
    return "device" if backend == "gpu" else "on-chip"


def whole(instruction: Instruction, context: Context) -> Traffic:
    """Reads every operand, writes the result."""
    return Traffic(tuple(s.bytes for s in context.shapes(instruction)), writes(instruction.shape))


def free(instruction: Instruction, context: Context) -> Traffic:
    """Touches no memory: bookkeeping, or another name for a buffer."""
    return Traffic()


def writes_only(instruction: Instruction, context: Context) -> Traffic:
    """Writes the result; its operands are tokens, or looked at for their shape only."""
    return Traffic((0,) * len(instruction.operands), writes(instruction.shape))


def reads_only(instruction: Instruction, context: Context) -> Traffic:
    """Reads its first operand: outfeed and send."""
    return Traffic((context.shape(instruction, 0).bytes, *(0,) * (len(instruction.operands) - 1)))


def receives(instruction: Instruction, context: Context) -> Traffic:
    """Writes the first array of the result: recv gives (data, context, token)."""
    return Traffic((0,) * len(instruction.operands), writes(instruction.shape)[:1])


def slice_(instruction: Instruction, context: Context) -> Traffic:
    """Reads the slice, and the indices of a dynamic one."""
    indices = (s.bytes for s in context.shapes(instruction)[1:])
    return Traffic((instruction.shape.bytes, *indices), writes(instruction.shape))


def gather(instruction: Instruction, context: Context) -> Traffic:
    """Reads the indices and as much of the array as it gathers."""
    array, indices = context.shape(instruction, 0), context.shape(instruction, 1)
    return Traffic((min(array.bytes, instruction.shape.bytes), indices.bytes), writes(instruction.shape))


def dynamic_update_slice(instruction: Instruction, context: Context) -> Traffic:
    """Reads the update and the indices, writes the update in place."""
    shapes = context.shapes(instruction)
    return Traffic((0, *(s.bytes for s in shapes[1:])), (context.shape(instruction, 1).bytes,))


def scatter(instruction: Instruction, context: Context) -> Traffic:
    """Reads indices and updates, reads and writes in place as many elements as there are updates."""
    shapes = context.shapes(instruction)
    arrays = len(shapes) // 2
    touched = tuple(min(a.bytes, u.bytes) for a, u in zip(shapes[:arrays], shapes[arrays + 1 :], strict=False))
    return Traffic(touched + tuple(s.bytes for s in shapes[arrays:]), touched)


def triangular_solve(instruction: Instruction, context: Context) -> Traffic:
    """Reads one triangle of the matrix."""
    matrix, unknowns = context.shape(instruction, 0), context.shape(instruction, 1)
    return Traffic((matrix.bytes // 2, unknowns.bytes), writes(instruction.shape))


def cholesky(instruction: Instruction, context: Context) -> Traffic:
    """Reads and writes one triangle."""
    half = context.shape(instruction, 0).bytes // 2
    return Traffic((half,), (half,))


def transpose(instruction: Instruction, context: Context) -> Traffic:
    """Free where the layouts undo the permutation, else a copy."""
    shape, source = instruction.shape, context.shape(instruction, 0)
    order = instruction.attr("dimensions", ())
    if shape.layout and source.layout and len(order) == len(source.dims) == len(shape.layout.minor_to_major):
        ours = [order[d] for d in shape.layout.minor_to_major if shape.dims[d] != 1]
        theirs = [d for d in source.layout.minor_to_major if source.dims[d] != 1]
        if ours == theirs and shape.layout.memory_space == source.layout.memory_space:
            return Traffic()
    return whole(instruction, context)


def reshape(instruction: Instruction, context: Context) -> Traffic:
    """Free between row-major arrays (where no layout is given, it is row-major), else a copy."""
    shapes = (instruction.shape, context.shape(instruction, 0))
    return Traffic() if all(map(_row_major, shapes)) else whole(instruction, context)


def ragged_all_to_all(instruction: Instruction, context: Context) -> Traffic:
    """Reads the data and the offsets; the second operand is the result's buffer."""
    sizes = [s.bytes for s in context.shapes(instruction)]
    return Traffic((*sizes[:1], 0, *sizes[2:]), writes(instruction.shape))


def permute(instruction: Instruction, context: Context) -> Traffic:
    """Reads the data and writes them; with `slice_sizes` the slices only, in place, and reads where they lie."""
    sizes = permuted(instruction, context)
    if not sizes:
        return whole(instruction, context)
    operands = context.shapes(instruction)
    return Traffic((sum(sizes), 0, *(s.bytes for s in operands[2:])), (sum(sizes),))


def permuted(instruction: Instruction, context: Context) -> tuple[int, ...]:
    """Bytes of each slice that a collective-permute with `slice_sizes` sends; empty where it has none."""
    lists = instruction.attr("slice_sizes", ())
    arrays = context.shape(instruction, 0).leaves
    if not lists or not arrays:
        return ()
    return tuple(
        -(-math.prod(sizes) * arrays[min(k, len(arrays) - 1)].element_bits // 8) for k, sizes in enumerate(lists)
    )


def writes(shape: Shape) -> tuple[int, ...]:
    """Bytes of each array in the result."""
    return tuple(leaf.bytes for leaf in shape.leaves)


def _row_major(shape: Shape) -> bool:
    if shape.layout is None:
        return True
    order = [d for d in shape.layout.minor_to_major if shape.dims[d] != 1]
    return order == sorted(order, reverse=True) and not shape.layout.tiles
