import json
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import board as board_config
from experiments import board
from experiments.board import _keep, _kept
from experiments.board_parts.strategies import State
from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.folders import load_model
from llmjax.adapt.tuning import begin
from llmjax.data import load_tokenizer
from llmjax.errors import UserError
from llmjax.models.bert import BertConfig
from llmjax.models.params import flat_tree, init_params
from llmjax.models.weights import save_pretrained
from tests.adapt.models import FAMILIES, drawn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with GPT-2's tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tokenizer = load_tokenizer("gpt2")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    save_pretrained(folder, config, init_params(config, "pooler", jax.random.key(0)), "pooler", tokenizer)
    return folder


def tiny(base: Path, **changes: object):
    config = board_config.get_config("tiny")
    config.update_from_flattened_dict({"base": str(base), **changes})
    return config


def test_rows_are_made_once_and_the_files_hold_them(base: Path, tmp_path: Path, capsys) -> None:
    board.run(tiny(base, strategies=("full", "full+mlp-50", "full+int8")), str(tmp_path))
    document = json.loads((tmp_path / "board.json").read_text())
    rows = {row["strategy"]: row for row in document["rows"]}
    assert list(rows) == ["full", "full+mlp-50", "full+int8"]
    assert rows["full+mlp-50"]["flops"] < 0.95 * rows["full"]["flops"]
    assert rows["full+mlp-50"]["parameters"] < rows["full"]["parameters"]
    assert rows["full+int8"]["weights"] < 0.4 * rows["full"]["weights"]
    assert rows["full"]["low"] <= rows["full"]["quality"] <= rows["full"]["high"]
    assert rows["full"]["seconds"] > 0
    assert rows["full"]["train_seconds"] == rows["full+int8"]["train_seconds"] > 0
    assert (tmp_path / "board.html").stat().st_size > 10_000
    made = (tmp_path / "rows/full/trained.json").stat().st_mtime_ns
    capsys.readouterr()
    board.run(tiny(base, strategies=("full", "magnitude-50"), save=("magnitude-50",)), str(tmp_path))
    assert (tmp_path / "rows/full/trained.json").stat().st_mtime_ns == made
    again = {row["strategy"]: row for row in json.loads((tmp_path / "board.json").read_text())["rows"]}
    assert (
        again["magnitude-50"]["flops"] == again["full"]["flops"] and again["full"]["quality"] == rows["full"]["quality"]
    )
    assert "as many FLOPs and bytes" in " ".join(capsys.readouterr().out.split())
    _, params = load_model(tmp_path / "models/magnitude-50", "classifier")
    kernels = [leaf for at, leaf in flat_tree(params).items() if "mlp" in at and at[-1] == "kernel"]
    assert kernels and all(abs(np.mean(np.asarray(kernel) == 0) - 0.5) < 0.01 for kernel in kernels)
    with pytest.raises(UserError, match="epochs"):
        board.run(tiny(base, epochs=2), str(tmp_path))


def test_a_text_is_asked_for_where_perplexity_needs_one(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs a text: --config\.text\.train"):
        board.run(tiny(base, task="perplexity"), str(tmp_path))


@pytest.mark.parametrize("method", ["adapters", "lora"])
def test_what_a_method_trained_is_kept_whole(tmp_path, method):
    config, params = FAMILIES["bert"], drawn("bert")
    begun, tuning = begin(AdaptConfig(method, width=4, rank=2), config, params, "classifier", jax.random.key(0))
    assert tuning is not None
    state = State(config, tuning.merge(tuning.frozen, begun))
    _keep(tmp_path / "model", state, "classifier")
    found = _kept(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    assert found.config.layer == config.layer
