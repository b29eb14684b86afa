"""What a program takes besides what is compiled of it: fused attention, collectives, the optimiser. No JAX import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from llmjax.cycles import terms as known
from llmjax.cycles.contracted import ROWS
from llmjax.cycles.device import Device, peak
from llmjax.cycles.gpu import exchange as gpu_exchange
from llmjax.cycles.gpu import unit
from llmjax.cycles.kernels import prompt
from llmjax.cycles.published.cases import HALF, Layout, Program
from llmjax.cycles.timeline import slowed
from llmjax.cycles.tpu import exchange as tpu_exchange

BACKWARD = 2.5  # products of fused attention's backward pass over its forward's: five for two (Dao, FlashAttention-2)
ADAM = 28  # bytes a parameter: gradient, parameter and two moments read, the last three written, in float32


class Taken(NamedTuple):
    """Seconds of a compiled program, and were its asynchronous copies from and to main memory done at once."""

    whole: float
    busy: float


class Stack(NamedTuple):
    """Seconds of a compiled program: of one layer, and of all that is no layer."""

    layer: float
    rest: float


def stacked(layers: tuple[int, int], seconds: tuple[float, float]) -> Stack:
    """Takes programs of two numbers of layers apart."""
    layer = (seconds[1] - seconds[0]) / (layers[1] - layers[0])
    return Stack(layer, seconds[0] - layers[0] * layer)


def layers_to_compile(program: Program, device: Device) -> tuple[int, ...]:
    """Two numbers of layers from which all follow, or all of them.

    Even the smaller one's weights are more than what caches hold, since those of a whole model are.
    """
    caches = sum(level.capacity.value for level in device.memory[:-1]) if device.kind == "gpu" else 0.0
    width = {"int8": 1, "bfloat16": 2, "float16": 2}.get(program.dtype, 4)
    few = max(1, math.ceil(caches / (program.model.layer_parameters * width)))
    return (few, few + 1) if 2 * few + 1 < program.model.layers else (program.model.layers,)


def assembled(program: Program, layout: Layout, device: Device, layers: Sequence[int], taken: Sequence[Taken]) -> float:
    """Seconds of a program with all its layers, spread as `layout` says, without what happens once a step.

    Args:
        layers, taken: of what was compiled: all layers, or two numbers of them (`layers_to_compile`).
    """
    each, rest = _apart(layers, [one.whole for one in taken])
    busy, _ = _apart(layers, [one.busy for one in taken])
    shared = max(0.0, busy + shared_layer(program, layout, device) - each)  # beside it copies go on
    alone, gathered = each + fused_attention(program, device) + shared, gathered_layer(program, layout, device)
    return rest + program.model.layers * max(slowed(alone, gathered, known.beside(device)), gathered)


def _apart(layers: Sequence[int], seconds: Sequence[float]) -> Stack:
    """Takes a layer apart from the rest; where all layers were compiled, the rest is shared out among them."""
    if len(layers) == 1:
        return Stack(seconds[0] / layers[0], 0.0)
    return stacked((layers[0], layers[-1]), (seconds[0], seconds[-1]))


def once_a_step(program: Program, layout: Layout, device: Device, compute: float) -> float:
    """Seconds of exchanging gradients between replicas and slices, and of the optimiser, on many devices.

    Replicas' exchange hides behind the backward pass, two thirds of `compute`; that between slices behind nothing.
    """
    if program.phase != "gradients" or layout.devices == 1:
        return 0.0
    model = program.model
    weights = (model.layers * model.layer_parameters + model.width * model.vocabulary) / layout.fsdp
    replicas = collective(device, "all-reduce", layout.data, 4 * weights, layout.fsdp * layout.tensor, layout.devices)
    share = known.value(device, "hbm.bandwidth" if device.kind == "tpu" else "stream.bandwidth")
    update = ADAM * weights / (device.main_memory.bandwidth.value * share)
    backward = 2 / 3 * compute
    exchanged = max(slowed(backward, replicas, known.beside(device)), replicas) - backward
    return exchanged + between_slices(device, layout.slices, 4 * weights) + update


def fused_attention(program: Program, device: Device) -> float:
    """Seconds a layer of attention that was left out of what is compiled."""
    if not program.fused or program.phase == "decode":
        return 0.0
    model, batch, length = program.model, program.batch, program.length
    masked = 1.0 if model.family == "bert" else 0.5
    scores = batch * model.heads * length**2 * masked
    moved = HALF * batch * length * model.head_width * 2.0 * (model.heads + model.groups)
    forward = _attention(device, 4 * scores * model.head_width, scores, program, moved)
    if program.phase not in ("gradients", "train"):
        return forward
    backward = _attention(device, BACKWARD * 4 * scores * model.head_width, scores, program, 2 * moved)
    return backward + forward * (2 if program.remat else 1)


def _attention(device: Device, flops: float, scores: float, program: Program, moved: float) -> float:
    dtype = {"float32": "f32", "tf32": "tf32", "float16": "f16"}.get(program.dtype, "bf16")
    terms = known.values(device)
    if device.kind == "tpu":
        memory = moved / (device.main_memory.bandwidth.value * terms["hbm.bandwidth"])
        return terms["op.start"] + max(flops / (peak(device.matmul, dtype).value * terms["product.share"]), memory)
    machine = unit(device, dtype, terms["prompt.bandwidth"])
    blocks = program.batch * program.model.heads * math.ceil(program.length / ROWS)
    longest = 1.0 if program.model.family == "bert" else 2.0
    work = (flops, scores, blocks, longest)
    return prompt(work, moved / machine.bandwidth, machine, device.transcendental.value, terms).total


def shared_layer(program: Program, layout: Layout, device: Device) -> float:
    """Seconds a layer in which devices that share it add up their results, and nothing hides it.

    Of sequences on TPUs that is a reduce-scatter of the tokens' results (`_split`), of all else an all-reduce.
    """
    return added_up(program, layout, device, "reduce-scatter" if _split(program, device) else "all-reduce")


def gathered_layer(program: Program, layout: Layout, device: Device) -> float:
    """Seconds a layer of collectives that run beside its computation: the longer of the two counts.

    Weights are gathered, forward and backward, and their gradients scattered (Rajbhandari et al. 2020, "ZeRO"); of
    sequences on TPUs, tokens' results are gathered too.
    """
    tokens = added_up(program, layout, device, "all-gather") if _split(program, device) else 0.0
    return tokens + gathered_weights(program, layout, device)


def _split(program: Program, device: Device) -> bool:
    """Whether devices that share a layer have a part of the tokens each between its halves (Korthikanti et al. 2022).

    MaxText does so, and has libtpu gather beside products (`xla_tpu_enable_async_collective_fusion_fuse_all_gather`).
    """
    return device.kind == "tpu" and program.phase != "decode"


def added_up(program: Program, layout: Layout, device: Device, name: str) -> float:
    """Seconds a layer of one kind of collective after attention and after the MLP.

    Forward twice, backward twice, and twice more where the forward pass is done again (Shoeybi et al. 2019,
    "Megatron-LM").
    """
    if layout.tensor == 1:
        return 0.0
    times = {"gradients": 6 if program.remat else 4, "train": 4}.get(program.phase, 2)
    tokens = program.batch * (1 if program.phase == "decode" else program.length)
    size = HALF * tokens * program.model.width
    return times * collective(device, name, layout.tensor, size, 1, layout.devices)


def gathered_weights(program: Program, layout: Layout, device: Device) -> float:
    """Seconds a layer in which its weights are gathered, forward and backward, and its gradients scattered."""
    if layout.fsdp == 1:
        return 0.0
    size = float(HALF * program.model.layer_parameters)
    gather, scatter = (
        collective(device, name, layout.fsdp, size, layout.tensor, layout.devices // layout.slices)
        for name in ("all-gather", "reduce-scatter")
    )
    return 2 * gather + scatter


def collective(device: Device, name: str, group: int, size: float, stride: int, devices: int) -> float:
    """Seconds of a collective of `size` bytes in a group whose neighbours are `stride` devices apart.

    `devices` is how many the program runs on: those of one slice of a TPU.
    """
    if group == 1 or device.link is None:
        return 0.0
    wire = size * (group - 1) / group * (2 if name == "all-reduce" else 1)
    if device.kind == "tpu":
        return sum(tpu_exchange(device, group, devices, wire))
    held = int(device.host_devices.value) if device.host_devices else group * stride
    nodes = math.ceil(group * stride / max(held, 1))
    return sum(gpu_exchange(device, name, group, wire, min(nodes, group)))


def between_slices(device: Device, slices: int, size: float) -> float:
    """Seconds of adding up `size` bytes of each device over slices of TPUs, on the data centre's network."""
    if slices == 1 or device.network is None:
        return 0.0
    share = known.value(device, "network.bandwidth") if device.kind == "tpu" else 1.0
    return 2 * size * (slices - 1) / slices / (device.network.value * share)
