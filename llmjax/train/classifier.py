"""How a classifier is trained: its settings, and the tasks that they ask for, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llmjax.data.batches import choose_buckets, steps_per_epoch, train_batches
from llmjax.errors import UserError, did_you_mean
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of
from llmjax.models.layout import table_of
from llmjax.train.classification import (
    METRICS,
    Split,
    classification_loss,
    classification_task,
    evaluation,
    rows_named,
    work,
)
from llmjax.train.distillation import DistillConfig, distillation_task
from llmjax.train.lesson import Lesson, lesson_loss
from llmjax.train.lm import lm_loss
from llmjax.train.loop import Fitted, LoopConfig, fit
from llmjax.train.optimizer import OptimizerConfig
from llmjax.train.task import Evaluated, Params, Phase, Task, Tuning
from llmjax.train.teacher import fit_teacher
from llmjax.train.vocabulary import vocabulary_of


@dataclass(frozen=True)
class TrainConfig:
    """How to train. A step is one batch; `optimizer.accumulate` of them make one update.

    max_buckets: padded lengths at most; each compiles the step once.
    eval_every: steps between evaluations on dev, each followed by a checkpoint; 0 = once an epoch.
    metric: of the dev split, which chooses the best parameters: accuracy, macro_f1 or loss.
    patience: evaluations without a better metric after which a phase of training ends; 0 = never.
    keep: whole states kept on disk, beside the best parameters.
    token_dropout: share of input tokens replaced by the tokenizer's end-of-text (or pad) token.
    ema_decay: of the parameters' moving average, which is then what is evaluated and saved; 0 = off.
    distill: a linear teacher to learn from before the labels are learnt. With one `epochs` may be 0.
    lesson: what is learnt of a teacher beside the labels; its parameters come with the tuning.
    pretrain_epochs: passes of next-token training over the same texts before classification; 0 = none.
    """

    epochs: int = 10
    batch_size: int = 128
    eval_batch_size: int = 256
    max_buckets: int = 4
    eval_every: int = 0
    metric: str = "accuracy"
    patience: int = 0
    keep: int = 2
    seed: int = 0
    label_smoothing: float = 0.0
    token_dropout: float = 0.0
    ema_decay: float = 0.0
    wandb: bool = False
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    lesson: Lesson | None = None
    pretrain_epochs: int = 0
    pretrain_batch_size: int = 32
    pretrain_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if self.epochs < (0 if self.distill.steps else 1):
            raise UserError(
                f"train.epochs is {self.epochs}: it must be 1 or more, or 0 where train.distill_steps is set"
            )
        for name in ("batch_size", "eval_batch_size", "max_buckets", "keep", "pretrain_batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("eval_every", "patience", "pretrain_epochs", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("label_smoothing", "token_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"train.{name} is {getattr(self, name)}: it must be in [0, 1)")
        if self.metric not in METRICS:
            near = did_you_mean(self.metric, METRICS)
            raise UserError(f"train.metric is {self.metric!r}: it must be one of {', '.join(METRICS)}.{near}")


def fit_classifier(
    model: ModelConfig,
    params: Params,
    train: Split,
    dev: Split,
    config: TrainConfig,
    workdir: str | Path,
    replacement: int = 0,
    settings: Mapping[str, Any] | None = None,
    fresh: bool = False,
    tuning: Tuning | None = None,
) -> Fitted:
    """Trains a classifier from `params`, or goes on from the last checkpoint in `workdir`, as `fit` does.

    Args:
        params: the classifier's initial parameters.
        dev: chooses the best parameters; where it is empty the last ones are the best.
        replacement: the token id that `token_dropout` puts in.
        settings: the job's config, for Weights & Biases.
        fresh: whether `params` are drawn at random. Tokens that no text of `train` has then end with the embedding of
            `replacement`, where training puts that in the place of others, and not with a random one.
        tuning: where `params` are a part of the classifier's, how it is made of them; what is fitted is that part.

    Raises:
        UserError, Stopped: as `fit` does.
    """
    lengths_N = np.concatenate([train.encoded.lengths_N, dev.encoded.lengths_N])
    buckets = choose_buckets(lengths_N, config.max_buckets, longest=model.context)
    loop = LoopConfig(config.seed, config.patience, config.keep, config.wandb, model.dtype, table_of(model))
    on_dev = evaluation(model, dev, config.eval_batch_size, buckets, config.metric)
    if tuning is not None:  # an embedding that stays costs a step nothing: it is not narrowed
        phases = make_phases(model, train, config, buckets, replacement, on_dev)
        return fit(phases, params, loop, workdir, settings, tuning)
    replaces = fresh and (config.token_dropout > 0 or config.distill.steps > 0)
    vocabulary = vocabulary_of(train.encoded, params, replacement, replacement if replaces else None)
    narrow = replace(model, vocab_size=len(vocabulary))
    used = set(vocabulary.used_U.tolist())
    turns = tuple(vocabulary.number(token) for token in config.distill.turning_tokens if token in used)

    def evaluate(params: Params) -> Evaluated:
        assert on_dev is not None
        return on_dev(vocabulary.widen(params))

    phases = make_phases(
        narrow,
        replace(train, encoded=vocabulary.renumber(train.encoded)),
        replace(config, distill=replace(config.distill, turning_tokens=turns)),
        buckets,
        vocabulary.number(replacement),
        None if on_dev is None else evaluate,
    )
    fitted = fit(phases, vocabulary.narrow(params), loop, workdir, settings)
    return replace(fitted, params=vocabulary.widen(fitted.params))


def make_phases(
    model: ModelConfig, train: Split, config: TrainConfig, buckets: tuple[int, ...], replacement: int, evaluate: Any
) -> list[Phase]:
    """Returns the phases of a run: "pretrain" on next tokens and "distill" from a linear teacher where asked for, then
    "finetune" on the classes.

    `replacement` is the token id that token dropout puts in, `evaluate` what evaluates parameters on dev, or None.
    """
    if config.pretrain_epochs and not model.tie_word_embeddings:
        raise UserError("train.pretrain_epochs needs a model with tie_word_embeddings=true")
    if not family_of(model).causal and (config.pretrain_epochs or config.distill.steps):
        raise UserError(
            f"train.pretrain_epochs and train.distill_steps learn from every prefix of a text, and a {model.family} "
            "reads texts as a whole: set both to 0"
        )
    seed, size, steps = 2 * config.seed, config.batch_size, config.distill.steps
    phases = []
    if config.pretrain_epochs:
        task = _pretraining(model, train, config.pretrain_batch_size, buckets, seed)
        phases.append(Phase(task, config.pretrain_epochs * task.epoch_steps, config.pretrain_optimizer))
    if steps:
        teach = partial(
            fit_teacher,
            train.encoded,
            train.labels_N,
            model.num_labels,
            model.vocab_size,
            config.distill.turning_tokens,
        )
        task = distillation_task(model, teach, train.encoded, size, steps, seed, evaluate)
        phases.append(Phase(task, steps, config.optimizer, config.ema_decay, config.eval_every))
    if config.epochs:
        if config.lesson is None:
            loss = classification_loss(model, config.label_smoothing, config.token_dropout, replacement)
        else:
            loss = lesson_loss(model, config.lesson, "classifier")
        task = classification_task(model, train, size, buckets, seed + 1, loss, evaluate)
        phases.append(
            Phase(task, config.epochs * task.epoch_steps, config.optimizer, config.ema_decay, config.eval_every)
        )
    return phases


def _pretraining(model: ModelConfig, train: Split, batch_size: int, buckets: tuple[int, ...], seed: int) -> Task:
    """Next tokens of the texts that are classified later, each text by itself."""
    return Task(
        name="pretrain",
        loss=lm_loss(model),
        batches=partial(train_batches, train.encoded, train.labels_N, batch_size, buckets, seed),
        epoch_steps=steps_per_epoch(len(train), batch_size),
        work=lambda batch: work(batch, model, "lm"),
        where=lambda batch: rows_named(batch, train.places),
    )
