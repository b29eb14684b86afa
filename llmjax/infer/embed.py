"""Texts as vectors: the mean of a model's hidden states over real tokens, of length 1. Shape letters: B, L, D."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.params import Params


def embed(
    params: Params, tokens_BL: Int[Array, "B L"], lengths_B: Int[Array, "B"], *, config: ModelConfig
) -> Float[Array, "B D"]:
    """Returns a vector of length 1 a text: the mean over its tokens, as sentence-transformers pools and normalises.

    Args:
        params: of head "none".
        tokens_BL: texts, padded on the right.
        lengths_B: how many tokens of each are real: 1 to L.
    """
    mask_BL = jnp.arange(tokens_BL.shape[1])[None, :] < lengths_B[:, None]
    hidden_BLD: Any = make_model(config, "none").apply({"params": params}, tokens_BL, mask_BL)
    mean_BD = jnp.sum(hidden_BLD * mask_BL[..., None], axis=1) / lengths_B[:, None]
    return mean_BD / jnp.maximum(jnp.linalg.norm(mean_BD, axis=-1, keepdims=True), 1e-12)
