"""Vectors of texts against their definition, nearest texts, and the files that keep vectors."""

import json
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet
import pytest

from llmjax.data import load_tokenizer
from llmjax.errors import UserError
from llmjax.infer.embed import Embedder, load_embedder, nearest, write_vectors
from llmjax.models.families import from_size, make_model
from llmjax.models.params import init_params
from llmjax.models.weights import save_pretrained

TEXTS = ["good", "a film about fathers and boats", "", "word " * 60]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    config = from_size("tiny", n_positions=32, n_layer=1)
    return Embedder(config, init_params(config, "none", jax.random.key(0)), load_tokenizer("gpt2"), 32)


def test_a_vector_is_the_mean_of_a_texts_own_hidden_states_at_length_1(embedder: Embedder) -> None:
    vectors_ND, cut = embedder.embed(TEXTS)
    assert vectors_ND.shape == (4, 32) and vectors_ND.dtype == np.float32 and cut == 1
    np.testing.assert_allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-5)
    hidden = jax.jit(make_model(embedder.config, "none").apply)
    for text, vector_D in zip(TEXTS, vectors_ND, strict=True):
        ids = embedder.tokenizer(text)["input_ids"][:32] or [embedder.tokenizer.pad_token_id]
        mean_D = np.asarray(hidden({"params": embedder.params}, np.array([ids])))[0].mean(axis=0)
        np.testing.assert_allclose(vector_D, mean_D / np.linalg.norm(mean_D), atol=1e-5)
    assert embedder.embed([])[0].shape == (0, 32)


def test_nearest_texts_come_in_order_and_the_text_itself_first() -> None:
    vectors_ND = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    assert [row for row, _ in nearest(vectors_ND, vectors_ND[2], 3)] == [2, 1, 0]
    assert nearest(vectors_ND, vectors_ND[0], 1) == [(0, 1.0)]


def test_files_give_the_vectors_back(tmp_path: Path) -> None:
    vectors_ND = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_vectors(tmp_path / "v.npy", ["a", "b", "电"], vectors_ND)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), vectors_ND)
    write_vectors(tmp_path / "v.parquet", ["a", "b", "电"], vectors_ND)
    found = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pydict()
    assert found == {"text": ["a", "b", "电"], "embedding": vectors_ND.tolist()}


def test_a_saved_model_says_how_it_pools_and_how_much_it_reads(embedder: Embedder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_pretrained(folder, embedder.config, embedder.params, "none", embedder.tokenizer)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    loaded = load_embedder(folder)
    assert loaded.context == 8
    np.testing.assert_allclose(loaded.embed(TEXTS[:2])[0], embedder.embed(TEXTS[:2])[0], atol=1e-6)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(UserError, match="pools by pooling_mode_cls_token"):
        load_embedder(folder)


def test_vectors_are_those_of_torch_by_sentence_transformers_usage(tmp_path: Path) -> None:
    """Mean pooling under the mask, then length 1: the usage that all-MiniLM-L6-v2's page publishes."""
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    tokenizer = load_tokenizer("gpt2")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)
    reference = transformers.BertModel(config).eval()
    reference.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["good", "a film about fathers and boats", "not one word of it is true, and that is the best of it"]
    vectors_ND, _ = load_embedder(tmp_path).embed(texts)
    tokenizer.pad_token = tokenizer.eos_token
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = reference(**encoded).last_hidden_state
    mask = encoded["attention_mask"].unsqueeze(-1).float()
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    np.testing.assert_allclose(vectors_ND, pooled, atol=1e-5)
    np.testing.assert_allclose(vectors_ND @ vectors_ND.T, pooled @ pooled.T, atol=1e-5)
