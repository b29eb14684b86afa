"""The key-value cache: a value that a step takes and returns.

Rows end together: prompts are padded on the left, so that every row's next token goes to the same slot, written in
place by one `dynamic_update_slice`, whatever the rows' lengths. Shape letters: B batch, G key-value heads, S cache
length, K head width.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from llmjax.kernels.formats import quantise
from llmjax.models.config import ModelConfig

SHORTEST = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Short:
    """Keys or values in 8 bits, symmetric, with a scale a token and head: `values * scale`.

    Attention multiplies by the scales after its sums over K, and before those over S, so that it reads 8 bits a value.
    `dtype` is the type in which a prompt is computed. Liu et al. 2024, "KIVI", have such scales for values; for
    keys they have one a channel, which waits for several tokens before it rounds them.
    """

    values_NSK: Int8[Array, "N S K"]
    scale_NS: Float[Array, "N S"]
    dtype: str = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """N, S, K."""
        return self.values_NSK.shape


Kept = Float[Array, "N S K"] | Short
"""Keys or values of a layer, as a cache has them."""


class Cache(NamedTuple):
    """Keys and values of the tokens so far, a pair of arrays a layer.

    Slots `start_B[b]` to `end` (not included) of row b hold real tokens; what stands before is padding, what stands
    after is not written yet. Heads of rows are one dimension, N = B x G, row by row: XLA's products want one, and copy
    the cache where it has two. A pytree; jitted steps take it donated and update it in place.
    """

    k_NSK: tuple[Kept, ...]
    v_NSK: tuple[Kept, ...]
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
    """Returns a cache of `batch` rows and `slots` tokens a row with nothing in it, of `config.kv_cache` or `dtype`."""
    shape = (batch * config.layer.kv_heads, slots, config.layer.head_width)

    def nothing() -> Kept:
        if config.kv_cache == "int8":
            return Short(jnp.zeros(shape, jnp.int8), jnp.zeros(shape[:2], jnp.float32), dtype)
        return jnp.zeros(shape, dtype)

    return Cache(
        # Distinct arrays, as each is donated by itself.
        k_NSK=tuple(nothing() for _ in range(config.layers)),
        v_NSK=tuple(nothing() for _ in range(config.layers)),
        start_B=jnp.zeros((batch,), jnp.int32),
        end=jnp.zeros((), jnp.int32),
    )


def write(kept: Kept, new_NLK: Float[Array, "N L K"], slot: Array | int) -> Kept:
    """Returns a layer's keys or values with those of L new tokens from `slot` on."""
    if isinstance(kept, Short):
        values_NLK, scale_NL = shortened(new_NLK)
        values_NSK = jax.lax.dynamic_update_slice(kept.values_NSK, values_NLK, (0, slot, 0))
        return dataclasses.replace(
            kept, values_NSK=values_NSK, scale_NS=jax.lax.dynamic_update_slice(kept.scale_NS, scale_NL, (0, slot))
        )
    return jax.lax.dynamic_update_slice(kept, new_NLK.astype(kept.dtype), (0, slot, 0))


def shortened(new_NLK: Float[Array, "N L K"]) -> tuple[Int8[Array, "N L K"], Float[Array, "N L"]]:
    """Returns keys or values in 8 bits, and a scale a token and head."""
    values_TK, scale_T = quantise(new_NLK.reshape(-1, new_NLK.shape[-1]).astype(jnp.float32))
    return values_TK.reshape(new_NLK.shape), scale_T.reshape(new_NLK.shape[:-1])


def as_kept(kept: Kept, new_BGLK: Float[Array, "B G L K"]) -> Float[Array, "B G L K"]:
    """Returns new keys or values as a cache of that kind gives them back: a prompt is read as it is remembered."""
    if not isinstance(kept, Short):
        return new_BGLK
    values_NLK, scale_NL = shortened(new_BGLK.reshape(-1, *new_BGLK.shape[2:]))
    return (values_NLK.astype(jnp.float32) * scale_NL[..., None]).reshape(new_BGLK.shape)


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
