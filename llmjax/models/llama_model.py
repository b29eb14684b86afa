"""Llama in Flax Linen: a pure function of parameters and tokens."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from llmjax.models import forward, layers
from llmjax.models.cache import Cache
from llmjax.models.llama import LlamaConfig
from llmjax.models.params import Head


class Llama(nn.Module):
    """A Llama, Mistral, Qwen2 or Qwen3 with a language-model head, a classification head, or none.

    Arguments and results as those of `gpt2_model.GPT2`.
    """

    config: LlamaConfig
    head: Head = "lm"

    @nn.compact
    def __call__(
        self,
        tokens_BL: Int[Array, "B L"],
        mask_BL: Bool[Array, "B L"] | None = None,
        positions_BL: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
        cache: Cache | None = None,
    ) -> Any:
        config = self.config
        options: dict[str, Any] = {
            "std": config.initializer_range, "dtype": config.dtype, "param_dtype": config.param_dtype
        }  # fmt: skip
        embed = layers.Embed(config.vocab_size, config.hidden_size, name="embed_tokens", **options)
        _, scene, cache = forward.set_scene(config.layer, tokens_BL, mask_BL, positions_BL, cache)
        ask = forward.ask_of(self.head, tokens_BL, mask_BL, cache)
        x_BLD, cache = forward.run_layers(config, embed(tokens_BL), scene, deterministic, cache, ask)
        x_BLD = layers.Norm(config.layer.norm, config.dtype, config.param_dtype, name="norm")(x_BLD)
        if self.head == "none":
            out = x_BLD.astype(jnp.float32)
        elif self.head == "classifier":
            score = layers.Dense(config.num_labels, use_bias=False, name="score", **options)
            out = score(x_BLD[:, 0]).astype(jnp.float32)
        else:
            out = forward.language_head(self.head, config, embed, x_BLD, tokens_BL)
        return out if cache is None else (out, cache)
