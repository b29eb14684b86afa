"""The job that fits cards: what it refuses, and what it writes."""

import csv
import json

import numpy as np
import pytest

from configs.fit_card import get_config
from experiments.fit_card import run
from llmjax.cycles.device import load_device
from llmjax.errors import UserError


def settings(**changes):
    config = get_config()
    config.aiconfigurator = False
    config.update(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "leaves nothing to fit to"),
        ({"neusight": "/no/such/folder"}, "is no folder"),
        ({"neusight": ".", "chips": "gpu:h10"}, "'gpu:h10' is none of"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, changes, said):
    with pytest.raises(UserError) as error:
        run(settings(**changes), str(tmp_path))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_card_is_written_that_loads(tmp_path, capsys):
    rows = [("OPName", "Latency", "Device", "B", "M", "N", "K", "H")]
    for size in 2 ** np.arange(10, 24):
        rows.append(("add", 1e3 * (2e-5 + 12.0 * size * 100 / 320e9 / 0.8), "Tesla T4", size, "", "", "", 100))
    with (tmp_path / "elem.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    run(settings(neusight=str(tmp_path), chips="gpu:t4"), str(tmp_path / "out"))
    device = load_device(tmp_path / "out" / "devices" / "gpu-t4.json")
    assert device.terms["stream.bandwidth"].value == pytest.approx(0.8, rel=0.05)
    assert device.terms["stream.bandwidth"].provenance == "published"
    (result,) = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert result["kind"] == "elementwise" and result["by_shape"]["error"] < 0.05
    assert "elementwise" in capsys.readouterr().out
