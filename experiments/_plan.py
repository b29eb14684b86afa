"""A model on a pod, as a plan sees it: its programs compiled with few layers, and what all layers come to."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from experiments._phases import of_config
from experiments._programs import Shape
from llmjax.analysis import analysis_of
from llmjax.cycles.device import Device, load_device
from llmjax.cycles.pods import Spread
from llmjax.cycles.published.models import Model
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.models.config import ModelConfig
from llmjax.parallel.mesh import AXES, abstract_mesh, on_mesh
from llmjax.report.collectives import collectives
from llmjax.targets.aot import Lowered, compile_lowered, lower_for
from llmjax.targets.names import Target, parse_target, target_devices

FEW = (1, 3)  # layers of the two programs from which all layers follow


class Pod(NamedTuple):
    """Chips of one kind: what is compiled for, the card of one device, and how many devices there are."""

    name: str
    target: Target
    device: Device
    devices: int


class Found(NamedTuple):
    """What the programs of a spread come to with all layers, of one execution on one device.

    seconds, low, high: the predicted time and its interval. memory: bytes that the compiler reserves. sends: seconds of
    collectives, hidden or not, by the mesh's axes.
    """

    seconds: float
    low: float
    high: float
    memory: float
    sends: Mapping[str, float]


class Job(NamedTuple):
    """What is to be compiled: a phase of a model spread over a pod."""

    config: ModelConfig
    shape: Shape
    spread: Spread
    pod: Pod


def pod_of(name: str) -> Pod:
    """Reads `tpu:v5e:4x4` or `gpu:h100:8x8` (hosts x GPUs in each); one that cannot be raises `UserError`."""
    kind, _, rest = name.strip().lower().partition(":")
    if kind != "gpu":
        target = parse_target(name)
        devices = target_devices(target)
        if devices is None:
            raise UserError(f"targets: {name!r}: name chips by the number, as tpu:v5e:4x4 or gpu:h100:8x8.")
        return Pod(target.name, target, load_device(target.name), devices)
    chip, _, counts = rest.partition(":")
    sizes = counts.split("x")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise UserError(f"targets: {name!r}: write hosts and GPUs in each, as gpu:h100:8x8, or GPUs, as gpu:h100:8.")
    devices = 1
    for size in sizes:
        devices *= int(size)
    target = parse_target(f"gpu:{chip}")
    return Pod(f"gpu:{chip}:{counts}", target, load_device(target.name), devices)


def sizes_of(config: ModelConfig) -> Model:
    """The sizes of a config's model, as estimates need them."""
    spec = config.layer
    family = "llama" if len(spec.names.up) > 1 else "bert" if config.family in ("bert", "roberta") else "gpt2"
    heads = (spec.heads, spec.kv_heads, spec.head_width)
    return Model(family, config.layers, config.width, *heads, spec.inner, config.vocab_size)


def compile_all(jobs: Sequence[Job], say: Callable[[str], None]) -> list[Found | UserError]:
    """Compiles every job with few layers, as many programs at a time as there are cores; a job that fails is its error.

    What was compiled before comes from the cache.
    """
    lowered = [_attempt(lambda job=job: [_lowered(job, layers) for layers in _layers(job.config)]) for job in jobs]
    programs = [(at, one) for at, made in enumerate(lowered) if not isinstance(made, UserError) for one in made]
    done = 0

    def build(at: int, program: Lowered) -> Any:
        nonlocal done
        made = _attempt(lambda: compile_lowered(jobs[at].pod.target, program))
        done += 1
        say(f"[{done}/{len(programs)}] compiled {jobs[at].shape.phase} for {jobs[at].pod.name}: {jobs[at].spread}")
        return made

    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda each: build(*each), programs))
    found: list[Found | UserError] = []
    for at, job in enumerate(jobs):
        first = lowered[at]
        made = [result for (of, _), result in zip(programs, results, strict=True) if of == at]
        wrong = (
            first if isinstance(first, UserError) else next((one for one in made if isinstance(one, UserError)), None)
        )
        found.append(wrong or _whole(job, [_measure(job, one) for one in made]))
    return found


def _attempt(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except UserError as error:
        return error


def _layers(config: ModelConfig) -> tuple[int, ...]:
    return FEW if config.layers > 2 * max(FEW) else (config.layers,)


def _lowered(job: Job, layers: int) -> Lowered:
    few = dataclasses.replace(job.config, **{job.config.layers_field: layers})
    spread = job.spread
    with on_mesh(abstract_mesh((spread.data, spread.fsdp, spread.tensor))):
        phase = of_config(few, job.shape, spread.microbatches)
        return lower_for(job.pod.target.platform, phase.function, *phase.args)


def _measure(job: Job, program: Any) -> Found:
    device, spread = job.pod.device, job.spread
    backend = "gpu" if device.kind == "gpu" else "tpu"
    mesh = {axis: getattr(spread, axis) for axis in AXES}
    report = analysis_of(parse(program.text), backend=backend, target=program.target, device=device, mesh=mesh)
    assert report.time is not None, "a device was given"
    sends: dict[str, float] = {}
    for row in collectives(report):
        sends[row.axes] = sends.get(row.axes, 0.0) + (row.seconds or 0.0)
    needed = program.memory.needed if program.memory else 0
    return Found(report.time.overlapped, report.time.low, report.time.high, needed, sends)


def _whole(job: Job, made: Sequence[Found]) -> Found:
    """All layers, where two numbers of them were compiled: each has the mean of those that lie between."""
    if len(made) == 1:
        return made[0]
    few, more = made
    times = (job.config.layers - FEW[0]) / (FEW[1] - FEW[0])

    def grown(a: float, b: float) -> float:
        return a + times * max(0.0, b - a)

    axes = sorted({*few.sends, *more.sends})
    sends = {axis: grown(few.sends.get(axis, 0.0), more.sends.get(axis, 0.0)) for axis in axes}
    return Found(
        grown(few.seconds, more.seconds),
        grown(few.low, more.low),
        grown(few.high, more.high),
        grown(few.memory, more.memory),
        sends,
    )


def power_counts(most: int) -> Iterable[int]:
    """1, 2, 4, ... up to `most`."""
    count = 1
    while count <= most:
        yield count
        count *= 2
