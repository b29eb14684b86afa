"""Small models of three families, and a batch for their classifiers."""

import functools
from typing import Any

import jax
import numpy as np

from llmjax.data.batches import Batch
from llmjax.models.bert import BertConfig
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.gpt2 import GPT2Config
from llmjax.models.llama import LlamaConfig
from llmjax.models.params import Head, Params, init_params

FAMILIES: dict[str, ModelConfig] = {
    "gpt2": GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0
    ),
    "bert": BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "llama": LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        tie_word_embeddings=False,
    ),
}


@functools.cache
def drawn(family: str, head: Head = "classifier") -> Params:
    """Returns parameters of a family's model."""
    return init_params(FAMILIES[family], head, jax.random.key(0))


@functools.cache
def _applied(config: ModelConfig, head: Head) -> Any:
    model = make_model(config, head)
    return jax.jit(lambda params, tokens_BL: model.apply({"params": params}, tokens_BL))


def logits(config: ModelConfig, params: Params, head: Head = "classifier") -> np.ndarray:
    """Returns what a model answers to `batch`."""
    return np.asarray(_applied(config, head)(params, batch().tokens_BL))


def batch(rows: int = 8, length: int = 12) -> Batch:
    """Texts whose class is told by their first token."""
    tokens_BL = np.asarray(jax.random.randint(jax.random.key(1), (rows, length), 0, 50), np.int32)
    labels_B = (tokens_BL[:, 0] % 2).astype(np.int32)
    weights_B, rows_B = np.ones(rows, np.float32), np.arange(rows, dtype=np.int32)
    return Batch(tokens_BL, np.ones(tokens_BL.shape, bool), labels_B, weights_B, rows_B)
