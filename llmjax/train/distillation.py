"""Distillation as a task: a teacher in, texts of which every prefix is learnt from out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from llmjax.data.tokenizer import Encoded
from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.train.speed import train_flops
from llmjax.train.task import Evaluated, LossFn, Params, Task, Work
from llmjax.train.teacher import TaughtBatch, Teacher, taught_batches


@dataclass(frozen=True)
class DistillConfig:
    """How a classifier learns from a linear teacher (llmjax/train/teacher.py) before it learns the labels.

    steps: batches of made-up texts; 0 = none. Smoothing and token dropout are for labels.
    turning_tokens: ids of tokens such as "but": what stands before them counts for half to the teacher.
    """

    steps: int = 0
    turning_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError(f"train.distill_steps is {self.steps}: it must be 0 or more")


def distillation_task(
    model: ModelConfig,
    teach: Callable[[], Teacher],
    texts: Encoded,
    batch_size: int,
    steps: int,
    seed: int,
    evaluate: Callable[[Params], Evaluated] | None,
) -> Task:
    """Returns the task "distill": the answers of a teacher on texts made up of `texts`.

    `teach` makes the teacher, which takes a while, when its first batch is asked for. An epoch is a tenth of `steps`.
    """

    def batches(start: int) -> Iterator[TaughtBatch]:
        return taught_batches(teach(), texts, batch_size, model.context, seed, start)

    def work(batch: TaughtBatch) -> Work:
        rows, length = batch.tokens_BL.shape
        return Work(rows * length, train_flops(model, "classifier", rows, rows * length, length))

    return Task(
        name="distill",
        loss=distillation_loss(model),
        batches=batches,
        epoch_steps=-(-steps // 10),
        work=work,
        where=lambda batch: "the made-up texts of this step",
        evaluate=evaluate,
        about="fitting the linear teacher to the training texts",
    )


def distillation_loss(config: ModelConfig) -> LossFn:
    """Returns the mean cross-entropy against the teacher's probabilities at every token, and the share of agreement."""
    trunk = make_model(config, "none")

    def loss_fn(params: Params, batch: TaughtBatch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        apply = {"deterministic": False, "rngs": {"dropout": key}}
        hidden_BLD: Any = trunk.apply({"params": params}, jnp.asarray(batch.tokens_BL), **apply)
        logits_BLC = hidden_BLD @ params["score"]["kernel"]
        targets_BLC = jnp.asarray(batch.targets_BLC)
        agree_BL = jnp.argmax(logits_BLC, axis=-1) == jnp.argmax(targets_BLC, axis=-1)
        return jnp.mean(optax.softmax_cross_entropy(logits_BLC, targets_BLC)), jnp.mean(agree_BL.astype(jnp.float32))

    return loss_fn
