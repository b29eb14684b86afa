"""What the losses of several tasks are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int


def weighted_mean(values: ArrayLike, weights: ArrayLike) -> jax.Array:
    """Returns sum(values * weights) / sum(weights); 0 where all weights are 0."""
    return jnp.sum(jnp.multiply(values, weights)) / jnp.maximum(jnp.sum(weights), 1e-8)


def next_token_loss(
    logits_BLV: Float[Array, "B L V"],
    targets_BL: Int[Array | np.ndarray, "B L"],
    weights_BL: Float[Array | np.ndarray, "B L"],
) -> tuple[jax.Array, jax.Array]:
    """Returns the weighted mean cross-entropy of the tokens that follow, and the accuracy of the likeliest ones."""
    loss_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, targets_BL)
    correct_BL = (jnp.argmax(logits_BLV, axis=-1) == targets_BL).astype(jnp.float32)
    return weighted_mean(loss_BL, weights_BL), weighted_mean(correct_BL, weights_BL)
