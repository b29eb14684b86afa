"""How often a `while` runs: what the compiler says, else what its text decides or bounds (trips.py).

A loop whose length depends on the counters of the loops around it, as in a triangular nest, is taken in each of their
iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from llmjax.cost.scalars import OutOfBudgetError, Scalars, Scope, Variable
from llmjax.cost.trips import BUDGET, TURNS, Trips, advance, trips
from llmjax.hlo.ir import Computation, Instruction, Module

# A loop of more iterations ends in no one's life (2^53 of a nanosecond are 104 days): such a count is a wrapped -1.
MOST = 1 << 53
_AGAIN = 8  # times that a nest is begun anew with a counter more

Counted = Callable[[Instruction], int | None]  # the count of a loop that its user or its compiler has given


def known_trip_count(instruction: Instruction) -> int | None:
    """The count that the compiler wrote into backend_config, None where it wrote none."""
    config = instruction.backend_config
    known = config.get("known_trip_count") if isinstance(config, Mapping) else None
    n = str(known.get("n")) if isinstance(known, Mapping) else ""
    return int(n) if n.isascii() and n.isdigit() and len(n) <= 16 and int(n) <= MOST else None


def callers(module: Module) -> dict[str, list[tuple[Computation, Instruction]]]:
    """Who calls each computation."""
    found: dict[str, list[tuple[Computation, Instruction]]] = {}
    for computation in module.computations.values():
        for i in computation:
            for name in i.called_computations:
                found.setdefault(name, []).append((computation, i))
    return found


def infer_trips(
    module: Module,
    computation: Computation,
    loop: Instruction,
    called_by: Mapping[str, list[tuple[Computation, Instruction]]],
    counted: Counted = known_trip_count,
) -> Trips | None:
    """Iterations of `loop`, an instruction of `computation`; None where its text neither decides nor bounds them.

    `counted` tells the counts of the loops around it that are known already.
    """
    values = Scalars(module, called_by, BUDGET)
    scope = values.scope(computation)
    found = trips(values, scope, loop)
    if (found is None or not found.exact) and values.missing:
        found = _nested(values, scope, loop, counted) or found
    return found if found is None or found.count <= MOST else None


def _nested(values: Scalars, scope: Scope, loop: Instruction, counted: Counted) -> Trips | None:
    """The mean number of iterations of a loop that depends on the counters of those around it."""
    around: list[Scope] = []  # bodies of the loops around, the outermost first
    place: Scope | None = scope
    while place is not None and place.caller is not None:
        if place.caller.opcode == "while":
            if place.caller.attr("body") != place.computation.name:
                return None
            around.insert(0, place)
        place = place.outer
    wanted: set[Variable] = set()
    for _ in range(_AGAIN):
        wanted |= values.missing
        values.missing = set()
        first = next((k for k, each in enumerate(around) if any(v[0] == id(each.caller) for v in wanted)), None)
        if first is None or any(all(v[0] != id(each.caller) for each in around) for v in wanted):
            return None
        nest = _Nest(values, around[first:], counted, wanted, TURNS)
        total, runs, exact = 0, 0, True
        for _ in nest.iterations(0):
            found = trips(values, scope, loop)
            if found is None:
                break
            total, runs, exact = total + int(found.count), runs + 1, exact and found.exact
        else:
            if nest.whole:
                return Trips(Fraction(total, runs) if runs else 0, exact and nest.exact)
        values.known = {}
        values.missing -= wanted
        if not values.missing:
            return None
    return None


@dataclass(slots=True)
class _Nest:
    """Goes through the iterations of the loops around one, with the values of the counters that are `wanted`.

    `whole` turns False where their number is not known or too large, `exact` where it is only bounded.
    """

    values: Scalars
    bodies: list[Scope]
    counted: Counted
    wanted: set[Variable]
    left: int
    whole: bool = True
    exact: bool = True

    def iterations(self, depth: int) -> Iterator[None]:
        """One item for each iteration of the innermost loop; `values.known` has its counters."""
        if depth == len(self.bodies):
            self.left -= 1
            yield
            return
        inside, values = self.bodies[depth], self.values
        loop, outer = inside.caller, inside.outer
        assert loop is not None and outer is not None
        given = self.counted(loop)
        found = Trips(given) if given is not None else trips(values, outer, loop)
        if found is None or not self._start(inside):
            self.whole = False
            return
        self.exact = self.exact and found.exact
        for turn in range(int(found.count)):
            yield from self.iterations(depth + 1)
            values.budget = BUDGET
            if not self.whole or self.left < 0:
                self.whole = False
                return
            mine = any(variable[0] == id(loop) for variable in values.known)
            if mine and turn + 1 < found.count and not _moved(values, inside, first=not turn):
                self.whole = False
                return
        for variable in [variable for variable in values.known if variable[0] == id(loop)]:
            del values.known[variable]

    def _start(self, inside: Scope) -> bool:
        """Gives the wanted counters of a loop the values that they start with."""
        loop, outer = inside.caller, inside.outer
        assert loop is not None and outer is not None
        self.values.budget = BUDGET
        try:
            for variable in [variable for variable in self.wanted if variable[0] == id(loop)]:
                start = self.values.value(outer, outer.computation.by_name[loop.operands[0]], variable[1])
                if start is None:
                    return False
                self.values.known[variable] = start
        except OutOfBudgetError:
            return False
        return True


def _moved(values: Scalars, inside: Scope, first: bool) -> bool:
    try:
        return advance(values, inside, first)
    except OutOfBudgetError:
        return False
