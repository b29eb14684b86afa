"""FLOPs of attention that never writes its scores: cuDNN's and Transformer Engine's calls, and what kernels share.

Forward is two products (scores, mix) and a softmax; backward is five (scores again, and the gradients of weights,
values, queries and keys). What a causal mask or a sliding window hides is not computed, but for blocks that they cut:
`masked=False` gives the dense count, without them. Padding is known at run time only, and counts as data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llmjax.cost.gemm import softmax_of
from llmjax.cost.values import Context, Cost, UnmodelledError
from llmjax.hlo.ir import Instruction

_NUMBER = re.compile(r"(\w+) = (-?\d+)")
# NVTE_Mask_Type (transformer_engine/fused_attn.h): causal ones aligned to the top left, and to the bottom right.
_TOP_LEFT, _BOTTOM_RIGHT = (2, 3), (4, 5)


def forward(scores: int, width: int, value_width: int) -> Cost:
    """Scores of keys of `width`, their softmax, and the mix of values of `value_width`."""
    return Cost(matmul_flops=2 * scores * (width + value_width)) + softmax_of(scores)


def backward(scores: int, width: int, value_width: int) -> Cost:
    """Three products over the width of keys, two over that of values."""
    return Cost(
        matmul_flops=2 * scores * (3 * width + 2 * value_width), vector_flops=8 * scores, transcendentals=scores
    )


@lru_cache(maxsize=1024)
def visible(queries: int, keys: int, left: int | None, right: int | None, shift: int = 0) -> int:
    """How many of queries x keys scores a band leaves: query i sees keys i + shift - left to i + shift + right.

    None stands for no limit on that side.
    """
    found = 0
    for i in range(queries):
        first = 0 if left is None else max(0, i + shift - left)
        last = keys if right is None else min(keys, i + shift + right + 1)
        found += max(0, last - first)
    return found


def cudnn_forward(instruction: Instruction, context: Context, masked: bool = True) -> Cost:
    """`__cudnn$fmha...`: operands query, key, value first; the result's first array has the query's shape."""
    rows, scores = _cudnn_scores(instruction, masked)
    width = context.shape(instruction, 0).elements // rows
    return forward(scores, width, instruction.shape.leaves[0].elements // rows)


def cudnn_backward(instruction: Instruction, context: Context, masked: bool = True) -> Cost:
    """`__cudnn$fmha...Backward`: operands query, key, value, ... and the gradient."""
    rows, scores = _cudnn_scores(instruction, masked)
    width = context.shape(instruction, 0).elements // rows
    return backward(scores, width, width)


def transformer_engine_forward(instruction: Instruction, context: Context, masked: bool = True) -> Cost:
    """`te_fused_attn_forward`: sizes are fields of its backend_config."""
    size = _fields(instruction)
    return forward(_engine_scores(size, masked), *_widths(size))


def transformer_engine_backward(instruction: Instruction, context: Context, masked: bool = True) -> Cost:
    """`te_fused_attn_backward`."""
    size = _fields(instruction)
    return backward(_engine_scores(size, masked), *_widths(size))


def _engine_scores(size: Mapping[str, int], masked: bool) -> int:
    queries, keys, kind = size["q_max_seqlen"], size["kv_max_seqlen"], size.get("mask_type", 0)
    left, right = (size.get(f"window_size_{side}", -1) for side in ("left", "right"))
    right = 0 if kind in _TOP_LEFT + _BOTTOM_RIGHT else right
    seen = queries * keys
    if masked:
        shift = keys - queries if kind in _BOTTOM_RIGHT else 0
        seen = visible(queries, keys, None if left < 0 else left, None if right < 0 else right, shift)
    return size["input_batch"] * size["attn_heads"] * seen


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


def _cudnn_scores(instruction: Instruction, masked: bool) -> tuple[int, int]:
    """(batch x heads x queries, scores) of a cuDNN call, from the shape of the scores that it never writes."""
    config: Any = instruction.backend_config
    config = config.get("cudnn_fmha_backend_config", config) if isinstance(config, Mapping) else {}
    shape = config.get("intermediate_tensor_shape", {})
    dims = shape.get("dimensions", ()) or config.get("intermediate_tensor_dimensions", ())
    if not dims:
        raise UnmodelledError(f"{instruction.custom_call_target} without intermediate_tensor_shape")
    *rows, keys = (int(d) for d in dims)
    seen = math.prod(rows) * keys
    if masked and rows and "CAUSAL" in str(config.get("mask_type", "")):
        window = int(config.get("sliding_window_length", 0) or 0)
        seen = math.prod(rows[:-1]) * visible(rows[-1], keys, window - 1 if window > 0 else None, 0)
    return max(1, math.prod(rows)), seen
