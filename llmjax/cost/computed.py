"""FLOPs of what the vector unit does: elementwise maps, reductions, sorts, transforms, factorisations."""

from __future__ import annotations

import math

from llmjax.cost.contractions import COMPLEX
from llmjax.cost.values import Context, Cost, UnmodelledError
from llmjax.hlo.ir import Instruction, Shape


def nothing(instruction: Instruction, context: Context) -> Cost:
    """No arithmetic: data movement, or no work at all."""
    return Cost()


# Operations on real numbers in one on complex ones; a quotient is a product with the conjugate over its square.
_COMPLEX = {"add": 2, "subtract": 2, "negate": 2, "multiply": 6, "divide": 11}


def elementwise(instruction: Instruction, context: Context) -> Cost:
    """One operation for each element of the result; of complex arithmetic as many as it takes in real numbers."""
    shape = instruction.shape
    times = _COMPLEX.get(instruction.opcode, 1) if shape.dtype in COMPLEX else 1
    cost = Cost(vector_flops=times * shape.elements)
    return _in_a_product(instruction, context, cost) if instruction.opcode == "multiply" else cost


def transcendental(instruction: Instruction, context: Context) -> Cost:
    """One transcendental for each element of the result; XLA counts random numbers as such too."""
    return Cost(transcendentals=instruction.shape.elements)


def _in_a_product(instruction: Instruction, context: Context, cost: Cost) -> Cost:
    """The cost, as a matrix product's where the multiplication or sum is part of one that is written out.

    XLA writes small products so, and so may a program: what comes of a dot has `dot_general` in its `op_name`. A sum
    of K terms has K - 1 additions, so an output has one FLOP less than in a dot. Where XLA sums in stages, the first
    has no name of its own, but its reducer has.
    """
    name = instruction.metadata.op_name
    reducer = context.module.computations.get(instruction.attr("to_apply", ""))
    if not name and reducer is not None:
        name = reducer.root.metadata.op_name
    if "dot_general" not in name.split("/"):
        return cost
    return Cost(cost.vector_flops, 0, cost.transcendentals)


def map_(instruction: Instruction, context: Context) -> Cost:
    """The mapped function, for each element."""
    return context.applied(instruction).work * instruction.shape.elements


def reduce(instruction: Instruction, context: Context) -> Cost:
    """The reducer, once for each element that disappears."""
    gone = context.shape(instruction, 0).elements - _first(instruction.shape).elements
    return _in_a_product(instruction, context, context.applied(instruction).work * max(0, gone))


def reduce_window(instruction: Instruction, context: Context) -> Cost:
    """The reducer, window size - 1 times for each element of the result, padding included as XLA does.

    A window that covers the whole dimension from every position is one reduction, broadcast.
    """
    window, out = instruction.window, _first(instruction.shape)
    times = out.elements * (math.prod(window.size) - 1)
    wide = [i for i, size in enumerate(window.size) if size != 1]
    if len(wide) == 1 and window.pad:
        span = out.dims[wide[0]]
        if window.size[wide[0]] == 2 * span - 1 and window.pad[wide[0]] == (span - 1, span - 1):
            times = out.elements // span * (span - 1)
    return _in_a_product(instruction, context, context.applied(instruction).work * times)


def select_and_scatter(instruction: Instruction, context: Context) -> Cost:
    """For each source element, window size - 1 selections and one scatter."""
    sources = context.shape(instruction, 1).elements
    selections = sources * (math.prod(instruction.window.size) - 1)
    select, scatter = context.applied(instruction, "select"), context.applied(instruction, "scatter")
    return select.work * selections + scatter.work * sources


def scatter(instruction: Instruction, context: Context) -> Cost:
    """The combiner, for each element of the updates."""
    arrays = len(instruction.operands) // 2
    return context.applied(instruction).work * context.shape(instruction, arrays + 1).elements


def sort(instruction: Instruction, context: Context) -> Cost:
    """n log2 n comparisons for each line of n elements along the sorted dimension."""
    shape = context.shape(instruction, 0)
    length = shape.dims[instruction.attr("dimensions", (shape.rank - 1,))[0]] if shape.dims else 1
    return Cost(vector_flops=shape.elements * log2_ceil(length))


def top_k(instruction: Instruction, context: Context) -> Cost:
    """n log2 k comparisons for each line of n elements: a heap of the best k."""
    kept = _first(instruction.shape)
    k = kept.dims[-1] if kept.dims else 1
    return Cost(vector_flops=context.shape(instruction, 0).elements * max(1, log2_ceil(k)))


def fft(instruction: Instruction, context: Context) -> Cost:
    """Of complex numbers a multiplication (8 FLOPs) for each element and binary level of each dimension, as XLA counts.

    To or from real numbers 2.5 N log2 N for each transform of N: half of what the Cooley-Tukey algorithm needs for
    complex ones (M. Frigo and S. G. Johnson, "The design and implementation of FFTW3", Proc. IEEE 2005).
    """
    lengths, array = instruction.attr("fft_length", ()), _first(context.shape(instruction, 0))
    if instruction.attr("fft_type") in ("RFFT", "IRFFT"):
        real = array.elements if instruction.attr("fft_type") == "RFFT" else instruction.shape.elements
        return Cost(vector_flops=round(2.5 * real * sum(math.log2(max(1, length)) for length in lengths)))
    levels = sum(max(1, length).bit_length() - 1 for length in lengths)
    return Cost(vector_flops=8 * levels * array.elements)


def triangular_solve(instruction: Instruction, context: Context) -> Cost:
    """m multiplications or additions for each unknown of a system of m: m^2 n for n right-hand sides (trsm of LAPACK).

    A triangle has half of the m^2 multiply-adds that XLA counts (LAPACK Working Note 41).
    """
    matrix, unknowns = [shape for shape in context.shapes(instruction) if shape.rank >= 2][:2]
    return Cost(vector_flops=times(matrix) * matrix.dims[-1] * unknowns.elements)


def times(matrix: Shape) -> int:
    """How many FLOPs a step of a factorisation is: about 4 of complex numbers, as LAPACK says."""
    return 4 if matrix.dtype in COMPLEX else 1


def cholesky(instruction: Instruction, context: Context) -> Cost:
    """n^3 / 3 for each matrix."""
    matrix = context.shape(instruction, 0)
    return Cost(vector_flops=times(matrix) * matrix.dims[-1] * matrix.elements // 3)


def batch_norm_inference(instruction: Instruction, context: Context) -> Cost:
    """(x - mean) * rsqrt(variance + epsilon) * scale + offset: four operations an element, two a channel."""
    x, channels = context.shape(instruction, 0), context.shape(instruction, 1)
    return Cost(vector_flops=4 * x.elements + channels.elements, transcendentals=channels.elements)


def batch_norm_training(instruction: Instruction, context: Context) -> Cost:
    """Sums of x and of x squared (three operations an element), then the normalisation."""
    x, channels = context.shape(instruction, 0), context.shape(instruction, 1)
    return Cost(vector_flops=7 * x.elements + 5 * channels.elements, transcendentals=channels.elements)


def batch_norm_grad(instruction: Instruction, context: Context) -> Cost:
    """Two sums over g and g * (x - mean) (four operations an element), and the gradient of x (five)."""
    x, channels = context.shape(instruction, 0), context.shape(instruction, 1)
    return Cost(vector_flops=9 * x.elements + 5 * channels.elements, transcendentals=channels.elements)


def scan(instruction: Instruction, context: Context) -> Cost:
    """The step, once for each element of the scanned dimension."""
    shape = context.shape(instruction, 0)
    dims = instruction.attr("dimensions") or (instruction.attr("scan_dimension", 0),)
    if not shape.dims:
        raise UnmodelledError("scan over a scalar")
    return context.applied(instruction).work * shape.dims[dims[0]]


def log2_ceil(n: int) -> int:
    """The least e with 2**e >= n, for n >= 1."""
    return max(0, n - 1).bit_length()


def _first(shape: Shape) -> Shape:
    """The shape itself, or the first array of a tuple."""
    return shape.leaves[0] if shape.leaves else shape
