"""Work and span of a program: all it has to do, and the longest chain of it in which each step needs the one before.

Their ratio is the parallelism: on however many units, no run is shorter than the span, and none needs more units than
the parallelism to come within twice that (R. P. Brent, "The parallel evaluation of general arithmetic expressions",
JACM 1974). Data dependencies order a computation's instructions; iterations of a loop come one after another. No JAX
import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmjax.cost.rules import is_elementwise
from llmjax.cost.values import ModuleCost
from llmjax.hlo.ir import Computation, Instruction, Module, Shape

Weight = Callable[[Instruction, Computation], float]


@dataclass(frozen=True, slots=True)
class Span:
    """`work` and `span` in the unit of the weights; `chain` names the entry's instructions on the longest chain."""

    work: float
    span: float
    chain: tuple[str, ...] = ()

    @property
    def parallelism(self) -> float:
        """How many units could work at once, on average; 1 where there is nothing to do."""
        return self.work / self.span if self.span else 1.0


def work_and_span(
    module: Module, weight: Weight, trips: Mapping[str, float] | None = None, inside: bool = False
) -> Span:
    """Adds up a module's weights, all of them and along the longest chain.

    Args:
        weight: of one execution of an instruction, 0 or more; of a `while` it is not asked.
        trips: how often a `while` runs, by its name; one that is not named runs once.
        inside: weigh the instructions inside a fusion, not the fusion.
    """
    return _Walk(module, weight, trips or {}, inside).computation(module.entry_name)


def op_span(cost: ModuleCost, seconds: Mapping[str, float]) -> Span:
    """Work and span between ops, in seconds: an op is one step, however much goes on inside.

    Args:
        seconds: of all executions of an op in a run of the program, by name; what is not named takes none.
    """
    counts = {op.name: float(op.count) for op in cost.ops}
    return work_and_span(
        cost.module, lambda i, _: seconds.get(i.name, 0.0) / (counts.get(i.name) or 1.0), trip_counts(cost)
    )


def depth(cost: ModuleCost) -> float:
    """The longest chain of dependent scalar operations: the span of the arithmetic itself, inside ops too.

    An elementwise operation is one step, n terms are summed in ceil(log2 n) steps by pairs, a product of matrices
    multiplies in one step and sums, a library's too, a sort of n takes the k(k+1)/2 rounds of Batcher's network,
    k = ceil(log2 n); moving data takes none.
    """
    products = {op.name: float(op.cost.matmul_flops) for op in cost.ops if op.opcode.startswith("custom-call")}

    def steps(i: Instruction, computation: Computation) -> float:
        flops = products.get(i.name, 0.0)
        outputs = next((leaf.elements for leaf in i.shape.leaves), 0)
        if flops and outputs:  # of a library: as many terms as its FLOPs are for each element of its result
            return 1.0 + _halvings(max(1, round(flops / 2 / outputs)))
        return _steps(i, computation)

    return work_and_span(cost.module, steps, trip_counts(cost), inside=True).span


def trip_counts(cost: ModuleCost) -> dict[str, float]:
    """Iterations of each loop by name, 1 where nobody knows."""
    return {loop.name: float(1 if loop.trip_count is None else loop.trip_count) for loop in cost.loops}


class _Walk:
    """Sums over computations, each computation once."""

    def __init__(self, module: Module, weight: Weight, trips: Mapping[str, float], inside: bool) -> None:
        self.module, self.weight, self.trips, self.inside = module, weight, trips, inside
        self.found: dict[str, Span] = {}

    def computation(self, name: str) -> Span:
        if name not in self.found:
            self.found[name] = self._walk(self.module.computations[name])
        return self.found[name]

    def _walk(self, computation: Computation) -> Span:
        work, ends, before = 0.0, {}, {}
        for i in computation:  # the text has what an instruction needs above it
            own = self._one(i, computation)
            needed = (*i.operands, *i.attr("control-predecessors", ()))
            latest = max(needed, key=lambda name: ends[name], default="")
            ends[i.name] = own.span + (ends[latest] if latest else 0.0)
            before[i.name] = latest
            work += own.work
        last = max(ends, key=lambda name: ends[name], default="")
        span, chain = ends.get(last, 0.0), []
        while last:
            earlier = before[last]
            if ends[last] > ends.get(earlier, 0.0):
                chain.append(last)
            last = earlier
        return Span(work, span, tuple(reversed(chain)))

    def _one(self, i: Instruction, computation: Computation) -> Span:
        if i.opcode == "while":
            turns = self.trips.get(i.name, 1.0)
            parts = [self.computation(i.attr(name)) for name in ("condition", "body") if i.attr(name)]
            return Span(turns * sum(p.work for p in parts), turns * sum(p.span for p in parts))
        if i.opcode == "fusion" and self.inside:
            return self.computation(i.attr("calls"))
        called = [self.computation(name) for name in i.called_computations] if i.opcode in _CONTROL else []
        if i.opcode == "conditional" and called:
            return max(called, key=lambda branch: branch.work)
        own = self.weight(i, computation)
        return Span(own + sum(c.work for c in called), own + sum(c.span for c in called))


_CONTROL = ("call", "conditional", "async-start")


def _steps(i: Instruction, computation: Computation) -> float:
    """Steps of dependent scalar operations in one instruction."""
    if is_elementwise(i.opcode):
        return 1.0
    if i.opcode in ("dot", "scaled-dot", "ragged-dot"):
        shape = computation[i.operands[0]].shape
        return 1.0 + _halvings(math.prod(shape.dims[d] for d in i.dot_dims.lhs_contracting))
    if i.opcode == "convolution":
        kernel, out = computation[i.operands[1]].shape, i.shape
        features = out.dims[i.attr("dim_labels").out_feature] if i.attr("dim_labels") else 1
        return 1.0 + _halvings(kernel.elements // max(1, features))
    if i.opcode == "reduce":
        shape = computation[i.operands[0]].shape
        return _halvings(math.prod(shape.dims[d] for d in i.attr("dimensions", ())))
    if i.opcode == "reduce-window":
        return _halvings(math.prod(i.window.size))
    if i.opcode == "sort":
        rounds = _halvings(_sorted_length(i, computation[i.operands[0]].shape))
        return rounds * (rounds + 1) / 2
    return 0.0


def _sorted_length(i: Instruction, shape: Shape) -> int:
    """Elements of a line along the dimension that is sorted, the last one where the text names none."""
    dim = next(iter(i.attr("dimensions", ())), shape.rank - 1)
    return shape.dims[dim] if shape.dims else 1


def _halvings(n: int) -> float:
    return float(math.ceil(math.log2(n))) if n > 1 else 0.0
