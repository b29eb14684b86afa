"""The key-value cache: a value that a step takes and returns.

Rows end together: prompts are padded on the left, so that every row's next token goes to the same slot, written in
place by one `dynamic_update_slice`, whatever the rows' lengths. Shape letters: B batch, G key-value heads, S cache
length, K head width.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llmjax.models.config import ModelConfig

SHORTEST = 64


class Cache(NamedTuple):
    """Keys and values of the tokens so far, a pair of arrays a layer.

    Slots `start_B[b]` to `end` (not included) of row b hold real tokens; what stands before is padding, what stands
    after is not written yet. Heads of rows are one dimension, N = B x G, row by row: XLA's products want one, and copy
    the cache where it has two. A pytree; jitted steps take it donated and update it in place.
    """

    k_NSK: tuple[Float[Array, "N S K"], ...]
    v_NSK: tuple[Float[Array, "N S K"], ...]
    start_B: Int[Array, "B"]
    end: Int[Array, ""]

    @property
    def slots(self) -> int:
        """Length S: how many tokens a row holds, padding included."""
        return self.k_NSK[0].shape[1]

    @property
    def positions_B(self) -> Int[Array, "B"]:
        """Position of each row's next token, counted without padding."""
        return self.end - self.start_B


def empty_cache(config: ModelConfig, batch: int, slots: int, dtype: str) -> Cache:
    """Returns a cache of `batch` rows and `slots` tokens a row with nothing in it, zeros in `dtype`."""
    shape = (batch * config.layer.kv_heads, slots, config.layer.head_width)
    return Cache(
        # Distinct arrays, as each is donated by itself.
        k_NSK=tuple(jnp.zeros(shape, dtype) for _ in range(config.layers)),
        v_NSK=tuple(jnp.zeros(shape, dtype) for _ in range(config.layers)),
        start_B=jnp.zeros((batch,), jnp.int32),
        end=jnp.zeros((), jnp.int32),
    )


def visible(cache: Cache) -> Bool[Array, "B S"]:
    """Returns which slots the token in the last filled slot may look at: the real ones up to itself."""
    slot_S = jnp.arange(cache.slots)
    return (slot_S >= cache.start_B[:, None]) & (slot_S < cache.end)


def bucket(length: int) -> int:
    """Returns the cache length that is compiled for `length` tokens: 64, 96, 128, 192, 256, ... the next that holds it.

    Two steps a doubling: at most a third of the slots is unused, and few shapes are ever compiled.
    """
    size = SHORTEST
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
    return size
