import json
import math
from pathlib import Path

import pytest

from configs import evaluate as evaluate_config
from experiments import evaluate
from llmjax.errors import UserError


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
