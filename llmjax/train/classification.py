"""Classification as a task: labelled texts in padded batches, cross-entropy with smoothed labels, figures on dev."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Int32

from llmjax.data.batches import Batch, eval_batches, steps_per_epoch, train_batches
from llmjax.data.files import Places
from llmjax.data.tokenizer import Encoded
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.parallel.layout import place_rows
from llmjax.parallel.processes import fetched
from llmjax.train.losses import weighted_mean
from llmjax.train.metrics import evaluate_logits
from llmjax.train.speed import train_flops
from llmjax.train.task import Evaluated, LossFn, Params, Task, Work

METRICS = ("accuracy", "macro_f1", "loss")

Predict = Callable[[Params, np.ndarray, np.ndarray], jax.Array]


@dataclass(frozen=True)
class Split:
    """Tokenised texts with their classes, and where they stand in their source, if that is known."""

    encoded: Encoded
    labels_N: Int32[np.ndarray, "N"]
    places: Places | None = None

    def __len__(self) -> int:
        return len(self.labels_N)


def classification_task(
    model: ModelConfig,
    train: Split,
    batch_size: int,
    buckets: tuple[int, ...],
    seed: int,
    loss: LossFn,
    evaluate: Callable[[Params], Evaluated] | None,
) -> Task:
    """Returns the task "finetune": the labels of `train`, an epoch being every text once."""
    return Task(
        name="finetune",
        loss=loss,
        batches=partial(train_batches, train.encoded, train.labels_N, batch_size, buckets, seed),
        epoch_steps=steps_per_epoch(len(train), batch_size),
        work=lambda batch: work(batch, model, "classifier"),
        where=lambda batch: rows_named(batch, train.places),
        evaluate=evaluate,
        about=f"padded lengths {', '.join(map(str, buckets))}",
    )


def work(batch: Batch, model: ModelConfig, head: str) -> Work:
    """Returns the real tokens of a padded batch, and what training on them takes."""
    rows, tokens = int(np.count_nonzero(batch.rows_B >= 0)), int(batch.mask_BL[batch.rows_B >= 0].sum())
    return Work(tokens, train_flops(model, head, rows, tokens, batch.tokens_BL.shape[1]))


def rows_named(batch: Batch, places: Places | None) -> str:
    """Returns which texts a batch holds, in words."""
    rows = [int(row) for row in batch.rows_B if row >= 0]
    return places.named(rows) if places else f"rows {', '.join(map(str, rows))} of train, counted from 0"


def drop_tokens(
    tokens_BL: Int[Array, "B L"], mask_BL: Bool[Array, "B L"], rate: float, replacement: int, key: jax.Array
) -> Int[Array, "B L"]:
    """Replaces each real token by `replacement` with probability `rate` (to a multiple of 2**-16).

    Word dropout as in Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods".
    """
    if rate == 0.0:
        return tokens_BL
    drop_BL = jax.random.bits(key, tokens_BL.shape, jnp.uint16) < jnp.uint16(round(rate * 2**16))
    return jnp.where(drop_BL & mask_BL, replacement, tokens_BL)


def classification_loss(config: ModelConfig, label_smoothing: float, token_dropout: float, replacement: int) -> LossFn:
    """Returns the weighted mean cross-entropy of the classifier, with smoothed labels, and its accuracy."""
    model = make_model(config, "classifier")

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        token_key, dropout_key = jax.random.split(key)
        mask_BL = jnp.asarray(batch.mask_BL)
        tokens_BL = drop_tokens(jnp.asarray(batch.tokens_BL), mask_BL, token_dropout, replacement, token_key)
        apply = {"deterministic": False, "rngs": {"dropout": dropout_key}}
        targets_BC = jax.nn.one_hot(batch.labels_B, config.num_labels)
        targets_BC = targets_BC * (1.0 - label_smoothing) + label_smoothing / config.num_labels
        logits_BC: Any = model.apply({"params": params}, tokens_BL, mask_BL, **apply)
        loss_B = optax.softmax_cross_entropy(logits_BC, targets_BC)
        correct_B = (jnp.argmax(logits_BC, axis=-1) == batch.labels_B).astype(jnp.float32)
        return weighted_mean(loss_B, batch.weights_B), weighted_mean(correct_B, batch.weights_B)

    return loss_fn


def make_predict(model: ModelConfig) -> Predict:
    """Returns the compiled classifier of `model`: (params, tokens_BL, mask_BL) -> logits_BC."""
    classifier = make_model(model, "classifier")
    return jax.jit(lambda params, tokens_BL, mask_BL: classifier.apply({"params": params}, tokens_BL, mask_BL))


def predict_logits(
    predict: Predict, params: Params, encoded: Encoded, batch_size: int, buckets: tuple[int, ...]
) -> Float[np.ndarray, "N C"]:
    """Returns the logits of every text, in the order of the texts."""
    batches: Iterator[Batch] = eval_batches(encoded, None, batch_size, buckets)
    found = [(batch.rows_B, predict(params, *place_rows((batch.tokens_BL, batch.mask_BL)))) for batch in batches]
    rows_N = np.concatenate([rows_B for rows_B, _ in found])
    logits_NC = np.concatenate([fetched(logits_BC) for _, logits_BC in found])
    return logits_NC[rows_N >= 0][np.argsort(rows_N[rows_N >= 0])]


def evaluation(
    model: ModelConfig, dev: Split, batch_size: int, buckets: tuple[int, ...], metric: str
) -> Callable[[Params], Evaluated] | None:
    """Returns what evaluates whole parameters on `dev` by a metric of `METRICS`; None where dev is empty."""
    if not len(dev):
        return None
    predict = make_predict(model)

    def evaluate(params: Params) -> Evaluated:
        logits_NC = predict_logits(predict, params, dev.encoded, batch_size, buckets)
        found = evaluate_logits(logits_NC, dev.labels_N, model.label_names)
        names = ("loss", "accuracy", "macro_f1", "calibration_error")
        return Evaluated(
            value=-found.loss if metric == "loss" else getattr(found, metric),
            figures={name: getattr(found, name) for name in names},
            brief=f"dev {found.accuracy:.3f}",
            text=f"dev accuracy {found.accuracy:.4f}, dev loss {found.loss:.4f}",
        )

    return evaluate
