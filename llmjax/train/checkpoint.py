"""Checkpoints by orbax: the last few whole states to resume from, and the best parameters so far."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from llmjax.train.step import TrainState


@dataclass(frozen=True)
class Progress:
    """What the loop knows beside the state: the best dev value, its step, and how many evaluations it has stood."""

    step: int = 0
    evaluated_step: int = -1
    best_step: int = -1
    best_value: float = float("-inf")
    bad_evaluations: int = 0


class Checkpoints:
    """The orbax folders of one run: `last/STEP` holds whole states, `best/STEP` the parameters that did best on dev.

    Orbax writes to a temporary name and renames, so a checkpoint that is listed is whole.
    """

    def __init__(self, folder: str | Path, keep: int) -> None:
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save and lookup there
        self._ocp = ocp
        self.folder = Path(folder).absolute()
        self._last = self._manager("last", keep)
        self._best = self._manager("best", 1)

    def _manager(self, name: str, keep: int) -> Any:
        options = self._ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
        return self._ocp.CheckpointManager(self.folder / name, options=options)

    def last_step(self) -> int | None:
        """Returns the step of the last whole state, or None where there is none yet."""
        return self._last.latest_step()

    def last_path(self) -> Path | None:
        """Returns the folder of the last whole state, or None where there is none yet."""
        step = self.last_step()
        return None if step is None else self.folder / "last" / str(step)

    def save_last(self, state: TrainState, progress: Progress) -> Path:
        """Writes the whole state, unless this very step is already on disk, and returns its folder."""
        if progress.step not in self._last.all_steps():
            args = self._ocp.args
            self._last.save(
                progress.step,
                args=args.Composite(state=args.StandardSave(_to_tree(state)), progress=args.JsonSave(asdict(progress))),
            )
        return self.folder / "last" / str(progress.step)

    def restore_last(self, like: TrainState) -> tuple[TrainState, Progress]:
        """Returns the last state and progress, on the devices and with the shapes of `like`."""
        args = self._ocp.args
        target = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, _to_tree(like))
        found = self._last.restore(
            self._last.latest_step(),
            args=args.Composite(state=args.StandardRestore(target), progress=args.JsonRestore()),
        )
        # The loop donates its state, so it must own every leaf: a restored one may share its buffer with the reader.
        return _from_tree(jax.tree.map(jnp.copy, found["state"]), like), Progress(**found["progress"])

    def save_best(self, step: int, params: Any) -> None:
        """Writes `params` as the best so far, in place of any other."""
        if step not in self._best.all_steps():
            self._best.save(step, args=self._ocp.args.StandardSave(params))

    def forget_best(self) -> None:
        """Removes the best parameters: those of a run that was killed before its first whole state."""
        for step in self._best.all_steps():
            self._best.delete(step)

    def restore_best(self, like: Any) -> Any:
        """Returns the best parameters, or None where none were saved."""
        step = self._best.latest_step()
        if step is None:
            return None
        target = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
        return self._best.restore(step, args=self._ocp.args.StandardRestore(target))

    def close(self) -> None:
        """Waits for what is being written and lets the folders go."""
        self._last.close()
        self._best.close()


def _to_tree(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "ema": state.ema if state.ema is not None else {},
        "opt_state": state.opt_state,
        "key": jax.random.key_data(state.key),
    }


def _from_tree(tree: dict[str, Any], like: TrainState) -> TrainState:
    key = jax.random.wrap_key_data(tree["key"], impl=jax.random.key_impl(like.key))
    ema = tree["ema"] if like.ema is not None else None
    return TrainState(tree["step"], tree["params"], ema, tree["opt_state"], key)
