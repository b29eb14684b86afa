"""FLOPs of what the matrix unit does: dots and convolutions.

FLOPs are operations on real numbers: a multiply-add is 2, of complex numbers 8 (four products, four sums).
"""

from __future__ import annotations

import math

from llmjax.cost.values import Context, Cost, UnmodelledError
from llmjax.hlo.attributes import ConvDims, Window
from llmjax.hlo.ir import Instruction, Shape

_LARGEST = 1_000_000  # positions that we walk through, one by one


def dot(instruction: Instruction, context: Context) -> Cost:
    """Two FLOPs for each element of the result and each element contracted; also scaled-dot."""
    sparsity = instruction.attr("sparsity")
    if sparsity:
        raise UnmodelledError(f"{instruction.opcode} with sparsity={sparsity}")
    contracted = _contracted(context.shape(instruction, 0), instruction.dot_dims.lhs_contracting)
    return product(instruction.shape.elements * contracted, instruction.shape)


def product(multiply_adds: int, out: Shape) -> Cost:
    """The cost of so many multiply-adds in numbers of the type of `out`."""
    return Cost(matmul_flops=(8 if out.dtype in COMPLEX else 2) * multiply_adds)


COMPLEX = ("c64", "c128")


def ragged_dot(instruction: Instruction, context: Context) -> Cost:
    """As a dot: every row of the ragged dimension meets one group's matrix.

    Where the ragged dimension is a contracting one, the result has a group dimension, and the groups share the
    contracted elements among them. Group sizes are one line of numbers, one for each element of a batch.
    """
    dims = instruction.dot_dims
    contracted = _contracted(context.shape(instruction, 0), dims.lhs_contracting)
    elements = instruction.shape.elements
    if set(instruction.attr("lhs_ragged_dims", ())) & set(dims.lhs_contracting):
        elements //= max(1, context.shape(instruction, 2).dims[-1])
    return product(elements * contracted, instruction.shape)


def convolution(instruction: Instruction, context: Context) -> Cost:
    """Two FLOPs for each tap that lands on an element of the input; taps on padding or in dilation holes are none."""
    lhs, rhs = context.shape(instruction, 0), context.shape(instruction, 1)
    return convolved(instruction, lhs, rhs, instruction.shape)


def convolved(instruction: Instruction, lhs: Shape, rhs: Shape, out: Shape) -> Cost:
    """The convolution that `window`, `dim_labels` and the group counts of `instruction` describe.

    Counts as XLA's HloCostAnalysis does: input features of a group x output features x batch of a group x the number
    of valid (kernel, output) positions, a product over spatial dimensions. Features that cuDNN packs in vectors of 4 or
    32 lie in a dimension without a label (`bf01?`) besides the labelled one.
    """
    labels: ConvDims | None = instruction.attr("dim_labels")
    if labels is None:
        raise UnmodelledError("convolution without dim_labels")
    window = instruction.window
    positions = math.prod(
        valid_positions(window, i, lhs.dims[labels.lhs_spatial[i]], rhs.dims[labels.rhs_spatial[i]], out.dims[spatial])
        for i, spatial in enumerate(labels.out_spatial[: window.rank])
    )
    features = lhs.dims[labels.lhs_feature] * _unlabelled(
        lhs, labels.lhs_batch, labels.lhs_feature, *labels.lhs_spatial
    )
    made = out.dims[labels.out_feature] * _unlabelled(out, labels.out_batch, labels.out_feature, *labels.out_spatial)
    features //= instruction.attr("feature_group_count", 1)
    batch = lhs.dims[labels.lhs_batch] // instruction.attr("batch_group_count", 1)
    return product(features * made * batch * positions, out)


def _unlabelled(shape: Shape, *labelled: int) -> int:
    return math.prod(size for dim, size in enumerate(shape.dims) if dim not in labelled)


def valid_positions(window: Window, dim: int, lhs: int, rhs: int, out: int) -> int:
    """Pairs of kernel index and output index, along one spatial dimension, that read an element of the input.

    `lhs`, `rhs` and `out` are the sizes of input, kernel and output in that dimension.
    """
    stride = window.stride[dim] if window.stride else 1
    low = window.pad[dim][0] if window.pad else 0
    spread = window.rhs_dilate[dim] if window.rhs_dilate else 1
    holes = window.lhs_dilate[dim] if window.lhs_dilate else 1
    if min(rhs, out) > _LARGEST:
        raise UnmodelledError(f"convolution with a window of {rhs} at {out} places")
    if rhs <= out:
        return sum(_reading(low - k * spread, stride, holes, lhs, out) for k in range(rhs))
    return sum(_reading(low - o * stride, spread, holes, lhs, rhs) for o in range(out))


def _reading(shift: int, step: int, holes: int, lhs: int, count: int) -> int:
    """How many 0 <= x < count have x * step - shift = holes * i with 0 <= i < lhs."""
    if step == 0:
        return count * (-shift % holes == 0 and 0 <= -shift <= holes * (lhs - 1))
    first = max(0, -(-shift // step))
    last = min(count - 1, (shift + holes * (lhs - 1)) // step)
    common = math.gcd(step, holes)
    if last < first or shift % common:
        return 0
    period = holes // common
    residue = (shift // common) * pow(step // common, -1, period) % period if period > 1 else 0
    start = first + (residue - first) % period
    return 0 if start > last else (last - start) // period + 1


def _contracted(lhs: Shape, dims: tuple[int, ...]) -> int:
    return math.prod(lhs.dims[d] for d in dims)
