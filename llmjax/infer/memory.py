"""How much memory inference needs, from shapes, before anything is loaded or compiled."""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from llmjax.kernels.formats import Format, activation_dtype
from llmjax.memory import available, tree_bytes
from llmjax.models.config import ModelConfig
from llmjax.models.memory import require_model
from llmjax.models.params import param_shapes, prepare
from llmjax.parallel.mesh import whole_rows

if TYPE_CHECKING:
    from llmjax.infer.loop import Shape


class Needs(NamedTuple):
    """Bytes: the weights as stored, a second copy while they are arranged, the cache, and the largest activations."""

    weights: int
    loading: int
    cache: int
    activations: int


def needs(config: ModelConfig, format: Format, shape: "Shape") -> Needs:
    """Returns the bytes that generating in batches of `shape` takes at its peak, on all devices together."""
    plain = param_shapes(config, "lm")
    prepared = jax.eval_shape(lambda params: prepare(params, config, format), plain)
    return Needs(tree_bytes(prepared), tree_bytes(plain), *_batch(config, activation_dtype(format), shape))


def _batch(config: ModelConfig, dtype: str, shape: "Shape") -> tuple[int, int]:
    """Returns the bytes of a cache in `dtype` and of the largest activations."""
    spec, rows = config.layer, whole_rows(shape.batch)
    head = spec.head_width + 4 if config.kv_cache == "int8" else spec.head_width * jnp.dtype(dtype).itemsize
    slot = 2 * config.layers * spec.kv_heads * head
    logits = 4 * 3 * rows * config.vocab_size
    return rows * shape.slots * slot, _forward_bytes(config, rows, shape.length) + logits


def _forward_bytes(config: ModelConfig, rows: int, length: int) -> int:
    """Returns the bytes of a layer in float32: attention's scores before and after the softmax, or the MLP's inner
    values before and after the activation, beside four arrays of the model's width.
    """
    spec, tokens = config.layer, rows * length
    return 4 * max(2 * spec.heads * tokens * length, 2 * tokens * spec.inner) + 4 * 4 * tokens * config.width


def check_batch(config: ModelConfig, dtype: str, shape: "Shape") -> None:
    """Raises `UserError` where a batch of `shape`, its cache in `dtype`, is more than is free beside the weights."""
    cache, activations = _batch(config, dtype, shape)
    needed = {f"cache of {shape.batch} rows of {shape.slots} tokens": cache, "activations": activations}
    require_model(config, needed, "take a smaller batch_size or cache_length, or shorter prompts", available())


@functools.lru_cache(maxsize=1024)  # asked for every batch, answered once a compiled shape
def check_forward(config: ModelConfig, rows: int, length: int) -> None:
    """Raises `UserError` where reading `rows` texts of `length` tokens takes more than is free beside the weights."""
    needed = {f"activations of {rows} texts of {length} tokens": _forward_bytes(config, rows, length)}
    require_model(config, needed, "take shorter texts, or a smaller model", available())


def check_memory(config: ModelConfig, format: Format, shape: "Shape", free: int | None) -> Needs:
    """Returns the needs, or raises `UserError` where they are more than `free` bytes (None = unknown)."""
    need = needs(config, format, shape)
    # The plain parameters are gone before the cache and the activations are there.
    later = {f"cache of {shape.batch} rows of {shape.slots} tokens": need.cache, "activations": need.activations}
    loading = {"their other form while loading": need.loading}
    most = loading if need.loading > need.cache + need.activations else later
    remedy = "take a smaller model, format, batch_size or cache_length"
    require_model(config, {f"weights in {format}": need.weights} | most, remedy, free)
    return need
