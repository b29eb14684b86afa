"""What an op does of twice the rows, from the HLO alone: weights are read once whatever the batch. No JAX import.

Weights are arguments of the program that a matrix product takes as they are, or converted, moved, sliced or scaled,
while its other side is computed. All else belongs to the rows, caches of keys and values too, and doubles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from llmjax.cost.paths import is_product_with_weights
from llmjax.cost.values import FusedCost, ModuleCost, OpCost
from llmjax.cycles.contracted import MATRIX
from llmjax.cycles.features import Features
from llmjax.hlo.ir import Instruction, Module

_RENAMES = """
all-gather bitcast bitcast-convert concatenate convert copy dynamic-slice multiply optimization-barrier
reduce-precision reshape slice subtract transpose
"""
_FOLLOWED = frozenset(_RENAMES.split())  # what makes weights of weights
_JOINS = ("ConcatBitcast",)  # a TPU's custom call: slices that were fetched one by one, as one array
_CALLS = ("fusion", "call", "async-start", "async-done")
_BACKWARD = "transpose(jvp("  # in the names of what JAX derives

Names = frozenset[str]


class Kept(NamedTuple):
    """What twice the rows leave as it is of an op: bytes read of weights, or all of it (`whole`).

    `side` is the operand of its product that is weights, None where none is.
    """

    bytes: float = 0.0
    side: int | None = None
    whole: bool = False


def kept_of(cost: ModuleCost) -> Mapping[str, Kept] | None:
    """Returns what each op keeps, by name; None where the text does not tell weights from rows, or there are none.

    Nothing is said of training, in which gradients and updates are as large as the weights.
    """
    module = cost.module
    if any(_BACKWARD in (i.metadata.op_name or "") for c in module.computations.values() for i in c):
        return None
    origins = _Origins(module)
    sides: dict[str, int] = {}
    weights: set[str] = set()
    for op in cost.ops:
        for part in op.fused or (FusedCost(op.instruction, op.computation, op.cost),):
            found = _weights_side(part, origins)
            if found is None:
                continue
            side, names = found
            if side < 0:
                return None
            sides[op.name], weights = side, weights | names
    given = {alias.parameter for alias in module.input_output_alias}
    donated = {i.name for i in module.entry.parameters if i.parameter_number in given}
    if not weights or weights & donated:
        return None
    return {op.name: _kept(op, origins, weights, sides.get(op.name)) for op in cost.ops}


def twice_the_rows(ops: Sequence[Features], kept: Mapping[str, Kept]) -> tuple[Features, ...]:
    """Returns the ops of a program as they would be with twice the rows."""
    return tuple(_twice(f, kept.get(f.name, Kept())) for f in ops)


def _twice(f: Features, kept: Kept) -> Features:
    if kept.whole:
        return f
    sizes = {0: {"n": 2 * f.n}, 1: {"m": 2 * f.m}}.get(-1 if kept.side is None else kept.side, {"batch": 2 * f.batch})
    names = ("matmul", "vector", "exponentials", "strided", "overfetched", "wire", "host")
    amounts = {name: 2 * getattr(f, name) for name in names}
    attention = f.attention._replace(blocks=2 * f.attention.blocks)
    return replace(f, bytes=_bytes(f.bytes, kept.bytes), attention=attention, **sizes, **amounts)


def _bytes(levels: tuple[float, ...], kept: float) -> tuple[float, ...]:
    """Twice the bytes, less the weights', which come from the farthest levels."""
    far = [sum(levels[n:]) for n in range(len(levels) + 1)]
    mine = [min(kept, beyond) for beyond in far]
    return tuple(2 * size - (here - after) for size, (here, after) in zip(levels, pairwise(mine), strict=True))


def _kept(op: OpCost, origins: _Origins, weights: set[str], side: int | None) -> Kept:
    made_of = origins.of(op.computation, op.name)
    if made_of and made_of <= weights:
        return Kept(whole=True)
    if side is None:
        return Kept()
    reads = zip(op.instruction.operands, op.traffic.reads, strict=False)
    own = sum(size for name, size in reads if (o := origins.of(op.computation, name)) and o <= weights)
    return Kept(float(own), side)


def _weights_side(part: FusedCost, origins: _Origins) -> tuple[int, Names] | None:
    """Which operand of a product is weights, and the arguments they are; -1 where it could be either."""
    i = part.instruction
    is_product = i.opcode in MATRIX or i.opcode.startswith("custom-call")
    if not is_product or not part.cost.matmul_flops or len(i.operands) < 2:
        return None
    found = [origins.of(part.computation, name) for name in i.operands[:2]]
    if i.opcode == "convolution" and not is_product_with_weights(i):
        one = all(step == 1 for step in i.window.lhs_dilate)  # a TPU's batch of products dilates
        return (1, found[1]) if one and found[1] else None
    if not is_product_with_weights(i):
        return None
    sides = [k for k, names in enumerate(found) if names]
    if len(sides) == 2:  # both are arguments: those of a tree are weights
        sides = [k for k in sides if any(origins.is_in_a_tree(name) for name in found[k] or ())]
        if len(sides) != 1:
            return -1, frozenset()
    return (sides[0], found[sides[0]] or frozenset()) if sides else None


@dataclass
class _Origins:
    """Of which arguments of the program an instruction's value is another form."""

    module: Module

    def __post_init__(self) -> None:
        self.known: dict[tuple[str, str], Names | None] = {}
        self.callers: dict[str, tuple[Instruction, str]] = {}
        for computation in self.module.computations.values():
            for i in computation:
                for callee in i.called_computations:
                    self.callers.setdefault(callee, (i, computation.name))

    def is_in_a_tree(self, parameter: str) -> bool:
        """Whether an argument's name has keys: `params['w']`, `model.layers[0].weight`."""
        return bool(set("[.") & set(self.module.entry.by_name[parameter].metadata.op_name or ""))

    def of(self, home: str, name: str) -> Names | None:
        """Names of the arguments, none of a scalar or constant; None of what is computed."""
        key = (home, name)
        if key not in self.known:
            self.known[key] = None  # of what a loop makes of itself
            self.known[key] = self._of(home, self.module.computations[home].by_name[name])
        return self.known[key]

    def _of(self, home: str, i: Instruction) -> Names | None:
        if i.opcode in ("constant", "iota") or (i.shape.is_array and i.shape.elements == 1):
            return frozenset()
        if i.opcode == "parameter":
            return self._argument(home, i)
        if i.opcode == "get-tuple-element":
            return self._element(home, i.operands[0], i.attr("index", 0))
        if i.opcode in _CALLS and i.called_computations:
            inner = self.module.computations[i.called_computations[0]]
            return self.of(inner.name, inner.root.name)
        moves = i.opcode.removesuffix("-start").removesuffix("-done") in _FOLLOWED
        if not moves and i.custom_call_target not in _JOINS:
            return None
        return _all(self.of(home, name) for name in i.operands)

    def _argument(self, home: str, i: Instruction) -> Names | None:
        if home == self.module.entry.name:
            return frozenset((i.name,))
        caller, around = self.callers.get(home, (None, ""))
        if caller is None or caller.opcode not in _CALLS or i.parameter_number >= len(caller.operands):
            return None
        return self.of(around, caller.operands[i.parameter_number])

    def _element(self, home: str, name: str, index: int) -> Names | None:
        """The same of an element of a tuple; of one that a loop hands on as it is, what it was before the loop."""
        i = self.module.computations[home].by_name[name]
        if i.opcode == "tuple":
            return self.of(home, i.operands[index])
        if i.opcode == "optimization-barrier":
            return self._element(home, i.operands[0], index)
        if i.opcode == "while":
            return self._element(home, i.operands[0], index) if self._hands_on(i, index) else None
        if i.opcode == "parameter":
            caller, around = self.callers.get(home, (None, ""))
            if caller is not None and caller.opcode == "while" and self._hands_on(caller, index):
                return self._element(around, caller.operands[0], index)
        return None

    def _hands_on(self, loop: Instruction, index: int) -> bool:
        body = self.module.computations[loop.attr("body", "")]
        if body.root.opcode != "tuple":
            return False
        made = body.by_name[body.root.operands[index]]
        given = made.operands and body.by_name[made.operands[0]].opcode == "parameter"
        return made.opcode == "get-tuple-element" and bool(given) and made.attr("index", -1) == index


def _all(found: Iterable[Names | None]) -> Names | None:
    names: Names = frozenset()
    for each in found:
        if each is None:
            return None
        names |= each
    return names
