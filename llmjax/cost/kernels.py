"""FLOPs of kernels that people write by hand (Pallas, Triton), from their names and shapes.

A kernel is a custom call whose body is machine code or bytecode: the text has its name and the shapes of its arrays.
Those that follow a known algorithm are counted by it: attention that never writes its scores, grouped and plain matrix
products, softmax and normalisation. What a kernel declares itself goes first (library.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import partial

from llmjax.cost import attention, gemm
from llmjax.cost.contractions import product
from llmjax.cost.values import Context, Cost, UnmodelledError
from llmjax.hlo.ir import Instruction, Shape

# Custom calls whose target names the compiler of a kernel, not the kernel.
COMPILERS = {
    "tpu_custom_call": "mosaic",
    "mosaic_gpu": "mosaic",
    "mosaic_gpu_v2": "mosaic",
    "__gpu$xla.gpu.triton": "triton",
    "triton_kernel_call": "triton",
    "triton_kernel_call_ffi": "triton",
}
_NAMED = re.compile(r"""["']?\b(?:kernel_)?name["']?\s*[=:]\s*["']([^"']+)["']""")
_FLOATS = ("f64", "f32", "bf16", "f16")


def kernel_names(instruction: Instruction) -> tuple[str, ...]:
    """What the text calls the kernel, the surest first: in its config, by its own name, by the scopes around it."""
    config = instruction.backend_config
    inside = config.get("name", "") if isinstance(config, dict) else "".join(_NAMED.findall(str(config or ""))[:1])
    scopes = instruction.metadata.op_name.removesuffix("/pallas_call").split("/")
    names = (str(inside), re.sub(r"(\.\d+)+$", "", instruction.name), *reversed(scopes[-3:]))
    return tuple(name.lower() for name in names if name)


def work(instruction: Instruction, context: Context, masked: bool = True) -> Cost:
    """Work of the kernel that a custom call runs; `masked=False` gives that of an attention without its causal mask.

    Raises:
        UnmodelledError: no algorithm is known by that name, or the shapes do not fit it.
    """
    names = kernel_names(instruction)
    for name in names:
        for pattern, rule in _KERNELS:
            if pattern.search(name):
                return (partial(rule, masked=masked) if rule in _MASKED else rule)(instruction, context)
    raise UnmodelledError(
        f"no rule for the kernel {', '.join(map(repr, names[:2]))} ({instruction.custom_call_target})"
    )


def _attention(instruction: Instruction, context: Context, masked: bool = True) -> Cost:
    """Scores and mix of queries and keys: those that a causal mask leaves, where name or shapes tell of one."""
    scores, width, value_width = _scores(instruction, context, masked)
    return attention.forward(scores, width, value_width)


def _attention_gradients(instruction: Instruction, context: Context, masked: bool = True) -> Cost:
    """The scores once more, and the gradient of the weights; then one product for each gradient that it returns.

    The gradients are those of the results that have the shape of a query, key or value.
    """
    scores, width, value_width = _scores(instruction, context, masked)
    q, k, v = (shape.dims for shape in _arrays(context.shapes(instruction))[:3])
    results = _arrays(instruction.shape.leaves)
    made = sum(result.dims in (q, k, v) for result in results[-3:])
    if not made:
        raise UnmodelledError("an attention kernel's gradients without the shape of queries, keys or values")
    flops = 2 * scores * (width + value_width) + 2 * scores * made * (width + value_width) // 2
    return Cost(matmul_flops=flops, vector_flops=8 * scores, transcendentals=scores)


def _row_products(instruction: Instruction, context: Context) -> Cost:
    """The products of a gradient and an output, summed along each row: what an attention's gradient starts with."""
    return Cost(vector_flops=2 * context.shape(instruction, 0).elements)


def _paged(instruction: Instruction, context: Context) -> Cost:
    raise UnmodelledError("attention over pages: how many keys each query meets is known at run time only")


def grouped(instruction: Instruction, context: Context) -> Cost:
    """Rows [M, K] each times its group's matrix [G, K, N] or [G, N, K]; all rows are taken to be in a group."""
    out = instruction.shape.leaves[0]
    lhs = _arrays(context.shapes(instruction), 2)[0]
    if out.rank != 2 or lhs.rank != 2:
        raise UnmodelledError("a grouped product whose rows are no matrix")
    return product(out.elements * lhs.dims[-1], out)


def _grouped_gradient(instruction: Instruction, context: Context) -> Cost:
    """Columns [M, K] times [M, N] by groups of rows: [G, K, N]; every row is in one group."""
    out, lhs = instruction.shape.leaves[0], _arrays(context.shapes(instruction), 2)[0]
    if out.rank != 3 or lhs.rank != 2:
        raise UnmodelledError("a grouped product whose groups are no matrices")
    rows = lhs.elements // max(1, out.dims[1])
    return product(out.elements // max(1, out.dims[0]) * rows, out)


def matmul(instruction: Instruction, context: Context) -> Cost:
    """Two matrices and their product: K follows from the three sizes, (M K) (K N) / (M N) = K^2.

    Of rows [.., M, K] too, if the other matrix is one for all.
    """
    out, arrays = instruction.shape.leaves[0], _arrays(context.shapes(instruction), 2, floats=False)
    if len(arrays) < 2 or out.rank < 2:
        raise UnmodelledError("a matrix product without two matrices")
    square = arrays[0].elements * arrays[1].elements // max(1, out.elements)
    contracted = math.isqrt(square)
    if contracted**2 != square:
        raise UnmodelledError("a matrix product whose sizes do not fit")
    return product(out.elements * contracted, out)


def rms_norm(instruction: Instruction, context: Context) -> Cost:
    """Square, sum and two products for each element; a reciprocal root for each row."""
    x = context.shape(instruction, 0)
    return Cost(vector_flops=4 * x.elements, transcendentals=x.elements // max(1, x.dims[-1] if x.dims else 1))


def _scores(instruction: Instruction, context: Context, masked: bool) -> tuple[int, int, int]:
    """How many scores, and the widths of keys and values, from the first three arrays: queries, keys and values.

    Mosaic's kernels on a TPU take [.., heads, length, width], those on a GPU [.., length, heads, width].
    """
    arrays = _arrays(context.shapes(instruction))[:3]
    if len(arrays) < 3:
        raise UnmodelledError("an attention kernel without queries, keys and values")
    query, key, value = arrays
    lead = query.rank - 2
    if key.rank == query.rank + 1 and key.dims[:lead] == query.dims[:lead]:  # decoding: keys in parts, of every head
        return query.elements // max(1, query.dims[-1]) * math.prod(key.dims[lead:-1]), query.dims[-1], value.dims[-1]
    length = -2 if instruction.custom_call_target == "tpu_custom_call" else -3
    if key.rank > query.rank or key.dims[length] != value.dims[length] or key.dims[-1] != query.dims[-1]:
        raise UnmodelledError("an attention kernel whose queries, keys and values do not fit")
    width, queries, keys = query.dims[-1], query.dims[length], key.dims[length]
    rows = query.elements // max(1, width)
    if masked and queries and _causal(instruction, context):
        return rows // queries * attention.visible(queries, keys, None, 0), width, value.dims[-1]
    return rows * keys, width, value.dims[-1]


def _causal(instruction: Instruction, context: Context) -> bool:
    """Whether an attention kernel leaves out what a causal mask hides: by its name, or as JAX's splash attention.

    That is given two tables of blocks, [.., query blocks, key blocks] both, where its mask leaves blocks out (a window
    shortens their rows), and an array of masks [.., block, block] besides, unless it computes the mask itself, as it
    does a causal one (jax/experimental/pallas/ops/tpu/splash_attention).
    """
    names = kernel_names(instruction)
    if any(re.search(r"(?<![a-z])causal(?![a-z])", name) and "non_causal" not in name for name in names):
        return True
    if not any("splash" in name for name in names):
        return False
    tables = [s.dims for s in context.shapes(instruction) if s.rank == 3 and s.dtype in ("s8", "s32", "pred", "u8")]
    return len(tables) >= 2 and len(set(tables)) == 1 and tables[0][-1] == tables[0][-2] > 1


def _arrays(shapes: Iterable[Shape], rank: int = 3, floats: bool = True) -> list[Shape]:
    """The arrays of at least `rank` dimensions; masks and tables of numbers are left out."""
    known = [shape for shape in shapes if shape.is_array and shape.rank >= rank]
    return [s for s in known if s.dtype in _FLOATS or s.dtype.startswith("f8")] if floats else known


# Searched for in each name of the kernel, first match wins: those of jax.experimental.pallas.ops (tpu, gpu), MaxText,
# tokamax and jax-triton. `x_y` is a word of its own in neither `ax_y` nor `x_yb`.
_RULES: tuple[tuple[str, Callable[..., Cost]], ...] = (
    (r"paged|ragged_attention|decode_attention", _paged),
    (r"preprocess_backward", _row_products),
    (r"(attention|attn|(?<![a-z])[mg]h?qa|mha)\w*?(?<![a-z])(bwd|backward|dkv|dq|vjp)(?![a-z])", _attention_gradients),
    (r"(flash|splash|fused|dot_product)_?\w*(attention|attn|m[hq]a)|attention_(kernel|fwd)", _attention),
    (r"(?<![a-z])m[hq]a(_forward|_fwd|$)", _attention),
    (r"(?<![a-z])tgmm(?![a-z])|transposed_ragged_dot", _grouped_gradient),
    (r"(?<![a-z])gmm(?![a-z])|ragged_dot|grouped_(matmul|gemm)|megablox", grouped),
    (r"(?<![a-z])rms_?(norm|forward)", rms_norm),
    (r"layer_?norm(?!\w*(bwd|backward))|(?<![a-z])ln_forward", gemm.layer_norm),
    (r"softmax(?!\w*(bwd|backward))", gemm.softmax),
    (r"matmul|(?<![a-z])gemm(?![a-z])", matmul),
)
_MASKED = (_attention, _attention_gradients)
_KERNELS = tuple((re.compile(pattern), rule) for pattern, rule in _RULES)
