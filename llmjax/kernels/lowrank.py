"""A weight that stays as it is, and the product of two thin matrices that is added to it.

Shape letters: T tokens, D inputs, E outputs, R rank.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llmjax.kernels.training import dropout

_STATIC: Any = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
    """The weight kernel + scale * a diag(e) b, multiplied by without being made.

    Stands in a model's parameters where the kernel does. Of stacked layers every array has a dimension more, in front.
    Source: Hu et al. 2022, "LoRA", equation 3; with `e_R`, Zhang et al. 2023, "AdaLoRA", equation 3.

    e_R: None: all ones. key: of `dropout`, which zeroes inputs of the added part; None: nothing is dropped.
    """

    kernel_DE: Float[Array, "*N D E"]
    a_DR: Float[Array, "*N D R"]
    b_RE: Float[Array, "*N R E"]
    e_R: Float[Array, "*N R"] | None = None
    key: jax.Array | None = None
    scale: float = dataclasses.field(default=1.0, metadata=_STATIC)
    dropout: float = dataclasses.field(default=0.0, metadata=_STATIC)

    def apply(self, x_TD: Float[Array, "T D"]) -> Float[Array, "T E"]:
        """Returns the product of `x_TD` with the weight; the added part is made for the tokens, not for the weight."""
        seen_TD = x_TD if self.key is None or not self.dropout else dropout(x_TD, self.dropout, self.key)
        low_TR = (seen_TD @ self.a_DR) * (self.scale if self.e_R is None else self.scale * self.e_R)
        return x_TD @ self.kernel_DE + low_TR @ self.b_RE

    def merged(self) -> Float[Array, "*N D E"]:
        """Returns the weight as one array."""
        a_DR = self.a_DR if self.e_R is None else self.a_DR * self.e_R[..., None, :]
        return self.kernel_DE + self.scale * jnp.matmul(a_DR, self.b_RE, precision="highest")

    def astype(self, dtype: str) -> "LowRank":
        """Returns the weight in another type."""
        e_R = None if self.e_R is None else self.e_R.astype(dtype)
        kernel_DE, a_DR, b_RE = (array.astype(dtype) for array in (self.kernel_DE, self.a_DR, self.b_RE))
        return dataclasses.replace(self, kernel_DE=kernel_DE, a_DR=a_DR, b_RE=b_RE, e_R=e_R)


def over_outputs(weight: Any, change: Callable[[jax.Array], jax.Array]) -> Any:
    """Returns a weight, plain [D, E] or of low rank, with `change` made to what has its outputs as the last axis."""
    if isinstance(weight, LowRank):
        return dataclasses.replace(weight, kernel_DE=change(weight.kernel_DE), b_RE=change(weight.b_RE))
    return change(weight)
