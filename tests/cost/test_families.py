"""Roles of every family's forward pass, by the one table of words: products counted from the config."""

import jax
import jax.numpy as jnp

import llmjax
from llmjax.models import from_hf, make_model
from llmjax.models.params import param_shapes

B, L, D, F, V, N, H = 2, 8, 32, 48, 96, 2, 4
LLAMA = {
    "model_type": "llama", "hidden_size": D, "intermediate_size": F, "num_hidden_layers": N, "num_attention_heads": H,
    "num_key_value_heads": 2, "vocab_size": V, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
BERT = {
    "model_type": "bert", "hidden_size": D, "intermediate_size": F, "num_hidden_layers": N, "num_attention_heads": H,
    "vocab_size": V, "max_position_embeddings": 64, "type_vocab_size": 2,
}  # fmt: skip


def by_role(raw, head):
    config = from_hf(raw, "a test")
    model = make_model(config, head)
    params = param_shapes(config, head)
    report = llmjax.analyze(
        lambda params, tokens: model.apply({"params": params}, tokens), params, jax.ShapeDtypeStruct((B, L), jnp.int32)
    )
    return report, {row.key: row.cost.matmul_flops for row in report.by("role") if row.cost.matmul_flops}


def test_llama():
    report, found = by_role(LLAMA, "lm")
    keys = D // H * 2
    assert found == {
        "attention projections": N * 2 * B * L * (2 * D * D + 2 * D * keys),
        "attention scores": N * 2 * 2 * B * L * L * D,
        "MLP": N * 2 * B * L * 3 * D * F,
        "vocabulary projection": 2 * B * L * D * V,
    }
    roles = {row.key for row in report.by("role")}
    assert {"layer norm", "softmax", "embedding"} <= roles


def test_bert():
    report, found = by_role(BERT, "none")
    assert found == {
        "attention projections": N * 2 * B * L * 4 * D * D,
        "attention scores": N * 2 * 2 * B * L * L * D,
        "MLP": N * 2 * B * L * 2 * D * F,
    }
    layers = {row.key: row.cost.matmul_flops for row in report.by("layer")}
    assert layers[0] == layers[1] == sum(found.values()) // N
