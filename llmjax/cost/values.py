"""What an analysis gives: the cost of an op, of its interiors, of a module. Frozen values, exact integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from llmjax.hlo.ir import Computation, Instruction, Module, Shape

Number = int | float
Space = Literal["device", "on-chip", "host"]  # whose memory: HBM or DRAM, the compute unit's own, the host's


class UnmodelledError(Exception):
    """Raised by a rule that knows it cannot count an instruction; its message is the reason, for the report."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Work and traffic. Integers, unless scaled by a probability.

    FLOPs follow XLA: one multiply-add is 2, an integer or boolean operation counts as one, transcendentals are apart.
    `bytes_read` and `bytes_written` are those of the device's main memory (HBM, a CPU's DRAM). `on_chip_bytes` are read
    and written in memory that the program itself places arrays in (a TPU's VMEM), `host_bytes` in the host's memory,
    over PCIe. `collective_bytes` are what one device sends over the interconnect.
    """

    matmul_flops: Number = 0
    vector_flops: Number = 0
    transcendentals: Number = 0
    bytes_read: Number = 0
    bytes_written: Number = 0
    collective_bytes: Number = 0
    on_chip_bytes: Number = 0
    host_bytes: Number = 0

    @property
    def flops(self) -> Number:
        """FLOPs of both units, without transcendentals: what XLA calls `flops`."""
        return self.matmul_flops + self.vector_flops

    @property
    def bytes(self) -> Number:
        """Bytes read and written in the device's main memory."""
        return self.bytes_read + self.bytes_written

    @property
    def memory_bytes(self) -> Number:
        """Bytes read and written in all memories: what XLA calls `bytes accessed`."""
        return self.bytes_read + self.bytes_written + self.on_chip_bytes + self.host_bytes

    @property
    def work(self) -> Cost:
        """The same cost without memory traffic."""
        return Cost(self.matmul_flops, self.vector_flops, self.transcendentals, 0, 0, self.collective_bytes)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.matmul_flops + other.matmul_flops,
            self.vector_flops + other.vector_flops,
            self.transcendentals + other.transcendentals,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.collective_bytes + other.collective_bytes,
            self.on_chip_bytes + other.on_chip_bytes,
            self.host_bytes + other.host_bytes,
        )

    def __mul__(self, times: Number) -> Cost:
        return Cost(
            self.matmul_flops * times,
            self.vector_flops * times,
            self.transcendentals * times,
            self.bytes_read * times,
            self.bytes_written * times,
            self.collective_bytes * times,
            self.on_chip_bytes * times,
            self.host_bytes * times,
        )

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        return self != ZERO


ZERO = Cost()


def plain(number: Number | Fraction) -> Number:
    """A fraction as a number: exact where it is whole."""
    if not isinstance(number, Fraction):
        return number
    return number.numerator if number.denominator == 1 else float(number)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of `costs`."""
    return sum(costs, ZERO)


def moved(space: Space, read: Number = 0, written: Number = 0) -> Cost:
    """Bytes read and written in one memory."""
    if space == "device":
        return Cost(bytes_read=read, bytes_written=written)
    return Cost(on_chip_bytes=read + written) if space == "on-chip" else Cost(host_bytes=read + written)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Memory traffic of one execution: bytes read from each operand, bytes written to each leaf of the result.

    `constants` are bytes of constants inside a fusion, which are read from memory but are no operand. `read_spaces` and
    `write_spaces` say in which memory each operand and leaf lies; what is not listed lies in the device's.
    """

    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    constants: int = 0
    read_spaces: tuple[Space, ...] = ()
    write_spaces: tuple[Space, ...] = ()

    def read_space(self, operand: int) -> Space:
        return self.read_spaces[operand] if operand < len(self.read_spaces) else "device"

    def write_space(self, leaf: int) -> Space:
        return self.write_spaces[leaf] if leaf < len(self.write_spaces) else "device"

    @property
    def cost(self) -> Cost:
        if not self.read_spaces and not self.write_spaces:
            return Cost(bytes_read=sum(self.reads) + self.constants, bytes_written=sum(self.writes))
        read = total(moved(self.read_space(k), read=size) for k, size in enumerate(self.reads))
        written = total(moved(self.write_space(k), written=size) for k, size in enumerate(self.writes))
        return read + written + Cost(bytes_read=self.constants)


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at besides the instruction: its computation, its module, and the costs of callees.

    `work` has the work of one call of every computation that the instruction may call (a reduction's `to_apply`, a
    fusion's interior); the analysis goes callees first. `fused` says whether the computation is a fusion's interior,
    `backend` is the module's, None where nothing in it tells.
    """

    module: Module
    computation: Computation
    work: Mapping[str, Cost] = field(default_factory=dict)
    fused: bool = False
    backend: str | None = None

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        if index >= len(instruction.operands):
            raise UnmodelledError(f"{instruction.opcode} has no operand {index}")
        return self.computation.by_name[instruction.operands[index]]

    def shape(self, instruction: Instruction, index: int) -> Shape:
        """Shape of an operand."""
        return self.operand(instruction, index).shape

    def shapes(self, instruction: Instruction) -> tuple[Shape, ...]:
        """Shapes of all operands."""
        return tuple(self.computation.by_name[name].shape for name in instruction.operands)

    def applied(self, instruction: Instruction, attribute: str = "to_apply") -> Cost:
        """Work of one call of the computation that `attribute` names."""
        name = instruction.attr(attribute)
        if name not in self.work:
            raise UnmodelledError(f"{instruction.opcode} names no computation in {attribute}=")
        return self.work[name]


@dataclass(frozen=True, slots=True)
class FusedCost:
    """One interior instruction of a fusion and its work; memory is touched at the fusion's border only."""

    instruction: Instruction
    computation: str
    cost: Cost


@dataclass(frozen=True, slots=True)
class OpCost:
    """One instruction that runs: of the entry, a loop body, a branch or a called computation.

    `cost` is one execution's, `count` the number of executions (product of trip counts, summed over call sites).
    `fused` lists a fusion's interior instructions: their work adds up to the op's exactly. `traffic` splits its bytes
    by operand and result. `library` names who does the work where the text says so (ynnpack, onednn, cublas, cudnn,
    triton, mosaic, ...). `unmodelled` is the reason why no rule covers the op, "" where one does; the bytes of an
    unmodelled op are those of its operands and result, its FLOPs what is known of its interiors. `dense_flops` are what
    its FLOPs would be without the mask by which it leaves some out (causal attention), None where it leaves out none.
    `given` says that the figures are the user's own.
    """

    instruction: Instruction
    computation: str
    count: Number
    cost: Cost
    traffic: Traffic = Traffic()
    fused: tuple[FusedCost, ...] = ()
    library: str | None = None
    unmodelled: str = ""
    dense_flops: Number | None = None
    given: bool = False

    @property
    def name(self) -> str:
        return self.instruction.name

    @property
    def opcode(self) -> str:
        return self.instruction.opcode

    @property
    def total(self) -> Cost:
        """Cost of all executions."""
        return self.cost * self.count


@dataclass(frozen=True, slots=True)
class Loop:
    """A `while`: its trip count, None where nobody knows it, and where the count comes from.

    `source` is "given" (by the user), "known_trip_count" (by the compiler), "inferred" (from its text), "bounded" (by
    its text: it runs at most so often) or "unknown". `count` is how often the loop as a whole runs; `trip_count` is the
    mean where it differs from one run to the next.
    """

    instruction: Instruction
    computation: str
    trip_count: Number | None
    source: str
    count: Number

    @property
    def name(self) -> str:
        return self.instruction.name


@dataclass(frozen=True, slots=True)
class Branches:
    """A `conditional`: its branch computations, the weight of each, and whether the user stated them.

    Where nobody stated them, the most expensive branch weighs 1 and the others 0.
    """

    instruction: Instruction
    computation: str
    branches: tuple[str, ...]
    weights: tuple[Number, ...]
    stated: bool
    count: Number

    @property
    def name(self) -> str:
        return self.instruction.name


NEGLIGIBLE = 1e-3  # of all bytes: ops without a rule that move less are named, and make no total a lower bound


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """The cost of one execution of a module on one device, op by op."""

    module: Module
    ops: tuple[OpCost, ...]
    loops: tuple[Loop, ...] = ()
    conditionals: tuple[Branches, ...] = ()

    @property
    def totals(self) -> Cost:
        """Sum over ops and their executions."""
        return total(op.total for op in self.ops)

    @property
    def dense_flops(self) -> Number:
        """FLOPs if nothing were left out under a mask: what a model's arithmetic is usually said to be."""
        return sum((op.cost.flops if op.dense_flops is None else op.dense_flops) * op.count for op in self.ops)

    @property
    def unmodelled(self) -> tuple[OpCost, ...]:
        """Ops that no rule covers and that run."""
        return tuple(op for op in self.ops if op.unmodelled and op.count)

    @property
    def unknown_trip_counts(self) -> tuple[str, ...]:
        """Names of the loops that run and whose trip count nobody knows; each is counted as one iteration."""
        return tuple(loop.name for loop in self.loops if loop.trip_count is None and loop.count)

    @property
    def bounded_trip_counts(self) -> tuple[str, ...]:
        """Names of the loops that run at most as often as they are counted."""
        return tuple(loop.name for loop in self.loops if loop.source == "bounded" and loop.count)

    @property
    def upper_bound(self) -> bool:
        """Whether the totals may be too large: a loop may end before it has run as often as it is counted.

        With `lower_bound` too, they may be off either way.
        """
        return bool(self.bounded_trip_counts)

    @property
    def lower_bound(self) -> bool:
        """Whether the totals are lower bounds: a loop of unknown length, or ops without a rule, not negligible ones."""
        return bool(self.unknown_trip_counts) or (bool(self.unmodelled) and self.coverage <= 1 - NEGLIGIBLE)

    @property
    def coverage(self) -> float:
        """The modelled share of all bytes moved, 0 to 1; of all ops where no bytes move."""
        missed, everything = total(op.total for op in self.unmodelled).memory_bytes, self.totals.memory_bytes
        if everything:
            return float(1 - missed / everything)
        runs = sum(op.count for op in self.ops)
        return float(1 - sum(op.count for op in self.unmodelled) / runs) if runs else 1.0
