"""Products of tokens and prepared weights, in the form that each machine does fastest."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from llmjax.infer.prepare import BLOCK, Prepared, quantise


def dense(x_TD: Float[Array, "T D"], weight: Prepared) -> Float[Array, "T E"]:
    """Returns x @ kernel.T + bias in float32, for a weight of any format.

    float32 and bfloat16 kernels multiply `x_TD` rounded to their own type; an int8 kernel multiplies `x_TD` rounded to
    8 bits with a scale a token, exactly, in int32, and both scales multiply the sum.
    """
    kernel_ED = weight["kernel"]
    if kernel_ED.dtype == jnp.int8:
        x_TD, scale_T = quantise(x_TD.astype(jnp.float32))
        y_TE = _product(x_TD, kernel_ED).astype(jnp.float32) * scale_T[:, None] * weight["scale"]
    else:
        y_TE = _product(x_TD.astype(kernel_ED.dtype), kernel_ED)
    return y_TE + weight["bias"] if "bias" in weight else y_TE


def _product(x_TD: jax.Array, kernel_ED: jax.Array) -> jax.Array:
    return lax.platform_dependent(x_TD, kernel_ED, cpu=_cpu, default=_plain)


def _plain(x_TD: jax.Array, kernel_ED: jax.Array) -> jax.Array:
    accumulator = jnp.int32 if kernel_ED.dtype == jnp.int8 else jnp.float32
    return lax.dot_general(x_TD, kernel_ED, (((1,), (1,)), ((), ())), preferred_element_type=accumulator)


def _cpu(x_TD: jax.Array, kernel_ED: jax.Array) -> jax.Array:
    """The form that XLA's CPU backend runs nearest to the speed of memory, by type and number of tokens.

    Measured in GB/s of weights read, GPT-2 124M's MLP, 2 cores, jaxlib 0.12.0.1: a lone token times bfloat16 or int8
    falls to a scalar loop (1), of two tokens the library takes it (13 to 19). A lone float32 token in blocks, weights
    first, is a matrix times a vector in each, which two threads share (31 to 33 of the machine's 33; 28 written as a
    sum of products). Few tokens times float32 or int8 are half as fast again or twice as fast in blocks (float32 of 8
    tokens: 20 to 24 instead of 10 to 12); without blocks XLA swaps the operands back. bfloat16 in blocks is slower (10
    instead of 18).
    """
    tokens, outputs = x_TD.shape[0], kernel_ED.shape[0]
    if tokens == 1 and kernel_ED.dtype != jnp.float32:
        return _cpu(jnp.pad(x_TD, ((0, 1), (0, 0))), kernel_ED)[:1]
    if kernel_ED.dtype != jnp.bfloat16 and tokens <= 32 and outputs % BLOCK == 0:
        kernel_PJD = kernel_ED.reshape(-1, BLOCK, kernel_ED.shape[1])
        x_PTD = jnp.broadcast_to(x_TD, (kernel_PJD.shape[0], *x_TD.shape))
        accumulator = jnp.int32 if kernel_ED.dtype == jnp.int8 else jnp.float32
        y_PJT = lax.dot_general(kernel_PJD, x_PTD, (((2,), (2,)), ((0,), (0,))), preferred_element_type=accumulator)
        return y_PJT.reshape(outputs, tokens).T
    return _plain(x_TD, kernel_ED)
