"""A weight settled column after column, each column's error made up for by those that are not settled yet.

The step that pruning (SparseGPT) and quantising (GPTQ) share. Sources: Hassibi and Stork 1992, "Optimal Brain Surgeon";
Frantar et al. 2022, "GPTQ", algorithm 1; Frantar and Alistarh 2023, "SparseGPT", algorithm 1.
Shape letters: E outputs, D inputs, C inputs of a block.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

DAMPING = 0.01  # of the mean of the Hessian's diagonal: GPTQ's and SparseGPT's own
Begin = Callable[[jax.Array, jax.Array, jax.Array], Any]
Settle = Callable[[Any, jax.Array, jax.Array], jax.Array]


def inverse_factor(gram_DD: Float[Array | np.ndarray, "D D"], damping: float = DAMPING) -> Float[np.ndarray, "D D"]:
    """Returns the upper triangular U with U^T U = (gram + damping x its mean diagonal)^-1.

    In float64, from the Cholesky factor of the gram read backwards: no inverse is formed before it is factored.
    """
    gram = np.asarray(gram_DD, np.float64)
    mean = float(np.mean(np.diag(gram))) or 1.0
    backwards_DD = (gram + damping * mean * np.eye(len(gram)))[::-1, ::-1]
    lower_DD = scipy.linalg.cholesky(backwards_DD, lower=True, check_finite=False)
    upper_DD = lower_DD[::-1, ::-1]
    inverse_DD = scipy.linalg.solve_triangular(upper_DD, np.eye(len(gram)), lower=False, check_finite=False)
    return inverse_DD.astype(np.float32)


def settled(
    weight_ED: Float[Array, "E D"], factor_DD: Float[Array, "D D"], block: int, begin: Begin, settle: Settle
) -> tuple[Float[Array, "E D"], Any]:
    """Returns a weight whose columns were settled from left to right, and what was decided of each block; traced.

    Args:
        factor_DD: `inverse_factor` of what the product reads.
        block: columns that are decided on together; divides D.
        begin: (the block's columns so far [E, C], the factor's diagonal there [C], the first column's number) -> a
            decision: a tree of arrays.
        settle: (the decision, a column so far [E], its number in the block) -> the column as it stays [E].

    Returns:
        The weight, and the decisions with the block's number as their first axis.
    """

    def column(at: jax.Array, state: tuple[jax.Array, jax.Array], decision: Any, upper_CC: jax.Array) -> Any:
        kept_EC, error_EC = state
        now_E, row_C = kept_EC[:, at], upper_CC[at]
        error_E = (now_E - settle(decision, now_E, at)) / row_C[at]
        # The factor is upper triangular: columns that are settled already get zeros, this one what it stays as.
        return kept_EC - error_E[:, None] * row_C, error_EC.at[:, at].set(error_E)

    def step(weight_ED: jax.Array, start: jax.Array) -> tuple[jax.Array, Any]:
        rows_CD = jax.lax.dynamic_slice_in_dim(factor_DD, start, block, 0)
        upper_CC = jax.lax.dynamic_slice_in_dim(rows_CD, start, block, 1)
        block_EC = jax.lax.dynamic_slice_in_dim(weight_ED, start, block, 1)
        decision = begin(block_EC, jnp.diagonal(upper_CC), start)
        state = (block_EC, jnp.zeros_like(block_EC))
        body = functools.partial(column, decision=decision, upper_CC=upper_CC)
        kept_EC, error_EC = jax.lax.fori_loop(0, block, body, state)
        weight_ED = weight_ED - error_EC @ rows_CD
        # Exactly: columns were settled one by one, and a zero stays a zero.
        exact_EC = jax.vmap(lambda at, now_E: settle(decision, now_E, at), (0, 1), 1)(jnp.arange(block), kept_EC)
        return jax.lax.dynamic_update_slice_in_dim(weight_ED, exact_EC, start, 1), decision

    return jax.lax.scan(step, weight_ED, jnp.arange(0, weight_ED.shape[1], block))


def largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor of a number that is at most `most`."""
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)
