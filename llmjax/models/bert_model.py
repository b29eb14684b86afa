"""BERT and RoBERTa in Flax Linen: a pure function of parameters and tokens."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llmjax.models import forward, layers
from llmjax.models.activation import activation
from llmjax.models.bert import BertConfig, RobertaConfig
from llmjax.models.params import Head


class Bert(nn.Module):
    """BERT with a masked-language-model head, a classification head, a pooler, or none.

    `Bert(config, head).apply({"params": params}, tokens_BL, ...)` returns, always in float32,

    - head "lm": logits of the token at each position [B, L, V] (transformers' `BertForMaskedLM`);
    - head "classifier": class logits [B, C] (`BertForSequenceClassification`);
    - head "pooler": the first token's state through a product and tanh, [B, D] (`BertModel`'s `pooler_output`);
    - head "none": hidden states after the last layer, [B, L, D].

    `mask_BL` is true at real tokens, `segments_BL` the number of each token's part (0 in all by default). Positions
    default to those of transformers: 0..L-1, padding included; RoBERTa counts real tokens alone, from its padding
    token's number on.
    """

    config: BertConfig
    head: Head = "none"

    @nn.compact
    def __call__(
        self,
        tokens_BL: Int[Array, "B L"],
        mask_BL: Bool[Array, "B L"] | None = None,
        positions_BL: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
        segments_BL: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "..."]:
        config = self.config
        options: dict[str, Any] = {
            "std": config.initializer_range, "dtype": config.dtype, "param_dtype": config.param_dtype
        }  # fmt: skip
        words = layers.Embed(config.vocab_size, config.hidden_size, name="word_embeddings", **options)
        places = layers.Embed(config.max_position_embeddings, config.hidden_size, name="position_embeddings", **options)
        types = layers.Embed(config.type_vocab_size, config.hidden_size, name="token_type_embeddings", **options)
        _, scene, _ = forward.set_scene(config.layer, tokens_BL, mask_BL, positions_BL, None)
        if positions_BL is None:
            positions_BL = self._positions(tokens_BL, mask_BL)
        segments_BL = jnp.zeros_like(tokens_BL[:1]) if segments_BL is None else segments_BL
        x_BLD = words(tokens_BL) + types(segments_BL) + places(positions_BL)
        x_BLD = self._norm("embeddings_norm")(x_BLD)
        x_BLD = layers.Dropout(config.hidden_dropout_prob, name="embeddings_dropout")(x_BLD, deterministic)
        first = self.head in ("classifier", "pooler")
        x_BLD, _ = forward.run_layers(
            config, x_BLD, scene, deterministic, None, (lambda x: x[:, :1]) if first else None
        )
        if self.head == "none":
            return x_BLD.astype(jnp.float32)
        if first:
            return self._first_token(x_BLD[:, 0], deterministic, options).astype(jnp.float32)
        x_BLD = layers.Dense(config.hidden_size, name="transform", **options)(x_BLD)
        x_BLD = self._norm("transform_norm")(activation(self._transform_activation, x_BLD))
        return forward.language_head("lm", config, words, x_BLD, tokens_BL) + self._lm_bias()

    @nn.nowrap
    def _positions(self, tokens_BL: jax.Array, mask_BL: jax.Array | None) -> jax.Array:
        config = self.config
        if not config.before:
            return jnp.arange(tokens_BL.shape[1])[None, :]
        padding = config.first_position - 1
        real_BL = (tokens_BL != padding) if mask_BL is None else mask_BL
        return padding + jnp.where(real_BL, jnp.cumsum(real_BL, axis=1), 0)

    @nn.nowrap
    def _norm(self, name: str) -> layers.Norm:
        return layers.Norm(self.config.layer.norm, self.config.dtype, self.config.param_dtype, name=name)

    @property
    def _transform_activation(self) -> str:
        return "gelu" if isinstance(self.config, RobertaConfig) else self.config.hidden_act

    @nn.nowrap
    def _lm_bias(self) -> jax.Array:
        return Bias(self.config.vocab_size, self.config.param_dtype, name="lm_bias")().astype(jnp.float32)

    @nn.nowrap
    def _first_token(self, x_BD: jax.Array, deterministic: bool, options: dict[str, Any]) -> jax.Array:
        config = self.config
        rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        drop = layers.Dropout(rate, name="classifier_dropout")
        if self.head == "classifier" and isinstance(config, RobertaConfig):
            x_BD = jnp.tanh(
                layers.Dense(config.hidden_size, name="classifier_dense", **options)(drop(x_BD, deterministic))
            )
            drop = layers.Dropout(rate, name="out_dropout")
        else:
            x_BD = jnp.tanh(layers.Dense(config.hidden_size, name="pooler", **options)(x_BD))
        if self.head == "pooler":
            return x_BD
        return layers.Dense(config.num_labels, name="classifier", **options)(drop(x_BD, deterministic))


class Bias(nn.Module):
    """A bias by itself."""

    size: int
    param_dtype: str

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("bias", nn.initializers.zeros_init(), (self.size,), self.param_dtype)
