"""One row for each opcode that XLA has: what it computes, what it moves.

The opcodes are those of xla/hlo/ir/hlo_opcode.h. Conventions are those of XLA's HloCostAnalysis, so that its totals
check ours; where it counts nothing (batch normalisation, top-k, reduce-scatter) or too much, the rule says what we do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from llmjax.cost import collectives, computed, contractions, library, memory
from llmjax.cost.values import Context, Cost, Traffic
from llmjax.hlo.ir import Instruction


class Rule(NamedTuple):
    """How to count the work and the traffic of an opcode."""

    work: Callable[[Instruction, Context], Cost] = computed.nothing
    traffic: Callable[[Instruction, Context], Traffic] = memory.whole


_ELEMENTWISE = Rule(computed.elementwise)
_TRANSCENDENTAL = Rule(computed.transcendental)
_MOVES = Rule()
_FREE = Rule(traffic=memory.free)
_WRITES = Rule(traffic=memory.writes_only)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ELEMENTWISE = _names("""
    abs add and bitcast-convert ceil clamp compare complex convert count-leading-zeros divide floor imag is-finite
    maximum minimum mulhi multiply negate not or popcnt real reduce-precision remainder round-nearest-afz
    round-nearest-even select shift-left shift-right-arithmetic shift-right-logical sign stochastic-convert subtract xor
""")

TRANSCENDENTAL = _names("""
    acos acosh asin asinh atan atan2 atanh cbrt cosine cosh erf exponential exponential-minus-one log log-plus-one
    logistic power rsqrt sine sinh sqrt tan tanh
""")

# Other names for a buffer, structure, or what has no code; control flow is counted by its bodies (analysis.py).
FREE = frozenset(
    _names("""
    add-dependency after-all bitcast call conditional constant domain get-tuple-element opt-barrier parameter
    partition-id replica-id set-dimension-size tuple while
    all-gather-done all-reduce-done async-done async-start async-update collective-permute-done copy-done recv-done
    send-done
    """)
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _ELEMENTWISE),
    **dict.fromkeys(TRANSCENDENTAL, _TRANSCENDENTAL),
    **dict.fromkeys(FREE, _FREE),
    **dict.fromkeys(("broadcast", "concatenate", "copy", "dynamic-reshape", "pad", "reverse", "shuffle"), _MOVES),
    **dict.fromkeys(("get-dimension-size", "infeed", "iota", "rng-get-and-update-state"), _WRITES),
    # matrix unit
    "dot": Rule(contractions.dot),
    "scaled-dot": Rule(contractions.dot),
    "ragged-dot": Rule(contractions.ragged_dot),
    "convolution": Rule(contractions.convolution),
    # vector unit
    "batch-norm-grad": Rule(computed.batch_norm_grad),
    "batch-norm-inference": Rule(computed.batch_norm_inference),
    "batch-norm-training": Rule(computed.batch_norm_training),
    "cholesky": Rule(computed.cholesky, memory.cholesky),
    "fft": Rule(computed.fft),
    "map": Rule(computed.map_),
    "reduce": Rule(computed.reduce),
    "reduce-window": Rule(computed.reduce_window),
    "rng": Rule(computed.transcendental, memory.writes_only),
    "rng-bit-generator": Rule(computed.transcendental),
    "scan": Rule(computed.scan),
    "select-and-scatter": Rule(computed.select_and_scatter),
    "sort": Rule(computed.sort),
    "topk": Rule(computed.top_k),
    "triangular-solve": Rule(computed.triangular_solve, memory.triangular_solve),
    # memory
    "dynamic-slice": Rule(traffic=memory.slice_),
    "dynamic-update-slice": Rule(traffic=memory.dynamic_update_slice),
    "gather": Rule(traffic=memory.gather),
    "reshape": Rule(traffic=memory.reshape),
    "scatter": Rule(computed.scatter, memory.scatter),
    "slice": Rule(traffic=memory.slice_),
    "transpose": Rule(traffic=memory.transpose),
    # between devices and hosts
    "all-gather": Rule(collectives.all_gather),
    "all-reduce": Rule(collectives.all_reduce),
    "all-to-all": Rule(collectives.all_to_all),
    "collective-broadcast": Rule(collectives.broadcast),
    "collective-permute": Rule(collectives.permute, memory.permute),
    "collective-reduce": Rule(collectives.reduce),
    "ragged-all-to-all": Rule(collectives.all_to_all, memory.ragged_all_to_all),
    "recv": Rule(traffic=memory.receives),
    "reduce-scatter": Rule(collectives.reduce_scatter),
    "send": Rule(collectives.send, memory.reads_only),
    "outfeed": Rule(traffic=memory.reads_only),
    # fusions are counted by their interiors (analysis.py), custom calls by their target
    "fusion": Rule(),
    "custom-call": Rule(library.work, library.traffic),
}


def rule(opcode: str) -> Rule | None:
    """The row of an opcode, asynchronous forms included; None where XLA has no such opcode."""
    if opcode in RULES:
        return RULES[opcode]
    base, _, form = opcode.rpartition("-")
    if form == "start":
        return RULES.get(base)
    return _FREE if form in ("done", "update") and base in RULES else None


def is_free(opcode: str) -> bool:
    """Whether the opcode neither computes nor moves anything by itself."""
    return rule(opcode) is _FREE


def is_elementwise(opcode: str) -> bool:
    """Whether each element of the result needs one element of each operand of the same size."""
    return RULES.get(opcode) in (_ELEMENTWISE, _TRANSCENDENTAL)


def started(instruction: Instruction) -> Instruction:
    """The operation that a `-start` instruction starts, with that operation's own result shape; others as they are.

    The start's shape holds operands and contexts too: (operands, result, contexts...), of copy-start (result, operand,
    context); of all-reduce-start, in older text, the result alone, an array or one for each operand. `async-start`
    calls a computation and stays as it is.
    """
    opcode = instruction.opcode
    if not opcode.endswith("-start") or opcode == "async-start":
        return instruction
    base = opcode.removesuffix("-start")
    if base not in RULES:
        return instruction
    if "calls" in instruction.attributes and base not in ("fusion", "custom-call"):
        return dataclasses.replace(instruction, opcode="async-start")
    parts = instruction.shape.tuple_shapes
    place = 0 if base == "copy" else 1
    alone = base == "all-reduce" and len(instruction.shape.leaves) == len(instruction.operands)
    shape = instruction.shape if alone or place >= len(parts) else parts[place]
    return dataclasses.replace(instruction, opcode=base, shape=shape)
