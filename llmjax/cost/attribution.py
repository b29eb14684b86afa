"""Whose cost it is: every op's, split over the instructions inside it, by module, role, layer, pass and source line.

The parts of an op add up to it exactly. Its work goes to the interior instructions that do it. Its bytes go to those
at the border: what is read of an operand, in equal parts to the instructions that read it; what is written, to the
instruction that makes it (seen through bitcasts, reshapes and tuples); what is left (constants) to the root. Odd bytes
go to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from llmjax.cost.kinds import kind_of
from llmjax.cost.names import MOVES, Reader
from llmjax.cost.paths import class_path, function_path, is_installed, is_product_with_weights, weights_path
from llmjax.cost.roles import DATA_MOVEMENT, OTHER, UNATTRIBUTED, RoleTable
from llmjax.cost.values import ZERO, Cost, ModuleCost, Number, OpCost, moved, total
from llmjax.hlo.ir import Computation, Instruction, Module, Shape

Key = Literal["role", "layer", "module_path", "source", "pass", "opcode", "function"]
KEYS: tuple[Key, ...] = ("role", "layer", "module_path", "source", "pass", "opcode", "function")
NO_LAYER = "no layer"
_SAME_BUFFER = frozenset({"bitcast", "reshape", "tuple", "get-tuple-element"})
_HOPS = 16  # so far a name is looked for
_NAMELESS = Instruction("", "", Shape("token"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cost belongs. `module_path`, `source` ("file:line") and `function` are "" where the text does not say.

    `source` is the innermost frame outside installed libraries, or the innermost of all. `direction` is the pass:
    "forward" (all of a program without derivatives), "backward" (recomputation included) or "other".
    """

    module_path: str = ""
    role: str = UNATTRIBUTED
    layer: int | None = None
    direction: str = "other"
    source: str = ""
    function: str = ""

    def key(self, key: Key) -> str | int:
        """The name of the row of breakdown `key` that this belongs to."""
        if key == "layer":
            return self.layer if self.layer is not None else NO_LAYER if self.module_path else UNATTRIBUTED
        values = {"role": self.role, "module_path": self.module_path, "pass": self.direction, "source": self.source}
        return (self.function if key == "function" else values[key]) or UNATTRIBUTED


@dataclass(frozen=True, slots=True)
class Part:
    """The share of one execution of an op that one instruction has: the op itself, or one of a fusion's interior."""

    instruction: Instruction
    place: Place
    cost: Cost

    def key(self, key: Key) -> str | int:
        """The name of the row of breakdown `key` that this belongs to."""
        return self.instruction.opcode if key == "opcode" else self.place.key(key)


@dataclass(frozen=True, slots=True)
class AttributedOp:
    """An op with its place and its parts. The place is that of its largest part: most matmul FLOPs, then most bytes."""

    op: OpCost
    place: Place
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        return self.op.name

    @property
    def opcode(self) -> str:
        return self.op.opcode

    @property
    def count(self) -> Number:
        return self.op.count

    @property
    def total(self) -> Cost:
        """Cost of all executions."""
        return self.op.total

    @property
    def largest(self) -> Part:
        """The part that the op's place is of."""
        return max(self.parts, key=_size)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a breakdown: its name (a number for a layer), how many ops have a share in it, and their cost."""

    key: str | int
    ops: int
    cost: Cost


def attribute(cost: ModuleCost, roles: RoleTable | None = None) -> tuple[AttributedOp, ...]:
    """Returns every op of `cost` with its place and its parts, in the same order.

    An instruction without a name, of XLA's making, takes a name near it: inside a fusion the fusion's; else that of the
    first instruction that reads it, or that makes an operand of it; else that of the call or loop it is in. If it only
    moves data and is in no fusion, its role is data movement. Where no name tells a role it is what the instruction
    does (kinds.py).
    """
    return tuple(_Attribution(cost.module, roles or RoleTable()).ops(cost))


def breakdown(ops: Iterable[AttributedOp], key: Key) -> tuple[Row, ...]:
    """Sums `ops` by `key`: layers in order, all else with the largest share of FLOPs or bytes first."""
    sums: dict[str | int, list[Number]] = {}
    counts: dict[str | int, int] = {}
    for op in ops:
        seen = set()
        for part in op.parts:
            name = part.key(key)
            values = _values(part.cost)
            row = sums.setdefault(name, [0] * len(values))
            for k, value in enumerate(values):
                row[k] += value * op.count
            seen.add(name)
        for name in seen:
            counts[name] = counts.get(name, 0) + 1
    rows = [Row(name, counts[name], Cost(*values)) for name, values in sums.items()]
    if key == "layer":
        return tuple(sorted(rows, key=lambda row: (isinstance(row.key, str), row.key)))
    size = share_of(total(row.cost for row in rows))
    return tuple(sorted(rows, key=lambda row: size(row.cost), reverse=True))


def share_of(totals: Cost) -> Callable[[Cost], float]:
    """How large a cost is beside `totals`: its share of FLOPs or of bytes, whichever is larger."""

    def share(cost: Cost) -> float:
        flops = cost.flops / totals.flops if totals.flops else 0.0
        return max(flops, cost.memory_bytes / totals.memory_bytes if totals.memory_bytes else 0.0)

    return share


def _values(c: Cost) -> tuple[Number, ...]:
    work = (c.matmul_flops, c.vector_flops, c.transcendentals)
    return (*work, c.bytes_read, c.bytes_written, c.collective_bytes, c.on_chip_bytes, c.host_bytes)


class _Attribution:
    """One pass over a module; what it has found out about a computation or a name it keeps."""

    def __init__(self, module: Module, roles: RoleTable):
        self.module = module
        self.callers: dict[str, tuple[Instruction, str]] = {}  # who calls a computation, and where it stands
        names: set[str] = set()
        arguments = frozenset(p.metadata.op_name for p in module.entry.parameters)
        for computation in module.computations.values():
            for i in computation:
                names.add(i.metadata.op_name)
                for callee in i.called_computations:
                    self.callers.setdefault(callee, (i, computation.name))
        self.reader = Reader(roles, names, arguments)
        self.places: dict[object, Place] = {}
        self.readers: dict[str, dict[str, tuple[Instruction, ...]]] = {}

    def ops(self, cost: ModuleCost) -> Iterator[AttributedOp]:
        for op in cost.ops:
            parts = self.parts(op)
            largest = max(parts, key=_size)
            yield AttributedOp(op, largest.place, parts)

    def parts(self, op: OpCost) -> tuple[Part, ...]:
        callee = self.module.computations.get(op.instruction.attr("calls", "") or "")
        if not op.fused or callee is None:
            return (Part(op.instruction, self.place(op.instruction, op.computation), op.cost),)
        costs: dict[int, Cost] = {}
        found: dict[int, tuple[Instruction, str]] = {}
        for part in op.fused:
            key = id(part.instruction)
            if part.cost:
                costs[key] = costs[key] + part.cost if key in costs else part.cost
                found[key] = (part.instruction, part.computation)
        for i, share in self.border(op, callee):
            costs[id(i)] = costs.get(id(i), ZERO) + share
            found.setdefault(id(i), (i, callee.name))
        if not found:
            return (Part(op.instruction, self.place(op.instruction, op.computation), op.cost),)
        return tuple(Part(i, self.place(i, home, op.instruction), costs[key]) for key, (i, home) in found.items())

    def border(self, op: OpCost, interior: Computation) -> Iterator[tuple[Instruction, Cost]]:
        """The shares of an op's bytes, each with the instruction of `interior` it goes to."""
        parameters, makers = interior.parameters, _makers(interior)
        traffic, rest = op.traffic, op.traffic.cost
        for k, (parameter, size) in enumerate(zip(parameters, traffic.reads, strict=False)):
            takers = self.takers(interior, parameter)
            for taker, share in zip(takers, _even(size, len(takers)), strict=True):
                if share:
                    found = moved(traffic.read_space(k), read=share)
                    rest += found * -1
                    yield taker, found
        for k, (maker, size) in enumerate(zip(makers, traffic.writes, strict=False)):
            if size:
                found = moved(traffic.write_space(k), written=size)
                rest += found * -1
                yield maker, found
        if rest:
            yield makers[0] if makers else interior.root, rest

    def users(self, computation: Computation) -> dict[str, tuple[Instruction, ...]]:
        if computation.name not in self.readers:
            self.readers[computation.name] = computation.users()
        return self.readers[computation.name]

    def takers(self, interior: Computation, parameter: Instruction) -> tuple[Instruction, ...]:
        """The instructions that read a parameter, seen through other names of its buffer, in order of the text."""
        users = self.users(interior)
        found: set[str] = set()
        stack = [parameter.name]
        seen = set(stack)
        while stack:
            for user in users[stack.pop()]:
                if user.opcode not in _SAME_BUFFER:
                    found.add(user.name)
                elif user.name not in seen:
                    seen.add(user.name)
                    stack.append(user.name)
        if len(found) > 1:
            return tuple(i for i in interior if i.name in found)
        return tuple(interior[name] for name in found) or (interior.root,)

    def place(self, i: Instruction, home: str, fusion: Instruction | None = None) -> Place:
        """The place of an instruction of the computation `home`, inside `fusion` if given."""
        named = self.named(i, home)
        m = named.metadata
        moves = named is not i and fusion is None and i.opcode.removesuffix("-start") in MOVES
        own = named is i or named is fusion
        opcode = i.opcode if not own or i.opcode in ("dot", "convolution") else ""
        # What has no scope, as torch-xla writes `op_name="aten__mm"`, may say its line all the same.
        own_source = self.module.source(i) is not None
        line = i.metadata if own_source else m
        paths = self.paths(i, home, i if own_source else named)
        weights = is_product_with_weights(i)
        kind = DATA_MOVEMENT if moves else kind_of(i)
        key = (m.op_name, line.stack_frame_id, line.source_file, line.source_line, opcode, weights, paths[0], kind)
        if key not in self.places:
            source, function = self.source(i) if own_source else self.source(named)
            roles = [kind] if moves else [self.reader.role(m.op_name, opcode, weights, path) for path in paths]
            named_roles = [role for role in roles if role not in (OTHER, UNATTRIBUTED)]
            self.places[key] = Place(
                paths[0] or self.reader.name(m.op_name).path,
                named_roles[0] if named_roles else kind or roles[0],
                self.reader.layer(m.op_name, paths[0]),
                self.reader.direction(m.op_name),
                source,
                function,
            )
        return self.places[key]

    def paths(self, i: Instruction, home: str, told: Instruction) -> list[str]:
        """Paths of `i` where names have no scopes of the program's own, the most telling first; else [""].

        As of Flax NNX, Equinox and plain JAX: by the weights that `i` reads, and by the stack of `told`.
        """
        if self.reader.scoped:
            return [""]
        found = (weights_path(self.module, self.callers, i, home), class_path(self.module, told))
        return [path for path in (*found, function_path(self.module, told)) if path] or [""]

    def named(self, i: Instruction, home: str) -> Instruction:
        """The instruction whose name counts for `i`: itself, or one near it with a name; `_NAMELESS` if none has."""
        for _ in range(_HOPS):
            if self.has_name(i):
                return i
            caller, around = self.callers.get(home, (None, ""))
            neighbour = None if caller is not None and "fusion" in caller.opcode else self.neighbour(i, home)
            if neighbour is not None and self.has_name(neighbour):
                return neighbour
            if neighbour is not None and neighbour.name in self.module.computations[home].by_name:
                i = neighbour
            elif caller is not None:
                i, home = caller, around
            else:
                break
        return i if self.has_name(i) else _NAMELESS

    def has_name(self, i: Instruction) -> bool:
        """Whether `i` says what it is part of: by scopes, or as an operation that knows its line."""
        op_name = i.metadata.op_name
        if not op_name or self.reader.name(op_name).argument:
            return False
        return "/" in op_name or self.module.source(i) is not None

    def neighbour(self, i: Instruction, home: str) -> Instruction | None:
        """The first named reader of `i`, of a fusion the interior instruction that reads it; else the first named maker
        of an operand; else the first reader."""
        computation = self.module.computations[home]
        readers = self.users(computation)[i.name]
        for reader in readers:
            interior = self.module.computations.get(reader.attr("calls", "") or "")
            if interior is not None and "fusion" in reader.opcode:
                parameters = interior.parameters
                place = reader.operands.index(i.name)
                for taker in self.takers(interior, parameters[place]) if place < len(parameters) else ():
                    if self.has_name(taker):
                        return taker
            if self.has_name(reader):
                return reader
        makers = (maker for maker in computation.operands(i) if self.has_name(maker))
        return next(makers, readers[0] if readers else None)

    def source(self, i: Instruction) -> tuple[str, str]:
        stack = self.module.stack(i)
        own = (frame for frame in stack if not is_installed(frame))
        frame = next(own, stack[0] if stack else None)
        return (f"{frame.file}:{frame.line}", frame.function) if frame else ("", "")


def _makers(interior: Computation) -> list[Instruction]:
    """For each result of a fused computation the instruction that makes it, in the order of `Traffic.writes`."""
    found: list[Instruction] = []
    stack = [interior.root]
    while stack:
        i = stack.pop()
        operands = interior.operands(i)
        if i.opcode == "tuple":
            stack.extend(reversed(operands))
            continue
        leaves = len(i.shape.leaves)
        while i.opcode in ("bitcast", "reshape"):
            i = interior.by_name[i.operands[0]]
        found += [i] * leaves
    return found


def _even(size: int, count: int) -> list[int]:
    share, odd = divmod(size, count)
    return [share + (k < odd) for k in range(count)]


def _size(part: Part) -> tuple[Number, Number, Number]:
    c = part.cost
    return c.matmul_flops, c.memory_bytes, c.flops + c.transcendentals
