import json
import math
from pathlib import Path

import jax
import pytest

from configs import evaluate as evaluate_config
from experiments import evaluate
from llmjax.data.tokenizer import load_tokenizer
from llmjax.errors import UserError
from llmjax.models.families import from_size
from llmjax.models.params import init_params
from llmjax.models.weights import save_pretrained


def test_tiny_writes_figures_that_agree_with_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.run(evaluate_config.get_config("tiny"), str(tmp_path))
    figures = json.loads((tmp_path / "eval.json").read_text())
    confusion = figures["confusion"]
    assert figures["examples"] == sum(map(sum, confusion)) == 120
    assert figures["accuracy"] == pytest.approx((confusion[0][0] + confusion[1][1]) / 120)
    assert figures["loss"] == pytest.approx(math.log(2), abs=0.2)  # random weights know nothing
    assert "accuracy" in capsys.readouterr().out


def test_without_labelled_texts_it_says_what_to_pass(tmp_path: Path) -> None:
    config = evaluate_config.get_config("tiny")
    config.input = ""
    with pytest.raises(UserError, match=r"config\.input"):
        evaluate.run(config, str(tmp_path))
    with pytest.raises(UserError, match="Did you mean 'tiny'\\?"):
        evaluate_config.get_config("tny")


def test_a_language_model_is_evaluated_by_its_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.tsv"
    texts.write_text("label\ttext\n1\ta good film\n0\ta dull one\n1\tlovely\n")
    shape = from_size("tiny")
    params = init_params(shape, "lm", jax.random.key(0))
    save_pretrained(tmp_path / "model", shape, params, "lm", load_tokenizer("gpt2"))
    config = evaluate_config.get_config()
    config.checkpoint, config.input = str(tmp_path / "model"), str(texts)
    config.classes = ("negative", "positive")
    evaluate.run(config, str(tmp_path))
    figures = json.loads((tmp_path / "eval.json").read_text())
    assert figures["examples"] == 3 and figures["temperature"] == 1.0
    assert "accuracy" in capsys.readouterr().out
