"""One training step as a pure function: (state, batch) -> (state, metrics)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from llmjax.parallel.layout import Table, divided
from llmjax.train.optimizer import OptimizerConfig, global_norm, make_optimizer, make_schedule, written
from llmjax.train.task import LossFn, Params, Tuning


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


TrainStep = Callable[..., tuple[TrainState, StepMetrics]]


def init_state(params: Params, optimizer: optax.GradientTransformation, seed: int, use_ema: bool) -> TrainState:
    """Returns the state before the first step. The leaves are copies, so that donating them leaves `params` alone."""
    params = jax.tree.map(jnp.array, params)
    ema = jax.tree.map(jnp.array, params) if use_ema else None
    # The key is drawn from at every dropout, and XLA's own generator is several times cheaper there than threefry.
    key = jax.random.key(seed, impl="unsafe_rbg")
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params), key)


def make_train_step(
    loss_fn: LossFn,
    config: OptimizerConfig,
    total_steps: int,
    first_step: int = 0,
    ema_decay: float = 0.0,
    table: Table = (),
    *,
    tuning: Tuning | None = None,
) -> TrainStep:
    """Returns the pure `train_step(state, batch) -> (state, metrics)` of a phase of `total_steps` from `first_step` on.

    With a `tuning` it is `train_step(state, batch, frozen)`; gradients are taken of what is trained alone.

    A loss or gradient norm that is not finite leaves parameters, average and optimizer as they were, and says so. The
    average moves at real updates only, by min(`ema_decay`, (1 + n) / (10 + n)) after n of them, so that it forgets the
    first parameters fast. On a mesh `table` says where gradients and the new state lie.
    """
    optimizer = make_optimizer(config, total_steps, tuning.around if tuning else None)
    schedule = make_schedule(config, max(1, total_steps // config.accumulate))

    def whole_loss(trained: Params, frozen: Params | None, batch: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        if tuning is None:
            return loss_fn(trained, batch, key)
        loss_key, join_key = jax.random.split(key)
        loss, accuracy = loss_fn(tuning.join(frozen or {}, trained, join_key), batch, loss_key)
        return loss if tuning.penalty is None else loss + tuning.penalty(trained), accuracy

    def train_step(state: TrainState, batch: Any, frozen: Params | None = None) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, accuracy), grads = jax.value_and_grad(whole_loss, has_aux=True)(state.params, frozen, batch, key)
        grads = divided(grads, table)
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
        return divided(TrainState(state.step + 1, params, ema, opt_state, state.key), table), metrics

    return train_step
