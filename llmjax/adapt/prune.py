"""Unstructured pruning: weights of the layers' products set to zero, and the mask of those that stay.

Zeros save neither time nor memory on the machines that this project knows: they are multiplied like other numbers.
What shrinks a program is `adapt.structured`. Shape letters: E outputs, D inputs, C inputs of a block, N rows compared.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from llmjax.adapt.calibrate import At, Inputs, kernel_at, layer_by_layer, with_leaf
from llmjax.adapt.compensate import inverse_factor, largest_divisor, settled
from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.params import Params, unstack_layers

BLOCK = 128  # columns whose mask is chosen at a time: SparseGPT's own


class Pruned(NamedTuple):
    """Parameters with zeros, layers apart, and a tree of the same structure: true where a weight stays."""

    params: Params
    mask: Params


class Share(NamedTuple):
    """How much is pruned: the share of zeros; `group` > 0: that share of every `group` consecutive inputs (2:4)."""

    zeros: float = 0.5
    group: int = 0


HALF = Share()
TWO_OF_FOUR = Share(0.5, 4)
"""Two zeros in every four consecutive inputs of an output: Mishra et al. 2021, "Accelerating Sparse Deep Neural
Networks"."""


def magnitude(params: Params, config: ModelConfig, share: Share = HALF, *, across: str = "matrix") -> Pruned:
    """Prunes the weights of least magnitude.

    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".

    Args:
        across: "matrix": the share holds in each; "model": in all together. Groups are compared by themselves in both.
    """
    params, at = _checked(params, config, share)
    if across not in ("matrix", "model"):
        raise UserError(f"across={across!r} must be 'matrix' or 'model'.")
    kernels_DE = {path: np.asarray(_leaf(params, path), np.float32) for path in at}
    if share.group or across == "matrix":
        drop_DE = {path: _lowest_of(np.abs(kernel_DE.T), share, whole=True).T for path, kernel_DE in kernels_DE.items()}
    else:
        scores = np.concatenate([np.abs(kernel_DE).reshape(-1) for kernel_DE in kernels_DE.values()])
        ends = np.cumsum([kernel_DE.size for kernel_DE in kernels_DE.values()])[:-1]
        parts = np.split(_lowest(scores[None], round(share.zeros * scores.size))[0], ends)
        drop_DE = {path: part.reshape(kernels_DE[path].shape) for path, part in zip(at, parts, strict=True)}
    return _pruned(params, {path: jnp.asarray(~drop) for path, drop in drop_DE.items()})


def wanda(params: Params, config: ModelConfig, tokens_NL: Int[np.ndarray, "N L"], share: Share = HALF) -> Pruned:
    """Prunes, in each output's row, the weights of least |weight| x ||input||, layer after layer.

    Source: Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models", equation 1.
    """

    def keep(kernel_DE: jax.Array, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        norm_D = jnp.sqrt(jnp.diagonal(inputs.gram_DD))
        score_ED = np.asarray(jnp.abs(kernel_DE.T) * norm_D)
        keep_DE = jnp.asarray(~_lowest_of(score_ED, share, whole=False).T)
        return jnp.where(keep_DE, kernel_DE, 0), keep_DE

    return _by_layer(params, config, tokens_NL, share, keep)


def sparsegpt(params: Params, config: ModelConfig, tokens_NL: Int[np.ndarray, "N L"], share: Share = HALF) -> Pruned:
    """Prunes the weights whose loss the others can best make up for, and makes up for it, layer after layer.

    The mask is chosen for `BLOCK` columns at a time (or the largest divisor of the inputs below) by w^2 / U_jj^2, with
    U as in `compensate`. Source: Frantar and Alistarh 2023, "SparseGPT", algorithm 1.
    """

    def keep(kernel_DE: jax.Array, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        return _made_up_for(kernel_DE, jnp.asarray(inverse_factor(inputs.gram_DD)), share)

    return _by_layer(params, config, tokens_NL, share, keep)


def apply_mask(params: Params, mask: Params) -> Params:
    """Returns a tree with zeros where the mask is false."""
    return jax.tree.map(lambda leaf, keep: jnp.where(keep, leaf, jnp.zeros_like(leaf)), params, mask)


def sparsity(params: Params, config: ModelConfig) -> float:
    """Returns the share of zeros among the weights of the layers' products."""
    params = unstack_layers(params, config)
    kernels = [np.asarray(_leaf(params, at)) for at in _kernels(params, config)]
    return 1 - sum(np.count_nonzero(kernel) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def _checked(params: Params, config: ModelConfig, share: Share) -> tuple[Params, list[At]]:
    """Returns the parameters with layers apart, and where the kernels are; raises `UserError` for a bad share."""
    if not 0 <= share.zeros < 1:
        raise UserError(f"sparsity={share.zeros!r} must be 0 or more and below 1: it is the share of zeros.")
    params = unstack_layers(params, config)
    at = _kernels(params, config)
    if share.group:
        count = share.zeros * share.group
        if share.group < 2 or count != round(count):
            raise UserError(f"{share.zeros:g} of every {share.group} inputs is no whole number of them.")
        odd = next((path for path in at if _leaf(params, path).shape[0] % share.group), None)
        if odd is not None:
            raise UserError(
                f"{'/'.join(odd)} has {_leaf(params, odd).shape[0]} inputs, no multiple of {share.group}: prune it"
                " without groups."
            )
    return params, at


def _kernels(params: Params, config: ModelConfig) -> list[At]:
    """Paths of the kernels of all layers' products. The vocabulary and heads stay whole, as in the papers."""
    names = [f"{config.layer.names.layer}_{number}" for number in range(config.layers)]
    found = []
    for name in names:
        for entries, _ in jax.tree_util.tree_leaves_with_path(params[name]):
            if entries[-1].key == "kernel":
                found.append((name, *(entry.key for entry in entries)))
    return found


def _leaf(tree: Params, at: At) -> Any:
    return functools.reduce(lambda tree, name: tree[name], at, tree)


def _by_layer(params: Params, config: ModelConfig, tokens_NL: np.ndarray, share: Share, keep: Any) -> Pruned:
    """Prunes each product by `keep`: (kernel, its inputs) -> (the new kernel, its mask)."""
    params, _ = _checked(params, config, share)

    def change(_: int, layer: Params, inputs: Mapping[At, Inputs]) -> tuple[Params, dict[At, Any]]:
        masks = {}
        for at, seen in inputs.items():
            kernel_DE, masks[at] = keep(kernel_at(layer, at), seen)
            layer = with_leaf(layer, (*at, "kernel"), kernel_DE)
        return layer, masks

    params, found = layer_by_layer(params, config, tokens_NL, change)
    name = config.layer.names.layer
    masks = {(f"{name}_{i}", *at, "kernel"): keep for i, layer in enumerate(found) for at, keep in layer.items()}
    return Pruned(params, _mask(params, masks))


def _pruned(params: Params, masks: Mapping[At, Any]) -> Pruned:
    mask = _mask(params, masks)
    return Pruned(apply_mask(params, mask), mask)


def _mask(params: Params, masks: Mapping[At, Any]) -> Params:
    mask: Params = jax.tree.map(lambda _: jnp.asarray(True), params)
    for at, keep in masks.items():
        mask = with_leaf(mask, at, keep)
    return mask


def _lowest_of(score_ED: np.ndarray, share: Share, *, whole: bool) -> Bool[np.ndarray, "E D"]:
    """Which weights have the lowest scores: of each group, of the whole matrix, or of each row."""
    columns = share.group or (score_ED.size if whole else score_ED.shape[1])
    score_NC = score_ED.reshape(-1, columns)
    return _lowest(score_NC, round(share.zeros * columns)).reshape(score_ED.shape)


def _lowest(score_NC: np.ndarray, count: int) -> Bool[np.ndarray, "N C"]:
    """Exactly `count` of each row, whatever ties there are."""
    drop_NC = np.zeros(score_NC.shape, bool)
    if count:
        np.put_along_axis(drop_NC, np.argpartition(score_NC, count - 1, axis=-1)[:, :count], True, axis=-1)
    return drop_NC


@functools.partial(jax.jit, static_argnames="share")
def _made_up_for(kernel_DE: jax.Array, factor_DD: jax.Array, share: Share) -> tuple[jax.Array, jax.Array]:
    """Returns SparseGPT's kernel and mask; of groups, the mask is chosen in each row of each."""
    weight_ED = kernel_DE.T.astype(jnp.float32)

    def begin(block_EC: jax.Array, diagonal_C: jax.Array, _: jax.Array) -> jax.Array:
        score_EC = jnp.square(block_EC / diagonal_C)
        score_NC = score_EC if share.group else score_EC.reshape(1, -1)
        order_NC = jnp.argsort(score_NC, axis=-1)[:, : round(share.zeros * score_NC.shape[1])]
        keep_NC = jnp.ones(score_NC.shape, bool).at[jnp.arange(len(score_NC))[:, None], order_NC].set(False)
        return keep_NC.reshape(block_EC.shape)

    def settle(keep_EC: jax.Array, column_E: jax.Array, at: jax.Array) -> jax.Array:
        return jnp.where(keep_EC[:, at], column_E, 0.0)

    block = share.group or largest_divisor(weight_ED.shape[1], BLOCK)
    new_ED, keep_PEC = settled(weight_ED, factor_DD, block, begin, settle)
    keep_DE = jnp.moveaxis(keep_PEC, 1, 2).reshape(kernel_DE.shape)
    return jnp.where(keep_DE, new_ED.T, 0).astype(kernel_DE.dtype), keep_DE
