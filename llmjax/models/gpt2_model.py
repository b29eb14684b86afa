"""GPT-2 in Flax Linen: a pure function of parameters and tokens."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llmjax.models import forward, layers
from llmjax.models.cache import Cache
from llmjax.models.gpt2 import GPT2Config
from llmjax.models.params import Head
from llmjax.models.spec import Norm


class GPT2(nn.Module):
    """GPT-2 with a language-model head, a classification head, or none.

    `GPT2(config, head).apply({"params": params}, tokens_BL, ...)` returns, always in float32,

    - head "lm": next-token logits [B, L, V], from the embedding matrix unless `tie_word_embeddings` is false; with a
      cache those of each row's last token alone, [B, 1, V];
    - head "score": the log-probability of each position's following token, [B, L];
    - head "classifier": class logits [B, C], read at each row's last real token, as transformers'
      `GPT2ForSequenceClassification` reads them;
    - head "none": hidden states after the last layer norm, [B, L, D].

    `mask_BL` is true at real tokens; padding may stand on either side. `positions_BL` defaults to 0..L-1 in every row,
    padding included, as in transformers. With `deterministic=False` pass `rngs={"dropout": key}`. With a `cache` (see
    `forward.set_scene`) it returns (result, cache).
    """

    config: GPT2Config
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
        wte = layers.Embed(config.vocab_size, config.n_embd, name="wte", **options)
        wpe = layers.Embed(config.n_positions, config.n_embd, name="wpe", **options)
        positions_BL, scene, cache = forward.set_scene(config.layer, tokens_BL, mask_BL, positions_BL, cache)
        x_BLD = wte(tokens_BL) + wpe(positions_BL)
        x_BLD = layers.Dropout(config.embd_pdrop, name="embd_dropout")(x_BLD, deterministic)
        ask = forward.ask_of(self.head, tokens_BL, mask_BL, cache)
        x_BLD, cache = forward.run_layers(config, x_BLD, scene, deterministic, cache, ask)
        norm = Norm("layer", config.layer_norm_epsilon)
        x_BLD = layers.Norm(norm, config.dtype, config.param_dtype, name="ln_f")(x_BLD)
        out = self._head(x_BLD, tokens_BL, wte, options)
        return out if cache is None else (out, cache)

    @nn.nowrap  # no scope of its own
    def _head(
        self, x_BLD: jax.Array, tokens_BL: jax.Array, wte: layers.Embed, options: dict[str, Any]
    ) -> Float[Array, "..."]:
        if self.head == "none":
            return x_BLD.astype(jnp.float32)
        if self.head == "classifier":
            score = layers.Dense(self.config.num_labels, use_bias=False, name="score", **options)
            return score(x_BLD[:, 0]).astype(jnp.float32)
        return forward.language_head(self.head, self.config, wte, x_BLD, tokens_BL)
