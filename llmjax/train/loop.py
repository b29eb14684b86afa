"""The training loop: phases of pure steps, evaluations, checkpoints, and an end that loses nothing."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from llmjax.errors import UserError
from llmjax.parallel.layout import Table, place, place_rows
from llmjax.parallel.mesh import current
from llmjax.parallel.processes import fetched, largest, leads, several
from llmjax.train.checkpoint import Checkpoints, Progress, go_on_from
from llmjax.train.display import Display
from llmjax.train.optimizer import make_optimizer
from llmjax.train.signals import StopSignals
from llmjax.train.speed import SpeedMeter, measure_peak
from llmjax.train.step import StepMetrics, TrainState, TrainStep, init_state, make_train_step
from llmjax.train.task import Params, Phase, Tuning
from llmjax.train.writers import FILE, MetricsLog, rewind


@dataclass(frozen=True)
class LoopConfig:
    """What the loop itself is told.

    seed: of dropout.
    patience: evaluations without a better value after which a phase ends; 0 = never.
    keep: whole states kept on disk, beside the best parameters.
    dtype: of the computation, for the matmul peak that progress is held against.
    table: of the model: it says where arrays lie on the mesh in use.
    """

    seed: int = 0
    patience: int = 0
    keep: int = 2
    wandb: bool = False
    dtype: str = "float32"
    table: Table = ()


@dataclass(frozen=True)
class Fitted:
    """What training gives: the best parameters, the number of steps after which they stood, and of steps in all."""

    params: Params
    best_step: int
    steps: int


class Stopped(SystemExit):
    """Ctrl-C or SIGTERM ended the run after a checkpoint; the status is 128 + the signal, as a shell reports it."""


def fit(
    phases: Sequence[Phase],
    params: Params,
    config: LoopConfig,
    workdir: str | Path,
    settings: Mapping[str, Any] | None = None,
    tuning: Tuning | None = None,
) -> Fitted:
    """Trains from `params`, phase after phase, or goes on from the last checkpoint in `workdir`.

    Step s draws its randomness from (seed, s) and takes its phase's batch number s, so a run that was killed and
    started again makes the same numbers as one that was not. A phase begins with the parameters that the one before it
    was last evaluated with, and a new optimizer.

    Args:
        phases: at least one, of at least one step each.
        settings: the job's config, for Weights & Biases.
        tuning: where `params` are a part of a model, what makes the model of them; evaluations are of the model.

    Raises:
        UserError: loss or gradient is not finite (the line names step, data and the last good checkpoint), or a
            checkpoint cannot be written or the best one not be read.
        Stopped: Ctrl-C or SIGTERM came; a checkpoint was written.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    frozen = None if tuning is None else place(tuning.frozen, config.table)
    stretches = _in_a_row(phases, config.table, tuning)
    with ExitStack() as stack:
        checkpoints = Checkpoints(workdir / "checkpoints", config.keep)
        stack.callback(checkpoints.close)

        def fresh(step: int) -> TrainState:
            return _fresh(_stretch_of(stretches, step), params, config, tuning)

        state, progress = go_on_from(checkpoints, fresh, print)
        # Of several processes one keeps the record; the others' goes where nobody reads it.
        records = workdir if leads() else Path(stack.enter_context(TemporaryDirectory()))
        rewind(records / FILE, lambda record: _before(record, progress))
        log = stack.enter_context(MetricsLog(records, progress.step, config.wandb and leads(), settings))
        display = stack.enter_context(Display(stretches[-1].end, progress.step))
        signals = stack.enter_context(StopSignals())
        run = _Run(config, stretches, tuning, frozen, checkpoints, log, display, signals, state, progress)
        return run.to_the_end()


@dataclass(frozen=True)
class _Stretch:
    """A phase in its place: the steps after `first` made ones, up to `end` made ones.

    `train_step` is compiled once for each shape of its batches, and donates its state.
    """

    phase: Phase
    first: int
    train_step: TrainStep

    @property
    def end(self) -> int:
        return self.first + self.phase.steps

    @property
    def save_every(self) -> int:
        return self.phase.save_every or self.phase.task.epoch_steps


def _in_a_row(phases: Sequence[Phase], table: Table, tuning: Tuning | None) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    for phase in phases:
        first = stretches[-1].end if stretches else 0
        args = (phase.task.loss, phase.optimizer, phase.steps, first, phase.ema_decay, table)
        step = make_train_step(*args, tuning=tuning)
        stretches.append(_Stretch(phase, first, jax.jit(step, donate_argnums=0)))
    return stretches


def _stretch_of(stretches: list[_Stretch], step: int) -> _Stretch:
    """Returns the stretch that made step number `step` (the first one for 0)."""
    return next(stretch for stretch in stretches if step <= stretch.end)


def _fresh(stretch: _Stretch, params: Params, config: LoopConfig, tuning: Tuning | None) -> TrainState:
    phase = stretch.phase
    optimizer = make_optimizer(phase.optimizer, phase.steps, tuning.around if tuning else None)
    state = init_state(place(params, config.table), optimizer, config.seed, phase.ema_decay > 0)
    state = place(replace(state, step=state.step + stretch.first), config.table)
    if current() is not None:
        return state
    # What is restored is bound to its device: were this not, the step would be compiled anew for a run that goes on.
    return jax.device_put(state, state.step.sharding)


def _before(record: Mapping[str, Any], progress: Progress) -> bool:
    """Whether a record was written before the checkpoint that the run goes on from."""
    step = progress.step if record["phase"] != "dev" else progress.evaluated_step
    return record["step"] <= step


@dataclass
class _Run:
    """One call of `fit`: what it was given, and what changes from step to step."""

    config: LoopConfig
    stretches: list[_Stretch]
    tuning: Tuning | None
    frozen: Params | None
    checkpoints: Checkpoints
    log: MetricsLog
    display: Display
    signals: StopSignals
    state: TrainState
    progress: Progress

    def __post_init__(self) -> None:
        self.speed = SpeedMeter(measure_peak(self.config.dtype))
        self.pending: tuple[int, _Stretch, Any, StepMetrics, Any] | None = None
        self.heard = 0  # the signal that any of several processes had, as all of them know it
        self.compiled: set[Any] = set()
        self.clock = time.perf_counter()

    def to_the_end(self) -> Fitted:
        step, total = self.progress.step, self.stretches[-1].end
        self.display.say(
            f"{'going on from' if step else 'training:'} step {step} of {total}; measured matmul peak "
            f"{self.speed.peak / 1e9:,.0f} GFLOP/s in {self.config.dtype}"
        )
        stretch = _stretch_of(self.stretches, step)
        batches = self.batches(stretch, step)
        while True:
            self.save_if_due(stretch, step)
            over = step == stretch.end or self.out_of_patience()
            if over and stretch is self.stretches[-1]:
                break
            if number := self.asked_to_stop():
                self.stop(step, number)
            if over:
                step = stretch.end
                stretch = _stretch_of(self.stretches, step + 1)
                self.flush()
                self.state = _fresh(stretch, self.eval_params(), self.config, self.tuning)
                self.progress = replace(self.progress, bad_evaluations=0)
                batches = self.batches(stretch, step)
            batch = next(batches)
            rest = () if self.tuning is None else (self.frozen,)
            self.state, metrics = stretch.train_step(self.state, place_rows(batch), *rest)
            signal = largest(self.signals.received or 0) if several() else None
            step += 1
            self.flush()
            self.pending = (step, stretch, batch, metrics, signal)
        best = self.progress.best_step
        if best < 0:
            return Fitted(self.eval_params(), step, step)
        return Fitted(self.checkpoints.restore_best(best, self.eval_params()), best, step)

    def batches(self, stretch: _Stretch, step: int) -> Iterator[Any]:
        task = stretch.phase.task
        if task.about and step < stretch.end:
            self.display.say(f"{task.name}: {task.about}")
        return task.batches(step - stretch.first)

    def asked_to_stop(self) -> int:
        """Returns the signal that ends the run after this step, in all processes after the same one; 0 = none."""
        return self.heard if several() else self.signals.received or 0

    def eval_params(self) -> Params:
        return self.state.params if self.state.ema is None else self.state.ema

    def out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.progress.bad_evaluations

    def flush(self) -> None:
        """Fetches and records the metrics of the pending step. Called once the next step has been dispatched."""
        if self.pending is None:
            return
        step, stretch, batch, metrics, signal = self.pending
        self.pending = None
        self.heard = max(self.heard, 0 if signal is None else int(fetched(signal)))
        loss, accuracy, grad_norm, learning_rate, finite = (value.item() for value in jax.device_get(metrics))
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        task = stretch.phase.task
        if not finite:
            self.refuse(step, loss, grad_norm, task.where(batch))
        tokens, flops = task.work(batch)
        shapes = (task.name, *(leaf.shape for leaf in jax.tree.leaves(batch)))
        if shapes in self.compiled:  # else the time is the compiler's
            self.speed.add(seconds, tokens, flops * (self.tuning.work if self.tuning else 1.0))
        self.compiled.add(shapes)
        timing = {"seconds": seconds, "tokens_per_second": self.speed.tokens_per_second(), "mfu": self.speed.mfu()}
        epoch = (step - stretch.first - 1) // task.epoch_steps + 1
        record = {"step": step, "phase": task.name, "epoch": epoch, "loss": loss, "accuracy": accuracy}
        record |= {"grad_norm": grad_norm, "learning_rate": learning_rate, "tokens": tokens}
        self.log.write({**record, "timing": timing})
        self.display.update(task.name, step, {**record, **timing})

    def refuse(self, step: int, loss: float, grad_norm: float, where: str) -> None:
        path = self.checkpoints.last_path()
        raise UserError(
            f"step {step}: loss {loss}, gradient norm {grad_norm}: training stopped, the step changed nothing. Lower "
            f"train.optimizer.learning_rate, or look at {where}. Last good "
            f"checkpoint: {path if path is not None else 'none yet'}"
        )

    def save_if_due(self, stretch: _Stretch, step: int) -> None:
        """Evaluates and saves where the plan says so, also where a resumed run was stopped before it could."""
        done = step - stretch.first
        if done == 0 or (done % stretch.save_every and step != stretch.end):
            return
        self.flush()
        if stretch.phase.task.evaluate is not None and self.progress.evaluated_step != step:
            self.evaluate(stretch, step)
        self.save(step)
        self.clock = time.perf_counter()

    def save(self, step: int) -> Path:
        self.log.sync()
        self.progress = replace(self.progress, step=step)
        return self.checkpoints.save_last(self.state, self.progress)

    def evaluate(self, stretch: _Stretch, step: int) -> None:
        assert stretch.phase.task.evaluate is not None
        params = self.eval_params()
        if self.tuning is not None:
            params = self.tuning.merge(self.frozen or {}, params)
        found = stretch.phase.task.evaluate(params)
        better = found.value > self.progress.best_value
        if better:
            self.checkpoints.save_best(step, self.eval_params())
            self.progress = replace(self.progress, best_step=step, best_value=found.value)
        bad = 0 if better else self.progress.bad_evaluations + 1
        self.progress = replace(self.progress, evaluated_step=step, bad_evaluations=bad)
        self.log.write({"step": step, "phase": "dev", **found.figures, "best": better})
        self.display.evaluated(step, found, better)

    def stop(self, step: int, number: int) -> None:
        self.flush()
        path = self.save(step)
        self.display.say(f"stopped after step {step}; saved {path}; run the same command again to go on from there")
        raise Stopped(128 + number)
