"""Checkpoints by orbax: the last few whole states to resume from, and the best parameters so far."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from llmjax.errors import UserError
from llmjax.files import SUMS, damaged, write_sums
from llmjax.parallel.processes import leads, wait_for_all
from llmjax.train.step import TrainState
from llmjax.train.task import Params


@dataclass(frozen=True)
class Progress:
    """What the loop knows beside the state: the best dev value, its step, and how many evaluations it has stood."""

    step: int = 0
    evaluated_step: int = -1
    best_step: int = -1
    best_value: float = float("-inf")
    bad_evaluations: int = 0


class Damaged(Exception):
    """A checkpoint is not what was written; the message says why."""


class Checkpoints:
    """The orbax folders of one run: `last/STEP` holds whole states, `best/STEP` the parameters that did best on dev.

    Orbax writes to a temporary name and renames, so a checkpoint that is listed was whole; its files' sums, which are
    written into it, tell whether it still is.
    """

    def __init__(self, folder: str | Path, keep: int) -> None:
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save and lookup there
        self._ocp = ocp
        self._keep = keep
        self.folder = Path(folder).absolute()
        self._last = self._manager("last", keep)
        self._best = self._manager("best", 1)

    def _manager(self, name: str, keep: int) -> Any:
        options = self._ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
        return self._ocp.CheckpointManager(self.folder / name, options=options)

    def steps(self) -> list[int]:
        """Returns the steps of the whole states, the newest first."""
        return sorted(self._last.all_steps(), reverse=True)

    def last_path(self) -> Path | None:
        """Returns the folder of the last whole state, or None where there is none yet."""
        steps = self.steps()
        return self.folder / "last" / str(steps[0]) if steps else None

    def save_last(self, state: TrainState, progress: Progress) -> Path:
        """Writes the whole state, unless this very step is already on disk, and returns its folder.

        Raises:
            UserError: it cannot be written, as on a full disk.
        """
        if progress.step not in self._last.all_steps():
            args = self._ocp.args
            state_args = args.StandardSave(_to_tree(state))
            self._save(
                "last", progress.step, args.Composite(state=state_args, progress=args.JsonSave(asdict(progress)))
            )
        return self.folder / "last" / str(progress.step)

    def restore_last(self, step: int, like: TrainState) -> tuple[TrainState, Progress]:
        """Returns the state and progress of a step, on the devices and with the shapes of `like`.

        Raises:
            Damaged: its files are not as they were written.
        """
        args = self._ocp.args
        target = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, _to_tree(like))
        wanted = args.Composite(state=args.StandardRestore(target), progress=args.JsonRestore())
        found = self._restore("last", step, wanted)
        # The loop donates its state, so it must own every leaf: a restored one may share its buffer with the reader.
        return _from_tree(jax.tree.map(jnp.copy, found["state"]), like), Progress(**found["progress"])

    def set_aside(self, step: int) -> Path:
        """Moves a damaged state out of the way of new ones and returns where it is now."""
        aside = self.folder / "damaged" / str(step)
        self._last.close()
        wait_for_all("damaged")
        if leads():
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / "last" / str(step)).rename(aside)
        wait_for_all("set aside")
        self._last = self._manager("last", self._keep)
        return aside

    def save_best(self, step: int, params: Params) -> None:
        """Writes `params` as the best so far, in place of any other; UserError where it cannot be written."""
        if step not in self._best.all_steps():
            self._save("best", step, self._ocp.args.StandardSave(params))

    def holds_best(self, progress: Progress) -> bool:
        """Whether the best parameters that `progress` speaks of are there, and as they were written.

        Those of a later step are as good: the run was killed between them and its next whole state, and makes them
        again.
        """
        step = self._best.latest_step()
        if progress.best_step < 0 or (step is not None and step > progress.step):
            return True
        return step == progress.best_step and not damaged(self.folder / "best" / str(step))

    def forget_best(self) -> None:
        """Removes the best parameters."""
        for step in self._best.all_steps():
            self._best.delete(step)

    def restore_best(self, step: int, like: Params) -> Params:
        """Returns the best parameters, those of `step`.

        Raises:
            UserError: they are missing, or not as they were written.
        """
        target = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._restore("best", step, self._ocp.args.StandardRestore(target))
        except Damaged as error:
            path = self.folder / "best" / str(step)
            raise UserError(
                f"{path}: {error}: the best parameters are lost. The same command takes the last ones for the best and "
                "says so."
            ) from error

    def close(self) -> None:
        """Waits for what is being written and lets the folders go."""
        self._last.close()
        self._best.close()

    def _save(self, name: str, step: int, args: Any) -> None:
        manager = {"last": self._last, "best": self._best}[name]
        path = self.folder / name / str(step)
        try:
            manager.save(step, args=args)
            if leads():
                write_sums(path)
            wait_for_all("sums")
        except (OSError, ValueError, RuntimeError) as error:  # tensorstore tells a full disk by the latter two
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[-200:]
            last = self.last_path()
            raise UserError(
                f"{path}: the checkpoint cannot be written ({reason}). Make room and run the same command again: it "
                f"goes on from {last if last is not None else 'the start'}."
            ) from error

    def _restore(self, name: str, step: int, args: Any) -> Any:
        path = self.folder / name / str(step)
        changed = damaged(path) if path.is_dir() else ["the folder"]
        if changed:
            raise Damaged(f"{', '.join(changed[:3])} missing or damaged")
        try:
            return {"last": self._last, "best": self._best}[name].restore(step, args=args)
        except Exception as error:  # orbax and tensorstore raise many kinds
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            if (path / SUMS).exists():  # what was written is there: it is of another model or version
                raise UserError(f"{path}: is not a checkpoint of this run ({line}): use another --workdir.") from error
            raise Damaged(f"it cannot be read ({line})") from error


def go_on_from(
    checkpoints: Checkpoints, fresh: Callable[[int], TrainState], say: Callable[[str], None]
) -> tuple[TrainState, Progress]:
    """Returns the newest state that is whole, or the first one; what is damaged is told by `say`.

    Args:
        fresh: the number of steps made -> a state of the shapes that a checkpoint of that step has.
    """
    for step in checkpoints.steps():
        try:
            state, progress = checkpoints.restore_last(step, fresh(step))
        except Damaged as error:
            say(f"checkpoint of step {step}: {error}; it is now in {checkpoints.set_aside(step)}")
            continue
        if not checkpoints.holds_best(progress):
            say(
                f"the best parameters so far, of step {progress.best_step}, are missing or damaged: the best is chosen "
                f"from step {step} on"
            )
            checkpoints.forget_best()
            progress = Progress(step, evaluated_step=step - 1)  # so that its evaluation is made again
        return state, progress
    checkpoints.forget_best()
    return fresh(0), Progress()


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
