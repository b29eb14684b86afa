"""A model's parameters as a tree: their shapes, layers apart or stacked, and the forms that products read."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PRNGKeyArray

from llmjax.kernels.formats import Format, Groups, pack, pad_rows
from llmjax.memory import available, tree_bytes
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.layout import table_of
from llmjax.models.memory import require_model
from llmjax.parallel.fused import in_parts
from llmjax.parallel.layout import divided
from llmjax.parallel.mesh import axis_size

Params = dict[str, Any]
At = tuple[str, ...]  # a path in them: ("h_3", "attn", "c_attn", "kernel")
Head = Literal["lm", "score", "classifier", "pooler", "none"]


def flat_tree(tree: Params, at: At = ()) -> dict[At, Any]:
    """Returns a tree's leaves by their paths."""
    flat: dict[At, Any] = {}
    for name, value in tree.items():
        flat |= flat_tree(value, (*at, name)) if isinstance(value, dict) else {(*at, name): value}
    return flat


def nested_tree(flat: Mapping[At, Any]) -> Params:
    """The inverse of `flat_tree`."""
    tree: Params = {}
    for at, leaf in flat.items():
        inner = tree
        for name in at[:-1]:
            inner = inner.setdefault(name, {})
        inner[at[-1]] = leaf
    return tree


def init_params(config: ModelConfig, head: Head, key: PRNGKeyArray | jax.Array) -> Params:
    """Returns freshly drawn parameters of a model: normal(`initializer_range`), as the family scales them.

    Raises:
        UserError: there is not enough memory for them.
    """
    if not isinstance(key, Tracer):  # shapes alone take none
        needed = {"parameters": tree_bytes(param_shapes(config, head))}
        require_model(config, needed, "take a smaller model", available())
    model = make_model(config, head)

    def draw(key: jax.Array) -> Params:
        return divided(model.init(key, jnp.zeros((1, 1), jnp.int32))["params"], table_of(config))

    return jax.jit(draw)(key)


@functools.lru_cache(maxsize=32)
def param_shapes(config: ModelConfig, head: Head) -> Params:
    """Returns the tree of a model's parameters, layers apart, as `jax.ShapeDtypeStruct`s."""
    # All layers are alike: tracing one of them, not thirty, saves a second of every start.
    one = dataclasses.replace(config, scan_layers=False, **{config.layers_field: 1})
    shapes = jax.eval_shape(lambda: init_params(one, head, jax.random.key(0)))
    name = config.layer.names.layer
    layer = shapes.pop(f"{name}_0")
    return {**shapes, **{f"{name}_{number}": layer for number in range(config.layers)}}


def stack_layers(params: Params, config: ModelConfig) -> Params:
    """Turns per-layer parameters (`h_0`, `h_1`, ...) into those of `scan_layers` (`h/block`, stacked)."""
    name = config.layer.names.layer
    layers = [params[f"{name}_{layer}"] for layer in range(config.layers)]
    rest = {at: value for at, value in params.items() if not re.fullmatch(rf"{name}_\d+", at)}
    return {**rest, name: {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}}


def unstack_layers(params: Params, config: ModelConfig) -> Params:
    """Turns the stacked parameters of `scan_layers` into per-layer ones; leaves per-layer ones as they are."""
    name = config.layer.names.layer
    if name not in params:
        return params
    rest = {at: value for at, value in params.items() if at != name}
    block = params[name]["block"]
    return {**rest, **{f"{name}_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], block) for i in range(config.layers)}}


@functools.partial(jax.jit, static_argnames=("config", "format"))
def prepare(params: Params, config: ModelConfig, format: Format) -> Params:
    """Arranges parameters for inference: kernels and the vocabulary's embedding by rows in `format` (`pack`).

    No step then transposes or copies a weight. Biases, norms and other embeddings are float32, and so is the residual
    stream. A kernel that a file has in 4 bits stays as it is. The embedding of int4 is int8, as llama.cpp's 4-bit files
    have it: it is the head, too. On a mesh one product for query, key and value comes `in_parts`.
    """
    table, spec = vocabulary_table(params), config.layer
    sizes = [heads * spec.head_width for heads in (spec.heads, spec.kv_heads, spec.kv_heads)]

    def rows_in_parts(part: jax.Array) -> jax.Array:
        return jnp.moveaxis(in_parts(jnp.moveaxis(part, 0, -1), sizes, axis_size("tensor")), -1, 0)

    def arrange(at: tuple[Any, ...], leaf: Any) -> Any:
        names = [entry.key for entry in at]
        fused = names[-2:-1] == list(spec.names.qkv)
        if isinstance(leaf, Groups):
            return pad_rows(jax.tree.map(rows_in_parts, leaf) if fused else leaf)
        if fused:
            leaf = in_parts(leaf, sizes, axis_size("tensor"))
        if names[-1] == "kernel":
            return pack(leaf.T, format)
        if names == [table, "embedding"]:
            return pack(leaf, "int8" if format == "int4" else format)
        return leaf.astype(jnp.float32)

    layers_apart = unstack_layers(params, config)
    return jax.tree_util.tree_map_with_path(arrange, layers_apart, is_leaf=lambda leaf: isinstance(leaf, Groups))


def cache_dtype(params: Params) -> str:
    """Returns the type that a cache beside prepared parameters has: bfloat16 where any weight is of a short type."""
    widths = {leaf.dtype.itemsize for leaf in jax.tree.leaves(params)}
    return "float32" if widths == {4} else "bfloat16"


VOCABULARIES = ("wte", "embed_tokens", "word_embeddings")


def vocabulary_table(names: Iterable[str]) -> str:
    """Returns which of the names of a model's parts is that of the vocabulary's embedding."""
    return next(name for name in names if name in VOCABULARIES)
