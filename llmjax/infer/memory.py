"""How much memory a generation needs, from shapes, before anything is loaded."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llmjax.errors import UserError
from llmjax.infer.loop import Shape
from llmjax.kernels.formats import Format, activation_dtype
from llmjax.models.config import ModelConfig
from llmjax.models.params import param_shapes, prepare


class Needs(NamedTuple):
    """Bytes: the weights as stored, a second copy while they are arranged, the cache, and the largest activations."""

    weights: int
    loading: int
    cache: int
    activations: int


def needs(config: ModelConfig, format: Format, shape: Shape) -> Needs:
    """Returns the bytes that generating in batches of `shape` takes at its peak."""
    plain = param_shapes(config, "lm")
    prepared = jax.eval_shape(lambda params: prepare(params, config, format), plain)
    spec = config.layer
    slot = 2 * config.layers * spec.kv_heads * spec.head_width * jnp.dtype(activation_dtype(format)).itemsize
    cached = shape.batch * shape.slots * slot
    tokens = shape.batch * shape.length
    # Of a prompt's layer in float32: scores before and after the softmax, or the MLP before and after its activation.
    layer = 4 * max(2 * spec.heads * tokens * shape.length, 2 * tokens * spec.inner)
    logits = 4 * 3 * shape.batch * config.vocab_size
    return Needs(_bytes(prepared), _bytes(plain), cached, layer + 4 * 4 * tokens * config.width + logits)


def _bytes(tree: object) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def available() -> int | None:
    """Returns the bytes that are free on the device, or on the machine where that is the CPU; None if unknown."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    free = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        with contextlib.suppress(OSError, ValueError):  # a container's own limit
            group = Path("/sys/fs/cgroup")
            limit = int((group / "memory.max").read_text())
            free = min(free, limit - int((group / "memory.current").read_text()))
    return free


def check_memory(config: ModelConfig, format: Format, shape: Shape, free: int | None) -> Needs:
    """Returns the needs, or raises `UserError` where they are more than `free` bytes (None = unknown)."""
    need = needs(config, format, shape)
    # The plain parameters are gone before the cache and the activations are there.
    peak = need.weights + max(need.loading, need.cache + need.activations)
    if free is not None and peak > free:
        raise UserError(
            f"not enough memory: {_size(peak)} needed, {_size(free)} free: weights {_size(need.weights)} in {format},"
            f" {_size(need.loading)} more while loading, cache {_size(need.cache)} ({shape.batch} rows of"
            f" {shape.slots} tokens), activations {_size(need.activations)}; take a smaller model, format, batch_size"
            " or cache_length."
        )
    return need


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
