"""Language modelling by itself: what it counts, and that a run that is cut makes the same numbers."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from llmjax.data.packing import Windows
from llmjax.models.families import make_model
from llmjax.models.params import init_params
from llmjax.train import loop
from llmjax.train.lm import Stream, evaluation, lm_task, window_loss
from llmjax.train.loop import LoopConfig, fit
from llmjax.train.optimizer import OptimizerConfig
from llmjax.train.task import Phase
from llmjax.train.writers import FILE
from tests.train.toy import MODEL

QUIET = dataclasses.replace(MODEL, n_layer=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
PARAMS = init_params(QUIET, "lm", jax.random.key(0))
# Counting from 5 to 12 and again: after a token the next one is certain.
STREAM = Stream(np.tile(np.arange(5, 13, dtype=np.int32), 40), 1000)
RATE = OptimizerConfig(learning_rate=3e-2)
APPLY = jax.jit(make_model(QUIET, "lm").apply)


@pytest.fixture(autouse=True)
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "measure_peak", lambda dtype: 1e9)


def nats(tokens_L: np.ndarray, targets_L: np.ndarray) -> np.ndarray:
    logits_LV = np.asarray(APPLY({"params": PARAMS}, tokens_L[None])[0], np.float64)
    return np.log(np.exp(logits_LV).sum(axis=-1)) - logits_LV[np.arange(len(targets_L)), targets_L]


def test_loss_is_the_weighted_mean_over_what_follows() -> None:
    read_BL = STREAM.tokens_T[:18].reshape(2, 9)
    weights_BL = np.array([[1.0] * 8, [1.0, 0.0] * 4], np.float32)
    batch = Windows(read_BL[:, :-1], read_BL[:, 1:], weights_BL, np.array([0, 9]))
    loss, _ = jax.jit(window_loss(QUIET))(PARAMS, batch, jax.random.key(0))
    each_BL = np.stack([nats(row[:-1], row[1:]) for row in read_BL])
    np.testing.assert_allclose(loss, np.average(each_BL, weights=weights_BL), rtol=1e-5)


def test_perplexity_and_bits_per_byte_are_of_every_token_but_the_first() -> None:
    dev = Stream(STREAM.tokens_T[:21], 50)
    evaluate = evaluation(QUIET, dev, 8, 2, lambda params: ["a text"])
    assert evaluate is not None
    found = evaluate(PARAMS)
    spans = [(0, 8), (8, 16), (16, 20)]
    total = sum(float(nats(dev.tokens_T[a:b], dev.tokens_T[a + 1 : b + 1]).sum()) for a, b in spans)
    assert found.figures["loss"] == pytest.approx(total / 20, rel=1e-5) and found.value == -found.figures["loss"]
    assert found.figures["perplexity"] == pytest.approx(math.exp(total / 20), rel=1e-5)
    assert found.figures["bits_per_byte"] == pytest.approx(total / math.log(2) / 50, rel=1e-5)
    assert found.figures["samples"] == ["a text"] and "'a text'" in found.text.splitlines()[1]
    assert evaluation(QUIET, Stream(STREAM.tokens_T[:1], 1), 8, 2) is None


def test_it_learns_and_a_run_that_is_cut_makes_the_same_numbers(tmp_path: Path) -> None:
    def run(workdir: Path) -> Any:
        evaluate = evaluation(QUIET, Stream(STREAM.tokens_T[:41], 50), 8, 4)
        task = lm_task(QUIET, STREAM, 8, 4, seed=1, evaluate=evaluate)
        assert task.epoch_steps == 10
        return fit([Phase(task, 40, RATE, save_every=20)], PARAMS, LoopConfig(), workdir)

    def records(workdir: Path) -> list[dict[str, Any]]:
        lines = (workdir / FILE).read_text().splitlines()
        return [{name: value for name, value in json.loads(line).items() if name != "timing"} for line in lines]

    whole = run(tmp_path / "whole")
    found = records(tmp_path / "whole")
    dev = [record for record in found if record["phase"] == "dev"]
    assert dev[-1]["perplexity"] < 1.5 < dev[0]["perplexity"] * 2
    assert all(record["tokens"] == 32 for record in found if record["phase"] == "lm")
    real = loop._Run.save_if_due

    def dying(self: Any, stretch: Any, step: int) -> None:
        real(self, stretch, step)
        if step == 20:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "save_if_due", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    again = run(tmp_path / "cut")
    assert records(tmp_path / "cut") == found
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_windows_are_no_longer_than_the_text() -> None:
    task = lm_task(QUIET, Stream(STREAM.tokens_T[:6], 6), 8, 2, seed=0)
    batch = next(task.batches(0))
    assert batch.tokens_BL.shape == (2, 5) and "begin at tokens 0, 0 of train" in task.where(batch)
