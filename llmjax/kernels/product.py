"""Products of activations and weights, and rows looked up by token, for every form that a weight has.

Shape letters: T tokens, D inputs, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from llmjax.kernels.formats import Packed
from llmjax.kernels.lowrank import LowRank


def product(x: Float[Array, "... D"], kernel: Array | LowRank | Packed, outputs: int) -> Float[Array, "... E"]:
    """Returns the product of the last axis of `x` with a weight of `outputs` outputs E.

    A plain array is [D, E] and gives a result of its type, and so does one of low rank; a packed weight gives float32
    as its `multiply` says.
    """
    x_TD = x.reshape(-1, x.shape[-1])
    if isinstance(kernel, Packed):
        y_TE = kernel.multiply(x_TD)[:, :outputs]
    elif isinstance(kernel, LowRank):
        y_TE = kernel.apply(x_TD)
    else:
        # Two dimensions: of three, XLA on CPU answers the kernel's gradient with strided copies of every activation.
        y_TE = lax.dot_general(x_TD, kernel, (((1,), (0,)), ((), ())))
    return y_TE.reshape(*x.shape[:-1], outputs)


def lookup(table: Array | Packed, tokens: Int[Array, "..."], dtype: str) -> Float[Array, "... D"]:
    """Returns the rows of a vocabulary's weight [V, D] that `tokens` name, in `dtype`."""
    if isinstance(table, Packed):
        return table.rows(tokens.reshape(-1)).reshape(*tokens.shape, -1).astype(dtype)
    return jnp.take(table.astype(dtype), tokens, axis=0)


def unembed(x: Float[Array, "... D"], table: Array | Packed, vocabulary: int) -> Float[Array, "... V"]:
    """Returns float32 logits: the product of `x` with every row of a vocabulary's weight [V, D]."""
    if isinstance(table, Packed):
        return product(x, table, vocabulary)
    form = _plain_logits if x.dtype == jnp.float32 else _logits
    return form(x, table.astype(x.dtype))


def _plain_logits(x: Float[Array, "... D"], table_VD: Float[Array, "V D"]) -> Float[Array, "... V"]:
    return jnp.einsum("...d,vd->...v", x, table_VD, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _logits(x: Float[Array, "... D"], table_VD: Float[Array, "V D"]) -> Float[Array, "... V"]:
    """The same of 16-bit operands, and a gradient rounded to their type.

    Products of float32 gradients and 16-bit operands would run at float32's rate, a half or less of theirs.
    """
    return _plain_logits(x, table_VD)


def _logits_forward(x: Any, table_VD: Any) -> tuple[Any, tuple[Any, Any]]:
    return _logits(x, table_VD), (x, table_VD)


def _logits_backward(kept: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
    x, table_VD = kept
    gradient = gradient.astype(x.dtype)
    return jnp.einsum("...v,vd->...d", gradient, table_VD), jnp.einsum("...v,...d->vd", gradient, x)


_logits.defvjp(_logits_forward, _logits_backward)


def is_plain(weight: Any) -> bool:
    """Whether a weight is an array, or one of low rank, of which the model's own type decides how it is multiplied."""
    return not isinstance(weight, Packed)
