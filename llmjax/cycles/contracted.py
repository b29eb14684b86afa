"""The matrix product and the attention inside an op, as the cycle model sees them: sizes, dtype, passes.

No JAX import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llmjax.cost.values import FusedCost, OpCost
from llmjax.hlo.ir import Instruction, Module

MATRIX = ("dot", "convolution", "scaled-dot", "ragged-dot")
_ATTENTION = re.compile(r"fmha|fused_attn|attention|flash", re.IGNORECASE)
_PLAIN = re.compile(r"gemm|matmul|conv", re.IGNORECASE)
# What a dot algorithm computes in, and how often (xla.proto's PrecisionConfig.Algorithm; jax.lax.DotAlgorithmPreset).
_ALGORITHM = re.compile(r"(?:alg_)?dot_(?P<unit>any_f8|bf16|tf32|f16|f32|f64)_.*?(?:_x(?P<passes>\d))?", re.IGNORECASE)
_UNITS = {"any_f8": "f8"}
ROWS = 128  # rows of queries that one block of an attention kernel takes


class Product(NamedTuple):
    """m rows, n columns, k terms, how many of them in a batch; `dtype` is "" where there is none.

    On a GPU float32 is "tf32" unless the program asks for all of it; `passes` is how often the unit works on it.
    """

    m: int = 1
    n: int = 1
    k: int = 0
    batch: int = 1
    dtype: str = ""
    passes: int = 1


def largest_product(op: OpCost, module: Module, gpu: bool) -> Product:
    """The largest matrix product in an op."""
    best, most = Product(), 0.0
    for part in op.fused or (FusedCost(op.instruction, op.computation, op.cost),):
        i = part.instruction
        if i.opcode not in MATRIX and not i.opcode.startswith("custom-call"):
            continue
        flops = float(part.cost.matmul_flops)
        if flops <= most or not i.operands:
            continue
        shapes = [module.computations[part.computation].by_name[name].shape for name in i.operands[:2]]
        if len(shapes) < 2 or not all(shape.is_array for shape in shapes):
            continue
        out = next((leaf.elements for leaf in i.shape.leaves), 1)
        k = max(1, round(flops / 2 / max(out, 1)))
        batch = math.prod(shapes[0].dims[d] for d in _batch_dims(i) if d < len(shapes[0].dims))
        columns = max(1, shapes[1].elements // (k * batch))
        rows = max(1, out // (columns * batch))
        dtype, passes = _computed_in(i, shapes[1].dtype) if gpu else (shapes[1].dtype, 1)
        best, most = Product(rows, columns, k, batch, dtype, passes), flops
    return best


def is_attention(op: OpCost) -> bool:
    """Whether an op is a fused attention kernel: a custom call named so that computes products."""
    i = op.instruction
    if not i.opcode.startswith("custom-call") or not op.cost.matmul_flops:
        return False
    if _PLAIN.search(i.custom_call_target):  # a library's product, in whatever layer it stands
        return False
    named = (i.custom_call_target, i.attr("name", ""), i.metadata.op_name or "")
    return any(_ATTENTION.search(str(name)) for name in named)


class Attention(NamedTuple):
    """Of a fused attention kernel: blocks of `ROWS` queries of all heads, queries a sequence, whether later keys are
    masked. Blocks and queries are 0 where the text does not say."""

    blocks: int = 0
    queries: int = 0
    causal: bool = False


def attention_of(i: Instruction) -> Attention:
    """What cuDNN's configuration says of an attention kernel."""
    config = i.backend_config
    inner = config.get("cudnn_fmha_backend_config", config) if isinstance(config, Mapping) else {}
    dims: Sequence[Any] = inner.get("intermediate_tensor_shape", {}).get("dimensions", ())
    causal = "CAUSAL" in str(inner.get("mask_type", ""))
    if len(dims) < 3:
        return Attention(causal=causal)
    queries = int(dims[-2])
    return Attention(math.prod(int(d) for d in dims[:-2]) * -(-queries // ROWS), queries, causal)


def _batch_dims(i: Instruction) -> tuple[int, ...]:
    if i.opcode == "dot":
        return tuple(i.dot_dims.lhs_batch)
    numbers = _gemm_config(i).get("dot_dimension_numbers")
    return tuple(int(d) for d in numbers.get("lhs_batch_dimensions", ())) if isinstance(numbers, Mapping) else ()


def _gemm_config(i: Instruction) -> Mapping[str, Any]:
    config = i.backend_config
    inner = config.get("gemm_backend_config", config) if isinstance(config, Mapping) else {}
    return inner if isinstance(inner, Mapping) else {}


def _computed_in(i: Instruction, dtype: str) -> tuple[str, int]:
    """The dtype that the unit works in, and how many passes over the data its precision takes."""
    config = _gemm_config(i).get("precision_config")
    config = config if isinstance(config, Mapping) else {}
    algorithm = _ALGORITHM.fullmatch(str(i.attr("algorithm", "") or config.get("algorithm", "")))
    if algorithm:
        unit = algorithm["unit"].lower()
        return _UNITS.get(unit, unit), int(algorithm["passes"] or 1)
    asked = f"{i.attr('operand_precision', '')} {config.get('operand_precision', '')}".lower()
    # XLA lets cuBLAS and Triton round float32 to TF32 up to the precision HIGH (gpu/matmul_utils.cc).
    return ("tf32" if dtype == "f32" and "highest" not in asked else dtype), 1
