"""The loop by itself: tasks of one number each, which compile at once."""

import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.errors import UserError
from llmjax.train import loop
from llmjax.train.checkpoint import Checkpoints, Progress
from llmjax.train.loop import Fitted, LoopConfig, fit
from llmjax.train.optimizer import OptimizerConfig
from llmjax.train.task import Evaluated, Params, Phase, Task, Work
from llmjax.train.writers import FILE

PARAMS = {"w": {"kernel": jnp.zeros(3)}}
RATE = OptimizerConfig(learning_rate=0.1, schedule="constant", warmup_fraction=0.0, weight_decay=0.0)


def loss(params: Params, batch: np.ndarray, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distance to the batch, with noise that tells whether a resumed run draws the same."""
    error = params["w"]["kernel"] - batch + 0.1 * jax.random.normal(key, (3,))
    return jnp.sum(error**2), jnp.float32(0.5)


def batches(start: int) -> Iterator[np.ndarray]:
    while True:
        yield np.full(3, math.sin(start), np.float32)
        start += 1


def sum_of(params: Params) -> Evaluated:
    value = float(params["w"]["kernel"].sum())
    return Evaluated(value, {"loss": -value}, f"dev {value:.2f}", f"dev sum {value:.3f}")


def task(name: str = "one", evaluate: Any = sum_of, **changes: Any) -> Task:
    given = Task(name, loss, batches, 4, lambda batch: Work(3, 1.0), lambda batch: f"batch {batch[0]:.2f}", evaluate)
    return dataclasses.replace(given, **changes)


PHASES = [Phase(task("one", None), 6, RATE), Phase(task("two"), 10, RATE, ema_decay=0.9)]
CONFIG = LoopConfig(seed=3)


def records(workdir: Path) -> list[dict[str, Any]]:
    lines = (workdir / FILE).read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "timing"} for line in lines]


def same(a: Fitted, b: Fitted) -> bool:
    return (a.best_step, a.steps) == (b.best_step, b.steps) and bool((kernel(a) == kernel(b)).all())


def kernel(fitted: Fitted) -> np.ndarray:
    return np.asarray(fitted.params["w"]["kernel"])


@pytest.fixture(autouse=True)
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "measure_peak", lambda dtype: 1e9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted]:
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "measure_peak", lambda dtype: 1e9)
        return workdir, fit(PHASES, PARAMS, CONFIG, workdir)


def cut(workdir: Path, after: int, phases: list[Phase] = PHASES) -> None:
    """Runs until the checkpoint of step `after` is written."""
    real = loop._Run.save_if_due

    def dying(self: Any, stretch: Any, step: int) -> None:
        real(self, stretch, step)
        if step == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "save_if_due", dying)
        with pytest.raises(KeyboardInterrupt):
            fit(phases, PARAMS, CONFIG, workdir)


def flip(folder: Path) -> None:
    """Changes one bit of the largest file in a folder."""
    file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_every_step_is_recorded_under_its_task(whole: tuple[Path, Fitted]) -> None:
    found = records(whole[0])
    assert [r["step"] for r in found if r["phase"] == "one"] == list(range(1, 7))
    assert [r["step"] for r in found if r["phase"] == "two"] == list(range(7, 17))
    assert [r["step"] for r in found if r["phase"] == "dev"] == [10, 14, 16]
    assert [r["epoch"] for r in found if r["phase"] == "two"] == [1] * 4 + [2] * 4 + [3] * 2
    assert whole[1].steps == 16 and whole[1].best_step in (10, 14, 16)


@pytest.mark.parametrize("after", [4, 6, 10, 14, 16])
def test_a_run_that_was_cut_makes_the_same_numbers(whole: tuple[Path, Fitted], tmp_path: Path, after: int) -> None:
    cut(tmp_path, after)
    assert same(fit(PHASES, PARAMS, CONFIG, tmp_path), whole[1])
    assert records(tmp_path) == records(whole[0])


def test_a_phase_begins_with_the_average_that_was_evaluated(tmp_path: Path) -> None:
    evaluated: list[np.ndarray] = []

    def noting(params: Params) -> Evaluated:
        evaluated.append(np.asarray(params["w"]["kernel"]))
        return sum_of(params)

    still = dataclasses.replace(RATE, learning_rate=1e-12)
    first = Phase(task("one", noting), 4, RATE, ema_decay=0.99)
    fit([first, Phase(task("two", noting), 4, still)], PARAMS, CONFIG, tmp_path)
    np.testing.assert_allclose(evaluated[1], evaluated[0], atol=1e-9)
    raw = fit([dataclasses.replace(first, ema_decay=0.0)], PARAMS, CONFIG, tmp_path / "raw")
    assert not np.allclose(kernel(raw), evaluated[0], atol=1e-3)


def never_better(params: Params) -> Evaluated:
    return dataclasses.replace(sum_of(params), value=0.0)


def test_patience_ends_its_phase_and_the_next_one_goes_on(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, patience=2)
    phases = [Phase(task(name, never_better), 40, RATE) for name in ("one", "two")]
    fitted = fit(phases, PARAMS, config, tmp_path)
    found = records(tmp_path)
    assert [r["step"] for r in found if r["phase"] == "one"] == list(range(1, 13))
    assert [r["step"] for r in found if r["phase"] == "two"] == list(range(41, 49))
    assert [r["step"] for r in found if r["phase"] == "dev"] == [4, 8, 12, 44, 48]
    assert (fitted.steps, fitted.best_step) == (48, 4)
    assert same(fit(phases, PARAMS, config, tmp_path), fitted) and records(tmp_path) == found


def test_speed_leaves_checkpoints_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Checkpoints.save_last

    def slow(*args: Any) -> Path:
        now[0] += 1000.0
        return real(*args)

    now = [0.0]
    monkeypatch.setattr(Checkpoints, "save_last", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    fit(PHASES, PARAMS, CONFIG, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert all(line["timing"]["seconds"] < 1000.0 for line in lines if "timing" in line)


def test_a_loss_that_is_not_finite_names_batch_and_checkpoint(tmp_path: Path) -> None:
    def poisoned(start: int) -> Iterator[np.ndarray]:
        for number, batch in enumerate(batches(start), start=start):
            yield batch * np.nan if number == 5 else batch

    with pytest.raises(UserError, match=r"step 6: loss nan.*look at batch nan.*last/4$"):
        fit([Phase(task(batches=poisoned), 8, RATE)], PARAMS, CONFIG, tmp_path)


def test_a_damaged_last_checkpoint_is_put_aside(
    whole: tuple[Path, Fitted], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cut(tmp_path, 10)
    flip(tmp_path / "checkpoints" / "last" / "10" / "state")
    capsys.readouterr()
    assert same(fit(PHASES, PARAMS, CONFIG, tmp_path), whole[1])
    said = capsys.readouterr().out
    assert "checkpoint of step 10: " in said and "going on from step 6 of 16" in said
    assert (tmp_path / "checkpoints" / "damaged" / "10").is_dir()
    assert records(tmp_path) == records(whole[0])


def test_when_all_are_damaged_the_run_begins_again(whole: tuple[Path, Fitted], tmp_path: Path) -> None:
    cut(tmp_path, 10)
    for folder in (tmp_path / "checkpoints" / "last").iterdir():
        flip(folder / "state")
    assert same(fit(PHASES, PARAMS, CONFIG, tmp_path), whole[1])
    assert records(tmp_path) == records(whole[0])


@pytest.mark.parametrize("damage", [flip, shutil.rmtree])
def test_lost_best_parameters_are_no_other_model_in_silence(
    whole: tuple[Path, Fitted], tmp_path: Path, capsys: pytest.CaptureFixture, damage: Any
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoints" / "best" / str(whole[1].best_step))
    again = fit(PHASES, PARAMS, CONFIG, tmp_path)
    said = capsys.readouterr().out
    assert f"of step {whole[1].best_step}, are missing or damaged" in said and again.best_step == 16
    assert [r["step"] for r in records(tmp_path) if r["phase"] == "dev"] == [10, 14, 16]


def test_best_parameters_that_go_while_training_are_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save_best(3, PARAMS)
    flip(tmp_path / "best" / "3")
    with pytest.raises(UserError, match="the best parameters are lost"):
        checkpoints.restore_best(3, PARAMS)
    checkpoints.close()


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    cut(tmp_path, 6)
    monkeypatch.setattr("llmjax.train.checkpoint.write_sums", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*goes on from") as error:
        fit(PHASES, PARAMS, CONFIG, tmp_path)
    assert "\n" not in str(error.value)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    cut(tmp_path, 6)
    with pytest.raises(UserError, match="not a checkpoint of this run"):
        fit(PHASES, {"v": {"kernel": jnp.zeros(5)}}, CONFIG, tmp_path)
    assert Progress() == Progress(step=0)
