"""Random words that begin in the middle of a stream; tests/parallel/test_mesh.py draws them on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.parallel.draws import _moved, random_words


@pytest.mark.parametrize("counter", [0, 2**32 - 4])  # of two words: the second one counts how often the first is full
def test_a_moved_counter_goes_on_where_the_stream_is(counter):
    state = jnp.array([1, 2, counter, 5], jnp.uint32)
    _, whole = jax.lax.rng_bit_generator(state, (8, 8), jnp.uint32)
    _, rest = jax.lax.rng_bit_generator(_moved(state, jnp.uint32(8)), (4, 8), jnp.uint32)
    np.testing.assert_array_equal(rest, whole[4:])


@pytest.mark.parametrize("kind", ["unsafe_rbg", "threefry2x32"])
def test_on_one_device_the_words_are_jaxs(kind):
    key = jax.random.key(3, impl=kind)
    np.testing.assert_array_equal(random_words(key, (4, 3)), jax.random.bits(key, (4, 3), jnp.uint32))
