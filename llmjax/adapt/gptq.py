"""GPTQ: columns rounded one after the other, each error made up for by the columns that follow.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers".
Shape letters: N texts, L tokens, E outputs, D inputs, C inputs of a block.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from llmjax.adapt.calibrate import At, Inputs, kernel_at, layer_by_layer, with_leaf
from llmjax.adapt.compensate import inverse_factor, largest_divisor, settled
from llmjax.adapt.quantise import FOUR_BITS, Grid, check_grid, packed, scale_and_zero
from llmjax.kernels.formats import Groups
from llmjax.models.config import ModelConfig
from llmjax.models.params import Params

BLOCK = 128


def gptq(
    params: Params,
    config: ModelConfig,
    tokens_NL: Int[np.ndarray, "N L"],
    grid: Grid = FOUR_BITS,
    *,
    by_activation: bool = False,
) -> Params:
    """Returns parameters, layers apart, whose layers' kernels are `Groups`, chosen for the outputs on `tokens_NL`.

    Args:
        by_activation: columns of the largest inputs first ("act-order"), on grids of the unchanged weights, so that
            groups stay those of neighbouring inputs; else from left to right, each group's grid made when its turn
            comes, of weights that have made up for the columns before.

    Raises:
        UserError: as `quantise.round_weights`.
    """

    def change(_: int, layer: Params, inputs: Mapping[At, Inputs]) -> tuple[Params, None]:
        for at, seen in inputs.items():
            gram_DD = np.asarray(seen.gram_DD)
            order_D = np.argsort(-np.diag(gram_DD), kind="stable") if by_activation else np.arange(len(gram_DD))
            factor_DD = jnp.asarray(inverse_factor(gram_DD[np.ix_(order_D, order_D)]))
            by: Callable[..., Groups] = _ordered if by_activation else _in_turn
            weight_ED = jnp.asarray(kernel_at(layer, at).T, jnp.float32)
            layer = with_leaf(layer, (*at, "kernel"), by(weight_ED, factor_DD, jnp.asarray(order_D), grid))
        return layer, None

    return layer_by_layer(check_grid(params, config, grid), config, tokens_NL, change)[0]


def _rounded(column_E: jax.Array, scale_E: jax.Array, zero_E: jax.Array, most: int) -> jax.Array:
    return scale_E * (jnp.clip(jnp.round(column_E / scale_E) + zero_E, 0, most) - zero_E)


@functools.partial(jax.jit, static_argnames="grid")
def _in_turn(weight_ED: jax.Array, factor_DD: jax.Array, _: jax.Array, grid: Grid) -> Groups:
    def begin(block_EC: jax.Array, *_: jax.Array) -> Any:
        return scale_and_zero(block_EC, grid)

    def settle(decision: Any, column_E: jax.Array, _: jax.Array) -> jax.Array:
        scale_E, zero_E = decision
        return _rounded(column_E, scale_E, zero_E, grid.most)

    new_ED, (scale_PE, zero_PE) = settled(weight_ED, factor_DD, grid.group, begin, settle)
    return packed(new_ED, scale_PE.T, zero_PE.T, grid)


@functools.partial(jax.jit, static_argnames="grid")
def _ordered(weight_ED: jax.Array, factor_DD: jax.Array, order_D: jax.Array, grid: Grid) -> Groups:
    scale_EP, zero_EP = (
        part.reshape(len(weight_ED), -1) for part in scale_and_zero(weight_ED.reshape(-1, grid.group), grid)
    )
    scale_ED, zero_ED = (jnp.repeat(part, grid.group, axis=1)[:, order_D] for part in (scale_EP, zero_EP))
    block = largest_divisor(weight_ED.shape[1], BLOCK)

    def begin(block_EC: jax.Array, _: jax.Array, start: jax.Array) -> Any:
        return tuple(jax.lax.dynamic_slice_in_dim(part, start, block, 1) for part in (scale_ED, zero_ED))

    def settle(decision: Any, column_E: jax.Array, at: jax.Array) -> jax.Array:
        scale_EC, zero_EC = decision
        return _rounded(column_E, scale_EC[:, at], zero_EC[:, at], grid.most)

    new_ED = settled(weight_ED[:, order_D], factor_DD, block, begin, settle)[0]
    return packed(new_ED[:, jnp.argsort(order_D)], scale_EP, zero_EP, grid)
