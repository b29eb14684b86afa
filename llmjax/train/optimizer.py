"""AdamW with a learning-rate schedule, clipping, weight decay by path and gradient accumulation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from llmjax.errors import UserError, did_you_mean

SCHEDULES = ("cosine", "linear", "constant")
Around = Callable[[optax.GradientTransformation, int], optax.GradientTransformation]
"""(optimizer, updates in all) -> an optimizer that does more."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) and what surrounds it.

    learning_rate: the peak, reached after `warmup_fraction` of all updates and then brought down by `schedule` to
        `final_fraction` of the peak.
    weight_decay: of the matrices; biases and layer norms never decay, embeddings only with `decay_embeddings`.
    clip_norm: the gradient is scaled down to this global norm; 0 = no clipping.
    accumulate: batches whose mean gradient makes one update.
    """

    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_fraction: float = 0.06
    final_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay_embeddings: bool = False
    clip_norm: float = 1.0
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            near = did_you_mean(self.schedule, SCHEDULES)
            raise UserError(f"optimizer.schedule is {self.schedule!r}: it must be one of {', '.join(SCHEDULES)}.{near}")
        for name in ("warmup_fraction", "final_fraction", "b1", "b2"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}: it must be in [0, 1]")
        for name in ("learning_rate", "eps"):
            if not getattr(self, name) > 0:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}: it must be above 0")
        for name in ("weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}: it must be 0 (off) or more")
        if self.accumulate < 1:
            raise UserError(f"optimizer.accumulate is {self.accumulate}: it must be 1 (off) or more")


def make_schedule(config: OptimizerConfig, total_updates: int) -> optax.Schedule:
    """Returns the learning rate as a function of the update's number, counted from 0.

    It rises linearly over the first `warmup_fraction * total_updates` updates (the first one already moves), then falls
    to `final_fraction` of the peak, which it would reach at update `total_updates`.
    """
    warmup = round(config.warmup_fraction * total_updates)
    falling = max(1, total_updates - warmup)

    def schedule(count: Any) -> jax.Array:
        count = jnp.asarray(count, jnp.float32)
        progress = jnp.clip((count - warmup) / falling, 0.0, 1.0)
        if config.schedule == "cosine":
            fall = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        elif config.schedule == "linear":
            fall = 1.0 - progress
        else:
            fall = jnp.ones_like(progress)
        fall = config.final_fraction + (1.0 - config.final_fraction) * fall if config.schedule != "constant" else fall
        return config.learning_rate * jnp.minimum(1.0, (count + 1.0) / max(1, warmup)) * fall

    return schedule


def decay_mask(params: Any, decay_embeddings: bool) -> Any:
    """Returns a tree of booleans like `params`: true where weight decay applies, told from the leaf's name."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = path[-1].key
        return name == "kernel" or (name == "embedding" and decay_embeddings)

    return jax.tree_util.tree_map_with_path(decays, params)


def written(tree: Any) -> Any:
    """Returns `tree`; on a CPU, what uses it reads it from memory instead of computing it again.

    XLA's CPU compiler gives each output its own loop and fuses a value into every loop that uses it. A loop that
    computes a new moment once more reads the old one, which then can't be overwritten in place: it is copied first.
    """
    return lax.platform_dependent(tree, cpu=lax.optimization_barrier, default=lambda tree: tree)


def global_norm(tree: Any) -> jax.Array:
    """Returns the Euclidean norm of all leaves as one vector."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` by one factor for all leaves, which every use of a gradient can multiply by.

    A division by leaf would be written to memory: it is too dear to be done in each loop that uses it.
    """

    def clip(updates: Any, params: Any = None) -> Any:
        del params
        factor = most / jnp.maximum(most, global_norm(updates))
        return jax.tree.map(lambda leaf: leaf * factor, updates)

    return optax.stateless(clip)


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """`optax.scale_by_adam` whose moments are `written` before the update is computed from them."""
    first = optax.scale_by_adam(b1, b2, eps)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        mu, nu = written((mu, nu))
        count = optax.safe_increment(state.count)
        mean = optax.tree.bias_correction(mu, b1, count)
        square = optax.tree.bias_correction(nu, b2, count)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mean, square)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(first.init, update)


def make_optimizer(
    config: OptimizerConfig, total_steps: int, around: Around | None = None
) -> optax.GradientTransformation:
    """Returns the optimizer for a run of `total_steps` batches, which is `total_steps // accumulate` updates.

    around: what is to see every update, such as one that chooses ranks.
    """
    updates = max(1, total_steps // config.accumulate)
    transformations = [clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    adamw = optax.chain(
        scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, lambda params: decay_mask(params, config.decay_embeddings)),
        optax.scale_by_learning_rate(make_schedule(config, updates)),
    )
    optimizer = optax.chain(*transformations, adamw)
    optimizer = optimizer if around is None else around(optimizer, updates)
    if config.accumulate == 1:
        return optimizer
    return optax.MultiSteps(optimizer, config.accumulate).gradient_transformation()
