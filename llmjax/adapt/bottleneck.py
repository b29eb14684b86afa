"""Houlsby adapters: two bottlenecks a layer, D -> M -> D, after attention and after the MLP, in front of the sums.

Source: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1; as there, the layers' norms
are trained too. The module that computes them is `llmjax.models.layers.Bottleneck`. Shape letters: D width, M
bottleneck.
"""

import re

import jax
import jax.numpy as jnp

from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.params import Params, flat_tree, nested_tree

NEAR_IDENTITY = 1e-3  # standard deviation of the weights at first: the paper's figure 6 finds up to 1e-2 as good
BRANCHES = ("attention_adapter", "mlp_adapter")


def draw(params: Params, config: ModelConfig, width: int, key: jax.Array) -> Params:
    """Returns adapters for every layer of `params`, which change next to nothing at first, and the layers' norms.

    Raises:
        UserError: a width that is none, or is no bottleneck.
    """
    if not 1 <= width < config.width:
        raise UserError(f"adapt.width: {width} is no bottleneck of a model of width {config.width}: take 1 or more")
    name = config.layer.names.layer
    stacked = name in params
    layers = [(name, "block")] if stacked else [(at,) for at in params if re.fullmatch(rf"{name}_\d+", at)]
    count = (config.layers,) if stacked else ()
    drawn = {}
    for number, at in enumerate(layers):
        for place, branch in enumerate(BRANCHES):
            keys = jax.random.split(jax.random.fold_in(key, 2 * number + place))
            for part, inputs, outputs, own in (
                ("down", config.width, width, keys[0]),
                ("up", width, config.width, keys[1]),
            ):
                kernel = NEAR_IDENTITY * jax.random.truncated_normal(own, -2.0, 2.0, (*count, inputs, outputs))
                drawn[(*at, branch, part, "kernel")] = kernel
                drawn[(*at, branch, part, "bias")] = jnp.zeros((*count, outputs))
    norms = {at: leaf for at, leaf in flat_tree(params).items() if at[-2] in config.layer.names.norms}
    return nested_tree(drawn | norms)
