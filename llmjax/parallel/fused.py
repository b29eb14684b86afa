"""One product for query, key and value, with its outputs in the order in which `tensor` devices hold heads.

Stored, the outputs are all queries, all keys, all values: a device that holds a contiguous part of them holds no whole
heads. In parts, device t's outputs are the queries, keys and values of its heads. With one part nothing moves.
Shape letters: E outputs, T parts.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def in_parts(x: jax.Array, sizes: Sequence[int], parts: int) -> jax.Array:
    """Returns an array whose last axis is outputs of `sizes`, one after the other, with that axis in parts."""
    if parts == 1:
        return x
    split = [part.reshape(*x.shape[:-1], parts, -1) for part in _split(x, sizes)]
    return jnp.concatenate(split, axis=-1).reshape(x.shape)


def out_of_parts(y: jax.Array, sizes: Sequence[int], parts: int) -> tuple[jax.Array, ...]:
    """Returns the outputs of `sizes` of a last axis in parts, each in its own order: the inverse of `in_parts`."""
    if parts == 1:
        return _split(y, sizes)
    split = _split(y.reshape(*y.shape[:-1], parts, -1), [size // parts for size in sizes])
    return tuple(part.reshape(*y.shape[:-1], -1) for part in split)


def _split(x: jax.Array, sizes: Sequence[int]) -> tuple[jax.Array, ...]:
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes) - 1)]
    return tuple(jnp.split(x, ends, axis=-1))
