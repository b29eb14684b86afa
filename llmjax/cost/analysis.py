"""The cost of a module: each op's, times how often it runs.

Computations are taken callees first for the work of one call, then callers first for the number of calls, so that a
computation with many call sites is counted once and nesting costs no stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from llmjax.cost import asynchronous, library, loops, memory, rules
from llmjax.cost.fusion import border
from llmjax.cost.given import Given, Table, cost_of
from llmjax.cost.values import (
    ZERO,
    Branches,
    Context,
    Cost,
    FusedCost,
    Loop,
    ModuleCost,
    Number,
    OpCost,
    Traffic,
    UnmodelledError,
    plain,
    total,
)
from llmjax.errors import UserError, did_you_mean
from llmjax.hlo.backend import guess_backend
from llmjax.hlo.ir import Computation, Instruction, Module

# Of a text that parses, but whose operands, dimensions or attributes do not fit the opcode.
_MALFORMED = (ArithmeticError, AttributeError, IndexError, TypeError, ValueError)
_MOST = 1e200  # of a figure: times that follow from it, in the smallest units, are floats still


def cost_module(
    module: Module,
    trip_counts: Mapping[str, int] | None = None,
    branch_probabilities: Mapping[str, Sequence[float]] | None = None,
    custom_calls: Table | None = None,
) -> ModuleCost:
    """Counts FLOPs and bytes of one execution of `module` on one device.

    Args:
        module: a parsed module, of any backend, optimised or not.
        trip_counts: iterations of loops, by the name of the `while` instruction or of its body; they take precedence
            over what the text says.
        branch_probabilities: by the name of a `conditional`, one probability for each branch. Where none are stated the
            branch with the largest sum of FLOPs, transcendentals (as ten each) and bytes counts.
        custom_calls: the user's own figures by custom-call target; they go before what is known of it.

    Raises:
        UserError: a name that is no loop or conditional of the module, a negative count, probabilities that do not fit.
    """
    given, probabilities = dict(trip_counts or {}), dict(branch_probabilities or {})
    _check_names(module, given, probabilities)
    called_by = loops.callers(module)
    order, backend, opened = _callees_first(module), guess_backend(module), asynchronous.started(module)
    work: dict[str, Cost] = {}
    borders: dict[str, Traffic] = {}
    interiors: dict[str, tuple[FusedCost, ...]] = {}
    reasons: dict[str, str] = {}
    ops: dict[str, list[OpCost]] = {}
    calls: dict[str, list[tuple[str, Number]]] = {}
    inclusive: dict[str, Cost] = {}
    found_loops: dict[str, list[Loop]] = {}
    found_branches: dict[str, list[Branches]] = {}

    fused = {i.attr("calls") for c in module.computations.values() for i in c if i.opcode in ("fusion", "fusion-start")}
    for name in order:
        computation = module.computations[name]
        context = Context(module, computation, work, name in fused, backend)
        elsewhere = asynchronous.carried_on(computation, opened) if name in fused else frozenset()
        ops[name], calls[name], found_loops[name], found_branches[name] = [], [], [], []
        for written in computation:
            i = rules.started(written)
            if i.opcode == "while":
                loop, trips = _loop(module, computation, i, given, called_by)
                found_loops[name].append(loop)
                calls[name] += _named(module, i, ("body",), trips) + _named(module, i, ("condition",), trips + 1)
            elif i.opcode == "conditional":
                branches = _branches(computation, i, inclusive, probabilities)
                found_branches[name].append(branches)
                calls[name] += zip(branches.branches, branches.weights, strict=True)
            elif i.opcode in ("call", "async-start"):
                calls[name] += _named(module, i, ("to_apply", "calls", "called_computations"), 1)
            elif (custom_calls or {}).get(i.custom_call_target) is not None and i.opcode == "custom-call":
                ops[name].append(_given(written, i, context, (custom_calls or {})[i.custom_call_target]))
            elif i.name not in elsewhere and not rules.is_free(i.opcode):
                ops[name].append(_op(written, i, context, borders, interiors, reasons))
        called = total(inclusive[callee] * times for callee, times in calls[name])
        own = total(op.cost for op in ops[name])
        work[name], inclusive[name] = (own + called).work, own + called
        if name in fused:
            borders[name], reason = _border(computation, borders, elsewhere)
            interiors[name] = _interior(computation, ops, calls)
            reasons[name] = reason or next((op.unmodelled for op in ops[name] if op.unmodelled), "")
    counts = _counts(module, order, calls)
    runs = [name for name in reversed(order) if name in counts]
    found = ModuleCost(
        module,
        tuple(replace(op, count=counts[name]) for name in runs for op in ops[name]),
        tuple(replace(loop, count=counts[name]) for name in runs for loop in found_loops[name]),
        tuple(replace(branches, count=counts[name]) for name in runs for branches in found_branches[name]),
    )
    _check_size(found)
    return found


def _op(
    written: Instruction,
    i: Instruction,
    context: Context,
    borders: Mapping[str, Traffic],
    interiors: Mapping[str, tuple[FusedCost, ...]],
    reasons: Mapping[str, str],
) -> OpCost:
    """The cost of one execution of an instruction that is not control flow. `i` is `written`, or what it starts."""
    place, callee = context.computation.name, i.attr("calls", "")
    owner = library.library(i)
    if i.opcode == "fusion" and callee in interiors:
        inside, traffic = interiors[callee], memory.placed(borders[callee], i, context)
        cost = total(part.cost for part in inside) + traffic.cost
        return OpCost(written, place, 1, cost, traffic, inside, owner, reasons[callee])
    rule, reason, dense = rules.rule(i.opcode), "", None
    try:
        if rule is None:
            raise UnmodelledError(f"no rule for opcode {i.opcode!r}")
        work, traffic = rule.work(i, context), rule.traffic(i, context)
        if min(getattr(work + traffic.cost, name) for name in Cost.__dataclass_fields__) < 0:
            raise ValueError("its sizes give less than nothing")
        dense = library.dense(i, context)
    except UnmodelledError as error:
        reason, work = str(error), ZERO
        traffic = memory.whole(i, context)
    except _MALFORMED as error:
        reason, work = f"malformed {i.opcode}: {error}", ZERO
        traffic = memory.whole(i, context)
    traffic = memory.placed(traffic, i, context)
    left_out = None if dense is None or dense.flops == work.flops else dense.flops
    return OpCost(written, place, 1, work + traffic.cost, traffic, (), owner, reason, left_out)


def _given(written: Instruction, i: Instruction, context: Context, figures: Given) -> OpCost:
    """The cost of one execution of a custom call by its user's figures."""
    place, owner = context.computation.name, library.library(i)
    try:
        work, traffic = cost_of(figures, i, context)
    except UnmodelledError as error:
        traffic = memory.placed(memory.whole(i, context), i, context)
        return OpCost(written, place, 1, traffic.cost, traffic, (), owner, str(error))
    traffic = memory.placed(traffic, i, context)
    return OpCost(written, place, 1, work + traffic.cost, traffic, (), owner, given=True)


def _border(computation: Computation, inner: Mapping[str, Traffic], elsewhere: frozenset[str]) -> tuple[Traffic, str]:
    """Bytes at the border of a fused computation, and why they are not modelled, "" where they are."""
    try:
        return border(computation, rules.is_elementwise, inner, elsewhere), ""
    except _MALFORMED as error:
        parameters = tuple(p.shape.bytes for p in computation.parameters)
        return Traffic(parameters, memory.writes(computation.root.shape)), f"malformed fusion: {error}"


def _interior(
    computation: Computation,
    ops: Mapping[str, list[OpCost]],
    calls: Mapping[str, list[tuple[str, Number]]],
) -> tuple[FusedCost, ...]:
    """The work of a fused computation, instruction by instruction; of fusions and calls inside, theirs."""
    found: list[FusedCost] = []
    stack: list[tuple[str, Number]] = [(computation.name, 1)]
    while stack:
        name, times = stack.pop()
        for op in ops[name]:
            parts = op.fused or (FusedCost(op.instruction, name, op.cost.work),)
            found += parts if times == 1 else [replace(part, cost=part.cost * times) for part in parts]
        stack += [(callee, times * n) for callee, n in calls[name]]
    return tuple(found)


def _loop(
    module: Module,
    computation: Computation,
    i: Instruction,
    given: Mapping[str, int],
    called_by: Mapping[str, list[tuple[Computation, Instruction]]],
) -> tuple[Loop, Number | Fraction]:
    """A loop, and how often it runs its body; once where nobody knows."""

    def stated(loop: Instruction) -> int | None:
        return given.get(loop.name, given.get(loop.attr("body", "")))

    def counted(loop: Instruction) -> int | None:
        count = stated(loop)
        return loops.known_trip_count(loop) if count is None else count

    known = counted(i)
    if known is not None:
        source = "known_trip_count" if stated(i) is None else "given"
        return Loop(i, computation.name, known, source, 1), known
    found = loops.infer_trips(module, computation, i, called_by, counted)
    if found is None:
        return Loop(i, computation.name, None, "unknown", 1), 1
    return Loop(i, computation.name, plain(found.count), "inferred" if found.exact else "bounded", 1), found.count


def _branches(
    computation: Computation,
    i: Instruction,
    inclusive: Mapping[str, Cost],
    probabilities: Mapping[str, Sequence[float]],
) -> Branches:
    names = tuple(name for name in i.called_computations if name in inclusive)
    if i.name in probabilities:
        weights = tuple(probabilities[i.name])
        if len(weights) != len(names) or min(weights) < 0 or sum(weights) > 1 + 1e-6:
            raise UserError(
                f"branch_probabilities[{i.name!r}]={list(weights)} must be {len(names)} probabilities, one a branch,"
                " that sum to at most 1."
            )
        return Branches(i, computation.name, names, tuple(int(w) if w in (0, 1) else w for w in weights), True, 1)
    sizes = [inclusive[n].flops + 10 * inclusive[n].transcendentals + inclusive[n].memory_bytes for n in names]
    largest = sizes.index(max(sizes)) if sizes else 0
    return Branches(i, computation.name, names, tuple(int(k == largest) for k in range(len(names))), False, 1)


def _named(module: Module, i: Instruction, attributes: tuple[str, ...], times: Any) -> list[tuple[str, Any]]:
    """The computations that the first of `attributes` which `i` has names."""
    for attribute in attributes:
        value = i.attr(attribute)
        if value:
            names = (value,) if isinstance(value, str) else value
            return [(name, times) for name in names if name in module.computations]
    return []


def _callees_first(module: Module) -> list[str]:
    """Names of all computations that the entry reaches, each after those it calls."""
    order: list[str] = []
    seen: set[str] = set()
    stack = [(module.entry_name, False)]
    while stack:
        name, leaving = stack.pop()
        if leaving:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            callees = dict.fromkeys(n for i in module.computations[name] for n in i.called_computations)
            stack += [(callee, False) for callee in callees if callee in module.computations]
    return order


def _counts(module: Module, order: Sequence[str], calls: Mapping[str, list[tuple[str, Number]]]) -> dict[str, Number]:
    """How often each computation runs as control flow: 1 for the entry, then down the calls."""
    counts: dict[str, Number] = {module.entry_name: 1}
    for name in reversed(order):
        if name in counts:
            for callee, times in calls[name]:
                counts[callee] = counts.get(callee, 0) + counts[name] * times
    return {name: plain(count) for name, count in counts.items()}


def _check_size(cost: ModuleCost) -> None:
    """Refuses figures that no machine's numbers hold: a loop's count or a dimension in the text is damaged."""
    try:
        figures = [getattr(cost.totals, name) for name in Cost.__dataclass_fields__] + [op.count for op in cost.ops]
        if all(float(figure) < _MOST for figure in figures):
            return
    except OverflowError:
        pass
    named = ", ".join(f"{loop.name} x{loop.trip_count}" for loop in cost.loops if (loop.trip_count or 0) > 1)
    raise UserError(
        f"module {cost.module.name!r}: it counts more than {_MOST:g} operations or bytes, which no machine does; the"
        f" text is damaged, or a trip count is wrong{f' ({named[:200]})' if named else ''}."
    )


def _check_names(module: Module, trip_counts: Mapping[str, int], probabilities: Mapping[str, Sequence[float]]) -> None:
    instructions = [i for c in module.computations.values() for i in c]
    loop_names = {n for i in instructions if i.opcode == "while" for n in (i.name, i.attr("body", ""))}
    branch_names = {i.name for i in instructions if i.opcode == "conditional"}
    for name, count in trip_counts.items():
        if name not in loop_names:
            raise UserError(
                f"trip_counts[{name!r}]: module {module.name!r} has no such loop.{did_you_mean(name, loop_names)}"
            )
        if not 0 <= count <= loops.MOST:
            raise UserError(f"trip_counts[{name!r}]={count} must be 0 or more, and at most 2^53.")
    for name in probabilities:
        if name not in branch_names:
            raise UserError(
                f"branch_probabilities[{name!r}]: module {module.name!r} has no such conditional."
                f"{did_you_mean(name, branch_names)}"
            )
