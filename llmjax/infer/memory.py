"""How much memory a generation needs, from shapes, before anything is loaded."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llmjax.infer.loop import Shape
from llmjax.kernels.formats import Format, activation_dtype
from llmjax.memory import require, tree_bytes
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
    return Needs(tree_bytes(prepared), tree_bytes(plain), cached, layer + 4 * 4 * tokens * config.width + logits)


def check_memory(config: ModelConfig, format: Format, shape: Shape, free: int | None) -> Needs:
    """Returns the needs, or raises `UserError` where they are more than `free` bytes (None = unknown)."""
    need = needs(config, format, shape)
    # The plain parameters are gone before the cache and the activations are there.
    later = {f"cache of {shape.batch} rows of {shape.slots} tokens": need.cache, "activations": need.activations}
    loading = {"their other form while loading": need.loading}
    most = loading if need.loading > need.cache + need.activations else later
    remedy = "take a smaller model, format, batch_size or cache_length"
    require({f"weights in {format}": need.weights} | most, remedy, free)
    return need
