"""What only training needs: dropout with few random words, and a residual stream whose gradient is written once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llmjax.parallel.draws import random_words


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Zeroes each element with probability `rate` and scales the rest by 1 / (1 - rate).

    One 32-bit word of the generator serves two elements, so the rate is rounded to a multiple of 2**-16: on CPU the
    generator, not the multiply, is what dropout costs.
    """
    width, threshold = x.shape[-1], round(rate * 2**16)
    words = random_words(key, (*x.shape[:-1], -(-width // 2)))
    keep = jnp.concatenate([(words & 0xFFFF) >= threshold, (words >> 16) >= threshold], axis=-1)[..., :width]
    # Behind a barrier the backward pass reads the mask, a byte an element, and does not draw it again.
    keep = jax.lax.optimization_barrier(keep)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


@jax.custom_jvp
def add_branch(x: Float[Array, "... D"], branch: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Adds a branch's output to the residual stream.

    The stream's gradient is a sum that grows by a term a layer. Behind a barrier it is written to memory; without one,
    XLA on CPU fuses the sum into each loop that uses it, and every layer adds up all the later layers' terms again
    (with jaxlib 0.10 it does so all the same: its XLA drops barriers before it fuses).
    """
    return x + branch


@add_branch.defjvp
def _add_branch_jvp(primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    # A linear function whose transpose holds the barrier: the gradient passes it once for both terms.
    return add_branch(*primals), jax.lax.optimization_barrier(tangents[0] + tangents[1])
