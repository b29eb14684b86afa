"""LoRA: a weight stays, and the product of two thin matrices is learnt beside it.

W + s a b, a [D, R], b [R, E], s = alpha / R. Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language
Models". With `rank_stabilised`, s = alpha / sqrt(R): Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for
Fine-Tuning with LoRA". Shape letters: D inputs, E outputs, R rank, N stacked layers.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from llmjax.errors import UserError
from llmjax.kernels.lowrank import LowRank
from llmjax.models.params import At, Params, flat_tree, nested_tree

A, B, E = "lora_a", "lora_b", "lora_e"  # beside a module's kernel; E with AdaLoRA only


def draw(shapes: Mapping[At, tuple[int, ...]], rank: int, key: jax.Array) -> Params:
    """Returns the matrices beside weights of `shapes` [..., D, E]: a uniform as a fresh layer's weights, b zero.

    So the model begins as it was. The bound of a is peft's, sqrt(1 / D).

    Raises:
        UserError: a rank above that of a weight.
    """
    drawn = {}
    for number, (at, shape) in enumerate(sorted(shapes.items())):
        check_rank(rank, at, shape)
        *stacked, inputs, outputs = shape
        bound = inputs**-0.5
        a = jax.random.uniform(jax.random.fold_in(key, number), (*stacked, inputs, rank), minval=-bound, maxval=bound)
        drawn |= {(*at, A): a, (*at, B): jnp.zeros((*stacked, rank, outputs))}
    return nested_tree(drawn)


def check_rank(rank: int, at: At, shape: tuple[int, ...]) -> None:
    """Raises `UserError` where a weight of `shape` [..., D, E] has no such rank."""
    if not 1 <= rank <= min(shape[-2:]):
        raise UserError(
            f"adapt.rank: {rank} is not within 1 and {min(shape[-2:])}, the rank of {'/'.join(at)} "
            f"({shape[-2]} x {shape[-1]})"
        )


def joined(frozen: Params, trained: Params, scale: float, dropout: float = 0.0, key: jax.Array | None = None) -> Params:
    """Returns a model's parameters of those that stay and those that are trained.

    Trained leaves take the places of their names; `lora_a` and `lora_b` make their module's kernel a `LowRank`.

    Args:
        key: of the dropout in front of a; None: nothing is dropped.
    """
    found, parts = flat_tree(frozen), flat_tree(trained)
    beside = sorted(at[:-1] for at in parts if at[-1] == A)
    for number, at in enumerate(beside):
        a_DR, b_RE, e_R = parts.pop((*at, A)), parts.pop((*at, B)), parts.pop((*at, E), None)
        own = None
        if key is not None and dropout:
            own = jax.random.fold_in(key, number)
            own = jax.random.split(own, a_DR.shape[0]) if a_DR.ndim == 3 else own
        found[(*at, "kernel")] = LowRank(found[(*at, "kernel")], a_DR, b_RE, e_R, own, scale, dropout)
    return nested_tree({**found, **parts})


def merged(frozen: Params, trained: Params, scale: float) -> Params:
    """Returns a model's parameters as plain arrays: what `joined` gives, with every `LowRank` made one weight."""

    def plain(leaf: jax.Array | LowRank) -> jax.Array:
        return leaf.merged() if isinstance(leaf, LowRank) else leaf

    whole = joined(frozen, trained, scale)
    return jax.tree.map(plain, whole, is_leaf=lambda leaf: isinstance(leaf, LowRank))
