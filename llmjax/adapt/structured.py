"""Structured pruning: heads, MLP channels and whole layers go, and arrays, FLOPs, bytes and time with them.

Every layer loses as many, so that a config can say it. transformers' configs, too, have a field for most of it: layers
and MLP width of every family, heads of Llamas (`head_dim`); a GPT-2 or BERT with fewer heads has an own field
`head_dim` and loads here alone. Shape letters: N layers, G groups of heads that share keys and values, K head width, F
MLP width, I inputs of a product, D model width.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int

from llmjax.adapt.calibrate import (
    BATCH,
    At,
    Inputs,
    embedded,
    kernel_at,
    layer_by_layer,
    run_layer,
    with_leaf,
)
from llmjax.adapt.compensate import DAMPING
from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.params import Params, unstack_layers
from llmjax.models.spec import LayerSpec


class Model(NamedTuple):
    """Parameters, layers apart, and the config whose shapes they have."""

    params: Params
    config: ModelConfig


def after(config: ModelConfig, part: str, share: float) -> ModelConfig:
    """Returns the config of a model that has lost a share of a part: "mlp" (channels), "heads" or "layers".

    Raises:
        UserError: a share that leaves nothing, or that is none.
    """
    spec = config.layer
    if part == "mlp":
        return config.with_sizes(inner=_kept("channels", spec.inner, share))
    if part == "layers":
        return config.with_sizes(layers=_kept("layers", config.layers, share))
    count = _kept("groups of heads", spec.kv_heads, share)
    return config.with_sizes(heads=count * (spec.heads // spec.kv_heads), kv_heads=count, head_width=spec.head_width)


def prune_channels(params: Params, config: ModelConfig, tokens_NL: Int[np.ndarray, "N L"], share: float) -> Model:
    """Returns a model whose MLPs have lost a share of their width: the channels that add least to the outputs.

    Importance: the squared norm of what a channel adds, summed over the calibration's tokens: sum x_f^2 x |w_f|^2. What
    stays is fitted to the outputs of all (`refitted`). Sources: An et al. 2023, "Fluctuation-based Adaptive Structured
    Pruning", for scoring by outputs; Hassibi and Stork 1992 for the fit.

    Raises:
        UserError: a share that leaves nothing, or that is none.
    """
    small = after(config, "mlp", share)
    at = (config.layer.names.mlp, config.layer.names.down)

    def choose(layer: Params, inputs: Inputs) -> np.ndarray:
        weight_FD = np.asarray(kernel_at(layer, at), np.float64)
        return _best(np.diag(inputs.gram_DD) * np.square(weight_FD).sum(1), small.layer.inner)

    return _shrunk(params, config, tokens_NL, at, choose, _without_channels, small)


def prune_heads(params: Params, config: ModelConfig, tokens_NL: Int[np.ndarray, "N L"], share: float) -> Model:
    """Returns a model that has lost a share of each layer's heads; queries go with the keys and values they read.

    Importance: the squared norm of what a group of heads adds to the attention's output, summed over the calibration's
    tokens; fit and sources as `prune_channels`. Michel et al. 2019, "Are Sixteen Heads Really Better than One?", found
    that many may go.

    Raises:
        UserError: a share that leaves nothing, or that is none.
    """
    spec = config.layer
    small, shared = after(config, "heads", share), spec.heads // spec.kv_heads
    at = (spec.names.attention, spec.names.out)

    def choose(layer: Params, inputs: Inputs) -> np.ndarray:
        weight_ID = np.asarray(kernel_at(layer, at), np.float64)
        both_II = np.asarray(inputs.gram_DD, np.float64) * (weight_ID @ weight_ID.T)
        size = shared * spec.head_width
        return _best(
            np.array([both_II[i : i + size, i : i + size].sum() for i in range(0, len(both_II), size)]),
            small.layer.kv_heads,
        )

    return _shrunk(params, config, tokens_NL, at, choose, _without_heads, small)


def prune_layers(params: Params, config: ModelConfig, tokens_NL: Int[np.ndarray, "N L"], share: float) -> Model:
    """Returns a model that has lost a share of its layers: those that turn the residual stream least.

    Importance: 1 - the mean cosine of a token's state before and after the layer. Source: Men et al. 2024, "ShortGPT:
    Layers in Large Language Models are More Redundant Than You Expect", equation 1 (block influence).

    Raises:
        UserError: a share that leaves nothing, or that is none; layers that compute by their number.
    """
    if config.layer.by_layer:
        raise UserError(f"a {config.family} whose attention is scaled by the layer's number cannot lose layers.")
    small = after(config, "layers", share)
    keep = np.sort(np.argsort(-layer_influence(params, config, tokens_NL), kind="stable")[: small.layers])
    params, name = unstack_layers(params, config), config.layer.names.layer
    rest = {at: leaf for at, leaf in params.items() if not at.startswith(f"{name}_")}
    layers = {f"{name}_{new}": params[f"{name}_{old}"] for new, old in enumerate(keep)}
    return Model({**rest, **layers}, small)


def layer_influence(params: Params, config: ModelConfig, tokens_NL: Int[np.ndarray, "N L"]) -> Float[np.ndarray, "N"]:
    """Returns 1 - the mean cosine of each token's state before and after each layer."""
    params = unstack_layers(params, config)
    total_N = np.zeros(config.layers)
    for at in range(0, len(tokens_NL), BATCH):
        x_BLD, scene = embedded(params, jnp.asarray(tokens_NL[at : at + BATCH]), config)
        for number in range(config.layers):
            y_BLD = run_layer(params[f"{config.layer.names.layer}_{number}"], x_BLD, number, scene, config)
            norms_BL = jnp.linalg.norm(x_BLD, axis=-1) * jnp.linalg.norm(y_BLD, axis=-1)
            total_N[number] += float(jnp.sum(jnp.sum(x_BLD * y_BLD, -1) / jnp.maximum(norms_BL, 1e-9)))
            x_BLD = y_BLD
    return 1 - total_N / tokens_NL.size


def without_channels(params: Params, config: ModelConfig, keep_NF: Sequence[np.ndarray]) -> Model:
    """Returns a model with these MLP channels of each layer alone, unchanged; as many in each."""
    return _cut(params, config, keep_NF, _without_channels, inner=len(keep_NF[0]))


def without_heads(params: Params, config: ModelConfig, keep_NG: Sequence[np.ndarray]) -> Model:
    """Returns a model with these groups of heads of each layer alone, unchanged; as many in each."""
    spec, count = config.layer, len(keep_NG[0])
    sizes = {"heads": count * (spec.heads // spec.kv_heads), "kv_heads": count, "head_width": spec.head_width}
    return _cut(params, config, keep_NG, _without_heads, **sizes)


def refitted(
    weight_ID: Float[Array, "I D"], gram_II: Float[Array, "I I"], rows: Int[np.ndarray, "J"]
) -> Float[Array, "J D"]:
    """Returns the rows that stay, with what those that go can be said by them: the least squares of the outputs.

    w_k + (G_kk + damping)^-1 G_kr w_r, in float64, with `compensate.DAMPING` of G_kk's mean diagonal.
    """
    weight, gram = np.asarray(weight_ID, np.float64), np.asarray(gram_II, np.float64)
    gone = np.setdiff1d(np.arange(len(weight)), rows)
    kept_JJ = gram[np.ix_(rows, rows)]
    kept_JJ = kept_JJ + DAMPING * (np.mean(np.diag(kept_JJ)) or 1.0) * np.eye(len(rows))
    more_JD = scipy.linalg.solve(kept_JJ, gram[np.ix_(rows, gone)] @ weight[gone], assume_a="pos")
    return jnp.asarray(weight[rows] + more_JD, jnp.float32)


Cut = Callable[[Params, LayerSpec, np.ndarray], tuple[Params, np.ndarray]]


def _shrunk(
    params: Params, config: ModelConfig, tokens_NL: np.ndarray, at: At, choose: Any, cut: Cut, small: ModelConfig
) -> Model:
    """Shrinks layer after layer: `choose` of what the product at `at` reads, `cut`, and fit that product's rows."""

    def change(_: int, layer: Params, inputs: Mapping[At, Inputs]) -> tuple[Params, None]:
        kernel_ID = kernel_at(layer, at)
        less, rows = cut(layer, config.layer, choose(layer, inputs[at]))
        fitted_JD = refitted(kernel_ID, inputs[at].gram_DD, rows).astype(kernel_ID.dtype)
        return with_leaf(less, (*at, "kernel"), fitted_JD), None

    return Model(layer_by_layer(params, config, tokens_NL, change, small)[0], small)


def _cut(params: Params, config: ModelConfig, keep: Sequence[np.ndarray], cut: Cut, **sizes: int) -> Model:
    params = dict(unstack_layers(params, config))
    for number in range(config.layers):
        name = f"{config.layer.names.layer}_{number}"
        params[name] = cut(params[name], config.layer, np.asarray(keep[number]))[0]
    return Model(params, config.with_sizes(**sizes))


def _without_channels(layer: Params, spec: LayerSpec, keep_F: np.ndarray) -> tuple[Params, np.ndarray]:
    mlp = dict(layer[spec.names.mlp])
    for name in spec.names.up:
        mlp[name] = jax.tree.map(lambda leaf: leaf[..., keep_F], mlp[name])
    mlp[spec.names.down] = {**mlp[spec.names.down], "kernel": mlp[spec.names.down]["kernel"][keep_F]}
    return {**layer, spec.names.mlp: mlp}, keep_F


def _without_heads(layer: Params, spec: LayerSpec, keep_G: np.ndarray) -> tuple[Params, np.ndarray]:
    names, attention = spec.names, dict(layer[spec.names.attention])
    query = _columns(keep_G, spec.heads // spec.kv_heads * spec.head_width)
    shared = _columns(keep_G, spec.head_width)
    if len(names.qkv) == 1:  # all queries, then all keys, then all values
        starts = spec.heads * spec.head_width, (spec.heads + spec.kv_heads) * spec.head_width
        parts = [np.concatenate([query, *(start + shared for start in starts)])]
    else:
        parts = [query, shared, shared]
    for name, columns in zip(names.qkv, parts, strict=True):
        attention[name] = jax.tree.map(lambda leaf, columns=columns: leaf[..., columns], attention[name])
    attention[names.out] = {**attention[names.out], "kernel": attention[names.out]["kernel"][query]}
    return {**layer, names.attention: attention}, query


def _columns(keep_G: np.ndarray, width: int) -> np.ndarray:
    return (keep_G[:, None] * width + np.arange(width)).reshape(-1)


def _best(importance: np.ndarray, count: int) -> np.ndarray:
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def _kept(what: str, count: int, share: float) -> int:
    kept = count - round(share * count)
    if not 0 <= share < 1 or kept < 1:
        raise UserError(f"share={share!r} of {count} {what} leaves none: it must be 0 or more, and leave one.")
    return kept
