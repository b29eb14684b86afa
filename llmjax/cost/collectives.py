"""What collectives send: bytes that one device puts on the wire, by the ring algorithms, in its replica group.

A ring of n devices moves (n - 1) / n of the data a pass: an all-gather is one pass over its result, a reduce-scatter
one over its operand, an all-reduce one of each (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmjax.cost import memory
from llmjax.cost.values import Context, Cost, OpCost
from llmjax.hlo.ir import Computation, Instruction, Module, ReplicaGroups, Shape

_MESHES = ("mesh", "@mesh")
_ACROSS_PARTITIONS = ("all-to-all", "ragged-all-to-all", "collective-broadcast")
_SAME_ELEMENTS = ("bitcast", "reshape", "copy", "convert", "transpose")
_MOST_IDS = 1 << 20


def group_size(instruction: Instruction, module: Module) -> int:
    """Devices that take part with this one.

    Where the text lists no groups all devices do; without `use_global_device_ids` the ids in a group are replicas (each
    with all its partitions where the op has a channel), and of all-to-all with a channel partitions.
    """
    groups = instruction.attr("replica_groups")
    replicas, partitions = max(1, module.replica_count), max(1, module.num_partitions)
    if groups is not None and groups.text.startswith(_MESHES):
        return groups.size or replicas * partitions
    listed = groups.size if groups is not None else 0
    if instruction.attr("use_global_device_ids", False):
        return listed or replicas * partitions
    if instruction.attr("channel_id") is None:
        return listed or replicas
    if instruction.opcode.removesuffix("-start") in _ACROSS_PARTITIONS:
        return listed or partitions
    return (listed or replicas) * partitions


def device_groups(instruction: Instruction, module: Module) -> tuple[tuple[int, ...], ...]:
    """Ids of the devices that exchange data: of each group, of a permute each pair of two different ones.

    Ids are XLA's flattened ones, replica * num_partitions + partition; what they mean follows the same rules as
    `group_size`. Empty where the text does not list them, or there are more than a million.
    """
    replicas, partitions = max(1, module.replica_count), max(1, module.num_partitions)
    groups: ReplicaGroups = instruction.attr("replica_groups") or ReplicaGroups()
    pairs = instruction.attr("source_target_pairs")
    if max(replicas * partitions, groups.count * groups.size) > _MOST_IDS:
        return ()
    if pairs is not None:
        listed = tuple((source, target) for source, target in pairs if source != target)
    else:
        listed = groups.groups

    def or_all(n: int) -> tuple[tuple[int, ...], ...]:
        return listed if listed or pairs is not None else (tuple(range(n)),)

    if groups.text.startswith(_MESHES):
        return listed
    if instruction.attr("use_global_device_ids", False):
        return or_all(replicas * partitions)
    every_p = range(partitions)
    if instruction.attr("channel_id") is None:
        return tuple(tuple(r * partitions + p for r in group) for group in or_all(replicas) for p in every_p)
    if pairs is not None or instruction.opcode.removesuffix("-start") in _ACROSS_PARTITIONS:
        return tuple(tuple(r * partitions + p for p in g) for g in or_all(partitions) for r in range(replicas))
    return tuple(tuple(r * partitions + p for r in group for p in every_p) for group in or_all(replicas))


def collective_in(op: OpCost) -> Instruction:
    """The instruction of an op that sends data: of a fusion the first collective inside, else the op's own."""
    return next((part.instruction for part in op.fused if part.cost.collective_bytes), op.instruction)


def exchanges(op: OpCost, module: Module) -> tuple[tuple[int, ...], ...]:
    """`device_groups` of an op, of a fusion those of the first collective inside; empty where it sends nothing."""
    if not op.cost.collective_bytes:
        return ()
    return device_groups(collective_in(op), module)


def axes_crossed(groups: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh along which the devices of a group differ; ids count along the last axis first.

    Empty where nothing is exchanged, or the ids are not those of such a mesh.
    """
    crossed: set[str] = set()
    for group in groups:
        places = [_places(device, mesh) for device in group]
        if any(place is None for place in places):
            return ()
        crossed |= {name for place in places for name in mesh if place[name] != places[0][name]}  # pyright: ignore
    return tuple(name for name in mesh if name in crossed)


def _places(device: int, mesh: Mapping[str, int]) -> dict[str, int] | None:
    """Where a device stands along each axis; None where the mesh has no such device."""
    found = {}
    for name in reversed(tuple(mesh)):
        device, found[name] = divmod(device, mesh[name])
    return None if device else found


def nodes_spanned(groups: Sequence[Sequence[int]], devices_a_node: int) -> int:
    """On how many nodes the widest group lies, where each holds so many devices with ids one after another."""
    return max((len({device // devices_a_node for device in group}) for group in groups), default=0)


def all_reduce(instruction: Instruction, context: Context) -> Cost:
    """Two passes; one operation for each element of the result, however many devices, as XLA counts it.

    In a fusion that keeps this device's part only it is a reduce-scatter: so TPU text writes one.
    """
    part = _part_kept(instruction, context) if context.fused else None
    if part is not None:
        others = group_size(instruction, context.module) - 1
        return Cost(
            vector_flops=part.elements * others, collective_bytes=_pass(instruction, context, instruction.shape.bytes)
        )
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
    """The operand, or the slices of it, once, unless every device sends to itself."""
    pairs = instruction.attr("source_target_pairs", ())
    stays = bool(pairs) and all(source == target for source, target in pairs)
    size = sum(memory.permuted(instruction, context)) or instruction.shape.bytes
    return Cost(collective_bytes=0 if stays else size)


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


def _part_kept(reduced: Instruction, context: Context) -> Shape | None:
    """The shape of the one part of `reduced` that is used, a slice whose place depends on which device this is."""
    computation, i = context.computation, reduced
    while True:
        readers = [reader for reader in computation if i.name in reader.operands]
        if len(readers) != 1 or computation.root is i:
            return None
        reader = readers[0]
        if reader.opcode == "dynamic-slice" and reader.operands[0] == i.name:
            break
        if reader.opcode not in _SAME_ELEMENTS:
            return None
        i = reader
    whole = group_size(reduced, context.module) * reader.shape.elements >= reduced.shape.elements
    mine = any(_of_this_device(computation, name) for name in reader.operands[1:])
    return reader.shape if whole and mine and reader.shape.elements < reduced.shape.elements else None


def _of_this_device(computation: Computation, name: str) -> bool:
    """Whether a value is computed from the device's number, or from what comes from outside of the fusion."""
    stack, seen = [name], {name}
    while stack:
        i = computation.by_name[stack.pop()]
        if i.opcode in ("partition-id", "replica-id", "parameter"):
            return True
        stack += [operand for operand in i.operands if operand not in seen]
        seen.update(i.operands)
    return False
