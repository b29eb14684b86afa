"""Scales of a product's inputs, folded into what makes them: the same function in float, other numbers to round.

Shape letters: E outputs, D inputs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from llmjax.adapt.calibrate import At
from llmjax.models.params import Params
from llmjax.models.spec import LayerSpec


class Fold(NamedTuple):
    """source: a norm, or a product whose last outputs they are, that makes the inputs of the `consumers` alone."""

    source: At
    consumers: tuple[At, ...]


def folds(spec: LayerSpec) -> tuple[Fold, ...]:
    """Returns where a layer's inputs can be scaled at no cost: paths inside the layer.

    - a norm before a branch feeds that branch alone; after the sum (BERT) it feeds the residual stream, too;
    - values, mixed by weights that are none of their business, feed the projection out, where each query head has its
      own: groups of heads that share values (Llama's G < H) would need one scale for several inputs;
    - a gated MLP's second factor feeds the projection down; without a gate the activation stands between.

    Source: Lin et al. 2023, "AWQ", section 3.2, and the table of scales in its code.
    """
    names = spec.names
    qkv = tuple((names.attention, name) for name in names.qkv)
    up, down = tuple((names.mlp, name) for name in names.up), (names.mlp, names.down)
    found = [] if spec.norm_after else [Fold((names.norms[0],), qkv), Fold((names.norms[1],), up)]
    if spec.heads == spec.kv_heads:
        found.append(Fold(qkv[-1], ((names.attention, names.out),)))
    if len(up) == 2:
        found.append(Fold(up[1], (down,)))
    return tuple(found)


def fold(layer: Params, where: Fold, scale_D: Float[Array, "D"]) -> Params:
    """Returns a layer whose `consumers` read inputs divided by `scale_D`, and multiply them by as much."""
    layer = _changed(layer, where.source, {name: 1 / scale_D for name in ("scale", "bias", "kernel")})
    for at in where.consumers:
        layer = _changed(layer, at, {"kernel": scale_D[:, None]})
    return layer


def _changed(tree: Params, at: At, factors: Mapping[str, jax.Array]) -> Params:
    """Returns a tree with the leaves named at a path multiplied; a factor of D is that of the last D outputs."""
    name, *rest = at
    if rest:
        return {**tree, name: _changed(tree[name], tuple(rest), factors)}
    leaves = tree[name]
    return {**tree, name: {leaf: _times(value, factors[leaf]) if leaf in factors else value
                           for leaf, value in leaves.items()}}  # fmt: skip


def _times(leaf: jax.Array, factor: jax.Array) -> jax.Array:
    if factor.ndim == 2:
        return (leaf * factor).astype(leaf.dtype)
    return leaf.at[..., leaf.shape[-1] - len(factor) :].multiply(factor.astype(leaf.dtype))
