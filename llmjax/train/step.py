"""One training step as a pure function: (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Int32

from llmjax.data.batches import Batch
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.params import Params
from llmjax.train.optimizer import OptimizerConfig, global_norm, make_optimizer, make_schedule, written
from llmjax.train.teacher import TaughtBatch

LossFn = Callable[[Params, Any, jax.Array], tuple[jax.Array, jax.Array]]
"""(params, batch, key) -> (loss, accuracy), both scalars in float32; the batch is of the kind that the loss reads."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that training changes, and the key that it never changes: step s draws from `fold_in(key, s)`.

    `ema` is the exponential moving average of `params`, or None where it is off.
    """

    step: Int32[Array, ""]
    params: Params
    ema: Params | None
    opt_state: Any
    key: jax.Array


class StepMetrics(NamedTuple):
    """What one step reports, all scalars; where loss or gradient norm is not `finite`, nothing was updated."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    finite: Bool[Array, ""]


TrainStep = Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]


def init_state(params: Params, optimizer: optax.GradientTransformation, seed: int, use_ema: bool) -> TrainState:
    """Returns the state before the first step. The leaves are copies, so that donating them leaves `params` alone."""
    params = jax.tree.map(jnp.array, params)
    ema = jax.tree.map(jnp.array, params) if use_ema else None
    # The key is drawn from at every dropout, and XLA's own generator is several times cheaper there than threefry.
    key = jax.random.key(seed, impl="unsafe_rbg")
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params), key)


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


def weighted_mean(values: ArrayLike, weights: ArrayLike) -> jax.Array:
    """Returns sum(values * weights) / sum(weights); 0 where all weights are 0."""
    return jnp.sum(jnp.multiply(values, weights)) / jnp.maximum(jnp.sum(weights), 1e-8)


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
        loss_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, targets_BL)
        correct_BL = (jnp.argmax(logits_BLV, axis=-1) == targets_BL).astype(jnp.float32)
        return weighted_mean(loss_BL, weights_BL), weighted_mean(correct_BL, weights_BL)

    return loss_fn


def make_train_step(
    loss_fn: LossFn, config: OptimizerConfig, total_steps: int, first_step: int = 0, ema_decay: float = 0.0
) -> TrainStep:
    """Returns the pure `train_step(state, batch) -> (state, metrics)` of a phase of `total_steps` from `first_step` on.

    A loss or gradient norm that is not finite leaves parameters, average and optimizer as they were, and says so. The
    average moves at real updates only, by min(`ema_decay`, (1 + n) / (10 + n)) after n of them, so that it forgets the
    first parameters fast.
    """
    optimizer = make_optimizer(config, total_steps)
    schedule = make_schedule(config, max(1, total_steps // config.accumulate))

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, accuracy), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, batch, key)
        grad_norm = global_norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        done = state.step - first_step

        def updated() -> tuple[Params, Params | None, Any]:
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            if state.ema is None:
                return params, None, opt_state
            params = written(params)
            count = done // config.accumulate
            decay = jnp.minimum(ema_decay, (1.0 + count) / (10.0 + count))
            if config.accumulate > 1:
                decay = jnp.where((done + 1) % config.accumulate == 0, decay, 1.0)
            ema = jax.tree.map(lambda average, new: decay * average + (1.0 - decay) * new, state.ema, params)
            return params, ema, opt_state

        # A condition, not a choice leaf by leaf: the old values are then not needed once the new ones are there.
        params, ema, opt_state = lax.cond(finite, updated, lambda: (state.params, state.ema, state.opt_state))
        metrics = StepMetrics(loss, accuracy, grad_norm, jnp.asarray(schedule(done // config.accumulate)), finite)
        return TrainState(state.step + 1, params, ema, opt_state, state.key), metrics

    return train_step
