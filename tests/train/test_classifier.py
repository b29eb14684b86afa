import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from llmjax.data.batches import train_batches
from llmjax.data.files import Places
from llmjax.errors import UserError
from llmjax.models.params import init_params
from llmjax.train import loop
from llmjax.train.checkpoint import Checkpoints
from llmjax.train.classification import make_predict, predict_logits
from llmjax.train.classifier import TrainConfig, fit_classifier
from llmjax.train.distillation import DistillConfig
from llmjax.train.loop import Stopped
from llmjax.train.optimizer import OptimizerConfig
from llmjax.train.teacher import fit_teacher
from llmjax.train.writers import FILE
from tests import codegen
from tests.train import toy
from tests.train.toy import make_split

MODEL = dataclasses.replace(toy.MODEL, n_layer=1)  # what is tested is the run around it
PARAMS = init_params(MODEL, "classifier", jax.random.key(0))
TRAIN, DEV = make_split(160, seed=0), make_split(64, seed=1)
CONFIG = TrainConfig(
    epochs=6,
    batch_size=32,
    eval_batch_size=32,
    max_buckets=1,
    label_smoothing=0.05,
    token_dropout=0.05,
    ema_decay=0.8,
    optimizer=OptimizerConfig(learning_rate=1e-2),
)  # 5 steps an epoch, 30 in all


def records(workdir: Path) -> list[dict[str, Any]]:
    """Returns what the run logged, without what depends on the clock."""
    lines = (workdir / FILE).read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "timing"} for line in lines]


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def fit_cut_after(end: int, config: TrainConfig, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> loop.Fitted:
    """Fits in two runs, of which the first dies after the checkpoint of step `end`."""
    real = loop._Run.save_if_due

    def dying(self: Any, phase: Any, step: int) -> None:
        real(self, phase, step)
        if step == end:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "save_if_due", dying)
        with pytest.raises(KeyboardInterrupt):
            fit_classifier(MODEL, PARAMS, TRAIN, DEV, config, workdir)
    return fit_classifier(MODEL, PARAMS, TRAIN, DEV, config, workdir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, loop.Fitted]:
    """One uninterrupted run of CONFIG."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, fit_classifier(MODEL, PARAMS, TRAIN, DEV, CONFIG, workdir, replacement=4)


def test_a_run_learns_and_logs_every_step(whole: tuple[Path, loop.Fitted]) -> None:
    workdir, fitted = whole
    steps = [record for record in records(workdir) if record["phase"] == "finetune"]
    dev = [record for record in records(workdir) if record["phase"] == "dev"]
    assert [record["step"] for record in steps] == list(range(1, 31))
    assert [record["epoch"] for record in steps] == sorted(list(range(1, 7)) * 5)
    assert [record["step"] for record in dev] == [5, 10, 15, 20, 25, 30]
    assert sum(record["tokens"] for record in steps[:5]) == len(TRAIN.encoded.tokens_T)
    assert steps[0]["loss"] > 0.6
    best = max(dev, key=lambda record: record["accuracy"])
    assert best["accuracy"] > 0.9 and fitted.best_step == best["step"] and fitted.steps == 30
    logits_NC = predict_logits(make_predict(MODEL), fitted.params, DEV.encoded, 16, (16,))
    assert (logits_NC.argmax(axis=1) == DEV.labels_N).mean() == best["accuracy"]
    assert sorted(path.name for path in (workdir / "checkpoints" / "last").iterdir()) == ["25", "30"]
    assert list(workdir.glob("events.out.tfevents.*"))


def test_predictions_stand_in_the_order_of_the_texts() -> None:
    predict = make_predict(MODEL)
    logits_NC = predict_logits(predict, PARAMS, DEV.encoded, 10, (4, 8, 12))
    for row in (0, 31, 63):
        alone_C = predict(PARAMS, DEV.encoded[row][None], np.ones((1, len(DEV.encoded[row])), bool))[0]
        np.testing.assert_allclose(logits_NC[row], alone_C, atol=1e-5)


def test_sigterm_saves_and_the_next_run_goes_on_exactly(
    whole: tuple[Path, loop.Fitted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    sent = iter([12, 20])  # in the middle of an epoch; where an evaluation is due

    def sending(*args: Any) -> Any:
        start, stop_at = args[-1], next(sent, None)
        for number, batch in enumerate(train_batches(*args), start=start + 1):
            if number == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr("llmjax.train.classification.train_batches", sending)
    before = signal.getsignal(signal.SIGTERM)
    for step in (12, 20):
        with pytest.raises(Stopped) as stopped:
            fit_classifier(MODEL, PARAMS, TRAIN, DEV, CONFIG, tmp_path, replacement=4)
        assert stopped.value.code == 128 + signal.SIGTERM
        assert (tmp_path / "checkpoints" / "last" / str(step)).is_dir()
        assert f"stopped after step {step}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before
    fitted = fit_classifier(MODEL, PARAMS, TRAIN, DEV, CONFIG, tmp_path, replacement=4)
    assert records(tmp_path) == records(whole[0])
    assert_same(fitted.params, whole[1].params)


KILLED = """
import sys
from pathlib import Path
from tests.train.test_classifier import CONFIG, DEV, MODEL, PARAMS, TRAIN, fit_classifier
fit_classifier(MODEL, PARAMS, TRAIN, DEV, CONFIG, Path(sys.argv[1]), replacement=4)
"""


def test_kill_9_loses_only_the_steps_since_the_last_checkpoint(
    whole: tuple[Path, loop.Fitted], tmp_path: Path, repo: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    same = os.environ | {"XLA_FLAGS": codegen.FLAGS}  # the same machine code as here gives the same numbers
    with subprocess.Popen(command, cwd=repo, env=same, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step 10:"):  # the second evaluation was made: 10 is saved or about to be
                child.kill()
    assert child.returncode == -signal.SIGKILL
    checkpoints = Checkpoints(tmp_path / "checkpoints", CONFIG.keep)
    saved = next(iter(checkpoints.steps()), None)
    checkpoints.close()
    assert saved is not None and 5 <= saved < 30
    fitted = fit_classifier(MODEL, PARAMS, TRAIN, DEV, CONFIG, tmp_path, replacement=4)
    assert records(tmp_path) == records(whole[0])
    assert_same(fitted.params, whole[1].params)


def test_a_finished_run_started_again_gives_the_same_without_a_step(whole: tuple[Path, loop.Fitted]) -> None:
    workdir, fitted = whole
    before = records(workdir)
    again = fit_classifier(MODEL, PARAMS, TRAIN, DEV, CONFIG, workdir, replacement=4)
    assert records(workdir) == before and again.best_step == fitted.best_step
    assert_same(again.params, fitted.params)


@pytest.mark.parametrize("placed", [False, True])
def test_nan_stops_with_step_rows_and_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placed: bool
) -> None:
    poisoned: list[list[int]] = []

    def poisoning(*args: Any) -> Any:
        for number, batch in enumerate(train_batches(*args), start=1):
            if number == 7:
                poisoned.append(batch.rows_B.tolist())
                batch = batch._replace(weights_B=np.full_like(batch.weights_B, np.nan))
            yield batch

    monkeypatch.setattr("llmjax.train.classification.train_batches", poisoning)
    train = (
        dataclasses.replace(TRAIN, places=Places("reviews.tsv", "line", tuple(range(2, len(TRAIN) + 2))))
        if placed
        else TRAIN
    )
    with pytest.raises(UserError) as error:
        fit_classifier(MODEL, PARAMS, train, DEV, CONFIG, tmp_path, replacement=4)
    message = str(error.value)
    assert message.startswith("step 7: loss nan") and "\n" not in message
    rows = ", ".join(str(row + 2 * placed) for row in poisoned[0])
    assert (f"lines {rows} of reviews.tsv." if placed else f"rows {rows} of train, counted from 0.") in message
    assert message.endswith(str(tmp_path / "checkpoints" / "last" / "5"))
    assert records(tmp_path)[-1]["step"] == 6


def test_pretraining_is_a_phase_of_its_own_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(
        CONFIG,
        epochs=1,
        pretrain_epochs=2,
        pretrain_batch_size=40,
        pretrain_optimizer=OptimizerConfig(learning_rate=1e-2, accumulate=2),
    )  # 2 x 4 steps, then 5
    fitted = fit_classifier(MODEL, PARAMS, TRAIN, DEV, config, tmp_path / "whole")
    whole_records = records(tmp_path / "whole")
    assert [record["phase"] for record in whole_records] == ["pretrain"] * 8 + ["finetune"] * 5 + ["dev"]
    assert [record["step"] for record in whole_records] == [*range(1, 14), 13]
    losses = [record["loss"] for record in whole_records]
    assert abs(losses[0] - np.log(38)) < 0.3 and losses[7] < losses[0] - 0.05  # 38 tokens in use, all alike at first
    assert losses[8] < 0.8

    again = fit_cut_after(8, config, tmp_path / "cut", monkeypatch)
    assert records(tmp_path / "cut") == whole_records
    assert_same(again.params, fitted.params)


def test_distillation_is_a_phase_of_its_own_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, epochs=0, distill=DistillConfig(30))
    fitted = fit_classifier(MODEL, PARAMS, TRAIN, DEV, config, tmp_path / "whole")
    assert capsys.readouterr().out.count("fitting the linear teacher") == 1
    whole_records = records(tmp_path / "whole")
    assert [record["step"] for record in whole_records if record["phase"] == "dev"] == list(range(3, 31, 3))
    assert {record["phase"] for record in whole_records} == {"distill", "dev"} and fitted.steps == 30
    assert [record["accuracy"] for record in whole_records if record["phase"] == "dev"][-1] > 0.9

    again = fit_cut_after(9, config, tmp_path / "cut", monkeypatch)
    assert records(tmp_path / "cut") == whole_records
    assert_same(again.params, fitted.params)


def test_the_teacher_turns_at_the_tokens_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def noting(encoded: Any, labels_N: Any, classes: int, vocabulary: int, turns: tuple[int, ...]) -> Any:
        given.append((encoded, turns))
        return fit_teacher(encoded, labels_N, classes, vocabulary, turns)

    monkeypatch.setattr("llmjax.train.classifier.fit_teacher", noting)
    used, unused = int(TRAIN.encoded[0][1]), int(np.setdiff1d(np.arange(50), TRAIN.encoded.tokens_T)[-1])
    config = dataclasses.replace(CONFIG, epochs=0, distill=DistillConfig(1, (used, unused)))
    fit_classifier(MODEL, PARAMS, TRAIN, DEV, config, tmp_path)
    [(encoded, turns)] = given
    assert turns == (int(encoded[0][1]),)


def test_a_loss_that_is_not_finite_while_learning_from_a_teacher_names_no_rows(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=0, distill=DistillConfig(5))
    broken = PARAMS | {"score": {"kernel": PARAMS["score"]["kernel"] * np.nan}}
    with pytest.raises(UserError, match=r"step 1: loss nan.*look at the made-up texts of this step"):
        fit_classifier(MODEL, broken, TRAIN, DEV, config, tmp_path)


def test_patience_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, patience=2, metric="loss", ema_decay=0.0, eval_every=2, optimizer=OptimizerConfig(learning_rate=1e-9)
    )
    no_better = dataclasses.replace(config, metric="accuracy")  # so small a rate changes no answer
    fitted = fit_classifier(MODEL, PARAMS, TRAIN, DEV, no_better, tmp_path)
    assert fitted.steps == 6 and fitted.best_step == 2
    assert [record["best"] for record in records(tmp_path) if record["phase"] == "dev"] == [True, False, False]


def test_without_dev_the_last_parameters_are_kept(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1, ema_decay=0.0)
    fitted = fit_classifier(MODEL, PARAMS, TRAIN, make_split(0, seed=0), config, tmp_path)
    assert fitted.best_step == fitted.steps == 5
    assert not np.array_equal(fitted.params["score"]["kernel"], PARAMS["score"]["kernel"])


def test_unseen_tokens_of_a_fresh_model_only_take_the_row_that_stood_for_others(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    replacement = 4
    seen = [*np.unique(TRAIN.encoded.tokens_T), TRAIN.encoded.pad_id, replacement]
    rows = {}
    for name, fresh, dropout in (("fresh", True, 0.05), ("loaded", False, 0.05), ("undropped", True, 0.0)):
        given = dataclasses.replace(config, token_dropout=dropout)
        fitted = fit_classifier(MODEL, PARAMS, TRAIN, DEV, given, tmp_path / name, replacement, fresh=fresh)
        rows[name] = np.asarray(fitted.params["wte"]["embedding"])
    unseen_VD = np.delete(rows["fresh"], seen, axis=0)
    np.testing.assert_array_equal(unseen_VD, np.broadcast_to(rows["fresh"][replacement], unseen_VD.shape))
    initial_VD = np.delete(np.asarray(PARAMS["wte"]["embedding"]), seen, axis=0)
    np.testing.assert_array_equal(np.delete(rows["loaded"], seen, axis=0), initial_VD)
    np.testing.assert_array_equal(np.delete(rows["undropped"], seen, axis=0), initial_VD)
    assert len(initial_VD) > 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"metric": "acc"}, "Did you mean 'accuracy'"),
        ({"epochs": 0}, "train.epochs is 0"),
        ({"epochs": -1, "distill": DistillConfig(5)}, "train.epochs is -1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"patience": -1}, "train.patience is -1"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        TrainConfig(**setting)
    with pytest.raises(UserError, match=r"train\.distill_steps is -1"):
        DistillConfig(-1)


def test_language_model_loss_needs_tied_embeddings(tmp_path: Path) -> None:
    untied = dataclasses.replace(MODEL, tie_word_embeddings=False)
    with pytest.raises(UserError, match="tie_word_embeddings"):
        fit_classifier(untied, PARAMS, TRAIN, DEV, dataclasses.replace(CONFIG, pretrain_epochs=1), tmp_path)
