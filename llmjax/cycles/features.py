"""What the cycle model looks at of an op: its kind of work, its sizes, and which memory level its data come from.

A buffer's level follows from how much other data moved since it was last touched: what has moved less than a level's
capacity is still there. Programs are taken to run again and again, as decode steps and training steps do, so what the
last ops of a step touched is near for the first ops of the next. No JAX import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmjax.cost.collectives import collective_in, exchanges, group_size, nodes_spanned
from llmjax.cost.layouts import minor_moves, overfetched
from llmjax.cost.values import FusedCost, ModuleCost, OpCost
from llmjax.cycles.compiler_clock import scheduled_cycles
from llmjax.cycles.contracted import MATRIX, Attention, attention_of, is_attention, largest_product
from llmjax.cycles.device import Device
from llmjax.hlo.ir import Instruction, Module

TERMS = ("gemm", "gemv", "attention", "loop", "reduce", "move", "gather", "sort", "library", "collective")

# Operations that cost several additions an element where they are compiled to vector code: XLA's own polynomials
# (xla/backends/cpu/codegen: exp, log, tanh, erf), and division and square roots by the latency of x86's units (Agner
# Fog's instruction tables). Only ratios count: a calibration measures how long the whole takes.
WEIGHTS = {
    **dict.fromkeys(("divide", "remainder", "sqrt", "rsqrt", "cbrt"), 6),
    **dict.fromkeys(("exponential", "exponential-minus-one", "logistic"), 14),
    **dict.fromkeys(("log", "log-plus-one", "tanh", "erf"), 20),
    **dict.fromkeys(("sine", "cosine", "tan", "atan2", "acos", "asin", "atan", "power", "sinh", "cosh"), 40),
}
_MOVES = ("copy", "transpose", "concatenate", "pad", "reverse", "slice", "broadcast", "reshape", "bitcast")
_LOOKUPS = ("gather", "scatter", "dynamic-slice", "dynamic-update-slice")


@dataclass(frozen=True, slots=True)
class Features:
    """One execution of an op, as the model sees it.

    `term` names the kind of work (one of TERMS), `library` who does it. `matmul` are FLOPs of the matrix unit,
    `vector` operations of the vector unit, weighted by what they cost; `m`, `n`, `k` the sizes of a matrix product (1
    where it is none) and `batch` how many there are. `bytes` go by memory level, nearest first; `strided` are those
    not read or written in the order they lie in. `threads` is how many cores can work on it, `count` how often the op
    runs; `functions` tells whether it has exponentials and the like, `convolution` whether it is one, `wide` whether it
    stands among ops that may run side by side, `wire` is what goes to other chips of a `group`, `host` what the host's
    memory gives and takes over its link, `minor_moves` whether what lies side by side does so no more
    (cost/layouts.py), `overfetched` what a GPU then fetches in vain. `exponentials` counts all transcendentals,
    `attention` is of a fused attention kernel. `does` are the opcodes of what is computed, and those of `MANNERS` that
    hold: "strided", and "remote" where the data lie with other cores. `estimated` are the cycles of one execution that
    a TPU's compiler expects (0: it says nothing), `devices` how many the program runs on, `nodes` on how many
    hosts the group lies.
    """

    name: str
    opcode: str
    term: str
    library: str
    dtype: str
    count: float
    matmul: float
    vector: float
    m: int
    n: int
    k: int
    batch: int
    bytes: tuple[float, ...]
    strided: float
    threads: int
    functions: bool
    convolution: bool
    wide: bool
    wire: float
    group: int
    exponentials: float
    attention: Attention
    does: str
    host: float = 0.0
    estimated: float = 0.0
    devices: int = 1
    nodes: int = 1
    minor_moves: bool = False
    overfetched: float = 0.0


def features(cost: ModuleCost, device: Device) -> tuple[Features, ...]:
    """Features of every op that runs and takes time, in the order of the program."""
    levels = _levels(cost, device)
    cache = KEEPS * max((level.capacity.value for level in device.memory[:-1]), default=0.0)
    wide, remote = (_wide(cost), _remote(cost, device)) if device.kind == "cpu" else (frozenset(), frozenset())
    found = []
    for op in cost.ops:
        if not op.count:
            continue
        term = term_of(op)
        product = largest_product(op, cost.module, device.kind == "gpu")
        n, k = product.n, product.k
        work = _work(op)
        strided = _strided(op, cost.module)
        vector = sum(
            (part.cost.vector_flops + part.cost.transcendentals) * WEIGHTS.get(part.instruction.opcode, 1)
            for part in work
        )
        written_out = op.cost.matmul_flops if term == "gemv" else 0
        if written_out:
            n = max(1, min((leaf.elements for leaf in op.instruction.shape.leaves), default=1))
            k = max(1, round(written_out / 2 / n))
        found.append(
            Features(
                op.name,
                op.opcode,
                term,
                op.library or "",
                product.dtype or _dtype(op.instruction),
                float(op.count),
                (float(op.cost.matmul_flops) - written_out) * product.passes,
                float(vector + written_out),
                product.m,
                n,
                max(k, 1),
                product.batch,
                levels[op.computation, op.name],
                float(op.cost.bytes) if strided else 0.0,
                _threads(op, device),
                op.cost.transcendentals > 0,
                any(part.instruction.opcode == "convolution" for part in _work(op)),
                op.computation in wide,
                float(op.cost.collective_bytes),
                group_size(collective_in(op), cost.module) if term == "collective" else 1,
                float(op.cost.transcendentals),
                attention_of(op.instruction) if term == "attention" else Attention(),
                _does(op, strided=strided, remote=(op.computation, op.name) in remote),
                float(op.cost.host_bytes) if device.host_link else 0.0,
                minor_moves=minor_moves(op, cost.module),
                overfetched=overfetched(op, cost.module, cache) if device.kind == "gpu" else 0.0,
                estimated=scheduled_cycles(op.instruction) if device.kind == "tpu" else 0.0,
                devices=max(1, cost.module.replica_count) * max(1, cost.module.num_partitions),
                nodes=nodes_of(op, cost.module, device) if term == "collective" else 1,
            )
        )
    return tuple(found)


def nodes_of(op: OpCost, module: Module, device: Device) -> int:
    """On how many hosts the devices of a collective's group lie; as few as hold them where the text lists no groups."""
    if device.host_devices is None:
        return 1
    held = max(1, int(device.host_devices.value))
    return nodes_spanned(exchanges(op, module), held) or -(-group_size(collective_in(op), module) // held)


def term_of(op: OpCost) -> str:
    """The kind of work an op mostly is: one of TERMS."""
    opcodes = {part.instruction.opcode for part in op.fused} or {op.opcode}
    if op.cost.collective_bytes:
        return "collective"
    if is_attention(op):
        return "attention"
    if opcodes & set(MATRIX) or (op.opcode.startswith("custom-call") and op.cost.matmul_flops):
        return "gemm"
    if op.cost.matmul_flops:
        return "gemv"
    if op.opcode.startswith("custom-call"):
        return "library"
    if opcodes & {"sort", "topk"}:
        return "sort"
    if opcodes & {"reduce", "reduce-window", "select-and-scatter"}:
        return "reduce"
    if opcodes & set(_LOOKUPS):
        return "gather"
    return "move" if not op.cost.flops and not op.cost.transcendentals else "loop"


def _dtype(i: Instruction) -> str:
    return next((leaf.dtype for leaf in i.shape.leaves if leaf.dtype not in ("pred", "token")), "f32")


def _work(op: OpCost) -> Sequence[FusedCost]:
    return op.fused or (FusedCost(op.instruction, op.computation, op.cost),)


_NAMES = ("bitcast", "constant", "get-tuple-element", "parameter", "reshape", "tuple")


MANNERS = frozenset({"strided", "remote"})  # words in `Features.does` that are no opcodes


def _does(op: OpCost, **manners: bool) -> str:
    opcodes = {part.instruction.opcode for part in op.fused} or {op.opcode}
    return " ".join(sorted(opcodes.difference(_NAMES)) + [name for name, holds in manners.items() if holds])


def _along_rows(i: Instruction, module: Module, computation: str) -> bool:
    """Whether a product's second operand, one matrix, is summed along its rows, as weights that lie (out, in) are."""
    if i.opcode != "dot" or i.dot_dims.rhs_batch:
        return False
    rank = len(module.computations[computation].by_name[i.operands[1]].shape.dims)
    return tuple(i.dot_dims.rhs_contracting) == (rank - 1,)


def _strided(op: OpCost, module: Module) -> bool:
    """Whether an op takes elements in another order: a transpose, another layout, weights along rows."""
    computation = module.computations[op.computation]
    if op.opcode == "dot" or any(part.instruction.opcode == "dot" for part in op.fused):
        return any(_along_rows(part.instruction, module, part.computation) for part in _work(op))
    if op.opcode == "copy":
        source = computation.by_name[op.instruction.operands[0]].shape
        mine = op.instruction.shape
        if source.layout is None or mine.layout is None or not mine.is_array:
            return False
        wide = [d for d in mine.layout.minor_to_major if mine.dims[d] > 1]
        return wide != [d for d in source.layout.minor_to_major if source.dims[d] > 1]
    parts = {part.instruction.opcode for part in op.fused} or {op.opcode}
    return "transpose" in parts


def _threads(op: OpCost, device: Device) -> int:
    """Cores that can work on an op: a CPU loop says in how many parts it was cut, libraries use all."""
    cores = max(1, round(device.cores.value)) if device.kind == "cpu" else 1
    if device.kind != "cpu" or op.library:
        return cores
    config = op.instruction.backend_config
    parts = config.get("outer_dimension_partitions") if isinstance(config, Mapping) else None
    if parts:
        return min(cores, math.prod(int(p) for p in parts))
    if op.opcode == "dot":
        batch = math.prod(op.instruction.shape.dims[: len(op.instruction.dot_dims.lhs_batch)])
        return cores if float(op.cost.matmul_flops) / batch >= SHARED else 1
    return cores if op.opcode in ("convolution", "custom-call") else 1


# FLOPs of one matrix product that Eigen, which takes what no other library does, first shares among threads: by its
# cost model a thread is worth 100,000 cycles (unsupported/Eigen/CXX11/src/Tensor/TensorCostModel.h).
SHARED = 1e5


WIDE = 1.4  # ops that do not wait for each other, in the mean of a program, above which they run side by side
SHORT = 8  # XLA's CPU runtime runs so few ops one after another (xla/backends/cpu/runtime/thunk_executor.h)


def _wide(cost: ModuleCost) -> frozenset[str]:
    """Computations whose ops may run side by side: their number over the longest chain of them is above WIDE."""
    found = set()
    for computation in dict.fromkeys(op.computation for op in cost.ops):
        names = {op.name for op in cost.ops if op.computation == computation and op.count}
        depth: dict[str, int] = {}
        for i in cost.module.computations[computation]:
            depth[i.name] = max((depth.get(name, 0) for name in i.operands), default=0) + (i.name in names)
        if len(names) > max(SHORT, WIDE * max(depth.values(), default=0)):
            found.add(computation)
    return frozenset(found)


def _remote(cost: ModuleCost, device: Device) -> frozenset[tuple[str, str]]:
    """(computation, name) of ops that read most of what other ops wrote from ops on another number of cores.

    What two cores wrote lies in both their caches, and one core fetches half of it from the other; and so back.
    """
    found = set()
    for computation in dict.fromkeys(op.computation for op in cost.ops):
        alias = _aliases(cost.module, computation)
        wrote: dict[str, int] = {}
        for op in (op for op in cost.ops if op.computation == computation and op.count):
            threads = _threads(op, device)
            same = other = 0.0
            for name, size in zip(op.instruction.operands, op.traffic.reads or (), strict=False):
                writer = wrote.get(alias.get(name, name), 0)
                same += size if writer == threads else 0
                other += size if writer not in (0, threads) else 0
            if other > same:
                found.add((computation, op.name))
            wrote[op.name] = threads
    return frozenset(found)


KEEPS = 0.5  # of a cache's capacity is still there when it is read again: it holds other data too, in sets of few ways


def _levels(cost: ModuleCost, device: Device) -> dict[tuple[str, str], tuple[float, ...]]:
    """Bytes of each op by memory level, by (computation, name).

    What the program itself puts on the chip is at the nearest level. The host's memory is the farthest where nothing is
    known of the way to it, and else none of the chip's.
    """
    places = {"on-chip": 0, "host": None if device.host_link else len(device.memory) - 1}
    keeps = 0.0 if device.kind == "tpu" else KEEPS  # a program puts into a TPU's VMEM what is to lie there
    capacities = [memory.capacity.value * keeps for memory in device.memory[:-1]] + [math.inf]
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    for computation in dict.fromkeys(op.computation for op in cost.ops):
        ops = [op for op in cost.ops if op.computation == computation and op.count]
        step = float(sum(op.cost.bytes for op in ops))
        alias = _aliases(cost.module, computation)
        last: dict[str, float] = {}
        # Twice round, so that the first ops see what the last ones left; the second round counts.
        for lap in range(2):
            clock = lap * step
            for op in ops:
                split = [0.0] * len(capacities)
                traffic, near = op.traffic, float(op.traffic.constants)
                for k, (name, size) in enumerate(zip(op.instruction.operands, traffic.reads, strict=False)):
                    buffer = alias.get(name, name)
                    distance = clock - last.get(buffer, -math.inf) if buffer in last else math.inf
                    level = places.get(traffic.read_space(k), _level(max(distance, size), capacities))
                    if level is not None:
                        split[level] += size
                    last[buffer] = clock
                written = float(op.cost.bytes_written)
                split[_level(written, capacities)] += written
                split[0] += near
                for k, size in enumerate(traffic.writes):
                    level = places.get(traffic.write_space(k))
                    if level is not None:
                        split[level] += size
                clock += float(op.cost.bytes)
                last[op.name] = clock
                found[computation, op.name] = tuple(split)
    return found


def _level(distance: float, capacities: Sequence[float]) -> int:
    return next((n for n, capacity in enumerate(capacities) if distance <= capacity), len(capacities) - 1)


def _aliases(module: Module, computation: str) -> dict[str, str]:
    """Other names of the same buffer: what bitcasts, tuples' elements and in-place updates go by, to the first name."""
    alias: dict[str, str] = {}
    for i in module.computations[computation]:
        if i.opcode in ("bitcast", "get-tuple-element", "reshape") and i.operands:
            alias[i.name] = alias.get(i.operands[0], i.operands[0])
    return alias
