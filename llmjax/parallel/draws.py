"""Random words of a batch, of which each device draws those of its own rows: the same on every mesh."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from llmjax.parallel.mesh import ROWS, P, axis_size, on_each_device, row_axes

_OF_A_COUNT = 4  # words that Philox makes of one value of its counter
_COUNTER = 2  # the state's words: two of the key, then the counter's, the lower one first


def random_words(key: jax.Array, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Returns random 32-bit words.

    XLA divides no generator of its own over devices: each would draw all words, and take its rows. Philox (Salmon et
    al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") counts, so that a device starts at its first word's count.
    On CPUs and GPUs, where Philox is XLA's choice, the words of a mesh are those of one device.
    """
    words, parts = math.prod(shape), axis_size(*ROWS)
    counts = str(jax.random.key_impl(key)).endswith("rbg")
    if parts == 1 or not counts or not row_axes(shape[0]) or words % (parts * _OF_A_COUNT):
        return jax.random.bits(key, shape, jnp.uint32)

    def own(state: jax.Array) -> jax.Array:
        first = jax.lax.axis_index(ROWS).astype(jnp.uint32) * jnp.uint32(words // parts // _OF_A_COUNT)
        mine = (shape[0] // parts, *shape[1:])
        philox = jax.lax.RandomAlgorithm.RNG_PHILOX
        return jax.lax.rng_bit_generator(_moved(state, first), mine, jnp.uint32, algorithm=philox)[1]

    return on_each_device(own, P(), P(ROWS))(jax.random.key_data(key))


def _moved(state: jax.Array, by: jax.Array) -> jax.Array:
    """Returns the state with its counter, 64 bits of two words, moved on."""
    low = state[_COUNTER] + by
    return state.at[_COUNTER].set(low).at[_COUNTER + 1].add((low < by).astype(jnp.uint32))
