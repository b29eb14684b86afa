"""The training loop: phases of pure steps, evaluations, checkpoints, and an end that loses nothing."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from llmjax.data.batches import Batch, choose_buckets, eval_batches
from llmjax.data.files import Places
from llmjax.data.tokenizer import Encoded
from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.params import Params
from llmjax.train.checkpoint import Checkpoints, Progress
from llmjax.train.display import Display
from llmjax.train.metrics import Evaluation, evaluate_logits
from llmjax.train.optimizer import make_optimizer
from llmjax.train.plan import Phase, Split, TrainConfig, make_phases
from llmjax.train.signals import StopSignals
from llmjax.train.speed import SpeedMeter, measure_peak, train_flops
from llmjax.train.step import StepMetrics, TrainState, init_state
from llmjax.train.teacher import TaughtBatch
from llmjax.train.vocabulary import Vocabulary, vocabulary_of
from llmjax.train.writers import FILE, MetricsLog, rewind

Predict = Callable[[Params, np.ndarray, np.ndarray], jax.Array]


@dataclass(frozen=True)
class Fitted:
    """What training gives: the best parameters, the number of steps after which they stood, and of steps in all."""

    params: Params
    best_step: int
    steps: int


class Stopped(SystemExit):
    """Ctrl-C or SIGTERM ended the run after a checkpoint; the status is 128 + the signal, as a shell reports it."""


def make_predict(model: ModelConfig) -> Predict:
    """Returns the compiled classifier of `model`: (params, tokens_BL, mask_BL) -> logits_BC."""
    classifier = make_model(model, "classifier")
    return jax.jit(lambda params, tokens_BL, mask_BL: classifier.apply({"params": params}, tokens_BL, mask_BL))


def predict_logits(
    predict: Predict, params: Params, encoded: Encoded, batch_size: int, buckets: tuple[int, ...]
) -> Float[np.ndarray, "N C"]:
    """Returns the logits of every text, in the order of the texts."""
    batches = list(eval_batches(encoded, None, batch_size, buckets))
    logits = [predict(params, batch.tokens_BL, batch.mask_BL) for batch in batches]
    rows_N = np.concatenate([batch.rows_B for batch in batches])
    logits_NC = np.concatenate([np.asarray(logits_BC) for logits_BC in logits])
    return logits_NC[rows_N >= 0][np.argsort(rows_N[rows_N >= 0])]


def fit(
    model: ModelConfig,
    params: Params,
    train: Split,
    dev: Split,
    config: TrainConfig,
    workdir: str | Path,
    replacement: int = 0,
    settings: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> Fitted:
    """Trains a classifier from `params`, or goes on from the last checkpoint in `workdir`.

    Step s draws its randomness from (seed, s) and its batch from (seed, s), so a run that was killed and started again
    makes the same numbers as one that was not.

    Args:
        params: the classifier's initial parameters.
        dev: chooses the best parameters; where it is empty the last ones are the best.
        replacement: the token id that `token_dropout` puts in.
        settings: the job's config, for Weights & Biases.
        fresh: whether `params` are drawn at random. Tokens that no text of `train` has then end with the embedding of
            `replacement`, where training puts that in the place of others, and not with a random one.

    Raises:
        UserError: loss or gradient is not finite; the line names step, rows and the last good checkpoint.
        Stopped: Ctrl-C or SIGTERM came; a checkpoint was written.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    lengths_N = np.concatenate([train.encoded.lengths_N, dev.encoded.lengths_N])
    buckets = choose_buckets(lengths_N, config.max_buckets, longest=model.context)
    replaces = fresh and (config.token_dropout > 0 or config.distill_steps > 0)
    vocabulary = vocabulary_of(train.encoded, params, replacement, replacement if replaces else None)
    narrow = replace(model, vocab_size=len(vocabulary))
    train = replace(train, encoded=vocabulary.renumber(train.encoded))
    turns = tuple(vocabulary.number(token) for token in config.turning_tokens if token in vocabulary.used_U)
    phases = make_phases(narrow, train, config, buckets, vocabulary.number(replacement), turns)
    with ExitStack() as stack:
        checkpoints = Checkpoints(workdir / "checkpoints", config.keep)
        stack.callback(checkpoints.close)
        state, progress = _start(vocabulary.narrow(params), phases, config, checkpoints)
        rewind(workdir / FILE, lambda record: _before(record, progress))
        log = stack.enter_context(MetricsLog(workdir, progress.step, config.wandb, settings))
        display = stack.enter_context(Display(phases[-1].end, progress.step))
        signals = stack.enter_context(StopSignals())
        given = (model, vocabulary, train.places, dev, config, buckets, phases)
        run = _Run(*given, checkpoints, log, display, signals, state, progress)
        return run.to_the_end()


def _phase_of(phases: list[Phase], step: int) -> Phase:
    """Returns the phase that made step number `step` (the first phase for 0)."""
    return next(phase for phase in phases if step <= phase.end)


def _fresh(phase: Phase, params: Params, config: TrainConfig) -> TrainState:
    state = init_state(params, make_optimizer(phase.optimizer, phase.steps), config.seed, config.ema_decay > 0)
    return replace(state, step=state.step + phase.first_step)


def _start(
    params: Params, phases: list[Phase], config: TrainConfig, checkpoints: Checkpoints
) -> tuple[TrainState, Progress]:
    step = checkpoints.last_step()
    state = _fresh(_phase_of(phases, step or 0), params, config)
    if step is None:
        checkpoints.forget_best()
        return state, Progress()
    return checkpoints.restore_last(state)


def _before(record: Mapping[str, Any], progress: Progress) -> bool:
    """Whether a record was written before the checkpoint that the run goes on from."""
    step = progress.step if record["phase"] != "dev" else progress.evaluated_step
    return record["step"] <= step


@dataclass
class _Run:
    """One call of `fit`: what it was given, and what changes from step to step."""

    model: ModelConfig
    vocabulary: Vocabulary
    places: Places | None
    dev: Split
    config: TrainConfig
    buckets: tuple[int, ...]
    phases: list[Phase]
    checkpoints: Checkpoints
    log: MetricsLog
    display: Display
    signals: StopSignals
    state: TrainState
    progress: Progress

    def __post_init__(self) -> None:
        self.predict = make_predict(self.model)
        self.narrow = replace(self.model, vocab_size=len(self.vocabulary))
        self.speed = SpeedMeter(measure_peak(self.model.dtype))
        self.pending: tuple[int, Phase, Batch | TaughtBatch, StepMetrics] | None = None
        self.shapes: set[tuple[str, int]] = set()
        self.clock = time.perf_counter()

    def to_the_end(self) -> Fitted:
        step, total = self.progress.step, self.phases[-1].end
        dtype = self.model.dtype
        self.display.say(
            f"{'going on from' if step else 'training:'} step {step} of {total}; padded lengths "
            f"{', '.join(map(str, self.buckets))}; measured matmul peak {self.speed.peak / 1e9:,.0f} GFLOP/s in {dtype}"
        )
        phase = _phase_of(self.phases, step)
        batches = self.batches(phase, step - phase.first_step)
        while True:
            self.save_if_due(phase, step)
            if step == total or self.out_of_patience():
                break
            if self.signals.received is not None:
                self.stop(step, self.signals.received)
            if step == phase.end:
                phase = _phase_of(self.phases, step + 1)
                self.flush()
                self.state = _fresh(phase, self.state.params, self.config)
                batches = self.batches(phase, 0)
            batch = next(batches)
            self.state, metrics = phase.train_step(self.state, batch)
            step += 1
            self.flush()
            self.pending = (step, phase, batch, metrics)
        params = self.checkpoints.restore_best(self.eval_params())
        if params is None:
            return Fitted(self.vocabulary.widen(self.eval_params()), step, step)
        return Fitted(self.vocabulary.widen(params), self.progress.best_step, step)

    def batches(self, phase: Phase, start: int) -> Iterator[Any]:
        if phase.name == "distill":
            self.display.say("fitting the linear teacher to the training texts")
        return phase.batches(start)

    def eval_params(self) -> Params:
        return self.state.params if self.state.ema is None else self.state.ema

    def out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.progress.bad_evaluations

    def flush(self) -> None:
        """Fetches and records the metrics of the pending step. Called once the next step has been dispatched."""
        if self.pending is None:
            return
        step, phase, batch, metrics = self.pending
        self.pending = None
        loss, accuracy, grad_norm, learning_rate, finite = (value.item() for value in jax.device_get(metrics))
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        if not finite:
            self.refuse(step, loss, grad_norm, batch)
        rows, length = int(np.count_nonzero(batch.rows_B >= 0)), batch.tokens_BL.shape[1]
        tokens = int(batch.mask_BL[batch.rows_B >= 0].sum())
        if (phase.name, length) in self.shapes:  # else the time is the compiler's
            self.speed.add(seconds, tokens, train_flops(self.narrow, phase.head, rows, tokens, length))
        self.shapes.add((phase.name, length))
        timing = {"seconds": seconds, "tokens_per_second": self.speed.tokens_per_second(), "mfu": self.speed.mfu()}
        epoch = (step - phase.first_step - 1) // phase.epoch_steps + 1
        record = {"step": step, "phase": phase.name, "epoch": epoch, "loss": loss, "accuracy": accuracy}
        record |= {"grad_norm": grad_norm, "learning_rate": learning_rate, "tokens": tokens}
        self.log.write({**record, "timing": timing})
        self.display.update(phase.name, step, {**record, **timing})

    def refuse(self, step: int, loss: float, grad_norm: float, batch: Batch | TaughtBatch) -> None:
        rows = [int(row) for row in batch.rows_B if row >= 0]
        named = f"rows {', '.join(map(str, rows))} of train, counted from 0"
        if isinstance(batch, TaughtBatch):
            named = "the made-up texts of this step"
        elif self.places:
            named = self.places.named(rows)
        path = self.checkpoints.last_path()
        raise UserError(
            f"step {step}: loss {loss}, gradient norm {grad_norm}: training stopped, the step changed nothing. Lower "
            f"train.optimizer.learning_rate, or look at {named}. Last good "
            f"checkpoint: {path if path is not None else 'none yet'}"
        )

    def save_if_due(self, phase: Phase, step: int) -> None:
        """Evaluates and saves where the plan says so, also where a resumed run was stopped before it could."""
        done = step - phase.first_step
        if phase.name == "pretrain":
            if done and done % phase.epoch_steps == 0:
                self.flush()
                self.save(step)
            return
        every = self.config.eval_every or phase.epoch_steps
        if done == 0 or (done % every and step != phase.end):
            return
        self.flush()
        if len(self.dev) and self.progress.evaluated_step != step:
            self.evaluate(step)
        self.save(step)
        self.clock = time.perf_counter()

    def save(self, step: int) -> Path:
        self.log.sync()
        self.progress = replace(self.progress, step=step)
        return self.checkpoints.save_last(self.state, self.progress)

    def evaluate(self, step: int) -> None:
        params = self.vocabulary.widen(self.eval_params())
        logits_NC = predict_logits(self.predict, params, self.dev.encoded, self.config.eval_batch_size, self.buckets)
        found = evaluate_logits(logits_NC, self.dev.labels_N, self.model.label_names)
        value = _value(found, self.config.metric)
        better = value > self.progress.best_value
        if better:
            self.checkpoints.save_best(step, self.eval_params())
            self.progress = replace(self.progress, best_step=step, best_value=value)
        bad = 0 if better else self.progress.bad_evaluations + 1
        self.progress = replace(self.progress, evaluated_step=step, bad_evaluations=bad)
        record = {"step": step, "phase": "dev", "loss": found.loss, "accuracy": found.accuracy}
        record |= {"macro_f1": found.macro_f1, "calibration_error": found.calibration_error, "best": better}
        self.log.write(record)
        self.display.evaluated(step, found.accuracy, found.loss, better)

    def stop(self, step: int, number: int) -> None:
        self.flush()
        path = self.save(step)
        self.display.say(f"stopped after step {step}; saved {path}; run the same command again to go on from there")
        raise Stopped(128 + number)


def _value(evaluation: Evaluation, metric: str) -> float:
    return -evaluation.loss if metric == "loss" else getattr(evaluation, metric)
