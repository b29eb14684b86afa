"""Weights in the arrangement and format that generation reads them in."""

import functools
from importlib.metadata import version
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from llmjax.errors import UserError, did_you_mean
from llmjax.gpt2.config import GPT2Config
from llmjax.gpt2.params import Params, unstack_layers

Format = Literal["float32", "bfloat16", "int8"]
FORMATS: tuple[str, ...] = get_args(Format)
Prepared = dict[str, Any]

# Rows of a weight that one block of a product covers; the vocabulary is padded to a whole number of blocks. Measured on
# 2 cores, tokens/s of GPT-2 124M with blocks of 128 and of 256: 8 rows of float32 216 and 201 on jaxlib 0.12.0.1, 159
# and 233 on 0.10.2; one row of int8 95 and 98, 50 and 73.
BLOCK = 128 if tuple(int(part) for part in version("jaxlib").split(".")[:2]) >= (0, 12) else 256


def check_format(name: str, origin: str = "format") -> Format:
    """Returns `name` if it is a weight format, else raises `UserError` naming the nearest."""
    if name not in FORMATS:
        raise UserError(f"{origin}={name!r} must be one of {', '.join(FORMATS)}.{did_you_mean(name, FORMATS)}")
    return name  # pyright: ignore[reportReturnType]


def activation_dtype(format: Format) -> str:
    """Returns the type of a format's cache: float32, or bfloat16 for the two short formats."""
    return "float32" if format == "float32" else "bfloat16"


@functools.partial(jax.jit, static_argnames=("config", "format"))
def prepare(params: Params, config: GPT2Config, format: Format) -> Prepared:
    """Arranges the parameters of `GPT2(config, "lm")` for `prefill` and `decode_step`.

    Every weight becomes `{"kernel": [E, D], "bias": [E]}` (outputs, inputs): a row is what one output reads, so a
    product of few tokens streams through memory once, in order, and no step transposes or copies a weight. The
    vocabulary is padded to a multiple of `BLOCK` rows. By `format`:

    - float32: as they are;
    - bfloat16: kernels and the token embedding rounded to bfloat16;
    - int8: kernels and the token embedding in 8 bits, symmetric, one float32 `scale` a row (`quantise`).

    Biases, layer norms and the position embedding stay float32, and so does the residual stream. A pytree of plain
    dicts under the Linen names; where the head is not tied, it stands under "lm_head".
    """
    if "h" in params:
        params = unstack_layers(params, config.n_layer)
    rows = -(-config.vocab_size // BLOCK) * BLOCK
    weight = functools.partial(_weight, format=format)

    def vocabulary(kernel_VD: jax.Array) -> Prepared:
        return weight(jnp.pad(kernel_VD, ((0, rows - config.vocab_size), (0, 0))), None)

    def dense(layer: Params) -> Prepared:
        return weight(layer["kernel"].T, layer["bias"])

    def floats(tree: Params) -> Params:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    prepared = {
        "wte": vocabulary(params["wte"]["embedding"]),
        "wpe": floats(params["wpe"]),
        "ln_f": floats(params["ln_f"]),
    }
    if not config.tie_word_embeddings:
        prepared["lm_head"] = vocabulary(params["lm_head"]["kernel"].T)
    for name in (f"h_{layer}" for layer in range(config.n_layer)):
        block = params[name]
        prepared[name] = {
            "ln_1": floats(block["ln_1"]),
            "attn": {part: dense(block["attn"][part]) for part in ("c_attn", "c_proj")},
            "ln_2": floats(block["ln_2"]),
            "mlp": {part: dense(block["mlp"][part]) for part in ("c_fc", "c_proj")},
        }
    return prepared


def _weight(kernel_ED: jax.Array, bias_E: jax.Array | None, format: Format) -> Prepared:
    weight: Prepared = {} if bias_E is None else {"bias": bias_E.astype(jnp.float32)}
    if format != "int8":
        return {"kernel": kernel_ED.astype(format), **weight}
    kernel_ED, scale_E = quantise(kernel_ED.astype(jnp.float32))
    return {"kernel": kernel_ED, "scale": scale_E, **weight}


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
