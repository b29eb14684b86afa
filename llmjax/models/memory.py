"""Whether what a model needs fits where it will lie: on one device, or a part of it on each of a mesh."""

import math
from collections.abc import Mapping, Sequence

import jax

from llmjax.memory import require, sharing
from llmjax.models.config import ModelConfig
from llmjax.parallel.mesh import AXES, axis_size, in_use

ROWS_OWN = ("activations", "evaluation", "cache")  # what is of the rows of a batch, not of a parameter


def require_model(config: ModelConfig, needed: Mapping[str, int], remedy: str, free: int | None) -> None:
    """Raises `UserError` where a device's part of `needed`, bytes by what they are for, is more than `free`.

    `free`: bytes of one memory; None is "unknown", and everything passes. `remedy` says what the user may change. Where
    there are several devices, the line names a mesh of them that would do.
    """
    sizes = tuple(axis_size(axis) for axis in AXES)
    divides, devices = math.prod(sizes), jax.device_count()
    if in_use():
        devices = max(devices, divides)
        remedy = f"a device's part of {divides}: {remedy}"
    if devices > 1 and (fitting := _mesh_that_fits(config, needed, devices, free)):
        remedy += "; or " + " ".join(f"--config.mesh.{axis}={n}" for axis, n in zip(AXES, fitting, strict=True))
    require(divided(needed, sizes, sharing(divides) if in_use() else 1), remedy, free)


def divided(needed: Mapping[str, int], sizes: Sequence[int], here: int = 1) -> dict[str, int]:
    """Returns what of `needed` one memory holds on a mesh of `data`, `fsdp` and `tensor` devices.

    What is a parameter's is divided over `fsdp` x `tensor`, what is of rows over all. `here`: devices that have one
    memory between them, as a host's simulated ones do.
    """
    data, fsdp, tensor = sizes
    return {
        what: -(-count * here // (fsdp * tensor * (data if what.startswith(ROWS_OWN) else 1)))
        for what, count in needed.items()
    }


def _mesh_that_fits(
    config: ModelConfig, needed: Mapping[str, int], devices: int, free: int | None
) -> tuple[int, int, int] | None:
    """Returns the mesh of as many devices with the least of `tensor`, then of `fsdp`, that holds what is needed."""
    spec, here = config.layer, sharing(devices)
    for tensor in (n for n in range(1, devices + 1) if devices % n == 0):
        if any(count % tensor for count in (spec.heads, spec.kv_heads, spec.inner)):
            continue
        for fsdp in (n for n in range(1, devices // tensor + 1) if devices // tensor % n == 0):
            sizes = (devices // tensor // fsdp, fsdp, tensor)
            if config.width % (fsdp * tensor) == 0 and sum(divided(needed, sizes, here).values()) <= (free or 0):
                return sizes
    return None
