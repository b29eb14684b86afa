"""Checks of what parses: operands are enough and fit, every called computation exists, and none calls itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmjax.hlo.ir import CALL_ATTRIBUTES, Computation, Instruction
from llmjax.hlo.lexer import fail
from llmjax.hlo.shape import Shape

# The least number of operands, of xla/service/hlo_verifier.cc and xla/hlo/ir/hlo_instruction.h.
_FEWEST = {
    1: """abs acos acosh all-gather all-reduce all-to-all asin asinh async-done async-update atan atanh bitcast
        bitcast-convert broadcast cbrt ceil cholesky collective-broadcast collective-permute collective-reduce
        concatenate conditional convert copy cosine cosh count-leading-zeros domain dynamic-reshape dynamic-slice erf
        exponential exponential-minus-one fft floor get-dimension-size get-tuple-element imag is-finite log log-plus-one
        logistic negate not opt-barrier outfeed popcnt real recv recv-done reduce-precision reduce-scatter reshape
        reverse rng-bit-generator round-nearest-afz round-nearest-even rsqrt send send-done sign sine sinh slice sort
        sqrt tan tanh topk transpose while""",
    2: """add add-dependency and atan2 compare complex convolution divide dot dynamic-update-slice gather maximum
        minimum mulhi multiply or pad power ragged-dot reduce reduce-window remainder scaled-dot set-dimension-size
        shift-left shift-right-arithmetic shift-right-logical stochastic-convert subtract triangular-solve xor""",
    3: "batch-norm-training clamp scatter select select-and-scatter",
    5: "batch-norm-grad batch-norm-inference",
}
_STARTED = {f"{name}{form}": n for n, names in _FEWEST.items() for name in names.split() for form in ("", "-start")}
_ALL_ELEMENTS = frozenset({"copy", "reshape", "reverse", "transpose"})

_CALL = rf"\b(?:{'|'.join(CALL_ATTRIBUTES)})=[^=]*?(?<![\w.\-])"


def check_operands(opcode: str, shape: Shape, operands: Sequence[Shape]) -> None:
    """Raises ValueError (what was expected) where operands are missing, or elements are lost or won on the way."""
    fewest = _STARTED.get(opcode, 0)
    if len(operands) < fewest:
        raise ValueError(f"{fewest} operand{'s' if fewest > 1 else ''} of {opcode!r} (it has {len(operands)})")
    if opcode in _ALL_ELEMENTS and not (shape.is_dynamic or operands[0].is_dynamic):
        size, given = shape.elements, operands[0].elements
        if size != given:
            raise ValueError(f"as many elements as the operand has ({given:,}, not {size:,} of {shape})")


def check_calls(computations: dict[str, Computation], text: str, source: str) -> None:
    """Raises HloParseError at the instruction that calls an unknown computation or closes a circle of calls."""
    callees: dict[str, list[tuple[str, Instruction]]] = {}
    for computation in computations.values():
        found = callees[computation.name] = []
        for instruction in computation.instructions:
            if instruction.attributes:
                found.extend((name, instruction) for name in instruction.called_computations)
        for name, instruction in found:
            if name not in computations:
                _fail_at(instruction, name, f"a computation of this module (there is no {name})", text, source)
    done: set[str] = set()
    for start in computations:
        if start in done:
            continue
        path, stack = {start}, [(start, iter(callees[start]))]
        while stack:
            current, rest = stack[-1]
            for name, instruction in rest:
                if name in path:
                    _fail_at(instruction, name, f"no circle of calls ({name} comes to call itself)", text, source)
                if name not in done:
                    path.add(name)
                    stack.append((name, iter(callees[name])))
                    break
            else:
                stack.pop()
                path.discard(current)
                done.add(current)


def _fail_at(instruction: Instruction, name: str, expected: str, text: str, source: str) -> None:
    """Fails at `name` on the instruction's line, or after it where the instruction takes several lines."""
    pos = 0
    for _ in range(instruction.line - 1):
        pos = text.find("\n", pos) + 1
    pos = max(text.find(instruction.name, pos), pos)
    there = re.compile(_CALL + rf"({re.escape(name)})(?![\w.\-])").search(text, pos)
    fail(text, there.start(1) if there else pos, expected, source)
