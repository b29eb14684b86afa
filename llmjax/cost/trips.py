"""How often one `while` runs: what its text decides, or bounds from above.

The condition is a conjunction of comparisons. Of one whose sides are affine in the loop's counters the number of
iterations is arithmetic; all else that follows from constants alone (doubling steps, flags) is run, iteration by
iteration. Where only some of the comparisons are decided, the loop runs at most so often.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from llmjax.cost.scalars import Affine, OutOfBudgetError, Path, Scalars, Scope, Variable, at, limits
from llmjax.hlo.ir import Instruction

_SWAPPED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "EQ": "EQ", "NE": "NE"}
_NEGATED = {"LT": "GE", "GT": "LE", "LE": "GT", "GE": "LT", "EQ": "NE", "NE": "EQ"}
TURNS = 4096  # iterations that are run one by one
BUDGET = 2000  # steps of following values; real conditions take a dozen
_BUDGET_RUN = 60_000  # of running a loop


@dataclass(frozen=True, slots=True)
class Trips:
    """Iterations of one execution of a loop, the mean where they differ from one to the next; `exact`, or at most."""

    count: int | Fraction
    exact: bool = True


def trips(values: Scalars, outer: Scope, loop: Instruction) -> Trips | None:
    """Iterations of a loop in the scope `outer`; None where its text neither decides nor bounds them.

    Of the loops around it the counters have the values in `values.known`; those it lacks are added to `values.missing`.
    """
    condition = values.module.computations.get(loop.attr("condition", ""))
    body = values.module.computations.get(loop.attr("body", ""))
    if condition is None or body is None or not loop.operands:
        return None
    test, inside = Scope(condition, loop, outer), Scope(body, loop, outer)
    values.budget = BUDGET
    try:
        found = _by_arithmetic(values, test, inside)
    except OutOfBudgetError:
        found = None
    except _EndlessError:
        return None
    if found is not None and found.exact:
        return found
    values.budget = _BUDGET_RUN
    try:
        turns = _by_running(values, test, inside)
    except OutOfBudgetError:
        turns = None
    values.missing = {variable for variable in values.missing if variable[0] != id(loop)}
    return found if turns is None else Trips(turns)


# --- arithmetic


class _EndlessError(Exception):
    """Raised where a loop's condition holds for ever: something else than its text ends it."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    direction: str
    lhs: Affine
    rhs: Affine
    dtype: str


def _by_arithmetic(values: Scalars, test: Scope, inside: Scope) -> Trips | None:
    loop, outer = inside.caller, inside.outer
    assert loop is not None and outer is not None
    found = _while_all_hold(values, inside, _conjuncts(values, test, test.computation.root, (), loop))
    if found is not None:
        return found
    # A carry may hold the condition for the next iteration, computed at the end of the body.
    flag = values.affine(test, test.computation.root, loop)
    if flag is None or flag.path is None or (flag.scale, flag.offset) != (1, 0):
        return None
    first = values.affine(outer, outer.computation.by_name[loop.operands[0]], loop, flag.path)
    more = _while_all_hold(values, inside, _conjuncts(values, inside, inside.computation.root, flag.path, loop))
    if first is not None and first.path is None and not first.offset:
        return Trips(0)
    return None if more is None else Trips(1 + more.count, more.exact and first is not None and first.path is None)


def _while_all_hold(values: Scalars, inside: Scope, tests: list[_Comparison | None]) -> Trips | None:
    """Iterations for which all of `tests` hold, from the first on; None among them stands for one that is unknown."""
    counts = [None if test is None else _iterations(values, inside, test) for test in tests]
    decided = [count for count in counts if count is not None]
    least = min(decided, default=math.inf)
    if decided and least == math.inf and len(decided) == len(counts):
        raise _EndlessError
    return None if least == math.inf else Trips(int(least), len(decided) == len(counts) or least == 0)


def _conjuncts(
    values: Scalars, scope: Scope, i: Instruction, path: Path, loop: Instruction, negate: bool = False
) -> list[_Comparison | None]:
    """The comparisons that all have to hold for `i` to hold (or not to, with `negate`); None for what is no such."""
    found = values.locate(scope, i, path)
    if found is None or found[2]:
        return [None]
    scope, i, _ = found
    operands = scope.computation.operands(i)
    if i.opcode == "not":
        return _conjuncts(values, scope, operands[0], (), loop, not negate)
    if i.opcode == ("or" if negate else "and"):
        return [part for each in operands for part in _conjuncts(values, scope, each, (), loop, negate)]
    if i.opcode == "select" and not negate and values.value(scope, operands[2]) == 0:
        return [part for each in operands[:2] for part in _conjuncts(values, scope, each, (), loop)]
    direction = i.attr("direction", "")
    if i.opcode != "compare" or direction not in _SWAPPED:
        return [None]
    return _compared(values, scope, operands, _NEGATED[direction] if negate else direction, loop)


def _compared(
    values: Scalars, scope: Scope, operands: tuple[Instruction, ...], direction: str, loop: Instruction
) -> list[_Comparison | None]:
    """A comparison; two of one with the lesser of two: below both is below their minimum."""
    dtype = operands[0].shape.dtype
    sides = [values.affine(scope, each, loop) for each in operands]
    lhs, rhs = sides
    if lhs is not None and rhs is not None:
        return [_Comparison(direction, lhs, rhs, dtype)]
    if lhs is None:
        lhs, rhs, direction, operands = rhs, lhs, _SWAPPED[direction], operands[::-1]
    split = {"LT": "minimum", "LE": "minimum", "GT": "maximum", "GE": "maximum"}.get(direction)
    found = values.locate(scope, operands[1])
    if lhs is None or found is None or found[1].opcode != split or found[2]:
        return [None]
    limits_ = [values.affine(found[0], each, loop) for each in found[0].computation.operands(found[1])]
    return [None if limit is None else _Comparison(direction, lhs, limit, dtype) for limit in limits_]


def _iterations(values: Scalars, inside: Scope, test: _Comparison) -> float | None:
    """Iterations for which `test` holds, from the first on: infinity if for ever; None where it is not decided."""
    lhs, rhs = _course(values, inside, test.lhs), _course(values, inside, test.rhs)
    if lhs is None or rhs is None:
        return None
    count = _holds(test.direction, lhs.first - rhs.first, lhs.step - rhs.step)
    if count == math.inf:
        return count
    turns = int(count)
    fits = all(side.fits(turns, test.dtype) for side in (lhs, rhs))
    return turns if fits else None


@dataclass(frozen=True, slots=True)
class _Course:
    """An affine form of a counter in each iteration: `first + step * t`; the counter's own course and type."""

    first: int
    step: int
    counter: tuple[int, int] = (0, 0)
    dtype: str = "s64"

    def fits(self, turns: int, compared: str) -> bool:
        """Whether neither the counter nor the compared form leaves its type in so many iterations."""
        for (first, step), dtype in ((self.counter, self.dtype), ((self.first, self.step), compared)):
            bounds = limits(dtype)
            if bounds is None or not all(bounds[0] <= first + step * t <= bounds[1] for t in (0, turns)):
                return False
        return True


def _course(values: Scalars, inside: Scope, value: Affine) -> _Course | None:
    if value.path is None:
        return _Course(value.offset, 0)
    loop, outer = inside.caller, inside.outer
    assert loop is not None and outer is not None
    first = values.affine(outer, outer.computation.by_name[loop.operands[0]], loop, value.path)
    step = values.affine(inside, inside.computation.root, loop, value.path)
    part = at(loop.shape, value.path)
    if first is None or first.path is not None or step is None or step.path != value.path or step.scale != 1:
        return None
    if part is None:
        return None
    by, bounds = step.offset, limits(part.dtype)
    if bounds is not None and bounds[0] == 0 and by > bounds[1] // 2:
        by -= bounds[1] + 1  # an unsigned counter goes down by the addition of 2^n - 1
    return _Course(value.scale * first.offset + value.offset, value.scale * by, (first.offset, by), part.dtype)


def _holds(direction: str, first: int, step: int) -> float:
    """For how many t = 0, 1, ... in a row `first + step * t` compares so with 0; infinity if for ever."""
    if direction in ("GT", "GE"):
        return _holds(_SWAPPED[direction], -first, -step)
    if direction == "LE":
        return _holds("LT", first - 1, step)
    if direction == "LT":
        if first >= 0:
            return 0
        return -(first // step) if step > 0 else math.inf
    if direction == "EQ":
        return 0 if first else 1 if step else math.inf
    if not first:
        return 0
    return -first // step if step and -first % step == 0 and -first // step > 0 else math.inf


# --- running


def _by_running(values: Scalars, test: Scope, inside: Scope) -> int | None:
    """Iterations of a loop whose condition follows from constants, by doing what it does with them."""
    loop = inside.caller
    assert loop is not None
    before = dict(values.known)
    try:
        for turn in range(TURNS):
            again = _pulled(values, inside, lambda: values.value(test, test.computation.root), first=not turn)
            if not again:
                return None if again is None else turn
            if not advance(values, inside, first=not turn):
                return None
    finally:
        values.known = before
    return None


def _pulled(values: Scalars, inside: Scope, ask: Callable[[], int | None], first: bool) -> int | None:
    """What `ask` says; in the first iteration the counters that it lacks are given the values that they start with."""
    loop, outer = inside.caller, inside.outer
    assert loop is not None and outer is not None
    while True:
        answer = ask()
        lacking = [variable for variable in values.missing if variable[0] == id(loop)]
        if answer is not None or not lacking or not first:
            return answer
        for variable in lacking:
            start = values.value(outer, outer.computation.by_name[loop.operands[0]], variable[1])
            values.missing.discard(variable)
            if start is None:
                return None
            values.known[variable] = start


def advance(values: Scalars, inside: Scope, first: bool) -> bool:
    """Sets the known counters of a loop to their next values; False where one is unknown, or none changes."""
    loop = inside.caller
    assert loop is not None
    after: dict[Variable, int] = {}
    while True:
        rest = [variable for variable in values.known if variable[0] == id(loop) and variable not in after]
        if not rest:
            break
        for variable in rest:
            path = variable[1]
            following = _pulled(values, inside, lambda p=path: values.value(inside, inside.computation.root, p), first)
            if following is None:
                return False
            after[variable] = following
    changed = any(values.known[variable] != following for variable, following in after.items())
    values.known.update(after)
    return changed
