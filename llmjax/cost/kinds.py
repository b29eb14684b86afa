"""What an instruction does, in a word: the role of what no name tells the role of."""

from __future__ import annotations

import re

from llmjax.cost.library import library
from llmjax.cost.names import MOVES
from llmjax.cost.roles import DATA_MOVEMENT
from llmjax.cost.rules import is_elementwise
from llmjax.hlo.ir import Instruction

PRODUCTS, CONVOLUTIONS = "matrix products", "convolutions"
_COLLECTIVES = """
all-gather all-reduce all-to-all collective-broadcast collective-permute collective-reduce partition-id
ragged-all-to-all recv reduce-scatter replica-id send
"""
_KINDS: dict[str, str] = {
    **dict.fromkeys(_COLLECTIVES.split(), "collectives"),
    **dict.fromkeys(("dot", "ragged-dot", "scaled-dot"), PRODUCTS),
    **dict.fromkeys(("map", "rng", "rng-bit-generator", "rng-get-and-update-state"), "elementwise"),
    **dict.fromkeys(("batch-norm-grad", "batch-norm-inference", "batch-norm-training"), "layer norm"),
    **dict.fromkeys(("reduce", "reduce-window", "scan", "select-and-scatter"), "reductions"),
    **dict.fromkeys(("sort", "topk"), "sorting"),
    **dict.fromkeys(("cholesky", "triangular-solve"), "factorisations"),
    **dict.fromkeys(("gather", "iota", "scatter", "infeed", "outfeed", "constant"), DATA_MOVEMENT),
    "fft": "Fourier transforms",
}
# Of custom calls and library fusions, whose target or library says it.
_TARGETS = (
    (re.compile(r"flash|attention|fmha"), "attention scores"),
    (re.compile(r"gemm|matmul|cublas|cutlass|ragged_dot"), PRODUCTS),
    (re.compile(r"conv(?!ert)"), CONVOLUTIONS),
    (re.compile(r"topk|sort"), "sorting"),
    (re.compile(r"cholesky|_lu_|potrf|getrf|geqrf|orgqr|syevd|heevd|gesdd|gesvd|householder"), "factorisations"),
    (re.compile(r"fft"), "Fourier transforms"),
)


def kind_of(i: Instruction) -> str:
    """Returns the kind of an instruction: "matrix products", "elementwise", ...; "" where nothing tells."""
    opcode = i.opcode.removesuffix("-start").removesuffix("-done")
    if opcode == "convolution":  # a TPU's products are convolutions without a window
        return PRODUCTS if all(size == 1 for size in i.window.size) else CONVOLUTIONS
    if opcode in MOVES:
        return DATA_MOVEMENT
    if opcode in ("custom-call", "fusion"):
        said = f"{i.custom_call_target} {library(i) or ''}".lower()
        named = (kind for words, kind in _TARGETS if words.search(said))
        return next(named, "custom calls" if opcode == "custom-call" else "")
    return _KINDS.get(opcode) or ("elementwise" if is_elementwise(opcode) else "")
