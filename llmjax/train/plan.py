"""What a run will do: its settings, and the phases of training that they make."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import jax
import numpy as np
from jaxtyping import Int32

from llmjax.data.batches import Batch, steps_per_epoch, train_batches
from llmjax.data.files import Places
from llmjax.data.tokenizer import Encoded
from llmjax.errors import UserError, did_you_mean
from llmjax.models.config import ModelConfig
from llmjax.train.optimizer import OptimizerConfig
from llmjax.train.step import LossFn, TrainStep, classification_loss, distillation_loss, lm_loss, make_train_step
from llmjax.train.teacher import TaughtBatch, fit_teacher, taught_batches

METRICS = ("accuracy", "macro_f1", "loss")

MakeBatches = Callable[[int], Iterator[Batch] | Iterator[TaughtBatch]]
"""Number of the first batch -> batches from there on."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. A step is one batch; `optimizer.accumulate` of them make one update.

    max_buckets: padded lengths at most; each compiles the step once.
    eval_every: steps between evaluations on dev, each followed by a checkpoint; 0 = once an epoch.
    metric: of the dev split, which chooses the best parameters: accuracy, macro_f1 or loss.
    patience: evaluations without a better metric after which training stops; 0 = never.
    keep: whole states kept on disk, beside the best parameters.
    token_dropout: share of input tokens replaced by the tokenizer's end-of-text (or pad) token.
    ema_decay: of the parameters' moving average, which is then what is evaluated and saved; 0 = off.
    distill_steps: batches of made-up texts that learn from a linear teacher (llmjax/train/teacher.py) before the labels
        are learnt; 0 = none. With them `epochs` may be 0. Smoothing and token dropout are for labels.
    turning_tokens: ids of tokens such as "but": what stands before them counts for half to that teacher.
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
    distill_steps: int = 0
    turning_tokens: tuple[int, ...] = ()
    pretrain_epochs: int = 0
    pretrain_batch_size: int = 32
    pretrain_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if self.epochs < (0 if self.distill_steps else 1):
            raise UserError(
                f"train.epochs is {self.epochs}: it must be 1 or more, or 0 where train.distill_steps is set"
            )
        for name in ("batch_size", "eval_batch_size", "max_buckets", "keep", "pretrain_batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("eval_every", "patience", "distill_steps", "pretrain_epochs", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("label_smoothing", "token_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"train.{name} is {getattr(self, name)}: it must be in [0, 1)")
        if self.metric not in METRICS:
            near = did_you_mean(self.metric, METRICS)
            raise UserError(f"train.metric is {self.metric!r}: it must be one of {', '.join(METRICS)}.{near}")


@dataclass(frozen=True)
class Split:
    """Tokenised texts with their classes, and where they stand in their source, if that is known."""

    encoded: Encoded
    labels_N: Int32[np.ndarray, "N"]
    places: Places | None = None

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True)
class Phase:
    """Consecutive steps of one kind: those after `first_step` made steps, up to `end` made steps.

    `train_step` is compiled once a bucket and donates its state; `batches(k)` yields from the phase's batch k on.
    """

    name: str
    head: str
    first_step: int
    steps: int
    epoch_steps: int
    optimizer: OptimizerConfig
    train_step: TrainStep
    batches: MakeBatches

    @property
    def end(self) -> int:
        return self.first_step + self.steps


def make_phases(
    model: ModelConfig,
    train: Split,
    config: TrainConfig,
    buckets: tuple[int, ...],
    replacement: int,
    turns: tuple[int, ...] = (),
) -> list[Phase]:
    """Returns the phases of a run: "pretrain" on next tokens and "distill" from a linear teacher where asked
    for, then "finetune" on the classes.

    `replacement` is the token id that token dropout puts in, `turns` are the teacher's turning tokens.
    """
    if config.pretrain_epochs and not model.tie_word_embeddings:
        raise UserError("train.pretrain_epochs needs a model with tie_word_embeddings=true")
    seed, size, small_size = 2 * config.seed, config.batch_size, config.pretrain_batch_size
    per_epoch, per_small_epoch = steps_per_epoch(len(train), size), steps_per_epoch(len(train), small_size)
    classify = classification_loss(model, config.label_smoothing, config.token_dropout, replacement)

    def labelled(batch_size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
        return partial(train_batches, train.encoded, train.labels_N, batch_size, buckets, seed)

    def taught(start: int) -> Iterator[TaughtBatch]:
        teacher = fit_teacher(train.encoded, train.labels_N, model.num_labels, model.vocab_size, turns)
        return taught_batches(teacher, train.encoded, size, model.context, seed, start)

    kinds: list[tuple[str, str, LossFn, int, int, OptimizerConfig, float, MakeBatches]] = [
        ("pretrain", "lm", lm_loss(model), config.pretrain_epochs * per_small_epoch, per_small_epoch,
         config.pretrain_optimizer, 0.0, labelled(small_size, seed)),
        ("distill", "classifier", distillation_loss(model), config.distill_steps, -(-config.distill_steps // 10),
         config.optimizer, config.ema_decay, taught),
        ("finetune", "classifier", classify, config.epochs * per_epoch, per_epoch,
         config.optimizer, config.ema_decay, labelled(size, seed + 1)),
    ]  # fmt: skip
    phases: list[Phase] = []
    for name, head, loss_fn, steps, epoch_steps, optimizer, ema_decay, batches in kinds:
        if steps:
            first = phases[-1].end if phases else 0
            step = jax.jit(make_train_step(loss_fn, optimizer, steps, first, ema_decay), donate_argnums=0)
            phases.append(Phase(name, head, first, steps, epoch_steps, optimizer, step, batches))
    return phases
