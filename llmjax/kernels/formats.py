"""Weights as products read them: plain arrays, rows of a short type with a scale each, or 4-bit groups of 32.

Shape letters: T tokens, D inputs, E outputs, P groups of 32 inputs, G inputs of a group, H bytes of a group.
"""

import dataclasses
from typing import Literal, Protocol, TypeVar, get_args, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int8, UInt8

from llmjax.errors import UserError, did_you_mean
from llmjax.kernels.dot import BLOCK, dot

T = TypeVar("T")
Format = Literal["float32", "bfloat16", "int8", "int4"]
FORMATS: tuple[str, ...] = get_args(Format)
LONG = 8192  # rows from which a weight is padded: zeros are at most 3% of it there
GROUP = 32  # inputs that share a scale in 4 bits, as GGUF's Q4_0 and Q4_1 have it


@runtime_checkable
class Packed(Protocol):
    """A weight in another form than a plain array: a pytree that knows how it is multiplied by."""

    def multiply(self, x_TD: Float[Array, "T D"]) -> Float[Array, "T E"]:
        """Returns x @ kernel in float32; padded rows included."""
        ...

    def rows(self, tokens_T: Int[Array, "T"]) -> Float[Array, "T D"]:
        """Returns rows of the weight in float32."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """A weight by rows: row e is what output e reads, so a product of few tokens streams through memory once.

    values_ED: float32, bfloat16 or int8; long weights have rows of zeros at the end, to a multiple of `BLOCK`.
    scale_E: what int8 rows are multiplied by; None for floats.
    """

    values_ED: Array
    scale_E: Float[Array, "E"] | None = None

    def multiply(self, x_TD: Float[Array, "T D"]) -> Float[Array, "T E"]:
        """Floats multiply `x_TD` rounded to their own type; int8 rows multiply `x_TD` rounded to 8 bits with a scale a
        token, exactly, in int32, and both scales multiply the sum.
        """
        if self.scale_E is None:
            return dot(x_TD.astype(self.values_ED.dtype), self.values_ED)
        x_TD, scale_T = quantise(x_TD.astype(jnp.float32))
        return dot(x_TD, self.values_ED).astype(jnp.float32) * scale_T[:, None] * self.scale_E

    def rows(self, tokens_T: Int[Array, "T"]) -> Float[Array, "T D"]:
        """Returns rows in float32."""
        rows_TD = self.values_ED[tokens_T].astype(jnp.float32)
        return rows_TD if self.scale_E is None else rows_TD * self.scale_E[tokens_T][:, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Groups:
    """A weight in 4 bits: `value * scale + minimum`, a scale and a minimum for every `GROUP` inputs of an output.

    packed_EPH: two values 0..15 a byte: the low half of byte h is input h of a group, the high half input h + 16, as
    GGUF's Q4_0 and Q4_1 store them.
    """

    packed_EPH: UInt8[Array, "E P H"]
    scale_EP: Float[Array, "E P"]
    minimum_EP: Float[Array, "E P"]

    def multiply(self, x_TD: Float[Array, "T D"]) -> Float[Array, "T E"]:
        """Multiplies `x_TD` in bfloat16 summed in float32 on accelerators, in float32 on a CPU."""
        return lax.platform_dependent(
            x_TD,
            self,
            cpu=lambda x_TD, weight: dot(x_TD.astype(jnp.float32), weight.dequantised()),
            default=lambda x_TD, weight: dot(x_TD.astype(jnp.bfloat16), weight.dequantised().astype(jnp.bfloat16)),
        )

    def rows(self, tokens_T: Int[Array, "T"]) -> Float[Array, "T D"]:
        """Returns rows in float32."""
        return jax.tree.map(lambda leaf: leaf[tokens_T], self).dequantised()

    def dequantised(self) -> Float[Array, "E D"]:
        """Returns the values in float32."""
        values_EPG = jnp.concatenate([self.packed_EPH & 15, self.packed_EPH >> 4], axis=-1).astype(jnp.float32)
        values_EPG = values_EPG * self.scale_EP[..., None] + self.minimum_EP[..., None]
        return values_EPG.reshape(values_EPG.shape[0], -1)


def check_format(name: str, origin: str = "format") -> Format:
    """Returns `name` if it is a weight format, else raises `UserError` naming the nearest."""
    if name not in FORMATS:
        raise UserError(f"{origin}={name!r} must be one of {', '.join(FORMATS)}.{did_you_mean(name, FORMATS)}")
    return name  # pyright: ignore[reportReturnType]


def activation_dtype(format: Format) -> str:
    """Returns the type of a format's cache: float32, or bfloat16 for the short formats."""
    return "float32" if format == "float32" else "bfloat16"


def pack(kernel_ED: Float[Array, "E D"], format: Format) -> Rows | Groups:
    """Returns a weight by rows in `format`; from `LONG` rows on they are padded to whole blocks.

    - float32, bfloat16: rounded to the type;
    - int8: 8 bits, symmetric, a scale a row (`quantise`);
    - int4: 4 bits, a scale and a minimum for every 32 inputs (`quantise_groups`); where the inputs are no multiple of
      32, int8.
    """
    kernel_ED = pad_rows(kernel_ED)
    if format == "int4" and kernel_ED.shape[1] % GROUP == 0:
        return quantise_groups(kernel_ED.astype(jnp.float32))
    if format in ("int8", "int4"):
        return Rows(*quantise(kernel_ED.astype(jnp.float32)))
    return Rows(kernel_ED.astype(format))


def pad_rows(weight: T) -> T:
    """Returns a weight by rows with rows of zeros up to whole blocks, where it has `LONG` rows or more."""

    def pad(leaf: jax.Array) -> jax.Array:
        more = -leaf.shape[0] % BLOCK if leaf.shape[0] >= LONG else 0
        return jnp.pad(leaf, ((0, more), *((0, 0) for _ in leaf.shape[1:])))

    return jax.tree.map(pad, weight)


def quantise(x_ND: Float[Array, "N D"]) -> tuple[Int8[Array, "N D"], Float[Array, "N"]]:
    """Returns 8-bit integers q and a scale a row with q * scale within half a scale of `x_ND`.

    Symmetric, to -127..127, the row's largest magnitude at the end of the range; a row of zeros has scale 1, and so has
    one whose scale would be denormal, which XLA takes for zero. Source:
    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    with zero point 0.
    """
    largest_N = jnp.max(jnp.abs(x_ND), axis=-1)
    scale_N = jnp.where(largest_N >= 127 * jnp.finfo(jnp.float32).tiny, largest_N / 127, 1.0)
    return jnp.round(x_ND / scale_N[:, None]).astype(jnp.int8), scale_N


def quantise_groups(x_ED: Float[Array, "E D"]) -> Groups:
    """Returns `x_ED` in 4 bits by rounding, each group of 32 between its own least and largest value.

    Source of the form: llama.cpp's Q4_1, `ggml-quants.c` (its scales are float16, ours float32).
    """
    x_EPG = x_ED.reshape(x_ED.shape[0], -1, GROUP)
    low_EP, high_EP = x_EPG.min(-1), x_EPG.max(-1)
    scale_EP = jnp.where(high_EP - low_EP >= 15 * jnp.finfo(jnp.float32).tiny, (high_EP - low_EP) / 15, 1.0)
    values_EPG = jnp.round((x_EPG - low_EP[..., None]) / scale_EP[..., None]).astype(jnp.uint8)
    packed_EPH = values_EPG[..., : GROUP // 2] | (values_EPG[..., GROUP // 2 :] << 4)
    return Groups(packed_EPH, scale_EP, low_EP)
