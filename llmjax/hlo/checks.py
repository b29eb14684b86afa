"""Checks of a whole module: every called computation exists, and none calls itself."""

from __future__ import annotations

import re

from llmjax.hlo.ir import CALL_ATTRIBUTES, Computation, Instruction
from llmjax.hlo.lexer import fail

_CALL = rf"\b(?:{'|'.join(CALL_ATTRIBUTES)})=[^=]*?(?<![\w.\-])"


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
