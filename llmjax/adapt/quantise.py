"""Weights on grids of a few bits, a scale and a whole zero point for each group of inputs; the plainest way: rounding.

The forms are weights alone: products read activations as they are, in float32 on a CPU and bfloat16 elsewhere
(`kernels.formats.Groups`). int8 of weights and activations is `models.params.prepare`'s; `smooth` readies a model for
it. qwix (google/qwix), JAX's own library for quantising, is not used: products here read `Packed` weights in the blocks
of `kernels.dot`, and what is saved must be a folder that others read. Shape letters: E outputs, D inputs, P groups, C
inputs of a group.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llmjax.errors import UserError
from llmjax.kernels.formats import Groups
from llmjax.models.config import ModelConfig
from llmjax.models.params import Params, unstack_layers


class Grid(NamedTuple):
    """bits: of a value, 2 to 4; fewer than 4 are kept in 4. group: how many inputs of an output share a scale."""

    bits: int = 4
    group: int = 64

    @property
    def most(self) -> int:
        """The largest value: 15 of 4 bits."""
        return 2**self.bits - 1


FOUR_BITS = Grid()


def round_weights(params: Params, config: ModelConfig, grid: Grid = FOUR_BITS) -> Params:
    """Returns parameters, layers apart, whose layers' kernels are rounded to `Groups`; the rest stays as it is.

    Raises:
        UserError: a grid that is none, or that does not divide a product's inputs.
    """
    params = unstack_layers(check_grid(params, config, grid), config)
    name = config.layer.names.layer

    def change(entries: Any, leaf: Any) -> Any:
        inside = entries[0].key.startswith(f"{name}_") and entries[-1].key == "kernel"
        return on_grid(leaf.T, grid) if inside else leaf

    return jax.tree_util.tree_map_with_path(change, params)


def check_grid(params: Params, config: ModelConfig, grid: Grid) -> Params:
    """Returns `params`; raises `UserError` for a grid that they cannot have."""
    if not 2 <= grid.bits <= 4:
        raise UserError(f"bits={grid.bits} must be 2, 3 or 4 (int8 is a format of its own).")
    if grid.group < 2 or grid.group % 2:
        raise UserError(f"group={grid.group} must be even, and at least 2.")
    spec = config.layer
    for inputs, what in ((spec.width, "width"), (spec.heads * spec.head_width, "heads"), (spec.inner, "MLP width")):
        if inputs % grid.group:
            raise UserError(f"group={grid.group} does not divide the {inputs} inputs of the model's {what}.")
    return params


def scale_and_zero(weight_EC: Float[Array, "E C"], grid: Grid) -> tuple[Float[Array, "E"], Float[Array, "E"]]:
    """Returns the scale and zero point at which a group's least and largest value, and zero, are on the grid.

    Source: Frantar et al. 2022, "GPTQ", section 4 (asymmetric min-max), as in its code.
    """
    low_E, high_E = jnp.minimum(weight_EC.min(1), 0), jnp.maximum(weight_EC.max(1), 0)
    scale_E = jnp.where(high_E - low_E >= grid.most * jnp.finfo(jnp.float32).tiny, (high_E - low_E) / grid.most, 1.0)
    return scale_E, jnp.round(-low_E / scale_E)


@partial(jax.jit, static_argnames="grid")
def on_grid(weight_ED: Float[Array, "E D"], grid: Grid) -> Groups:
    """Returns a weight rounded to the nearest points of its own grid."""
    groups_NC = weight_ED.astype(jnp.float32).reshape(-1, grid.group)
    scale_EP, zero_EP = (part.reshape(len(weight_ED), -1) for part in scale_and_zero(groups_NC, grid))
    return packed(weight_ED, scale_EP, zero_EP, grid)


def packed(
    weight_ED: Float[Array, "E D"], scale_EP: Float[Array, "E P"], zero_EP: Float[Array, "E P"], grid: Grid
) -> Groups:
    """Returns a weight rounded to the nearest points of a given grid."""
    weight_EPC = weight_ED.astype(jnp.float32).reshape(*scale_EP.shape, grid.group)
    steps_EPC = jnp.round(weight_EPC / scale_EP[..., None]) + zero_EP[..., None]
    values_EPC = jnp.clip(steps_EPC, 0, grid.most).astype(jnp.uint8)
    half = grid.group // 2
    return Groups(values_EPC[..., :half] | (values_EPC[..., half:] << 4), scale_EP, -zero_EP * scale_EP)


def dequantised(params: Params) -> Params:
    """Returns parameters with float32 kernels [D, E] in the place of `Groups`: to save as an ordinary folder."""

    def plain(leaf: Any) -> Any:
        return leaf.dequantised().T if isinstance(leaf, Groups) else leaf

    return jax.tree.map(plain, params, is_leaf=lambda leaf: isinstance(leaf, Groups))
