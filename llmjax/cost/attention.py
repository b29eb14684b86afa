"""FLOPs of fused attention kernels: cuDNN's and Transformer Engine's.

Forward is two products (scores, mix) and a softmax; backward is five (scores again, and the gradients of weights,
values, queries and keys). A causal mask or a sliding window does not lower the count: it is that of the dense product.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from llmjax.cost.gemm import softmax_of
from llmjax.cost.values import Context, Cost, UnmodelledError
from llmjax.hlo.ir import Instruction

_NUMBER = re.compile(r"(\w+) = (-?\d+)")


def cudnn_forward(instruction: Instruction, context: Context) -> Cost:
    """`__cudnn$fmha...`: operands query, key, value first; the result's first array has the query's shape."""
    batch_and_length, keys = _score_dims(instruction)
    width = context.shape(instruction, 0).elements // batch_and_length
    value_width = instruction.shape.leaves[0].elements // batch_and_length
    scores = batch_and_length * keys
    return Cost(matmul_flops=2 * scores * (width + value_width)) + softmax_of(scores)


def cudnn_backward(instruction: Instruction, context: Context) -> Cost:
    """`__cudnn$fmha...Backward`: operands query, key, value, ... and the gradient."""
    batch_and_length, keys = _score_dims(instruction)
    width = context.shape(instruction, 0).elements // batch_and_length
    scores = batch_and_length * keys
    return Cost(matmul_flops=5 * 2 * scores * width, vector_flops=8 * scores, transcendentals=scores)


def transformer_engine_forward(instruction: Instruction, context: Context) -> Cost:
    """`te_fused_attn_forward`: sizes are fields of its backend_config."""
    size = _fields(instruction)
    scores = size["input_batch"] * size["attn_heads"] * size["q_max_seqlen"] * size["kv_max_seqlen"]
    width, value_width = _widths(size)
    return Cost(matmul_flops=2 * scores * (width + value_width)) + softmax_of(scores)


def transformer_engine_backward(instruction: Instruction, context: Context) -> Cost:
    """`te_fused_attn_backward`: three products over the query's width, two over the value's."""
    size = _fields(instruction)
    scores = size["input_batch"] * size["attn_heads"] * size["q_max_seqlen"] * size["kv_max_seqlen"]
    width, value_width = _widths(size)
    return Cost(
        matmul_flops=2 * scores * (3 * width + 2 * value_width), vector_flops=8 * scores, transcendentals=scores
    )


def _fields(instruction: Instruction) -> dict[str, int]:
    config = instruction.backend_config
    if isinstance(config, Mapping):
        found = {k: int(v) for k, v in config.items() if isinstance(v, int | str) and str(v).lstrip("-").isdigit()}
    else:
        found = {k: int(v) for k, v in _NUMBER.findall(str(config))}
    missing = {"input_batch", "attn_heads", "q_max_seqlen", "kv_max_seqlen"} - found.keys()
    if missing:
        raise UnmodelledError(f"{instruction.custom_call_target} without {', '.join(sorted(missing))}")
    return found


def _widths(size: Mapping[str, int]) -> tuple[int, int]:
    width = size.get("qk_head_dim", size.get("head_dim"))
    if width is None:
        raise UnmodelledError("fused attention without a head width")
    return width, size.get("v_head_dim", width)


def _score_dims(instruction: Instruction) -> tuple[int, int]:
    """(batch x heads x queries, keys) of the scores that a cuDNN call never writes."""
    config = instruction.backend_config
    config = config.get("cudnn_fmha_backend_config", config) if isinstance(config, Mapping) else {}
    shape = config.get("intermediate_tensor_shape", {})
    dims = shape.get("dimensions", ()) or config.get("intermediate_tensor_dimensions", ())
    if not dims:
        raise UnmodelledError(f"{instruction.custom_call_target} without intermediate_tensor_shape")
    *rows, keys = (int(d) for d in dims)
    return max(1, math.prod(rows)), keys
