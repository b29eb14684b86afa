"""At which stage of a compilation a module's text was written: what its figures are figures of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llmjax.hlo.ir import Instruction, Module
from llmjax.hlo.lexer import pattern

_TILES_RE = pattern(r"devices=\[([\d,\s]++)\]")
# XLA's and Shardy's markers, which partitioning takes away (xla/service/spmd, xla/service/spmd/shardy).
_MARKERS = ("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "xla.sdy.FuncResultSharding")
_MANUAL = ("SPMDFullToShardShape", "xla.sdy.GlobalToLocalShape")
_COLLECTIVES = ("all-", "collective-", "ragged-all-to-all", "reduce-scatter", "partition-id")


@dataclass(frozen=True, slots=True)
class Stage:
    """`name` says what has been done: "optimised" text is what runs; "partitioned" text is one device's program, from
    before fusion and scheduling; "whole" text is that of all `devices` together; "unscheduled" text is of one device,
    from before optimisation (or from an XLA of 2023 and older that had nothing to fuse).

    `manual` says that parts of a whole program are written for one device already, as those inside `shard_map` are.
    """

    name: Literal["optimised", "partitioned", "whole", "unscheduled"]
    devices: int = 1
    manual: bool = False


def stage(module: Module) -> Stage:
    """The stage of a module, by what its text has: a schedule, fusions, collectives, shardings."""
    if module.is_scheduled:
        return Stage("optimised")
    instructions = [i for computation in module.computations.values() for i in computation]
    if any(i.opcode == "fusion" for i in instructions):
        return Stage("optimised")
    shards = max((_shards(i) for i in instructions), default=1)
    marked = any(i.custom_call_target in _MARKERS for i in instructions)
    if not marked and any(i.opcode.startswith(_COLLECTIVES) for i in instructions):
        return Stage("partitioned")
    devices = max(shards, module.num_partitions if isinstance(module.num_partitions, int) else 1)
    if shards > 1 or (marked and devices > 1):
        manual = any(i.custom_call_target in _MANUAL for i in instructions)
        return Stage("whole", devices, manual or any("manual_computation" in name for name in module.computations))
    return Stage("unscheduled")


def _shards(i: Instruction) -> int:
    """Into how many parts the text wants a value to be cut, copies included."""
    found = _TILES_RE.search(i.attr("sharding", ""))
    return math.prod(int(n) for n in found[1].split(",") if n.strip()) if found else 1
