"""Names of chips to compile for: `cpu`, `gpu:h100`, `tpu:v5e:2x2`. No JAX import."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from llmjax.errors import UserError, did_you_mean

GPUS = Path(__file__).parent / "gpus"
# Generations that libtpu makes a topology of, each with a small one that is its default here.
TPUS = {
    "v2": "2x2",
    "v3": "2x2",
    "v4": "2x2x1",
    "v5e": "2x2",
    "v5p": "2x2x1",
    "v6e": "2x2",
    "tpu7x": "2x2x1",
}
# libtpu's name of how a chip's cores are joined, where its default is not what JAX gives on such a chip: a v4's two are
# one device.
_JOINED = {"v4": "megacore"}
_SAME = {"v7": "tpu7x", "v7x": "tpu7x", "tpu7": "tpu7x", "v5litepod": "v5e", "v5lite": "v5e"}


@dataclass(frozen=True)
class Target:
    """A chip to compile for. `platform` is JAX's name (cpu, tpu, cuda); `attached` means the one in this machine.

    `topology` is libtpu's name of an arrangement of TPUs, `config` XLA's GpuTargetConfig of a GPU, as a text proto, or
    libtpu's name of how a TPU's cores are joined ("" for its default).
    """

    name: str
    platform: str
    topology: str = ""
    config: str = ""
    attached: bool = False


# JAX devices that one chip is, where it is more than one.
_DEVICES = {"v2": 2, "v3": 2, "tpu7x": 2}


def target_devices(target: Target) -> int | None:
    """Returns how many JAX devices a target's topology has; None of what names none: as many as are asked for."""
    if not target.topology:
        return None
    generation, _, shape = target.topology.partition(":")
    return math.prod(map(int, shape.split("x"))) * _DEVICES.get(generation, 1)


def chip_devices(target: Target) -> int:
    """Returns how many JAX devices one chip of a target is."""
    return _DEVICES.get(target.topology.partition(":")[0], 1)


def gpu_names() -> tuple[str, ...]:
    """Names of the GPUs that are described here."""
    return tuple(sorted(path.stem for path in GPUS.glob("*.txtpb")))


def target_names() -> tuple[str, ...]:
    """A valid target of every chip, and the attached ones."""
    return ("cpu", "gpu", "tpu", *(f"gpu:{n}" for n in gpu_names()), *(f"tpu:{g}:{t}" for g, t in TPUS.items()))


def parse_target(name: str) -> Target:
    """Reads `cpu`, `gpu`, `tpu` (attached), `gpu:NAME`, or `tpu:GENERATION[:TOPOLOGY]`.

    Raises:
        UserError: no such target; the message has the valid names.
    """
    text = name.strip().lower()
    kind, _, rest = text.partition(":")
    if text == "cpu":
        return Target("cpu", "cpu")
    if text in ("gpu", "tpu"):
        return Target(text, "cuda" if text == "gpu" else "tpu", attached=True)
    if kind == "gpu" and rest in gpu_names():
        return Target(text, "cuda", config=(GPUS / f"{rest}.txtpb").read_text())
    if kind == "tpu":
        generation, _, shape = rest.partition(":")
        generation = _SAME.get(generation, generation)
        if generation in TPUS:
            shape = shape or TPUS[generation]
            example = TPUS[generation]
            if not re.fullmatch(rf"[1-9]\d*(x[1-9]\d*){{{example.count('x')}}}", shape):
                raise UserError(f"target {name!r}: a topology of {generation} is written tpu:{generation}:{example}.")
            name, joined = f"{generation}:{shape}", _JOINED.get(generation, "")
            return Target(f"tpu:{name}", "tpu", topology=name, config=joined)
    names = target_names()
    raise UserError(f"target {name!r} is none of {', '.join(names)}.{did_you_mean(text, names)}")
