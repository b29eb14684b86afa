from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.errors import UserError
from llmjax.models.params import init_params
from llmjax.train.checkpoint import Checkpoints, Progress
from llmjax.train.optimizer import OptimizerConfig, make_optimizer
from llmjax.train.step import TrainState, init_state
from tests.train.toy import MODEL

PARAMS = init_params(MODEL, "classifier", jax.random.key(0))


def make_state(seed: int, use_ema: bool, accumulate: int = 1) -> TrainState:
    return init_state(PARAMS, make_optimizer(OptimizerConfig(accumulate=accumulate), 10), seed, use_ema)


def plain(state: TrainState) -> list[np.ndarray]:
    leaves = jax.tree.leaves((state.step, state.params, state.ema, state.opt_state))
    return [np.asarray(leaf) for leaf in [*leaves, jax.random.key_data(state.key)]]


def test_state_and_progress_come_back_bit_for_bit(tmp_path: Path) -> None:
    for use_ema, accumulate in ((False, 1), (True, 2)):
        folder = tmp_path / str(accumulate)
        state = make_state(5, use_ema, accumulate)
        state = jax.tree.map(lambda leaf: leaf + 1 if jnp.issubdtype(leaf.dtype, jnp.number) else leaf, state)
        progress = Progress(step=7, evaluated_step=7, best_step=3, best_value=0.1 + 0.2, bad_evaluations=2)
        first = Checkpoints(folder, keep=2)
        assert first.steps() == [] and first.last_path() is None
        path = first.save_last(state, progress)
        first.close()
        again = Checkpoints(folder, keep=2)
        assert again.last_path() == path and path.is_dir() and path.name == "7"
        restored, restored_progress = again.restore_last(7, make_state(0, use_ema, accumulate))
        again.close()
        assert restored_progress == progress
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        for found, expected in zip(plain(restored), plain(state), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_keeps_the_last_few_and_one_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    state = make_state(0, use_ema=False)
    for step in (1, 2, 3, 3):
        checkpoints.save_last(state, Progress(step=step))
        checkpoints.save_best(step, {"x": jnp.full(2, float(step))})
    kept = {folder: sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("last", "best")}
    assert kept == {"last": ["2", "3"], "best": ["3"]}
    np.testing.assert_array_equal(checkpoints.restore_best(3, {"x": jnp.zeros(2)})["x"], [3.0, 3.0])
    checkpoints.forget_best()
    with pytest.raises(UserError, match="the best parameters are lost"):
        checkpoints.restore_best(3, {"x": jnp.zeros(2)})
    checkpoints.close()


def test_an_unfinished_checkpoint_is_not_listed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    path = checkpoints.save_last(make_state(0, use_ema=False), Progress(step=4))
    checkpoints.close()
    path.rename(path.with_name("9.orbax-checkpoint-tmp"))  # as a kill in the middle of a save leaves it
    again = Checkpoints(tmp_path, keep=2)
    assert again.steps() == []
    again.close()
