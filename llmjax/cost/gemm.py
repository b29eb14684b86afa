"""FLOPs of library matrix products, convolutions and normalisations that reach HLO as custom calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llmjax.cost.contractions import convolved, product
from llmjax.cost.values import Context, Cost, UnmodelledError
from llmjax.hlo.ir import Instruction, Shape

# What one element costs of each thing that a library fuses behind its product: (vector operations, transcendentals).
_EPILOGUES = {
    "BIAS": (1, 0),
    "SUM": (1, 0),
    "ADD": (1, 0),
    "MUL": (1, 0),
    "RELU": (1, 0),
    "RELU6": (2, 0),
    "ELU": (3, 1),
    "GELU": (8, 1),
    "TANH": (0, 1),
    "SIGMOID": (0, 1),
    "SILU": (1, 1),
    "SWISH": (2, 1),
    "LEAKY": (2, 0),
    "LINEAR": (2, 0),
}


def gemm(instruction: Instruction, context: Context) -> Cost:
    """A cuBLAS(Lt) product from its dot_dimension_numbers, and its epilogue."""
    config = _config(instruction, "gemm_backend_config")
    numbers = config.get("dot_dimension_numbers")
    lhs, rhs, out = context.shape(instruction, 0), context.shape(instruction, 1), instruction.shape.leaves[0]
    # Without them, of single matrices: (M K) (K N) / (M N) = K^2.
    square = lhs.elements * rhs.elements // max(1, out.elements)
    if isinstance(numbers, Mapping):
        contracted = math.prod(lhs.dims[int(d)] for d in numbers.get("lhs_contracting_dimensions", ()))
    elif out.rank == lhs.rank == rhs.rank == 2 and math.isqrt(square) ** 2 == square:
        contracted = math.isqrt(square)
    else:
        raise UnmodelledError("GEMM without dot_dimension_numbers")
    accumulated = out.elements if float(config.get("beta", 0) or 0) else 0
    after = _epilogue(str(config.get("epilogue", "DEFAULT")), out.elements)
    return product(out.elements * contracted, out) + Cost(vector_flops=accumulated) + after


def cudnn_convolution(instruction: Instruction, context: Context) -> Cost:
    """A cuDNN convolution; window and dim_labels of the backward ones describe the forward convolution."""
    first, second = context.shape(instruction, 0), context.shape(instruction, 1)
    out = instruction.shape.leaves[0]
    target = instruction.custom_call_target
    if target.endswith("BackwardInput"):  # (gradient, kernel) -> input
        lhs, rhs, result = out, second, first
    elif target.endswith("BackwardFilter"):  # (input, gradient) -> kernel
        lhs, rhs, result = first, out, second
    else:
        lhs, rhs, result = first, second, out
    config = _config(instruction, "cudnn_conv_backend_config")
    after = Cost()
    if target.endswith("BiasActivationForward"):
        after = _epilogue(f"BIAS_{config.get('activation_mode', '')}".upper(), out.elements)
    return convolved(instruction, lhs, rhs, result) + after


def onednn_matmul(instruction: Instruction, context: Context) -> Cost:
    """lhs [.., M, K] times rhs [.., K, N], either transposed, and what is fused behind it."""
    config = _config(instruction, "onednn_matmul_config")
    lhs, out = context.shape(instruction, 0), instruction.shape.leaves[0]
    if lhs.rank < 1:
        raise UnmodelledError("matmul of scalars")
    contracted = lhs.dims[-2] if config.get("transpose_a") and lhs.rank > 1 else lhs.dims[-1]
    return Cost(matmul_flops=2 * out.elements * contracted) + _fused_ops(config, out.elements)


def onednn_convolution(instruction: Instruction, context: Context) -> Cost:
    """Every tap of the kernel for each element of the result, padding included; the config counts dimensions from 1."""
    config = _config(instruction, "onednn_conv_config")
    kernel, out = context.shape(instruction, 1), instruction.shape.leaves[0]
    label = config.get("kernel", {}).get("filter", {}).get("output_feature_dim")
    if label is None or not 1 <= int(label) <= kernel.rank:
        raise UnmodelledError("oneDNN convolution without the kernel's dimensions")
    taps = kernel.elements // max(1, kernel.dims[int(label) - 1])
    return Cost(matmul_flops=2 * out.elements * taps) + _fused_ops(config, out.elements)


def row_by_column(instruction: Instruction, context: Context) -> Cost:
    """lhs [.., M, K] times rhs [.., K, N]."""
    lhs, out = context.shape(instruction, 0), instruction.shape.leaves[0]
    return product(out.elements * lhs.dims[-1], out)


def block_scaled_dot(instruction: Instruction, context: Context) -> Cost:
    """lhs [.., M, K] times rhs [.., N, K], each block of K with a scale."""
    return row_by_column(instruction, context)


def softmax(instruction: Instruction, context: Context) -> Cost:
    """Maximum, difference, sum and quotient, and an exponential, for each element."""
    return softmax_of(instruction.shape.leaves[0].elements)


def softmax_of(elements: int) -> Cost:
    """Softmax over `elements` scores in all."""
    return Cost(vector_flops=4 * elements, transcendentals=elements)


def layer_norm(instruction: Instruction, context: Context) -> Cost:
    """Mean, difference, square, sum, two products and a sum for each element; a reciprocal root for each row."""
    x: Shape = context.shape(instruction, 0)
    scale = context.shape(instruction, 1) if len(instruction.operands) > 1 else None
    width = max(1, scale.elements if scale else (x.dims[-1] if x.dims else 1))
    return Cost(vector_flops=7 * x.elements, transcendentals=x.elements // width)


def _epilogue(text: str, elements: int) -> Cost:
    words = [_EPILOGUES[word] for word in text.upper().split("_") if word in _EPILOGUES]
    return Cost(vector_flops=elements * sum(v for v, _ in words), transcendentals=elements * sum(t for _, t in words))


def _fused_ops(config: Mapping[str, Any], elements: int) -> Cost:
    fused = config.get("fusions")
    ops = fused.get("ops", ()) if isinstance(fused, Mapping) else ()
    return sum((_epilogue(str(op).removesuffix("_TANH").removesuffix("_ERF"), elements) for op in ops), Cost())


def _config(instruction: Instruction, field: str) -> Mapping[str, Any]:
    """The part `field` of backend_config, or all of it where old XLA wrote the fields at the top."""
    config = instruction.backend_config
    if not isinstance(config, Mapping):
        return {}
    inner = config.get(field)
    return inner if isinstance(inner, Mapping) else config
