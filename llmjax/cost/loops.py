"""How often a `while` runs: from its induction variable, where the compiler does not say.

Values of the loop's carry are followed through tuples, copies, fusions and calls to affine forms a * carry[i] + b. The
condition compares two of them; with the start from the loop's operand and the step from its body, the number of
iterations is arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmjax.hlo.ir import Computation, Instruction, Module

# Another name for the same scalar.
_SAME = frozenset({"copy", "bitcast", "reshape", "convert", "opt-barrier", "copy-done", "copy-start", "broadcast"})
_SWAPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "EQ": "EQ", "NE": "NE"}
_NEGATED = {"LT": "GE", "GT": "LE", "LE": "GT", "GE": "LT", "EQ": "NE", "NE": "EQ"}
_BUDGET = 2000  # steps of one inference; real conditions take a dozen

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Scope:
    """A computation, and the instruction (in the scope `outer`) that calls it; None where parameters stay unknown."""

    computation: Computation
    caller: Instruction | None = None
    outer: _Scope | None = None


@dataclass(frozen=True, slots=True)
class _Affine:
    """scale * carry[path] + offset; a constant where path is None."""

    path: Path | None
    scale: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Comparison:
    direction: str
    lhs: _Affine
    rhs: _Affine


def known_trip_count(instruction: Instruction) -> int | None:
    """The count that the compiler wrote into backend_config, None where it wrote none."""
    config = instruction.backend_config
    known = config.get("known_trip_count") if isinstance(config, Mapping) else None
    n = known.get("n") if isinstance(known, Mapping) else None
    return int(n) if n is not None and str(n).isdigit() else None


def callers(module: Module) -> dict[str, list[tuple[Computation, Instruction]]]:
    """Who calls each computation."""
    found: dict[str, list[tuple[Computation, Instruction]]] = {}
    for computation in module.computations.values():
        for i in computation:
            for name in i.called_computations:
                found.setdefault(name, []).append((computation, i))
    return found


def infer_trip_count(
    module: Module,
    computation: Computation,
    loop: Instruction,
    called_by: Mapping[str, list[tuple[Computation, Instruction]]],
) -> int | None:
    """Iterations of `loop`, an instruction of `computation`; None where its text does not decide them."""
    return _Inference(module, called_by).trip_count(computation, loop)


@dataclass(slots=True)
class _Inference:
    module: Module
    called_by: Mapping[str, list[tuple[Computation, Instruction]]]
    loop: Instruction | None = None
    steps: int = 0
    invariant_memo: dict[tuple[str, Path], bool] = field(default_factory=dict)

    def trip_count(self, computation: Computation, loop: Instruction) -> int | None:
        condition = self.module.computations.get(loop.attr("condition", ""))
        body = self.module.computations.get(loop.attr("body", ""))
        if condition is None or body is None or not loop.operands:
            return None
        self.loop, outer = loop, self._scope(computation)
        inside = _Scope(body, loop, outer)
        test = self._comparison(_Scope(condition, loop, outer), condition.root, ())
        if test is not None:
            return self._iterations(inside, test)
        # A carry may hold the condition for the next iteration, computed at the end of the body.
        flag = self._affine(_Scope(condition, loop, outer), condition.root, ())
        if flag is None or flag.path is None or (flag.scale, flag.offset) != (1, 0):
            return None
        first = self._affine(outer, computation.by_name[loop.operands[0]], flag.path)
        test = self._comparison(inside, body.root, flag.path)
        if first is None or first.path is not None or test is None:
            return None
        more = self._iterations(inside, test)
        return 0 if not first.offset else None if more is None else 1 + more

    def _iterations(self, inside: _Scope, test: _Comparison) -> int | None:
        """Iterations for which `test` holds, from the first on."""
        lhs, rhs = self._course(inside, test.lhs), self._course(inside, test.rhs)
        if lhs is None or rhs is None:
            return None
        return _holds(test.direction, lhs[0] - rhs[0], lhs[1] - rhs[1])

    def _course(self, inside: _Scope, value: _Affine) -> tuple[int, int] | None:
        """(first value, change an iteration) of an affine form of the carry."""
        if value.path is None:
            return value.offset, 0
        assert inside.caller is not None and inside.outer is not None
        first = self._affine(inside.outer, inside.outer.computation.by_name[inside.caller.operands[0]], value.path)
        step = self._affine(inside, inside.computation.root, value.path)
        if first is None or first.path is not None or step is None or step.path != value.path or step.scale != 1:
            return None
        return value.scale * first.offset + value.offset, value.scale * step.offset

    def _scope(self, computation: Computation) -> _Scope:
        """The computation with its callers, as far as there is only one."""
        inner: list[tuple[Computation, Instruction]] = []
        seen = {computation.name}
        place = computation
        while True:
            by = self.called_by.get(place.name, [])
            if len(by) != 1 or by[0][0].name in seen:
                break
            inner.append((place, by[0][1]))
            place = by[0][0]
            seen.add(place.name)
        scope = _Scope(place)
        for place, caller in reversed(inner):
            scope = _Scope(place, caller, scope)
        return scope

    def _locate(self, scope: _Scope, i: Instruction, path: Path) -> tuple[_Scope, Instruction, Path] | None:
        """What makes the value at `path` of `i`: behind tuples, copies, fusions, calls and loops that carry it."""
        while True:
            self.steps += 1
            if self.steps > _BUDGET:
                return None
            by_name = scope.computation.by_name
            if i.opcode == "tuple" and path:
                if path[0] >= len(i.operands):
                    return None
                i, path = by_name[i.operands[path[0]]], path[1:]
            elif i.opcode == "get-tuple-element" and i.operands:
                i, path = by_name[i.operands[0]], (i.attr("index", 0), *path)
            elif i.opcode in _SAME and i.operands:
                path = () if i.opcode == "copy-start" else path
                i = by_name[i.operands[0]]
            elif i.opcode in ("fusion", "call") and i.called_computations:
                inner = self.module.computations[i.called_computations[0]]
                scope, i = _Scope(inner, i, scope), inner.root
            elif i.opcode == "while" and i.operands and self._is_invariant(i, path):
                i = by_name[i.operands[0]]
            elif i.opcode == "parameter" and scope.caller is not None and scope.outer is not None:
                caller, number = scope.caller, i.parameter_number
                if caller.opcode == "while":
                    if not self._is_invariant(caller, path):
                        return scope, i, path
                    number = 0
                elif caller.opcode not in ("fusion", "call"):
                    return scope, i, path
                if number >= len(caller.operands):
                    return None
                scope = scope.outer
                i = scope.computation.by_name[caller.operands[number]]
            else:
                return scope, i, path

    def _is_invariant(self, loop: Instruction, path: Path) -> bool:
        """Whether the loop's body hands on the carry at `path` as it came."""
        key = (loop.attr("body", ""), path)
        if key not in self.invariant_memo:
            self.invariant_memo[key] = False
            body = self.module.computations.get(key[0])
            if body is not None and path:
                found = self._locate(_Scope(body), body.root, path)
                self.invariant_memo[key] = bool(found) and found[1].opcode == "parameter" and found[2] == path
        return self.invariant_memo[key]

    def _affine(self, scope: _Scope, i: Instruction, path: Path, depth: int = 0) -> _Affine | None:
        found = self._locate(scope, i, path)
        if found is None or depth > 100:
            return None
        scope, i, path = found
        if i.opcode == "parameter":
            return _Affine(path, 1, 0) if scope.caller is not None and scope.caller is self.loop else None
        if path:
            return None
        if i.opcode == "constant":
            value = _integer(i.literal)
            return None if value is None else _Affine(None, 0, value)
        if i.opcode not in ("add", "subtract", "multiply", "negate", "minimum", "maximum"):
            return None
        parts = [self._affine(scope, scope.computation.by_name[name], (), depth + 1) for name in i.operands]
        known = [part for part in parts if part is not None]
        return _combine(i.opcode, known) if known and len(known) == len(parts) else None

    def _comparison(self, scope: _Scope, i: Instruction, path: Path) -> _Comparison | None:
        found = self._locate(scope, i, path)
        negate = False
        while found is not None and found[1].opcode == "not" and not found[2]:
            negate = not negate
            found = self._locate(found[0], found[0].computation.by_name[found[1].operands[0]], ())
        if found is None or found[1].opcode != "compare" or found[2]:
            return None
        scope, i, _ = found
        sides = [self._affine(scope, scope.computation.by_name[name], ()) for name in i.operands]
        direction = i.attr("direction", "")
        if len(sides) != 2 or sides[0] is None or sides[1] is None or direction not in _SWAPPED:
            return None
        return _Comparison(_NEGATED[direction] if negate else direction, sides[0], sides[1])


def _combine(opcode: str, parts: list[_Affine]) -> _Affine | None:
    a, b = parts[0], parts[-1]
    if opcode == "negate":
        return _Affine(a.path, -a.scale, -a.offset)
    if len(parts) != 2:
        return None
    if opcode in ("minimum", "maximum"):
        choose = min if opcode == "minimum" else max
        return _Affine(None, 0, choose(a.offset, b.offset)) if a.path is None and b.path is None else None
    if opcode == "multiply":
        if a.path is None:
            a, b = b, a
        return _Affine(a.path, a.scale * b.offset, a.offset * b.offset) if b.path is None else None
    sign = -1 if opcode == "subtract" else 1
    if a.path is not None and b.path is not None and a.path != b.path:
        return None
    path = a.path if a.path is not None else b.path
    scale = a.scale + sign * b.scale
    return _Affine(path if scale else None, scale, a.offset + sign * b.offset)


def _holds(direction: str, first: int, step: int) -> int | None:
    """For how many t = 0, 1, ... in a row `first + step * t` compares so with 0; None if for ever."""
    if direction in ("GT", "GE"):
        return _holds(_SWAPPED[direction], -first, -step)
    if direction == "LE":
        return _holds("LT", first - 1, step)
    if direction == "LT":
        if first >= 0:
            return 0
        return -(first // step) if step > 0 else None
    if direction == "EQ":
        return 0 if first else 1 if step else None
    if not first:
        return 0
    return -first // step if step and -first % step == 0 and -first // step > 0 else None


def _integer(literal: str | None) -> int | None:
    text = (literal or "").strip().strip("{}").strip()
    if text in ("true", "false"):
        return int(text == "true")
    try:
        return int(text)
    except ValueError:
        return None
