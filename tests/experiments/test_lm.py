import json
from pathlib import Path

import pytest

from configs import lm as config
from experiments import lm
from llmjax.errors import UserError


def tiny(**changes: object):
    c = config.get_config("tiny")
    c.update_from_flattened_dict(changes)
    return c


def fresh(**changes: object):
    """A narrow model and short windows."""
    return tiny(**{"model.n_embd": 32, "train.length": 16, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("lm")
    lm.run(fresh(), str(workdir))
    return workdir


def test_a_finished_run_holds_a_language_model_and_its_figures(finished: Path) -> None:
    found = json.loads((finished / "eval.json").read_text())
    assert found["steps"] == 12 and found["best_step"] in (6, 12)
    dev = found["dev"]
    assert 1 < dev["perplexity"] < 60_000 and dev["tokens"] > 50 and dev["bytes"] > 100
    assert dev["bits_per_byte"] == pytest.approx(dev["loss"] / 0.6931472 * dev["tokens"] / dev["bytes"], rel=1e-6)
    assert len(found["samples"]) == 1 and found["samples"][0].startswith("The ")
    stored = json.loads((finished / "best" / "config.json").read_text())
    assert stored["architectures"] == ["GPT2LMHeadModel"] and (finished / "best" / "tokenizer.json").exists()


def test_it_is_shown_again_and_other_settings_are_refused(finished: Path, capsys: pytest.CaptureFixture) -> None:
    lm.run(fresh(), str(finished))
    said = capsys.readouterr().out
    assert "this run is finished" in said and "bits per byte" in said and "generate.py" in said
    with pytest.raises(UserError, match=r"train\.steps=12, now it is 13"):
        lm.run(fresh(**{"train.steps": 13}), str(finished))


def test_it_goes_on_from_trained_weights(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    changes = {"model.init": str(finished), "train.steps": 2, "train.optimizer.learning_rate": 0.0, "prompts": ()}
    lm.run(tiny(**changes), str(tmp_path))
    before, after = (json.loads((folder / "eval.json").read_text()) for folder in (finished, tmp_path))
    assert after["dev"]["perplexity"] < 1.1 * before["dev"]["perplexity"] and after["samples"] == []
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["learning_rate"] == pytest.approx(lm.TRAINED_RATE)
    with pytest.raises(UserError, match="fixes the shape"):
        lm.run(tiny(**{"model.init": str(finished), "model.n_layer": 1}), str(tmp_path / "other"))


def test_too_little_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match="at least 3 are needed"):
        lm.run(tiny(**{"data.train": str(tmp_path / "a.txt"), "data.dev_fraction": 0.0}), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="only ':tiny'"):
        config.get_config("tiyn")
