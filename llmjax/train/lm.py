"""Causal language modelling as a task: packed windows of a stream of tokens; perplexity and samples on dev."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from llmjax.data.batches import Batch
from llmjax.data.packing import Windows, packed_batches, windows_in_order, windows_per_epoch
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.parallel.layout import place_rows
from llmjax.train.lesson import Lesson, lesson_loss
from llmjax.train.losses import next_token_loss
from llmjax.train.speed import train_flops
from llmjax.train.task import Evaluated, LossFn, Params, Task, Work


class Stream(NamedTuple):
    """The tokens of texts one after the other, and the bytes in UTF-8 of those texts."""

    tokens_T: Int32[np.ndarray, "T"]
    size: int


def lm_task(
    model: ModelConfig,
    train: Stream,
    length: int,
    batch_size: int,
    seed: int,
    evaluate: Callable[[Params], Evaluated] | None = None,
    lesson: Lesson | None = None,
) -> Task:
    """Returns the task "lm": to predict every token of windows of `length` tokens, none of them padding.

    lesson: what is learnt of a teacher beside them.
    """
    length = min(length, len(train.tokens_T) - 1)
    tokens = batch_size * length
    taken = Work(tokens, train_flops(model, "lm", batch_size, tokens, length))
    return Task(
        name="lm",
        loss=window_loss(model) if lesson is None else lesson_loss(model, lesson, "lm"),
        batches=partial(packed_batches, train.tokens_T, length, batch_size, seed),
        epoch_steps=-(-windows_per_epoch(len(train.tokens_T), length) // batch_size),
        work=lambda batch: taken,
        where=lambda batch: f"the windows that begin at tokens {', '.join(map(str, batch.starts_B.tolist()))} of train",
        evaluate=evaluate,
        about=f"windows of {length} tokens, {batch_size} a step",
    )


def window_loss(model: ModelConfig) -> LossFn:
    """Returns the mean cross-entropy of every token that follows one of a window, and the accuracy."""
    lm = make_model(model, "lm")

    def loss_fn(params: Params, batch: Windows, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BLV: Any = lm.apply({"params": params}, batch.tokens_BL, deterministic=False, rngs={"dropout": key})
        return next_token_loss(logits_BLV, batch.targets_BL, batch.weights_BL)

    return loss_fn


def lm_loss(config: ModelConfig) -> LossFn:
    """Returns the mean next-token cross-entropy over real tokens, and the accuracy of the likeliest next token."""
    model = make_model(config, "lm")

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BLV: Any = model.apply(
            {"params": params}, batch.tokens_BL, batch.mask_BL, deterministic=False, rngs={"dropout": key}
        )
        logits_BLV = logits_BLV[:, :-1]
        targets_BL = batch.tokens_BL[:, 1:]
        real_BL = batch.mask_BL[:, 1:] & batch.mask_BL[:, :-1]
        weights_BL = real_BL * batch.weights_B[:, None]
        return next_token_loss(logits_BLV, targets_BL, weights_BL)

    return loss_fn


def evaluation(
    model: ModelConfig,
    dev: Stream,
    length: int,
    batch_size: int,
    sample: Callable[[Params], Sequence[str]] | None = None,
) -> Callable[[Params], Evaluated] | None:
    """Returns what evaluates parameters on `dev`: each of its tokens but the first is predicted once.

    Windows do not overlap, so that a token has `length / 2` tokens before it in the mean. Bits per byte is the
    information of all predicted tokens over the bytes of the texts: models of different tokenizers compare by it.

    Args:
        sample: parameters -> texts to show and to keep with each evaluation.

    Returns:
        None where dev has fewer than two tokens.
    """
    if len(dev.tokens_T) < 2:
        return None
    length = min(length, len(dev.tokens_T) - 1)
    loss = jax.jit(partial(_quiet_loss, make_model(model, "lm")))

    def evaluate(params: Params) -> Evaluated:
        nats, hits, tokens = 0.0, 0.0, 0
        for batch in windows_in_order(dev.tokens_T, length, batch_size):
            count = int(batch.weights_BL.sum())
            mean, accuracy = loss(params, place_rows(batch))
            nats, hits, tokens = nats + float(mean) * count, hits + float(accuracy) * count, tokens + count
        mean = nats / tokens
        figures: dict[str, Any] = {"loss": mean, "accuracy": hits / tokens, "perplexity": math.exp(min(mean, 700.0))}
        figures["bits_per_byte"] = nats / math.log(2) / dev.size
        said = f"dev perplexity {figures['perplexity']:,.2f}, {figures['bits_per_byte']:.4f} bits per byte"
        texts = list(sample(params)) if sample is not None else []
        return Evaluated(
            value=-mean,
            figures=figures | ({"samples": texts} if texts else {}),
            brief=f"dev ppl {figures['perplexity']:,.1f}",
            text="\n".join([said, *(f"  {text!r}" for text in texts)]),
        )

    return evaluate


def _quiet_loss(lm: Any, params: Params, batch: Windows) -> tuple[jax.Array, jax.Array]:
    logits_BLV: Any = lm.apply({"params": params}, batch.tokens_BL)
    return next_token_loss(logits_BLV, batch.targets_BL, batch.weights_BL)
