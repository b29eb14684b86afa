"""Products of tokens and weights that lie by rows, in the form that each machine does fastest.

Shape letters: T tokens, D inputs, E outputs, P blocks, J rows of a block.
"""

from importlib.metadata import version

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Num

from llmjax.parallel.mesh import axis_size

# Rows of a weight that one block of a product covers; long weights are padded to a whole number of blocks. Measured on
# 2 cores, tokens/s of GPT-2 124M with blocks of 128 and of 256: 8 rows of float32 216 and 201 on jaxlib 0.12.0.1, 159
# and 233 on 0.10.2; one row of int8 95 and 98, 50 and 73.
BLOCK = 128 if tuple(int(part) for part in version("jaxlib").split(".")[:2]) >= (0, 12) else 256


def dot(x_TD: Num[Array, "T D"], kernel_ED: Num[Array, "E D"]) -> Num[Array, "T E"]:
    """Returns x @ kernel.T of two arrays of one type: float32 of floats, int32 of 8-bit integers."""
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
    # Blocks that devices cannot share would be gathered on each of them.
    if kernel_ED.dtype != jnp.bfloat16 and tokens <= 32 and outputs % (BLOCK * axis_size("tensor")) == 0:
        kernel_PJD = kernel_ED.reshape(-1, BLOCK, kernel_ED.shape[1])
        x_PTD = jnp.broadcast_to(x_TD, (kernel_PJD.shape[0], *x_TD.shape))
        accumulator = jnp.int32 if kernel_ED.dtype == jnp.int8 else jnp.float32
        y_PJT = lax.dot_general(kernel_PJD, x_PTD, (((2,), (2,)), ((0,), (0,))), preferred_element_type=accumulator)
        return y_PJT.reshape(outputs, tokens).T
    return _plain(x_TD, kernel_ED)
