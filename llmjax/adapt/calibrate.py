"""What a model's products read on a few texts, layer after layer: the data that pruning and quantising need.

Shape letters: N texts, L tokens of a text, T tokens of a batch, D inputs of a product.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.layers import Dense, Layer, Scene
from llmjax.models.params import Params, unstack_layers

T = TypeVar("T")
At = tuple[str, ...]  # a product's path inside its layer: ("mlp", "down_proj")
BATCH = 4  # texts at a time


class Inputs(NamedTuple):
    """What one product reads: sums over its tokens, and largest values.

    gram_DD: the sum of x^T x, of which half is the Hessian of the squared error of the product's outputs. absolute_D:
    the sum of |x|. largest_D: the largest |x|. tokens: how many x there were.
    """

    gram_DD: Float[Array, "D D"]
    absolute_D: Float[Array, "D"]
    largest_D: Float[Array, "D"]
    tokens: Int[Array, ""]


def calibration_texts(ids: Sequence[int], texts: int, length: int, seed: int = 0) -> Int[np.ndarray, "N L"]:
    """Returns texts of `length` tokens, cut from `ids` at starts drawn by `seed`.

    Source: Frantar et al. 2022, "GPTQ", section 4: random segments of a general text.

    Raises:
        UserError: the text is shorter than the tokens that are asked for.
    """
    if len(ids) < texts * length:
        raise UserError(
            f"the calibration text has {len(ids):,} tokens, but {texts} texts of {length} were asked for"
            f" ({texts * length:,}): give a longer text, or ask for fewer or shorter ones."
        )
    starts = np.random.default_rng(seed).integers(0, len(ids) - length + 1, texts)
    return np.stack([np.asarray(ids[start : start + length], np.int32) for start in starts])


def layer_by_layer(
    params: Params,
    config: ModelConfig,
    tokens_NL: Int[np.ndarray, "N L"],
    change: Callable[[int, Params, Mapping[At, Inputs]], tuple[Params, T]],
    after: ModelConfig | None = None,
) -> tuple[Params, list[T]]:
    """Changes one layer after the other, each by what its products read behind the layers changed before it.

    One layer's inputs are held at a time. Source of the order: Frantar et al. 2022, "GPTQ", section 4.

    Args:
        change: (number, a layer's parameters, its products' inputs by path) -> the new ones, and what else it found.
        after: the config that changed layers have; None: the same.

    Returns:
        The parameters, layers apart, and what `change` found in each layer.
    """
    params = dict(unstack_layers(params, config))
    texts = [jnp.asarray(tokens_NL[at : at + BATCH]) for at in range(0, len(tokens_NL), BATCH)]
    streams = [embedded(params, text, config) for text in texts]
    found: list[T] = []
    for number in range(config.layers):
        name = f"{config.layer.names.layer}_{number}"
        inputs: dict[At, Inputs] | None = None
        for x_BLD, scene in streams:
            seen = _inputs(params[name], x_BLD, number, scene, config)
            inputs = seen if inputs is None else _summed(inputs, seen)
        assert inputs is not None
        params[name], more = change(number, params[name], inputs)
        found.append(more)
        streams = [(run_layer(params[name], x_BLD, number, scene, after or config), scene) for x_BLD, scene in streams]
    return params, found


def layer_inputs(params: Params, config: ModelConfig, tokens_NL: Int[np.ndarray, "N L"]) -> list[dict[At, Inputs]]:
    """Returns what each product of each layer reads in the model as it is."""
    return layer_by_layer(params, config, tokens_NL, lambda _, layer, inputs: (layer, dict(inputs)))[1]


def kernel_at(layer: Params, at: At) -> Any:
    """Returns the kernel [D, E] of the product at a path inside a layer."""
    return functools.reduce(lambda tree, name: tree[name], at, layer)["kernel"]


def with_leaf(layer: Params, at: At, leaf: Any) -> Params:
    """Returns a tree with the leaf at a path replaced."""
    name, *rest = at
    return {**layer, name: with_leaf(layer[name], tuple(rest), leaf) if rest else leaf}


@functools.partial(jax.jit, static_argnames="config")
def embedded(params: Params, tokens_BL: jax.Array, config: ModelConfig) -> tuple[jax.Array, Scene]:
    """Returns what a model hands to its first layer: the residual stream, and the scene."""
    found = []

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not isinstance(context.module, Layer):
            return call(*args, **kwargs)
        found.append((args[0], args[2]))
        return args[0], None

    with nn.intercept_methods(watch):
        make_model(config, "none").apply({"params": params}, tokens_BL)
    return found[0]


def _layer(config: ModelConfig) -> Layer:
    return Layer(config.layer, deterministic=True)


@functools.partial(jax.jit, static_argnames="config")
def run_layer(layer: Params, x_BLD: jax.Array, number: Any, scene: Scene, config: ModelConfig) -> jax.Array:
    """Returns the residual stream behind one layer."""
    return _layer(config).apply({"params": layer}, x_BLD, number, scene)[0]  # pyright: ignore[reportIndexIssue]


@functools.partial(jax.jit, static_argnames="config")
def _inputs(layer: Params, x_BLD: jax.Array, number: Any, scene: Scene, config: ModelConfig) -> dict[At, Inputs]:
    seen: dict[At, jax.Array] = {}

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Dense) and context.method_name == "__call__":
            seen[context.module.path] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        _layer(config).apply({"params": layer}, x_BLD, number, scene)
    summed = {id(x): _sums(x.reshape(-1, x.shape[-1]).astype(jnp.float32)) for x in seen.values()}  # one for q, k, v
    return {at: summed[id(x)] for at, x in seen.items()}


def _sums(x_TD: jax.Array) -> Inputs:
    absolute_TD = jnp.abs(x_TD)
    return Inputs(x_TD.T @ x_TD, absolute_TD.sum(0), absolute_TD.max(0), jnp.asarray(len(x_TD)))


@jax.jit
def _summed(first: dict[At, Inputs], second: dict[At, Inputs]) -> dict[At, Inputs]:
    def both(a: Inputs, b: Inputs) -> Inputs:
        sums = jax.tree.map(jnp.add, a, b)
        return sums._replace(largest_D=jnp.maximum(a.largest_D, b.largest_D))

    return jax.tree.map(both, first, second, is_leaf=lambda leaf: isinstance(leaf, Inputs))
