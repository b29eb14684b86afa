"""What collectives send: bytes that one device puts on the wire, by the ring algorithms, in its replica group.

A ring of n devices moves (n - 1) / n of the data a pass: an all-gather is one pass over its result, a reduce-scatter
one over its operand, an all-reduce one of each (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms").
"""

from __future__ import annotations

import math
import re

from llmjax.cost.values import Context, Cost
from llmjax.hlo.ir import Instruction, Module

_AXIS = re.compile(r"""['"]?([\w.-]+)['"]?\s*=\s*(\d+)""")
_NAMED_AXIS = re.compile(r"""['"]?([\w.-]+)['"]?(?::\(\d+\)(\d+))?""")


def group_size(instruction: Instruction, module: Module) -> int:
    """Devices that take part with this one.

    Where the text lists no groups all devices do; without `use_global_device_ids` the ids in a group are replicas (each
    with all its partitions where the op has a channel), and of all-to-all with a channel partitions.
    """
    groups = instruction.attr("replica_groups")
    replicas, partitions = max(1, module.replica_count), max(1, module.num_partitions)
    if groups is not None and groups.text.startswith(("mesh", "@mesh")):
        return _mesh_size(groups.text) or replicas * partitions
    listed = groups.size if groups is not None else 0
    if instruction.attr("use_global_device_ids", False):
        return listed or replicas * partitions
    if instruction.attr("channel_id") is None:
        return listed or replicas
    if instruction.opcode in ("all-to-all", "ragged-all-to-all", "collective-broadcast"):
        return listed or partitions
    return (listed or replicas) * partitions


def all_reduce(instruction: Instruction, context: Context) -> Cost:
    """Two passes; one operation for each element of the result, however many devices, as XLA counts it."""
    elements = sum(s.elements for s in instruction.shape.leaves)
    return Cost(vector_flops=elements, collective_bytes=2 * _pass(instruction, context, instruction.shape.bytes))


def reduce_scatter(instruction: Instruction, context: Context) -> Cost:
    """One pass over the operand; n - 1 operations for each element of the result."""
    others = group_size(instruction, context.module) - 1
    elements = sum(s.elements for s in instruction.shape.leaves)
    return Cost(vector_flops=elements * others, collective_bytes=instruction.shape.bytes * others)


def all_gather(instruction: Instruction, context: Context) -> Cost:
    """One pass over the result."""
    return Cost(collective_bytes=_pass(instruction, context, instruction.shape.bytes))


def all_to_all(instruction: Instruction, context: Context) -> Cost:
    """All but its own part of the data. Of the ragged form the operand's bound: the sizes are known at run time."""
    size = context.shape(instruction, 0).bytes if instruction.opcode.startswith("ragged") else instruction.shape.bytes
    return Cost(collective_bytes=_pass(instruction, context, size))


def permute(instruction: Instruction, context: Context) -> Cost:
    """The operand, once, unless every device sends to itself."""
    pairs = instruction.attr("source_target_pairs", ())
    stays = bool(pairs) and all(source == target for source, target in pairs)
    return Cost(collective_bytes=0 if stays else instruction.shape.bytes)


def broadcast(instruction: Instruction, context: Context) -> Cost:
    """The data, handed on once by each device of the ring."""
    return Cost(collective_bytes=_pass(instruction, context, instruction.shape.bytes))


def reduce(instruction: Instruction, context: Context) -> Cost:
    """One pass towards the root; one operation for each element."""
    elements = sum(s.elements for s in instruction.shape.leaves)
    return Cost(vector_flops=elements, collective_bytes=_pass(instruction, context, instruction.shape.bytes))


def send(instruction: Instruction, context: Context) -> Cost:
    """The operand, unless it goes to the host. What is received was sent by another device."""
    host = instruction.attr("is_host_transfer", False)
    return Cost(collective_bytes=0 if host else context.shape(instruction, 0).bytes)


def _pass(instruction: Instruction, context: Context, size: int) -> int:
    n = group_size(instruction, context.module)
    return -(-size * (n - 1) // n)


def _mesh_size(text: str) -> int:
    """Devices in one group of `mesh['data'=4,'model'=8]{'data','model':(1)2}`, the product of the named axes.

    Of an axis, `:(1)2` names a part of two devices. 0 where no axis is known.
    """
    sizes = {name: int(size) for name, size in _AXIS.findall(text)}
    named = [(name, part) for name, part in _NAMED_AXIS.findall(text.rpartition("{")[2]) if part or name in sizes]
    return math.prod(int(part) if part else sizes[name] for name, part in named) if named else 0
