"""What the text says of scalars: where a value comes from, what it is, and how it follows from a loop's carry.

Values are followed through tuples, copies, fusions, calls and loops that hand them on, to constants or to a variable: a
part of a loop's carry. Of a variable whose value is known (`Scalars.known`) the value counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmjax.hlo.ir import DTYPE_BITS, Computation, Instruction, Module, Shape

# Another name for the same scalar.
_SAME = frozenset({"copy", "bitcast", "reshape", "convert", "opt-barrier", "copy-done", "copy-start", "broadcast"})
_DEEPEST = 100
# Whole numbers that a float holds exactly lie between minus and plus this.
_EXACT = {"bf16": 1 << 8, "f16": 1 << 11, "f32": 1 << 24, "f64": 1 << 53}

Path = tuple[int, ...]
Variable = tuple[int, Path]  # id of the `while`, place in its carry


@dataclass(frozen=True, slots=True)
class Scope:
    """A computation, and the instruction (in the scope `outer`) that calls it; None where parameters stay unknown."""

    computation: Computation
    caller: Instruction | None = None
    outer: Scope | None = None


@dataclass(frozen=True, slots=True)
class Affine:
    """scale * carry[path] + offset; a constant where path is None."""

    path: Path | None
    scale: int
    offset: int


class OutOfBudgetError(Exception):
    """Raised where following values takes too many steps."""


@dataclass(slots=True)
class Scalars:
    """Follows values through a module. `missing` collects the variables without a value that were met."""

    module: Module
    called_by: Mapping[str, list[tuple[Computation, Instruction]]]
    budget: int
    known: dict[Variable, int] = field(default_factory=dict)
    missing: set[Variable] = field(default_factory=set)
    invariant: dict[tuple[str, Path], bool] = field(default_factory=dict)

    def scope(self, computation: Computation) -> Scope:
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
        scope = Scope(place)
        for place, caller in reversed(inner):
            scope = Scope(place, caller, scope)
        return scope

    def locate(self, scope: Scope, i: Instruction, path: Path = ()) -> tuple[Scope, Instruction, Path] | None:
        """What makes the value at `path` of `i`: behind tuples, copies, fusions, calls and loops that carry it."""
        while True:
            self.budget -= 1
            if self.budget < 0:
                raise OutOfBudgetError
            by_name = scope.computation.by_name
            if i.opcode == "tuple" and path:
                if path[0] >= len(i.operands):
                    return None
                i, path = by_name[i.operands[path[0]]], path[1:]
            elif i.opcode == "get-tuple-element" and i.operands:
                i, path = by_name[i.operands[0]], (i.attr("index", 0), *path)
            elif i.opcode in _SAME and i.operands:
                if i.opcode == "convert" and _wraps(i, by_name[i.operands[0]]):
                    return scope, i, path
                path = () if i.opcode == "copy-start" else path
                i = by_name[i.operands[0]]
            elif i.opcode in ("fusion", "call") and i.called_computations:
                inner = self.module.computations[i.called_computations[0]]
                scope, i = Scope(inner, i, scope), inner.root
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
        if key not in self.invariant:
            self.invariant[key] = False
            body = self.module.computations.get(key[0])
            if body is not None and path:
                found = self.locate(Scope(body), body.root, path)
                self.invariant[key] = bool(found) and found[1].opcode == "parameter" and found[2] == path
        return self.invariant[key]

    def variable(self, scope: Scope, i: Instruction, path: Path) -> Variable | None:
        """The variable that a located parameter is, None where it is no loop's."""
        caller = scope.caller
        return (
            (id(caller), path) if i.opcode == "parameter" and caller is not None and caller.opcode == "while" else None
        )

    def value(self, scope: Scope, i: Instruction, path: Path = (), depth: int = 0) -> int | None:
        """The whole number (or truth, 0 or 1) at `path` of `i`, with the variables' known values."""
        found = self.locate(scope, i, path)
        if found is None or depth > _DEEPEST:
            return None
        scope, i, path = found
        variable = self.variable(scope, i, path)
        if variable is not None:
            if variable not in self.known:
                self.missing.add(variable)
            return self.known.get(variable)
        if path or not i.shape.is_array or i.shape.dtype not in _INTEGERS:
            return None
        if i.opcode == "constant":
            return integer(i.literal)
        by_name = scope.computation.by_name
        parts = [self.value(scope, by_name[name], (), depth + 1) for name in i.operands]
        values = [part for part in parts if part is not None]
        if not values or len(values) != len(parts):
            return None
        how = _OPERATIONS.get(i.opcode)
        if i.opcode == "compare":
            how = _COMPARISONS.get(i.attr("direction", ""))
        if i.opcode == "not" and i.shape.dtype == "pred":
            how = _not
        try:
            return None if how is None else wrapped(how(*values), i.shape.dtype)
        except (ArithmeticError, TypeError, ValueError):  # a division by zero, a shift by a negative number
            return None

    def affine(self, scope: Scope, i: Instruction, loop: Instruction, path: Path = (), depth: int = 0) -> Affine | None:
        """The value at `path` of `i` as an affine form of the carry of `loop`; of other variables the values count."""
        found = self.locate(scope, i, path)
        if found is None or depth > _DEEPEST:
            return None
        scope, i, path = found
        variable = self.variable(scope, i, path)
        if variable is not None:
            if scope.caller is loop:
                return Affine(path, 1, 0)
            if variable not in self.known:
                self.missing.add(variable)
                return None
            return Affine(None, 0, self.known[variable])
        if path:
            return None
        if i.opcode == "constant":
            value = integer(i.literal)
            return None if value is None else Affine(None, 0, value)
        if i.opcode not in ("add", "convert", "subtract", "multiply", "negate", "minimum", "maximum"):
            return None
        parts = [self.affine(scope, scope.computation.by_name[name], loop, (), depth + 1) for name in i.operands]
        known = [part for part in parts if part is not None]
        return _combine(i.opcode, known) if known and len(known) == len(parts) else None


def _combine(opcode: str, parts: list[Affine]) -> Affine | None:
    a, b = parts[0], parts[-1]
    if opcode in ("convert", "negate"):
        sign = -1 if opcode == "negate" else 1
        return Affine(a.path, sign * a.scale, sign * a.offset)
    if len(parts) != 2:
        return None
    if opcode in ("minimum", "maximum"):
        choose = min if opcode == "minimum" else max
        return Affine(None, 0, choose(a.offset, b.offset)) if a.path is None and b.path is None else None
    if opcode == "multiply":
        if a.path is None:
            a, b = b, a
        return Affine(a.path, a.scale * b.offset, a.offset * b.offset) if b.path is None else None
    sign = -1 if opcode == "subtract" else 1
    if a.path is not None and b.path is not None and a.path != b.path:
        return None
    path = a.path if a.path is not None else b.path
    scale = a.scale + sign * b.scale
    return Affine(path if scale else None, scale, a.offset + sign * b.offset)


_INTEGERS = frozenset(name for name in DTYPE_BITS if name == "pred" or (name[0] in "su" and name[1:].isdigit()))


def limits(dtype: str) -> tuple[int, int] | None:
    """The least and the largest whole number that a type holds exactly; None of what holds none."""
    if dtype in _EXACT:
        return -_EXACT[dtype], _EXACT[dtype]
    if dtype not in _INTEGERS:
        return None
    if dtype == "pred":
        return 0, 1
    bits = DTYPE_BITS[dtype]
    return (0, (1 << bits) - 1) if dtype[0] == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def wrapped(value: int, dtype: str) -> int:
    """The value as an integer type keeps it."""
    if dtype == "pred":
        return int(value != 0)
    bits = DTYPE_BITS[dtype]
    value %= 1 << bits
    return value - (1 << bits) if dtype[0] == "s" and value >> (bits - 1) else value


def at(shape: Shape, path: Path) -> Shape | None:
    """The part of a tuple's shape at `path`."""
    for place in path:
        if place >= len(shape.tuple_shapes):
            return None
        shape = shape.tuple_shapes[place]
    return shape


def _wraps(i: Instruction, source: Instruction) -> bool:
    """Whether a conversion of integers may change the value."""
    mine, theirs = limits(i.shape.dtype), limits(source.shape.dtype)
    if mine is None or theirs is None or i.shape.dtype in _EXACT or source.shape.dtype in _EXACT:
        return False
    return mine[0] > theirs[0] or mine[1] < theirs[1]


def _quotient(a: int, b: int) -> int:
    """Division that rounds towards zero, as HLO's does."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _not(a: int) -> int:
    return 1 - a


def _left(a: int, by: int) -> int:
    return a << by if by < 64 else 0


def _right(a: int, by: int) -> int:
    if a < 0:
        raise ValueError("the bits of a negative number depend on its type")
    return a >> by


_OPERATIONS: dict[str, Callable[..., int]] = {
    "abs": lambda a: abs(a),
    "add": lambda a, b: a + b,
    "and": lambda a, b: a & b,
    "clamp": lambda low, a, high: min(max(low, a), high),
    "convert": lambda a: a,
    "divide": _quotient,
    "maximum": lambda a, b: max(a, b),
    "minimum": lambda a, b: min(a, b),
    "multiply": lambda a, b: a * b,
    "negate": lambda a: -a,
    "not": lambda a: ~a,
    "or": lambda a, b: a | b,
    "remainder": lambda a, b: a - b * _quotient(a, b),
    "select": lambda choice, a, b: a if choice else b,
    "shift-left": _left,
    "shift-right-arithmetic": lambda a, by: a >> by,
    "shift-right-logical": _right,
    "sign": lambda a: (a > 0) - (a < 0),
    "subtract": lambda a, b: a - b,
    "xor": lambda a, b: a ^ b,
}
_COMPARISONS: dict[str, Callable[[int, int], int]] = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}


def integer(literal: str | None) -> int | None:
    """The whole number (or truth) of a scalar constant."""
    text = (literal or "").strip().strip("{}").strip()
    if text in ("true", "false"):
        return int(text == "true")
    try:
        return int(text)
    except ValueError:
        return None
