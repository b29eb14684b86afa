"""The functions that generation is made of, pure: prompts into a cache, one more token, the likelihood of texts.

Each is a model's own `apply` with another head or cache. Shape letters: B batch, L prompt length, V vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from llmjax.models.cache import Cache
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.params import Head, Params


def prefill(
    params: Params, tokens_BL: Int[Array, "B L"], lengths_B: Int[Array, "B"], cache: Cache, *, config: ModelConfig
) -> tuple[Float[Array, "B V"], Cache]:
    """Reads whole prompts into a cache.

    Args:
        params: from `models.params.prepare`.
        tokens_BL: prompts, padded on the right to one length, at most the cache's.
        lengths_B: how many tokens of each row are real: 1 to L.
        cache: a cache of B rows; what is in it is overwritten. Donate it.
        config: the model's shape.

    Returns:
        float32 logits of the token after each row's last one, and the cache with the prompts in slots 0 to L, moved to
        the right so that all rows end at slot L.
    """
    tokens_BL, mask_BL = _to_the_right(tokens_BL, lengths_B)
    logits_B1V, cache = _apply(config, "lm", params, tokens_BL, mask_BL, cache=cache)
    return logits_B1V[:, 0], cache


def decode_step(
    params: Params, token_B: Int[Array, "B"], cache: Cache, *, config: ModelConfig
) -> tuple[Float[Array, "B V"], Cache]:
    """Takes one token a row into the cache; returns float32 logits of the next one, and the cache. Donate the cache.

    The cache must have a free slot, and each row's position must be below the model's context.
    """
    logits_B1V, cache = _apply(config, "lm", params, token_B[:, None], cache=cache)
    return logits_B1V[:, 0], cache


def score(
    params: Params, tokens_BL: Int[Array, "B L"], lengths_B: Int[Array, "B"], cache: Cache, *, config: ModelConfig
) -> tuple[Float[Array, "B L"], Cache]:
    """Returns the natural log-probability of every token given those before it, [B, L], and the cache.

    Arguments as `prefill`'s. Padding and each row's first token, which nothing predicts, are 0.
    """
    length = tokens_BL.shape[1]
    tokens_BL, mask_BL = _to_the_right(tokens_BL, lengths_B)
    scores_BL, cache = _apply(config, "score", params, tokens_BL, mask_BL, cache=cache)
    at_BL = jnp.arange(length) + (length - lengths_B)[:, None] - 1
    scores_BL = jnp.take_along_axis(scores_BL, at_BL % length, axis=1)
    inside_BL = (jnp.arange(length) > 0) & (jnp.arange(length) < lengths_B[:, None])
    return jnp.where(inside_BL, scores_BL, 0.0), cache


def _apply(config: ModelConfig, head: Head, params: Params, *args: Any, **named: Any) -> Any:
    config = dataclasses.replace(config, scan_layers=False, remat=False)  # `prepare` puts layers apart
    return make_model(config, head).apply({"params": params}, *args, **named)


def _to_the_right(tokens_BL: jax.Array, lengths_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves the padding of each row from its right end to its left; returns the tokens, and which are real."""
    length = tokens_BL.shape[1]
    source_BL = jnp.arange(length) - (length - lengths_B)[:, None]
    return jnp.take_along_axis(tokens_BL, source_BL % length, axis=1), source_BL >= 0
