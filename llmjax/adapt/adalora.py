"""AdaLoRA: triplets (a column of P, lambda, a row of Q) beside every weight, of which the important ones stay.

W + s P diag(lambda) Q. Source: Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient
Fine-Tuning"; equations are its. P, lambda and Q are `lora_a`, `lora_e` and `lora_b`. Shape letters: D inputs, E
outputs, R rank, N triplets of all weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from llmjax.adapt.lora import A, B, E, check_rank
from llmjax.models.params import At, Params, flat_tree, nested_tree
from llmjax.train.optimizer import Around

STD = 0.02  # of P and Q at first, as peft draws them
SMOOTHING = 0.85  # beta_1 and beta_2, section 4.1
WARM, FINAL = 0.1, 0.35  # of all updates: before pruning begins, and after it has ended (table 8 has 0.1 and 0.37)
CHOICES = 100  # times at which triplets are chosen, at most: between them the pruned ones may come back


@dataclass(frozen=True)
class Budget:
    """How many triplets there are at first, and in the end."""

    first: int
    last: int

    def at(self, step: jax.Array, updates: int) -> jax.Array:
        """Returns how many are kept after update `step` of `updates`, equation 12: a cubic fall between plateaus."""
        warm, end = round(WARM * updates), updates - round(FINAL * updates)
        left = 1.0 - jnp.clip((step - warm) / max(1, end - warm), 0.0, 1.0)
        return jnp.floor(self.last + (self.first - self.last) * left**3).astype(jnp.int32)


class Allocation(NamedTuple):
    """The allocator's state: the optimizer's, updates made, smoothed importance, its uncertainty, and what is kept."""

    inner: Any
    count: jax.Array
    importance: Params
    uncertainty: Params
    kept: Params


def draw(shapes: Mapping[At, tuple[int, ...]], rank: int, key: jax.Array) -> Params:
    """Returns triplets beside weights of `shapes` [..., D, E]: P and Q normal, lambda zero: nothing is added."""
    drawn = {}
    for number, (at, shape) in enumerate(sorted(shapes.items())):
        check_rank(rank, at, shape)
        *stacked, inputs, outputs = shape
        a_key, b_key = jax.random.split(jax.random.fold_in(key, number))
        drawn[(*at, A)] = STD * jax.random.normal(a_key, (*stacked, inputs, rank))
        drawn[(*at, B)] = STD * jax.random.normal(b_key, (*stacked, rank, outputs))
        drawn[(*at, E)] = jnp.zeros((*stacked, rank))
    return nested_tree(drawn)


def orthogonality(trained: Params) -> jax.Array:
    """Returns ||P'P - I||^2 + ||QQ' - I||^2, the mean over all weights: equation 4."""
    found = []
    for at, leaf in flat_tree(trained).items():
        if at[-1] in (A, B):
            rows = jnp.swapaxes(leaf, -1, -2) if at[-1] == A else leaf
            gram = jnp.einsum("...rd,...sd->...rs", rows, rows)
            found.append(jnp.mean(jnp.sum(jnp.square(gram - jnp.eye(gram.shape[-1])), axis=(-1, -2))))
    return 2.0 * jnp.mean(jnp.stack(found))


def allocator(budget: Budget) -> Around:
    """Returns what wraps an optimizer so that the budget's triplets survive: the lambdas of the others become zero."""

    def around(optimizer: optax.GradientTransformation, updates: int) -> optax.GradientTransformation:
        warm, end = round(WARM * updates), updates - round(FINAL * updates)
        every = max(1, (end - warm) // CHOICES)

        def init(params: Params) -> Allocation:
            # Each of its own arrays: a step that donates its state must not be given one twice.
            importance, uncertainty = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
            kept = nested_tree({at: jnp.ones(e.shape, bool) for at, e in _lambdas(params).items()})
            return Allocation(optimizer.init(params), jnp.zeros((), jnp.int32), importance, uncertainty, kept)

        def update(grads: Params, state: Allocation, params: Params | None = None) -> tuple[Params, Allocation]:
            assert params is not None
            changed, inner = optimizer.update(grads, state.inner, params)
            changes: Any = changed
            step = state.count + 1
            now = jax.tree.map(lambda p, g: jnp.abs(p * g), params, grads)  # equation 8
            importance = _smoothed(state.importance, now)
            apart = jax.tree.map(lambda i, mean: jnp.abs(i - mean), now, importance)
            uncertainty = _smoothed(state.uncertainty, apart)
            due = (step > warm) & (step <= end) & (((step - warm) % every == 0) | (step == end))
            kept = jax.lax.cond(
                due, lambda: _best(importance, uncertainty, budget.at(step, updates)), lambda: state.kept
            )
            chooses = due | (step > end)
            flat, olds, choice = flat_tree(changes), flat_tree(params), flat_tree(kept)
            for at in choice:
                flat[at] = jnp.where(chooses & ~choice[at], -olds[at], flat[at])
            return nested_tree(flat), Allocation(inner, step, importance, uncertainty, kept)

        return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]

    return around


def finished(trained: Params, budget: Budget) -> Params:
    """Returns trained parameters with the budget's last number of triplets, those of the largest |lambda| |P| |Q|.

    Nothing changes where the run ended with them. The best evaluation may have come before, or a moving average hold
    what is left of others.
    """
    parts = flat_tree(trained)
    sizes = {}
    for at, e in _lambdas(trained).items():
        norms = jnp.linalg.norm(parts[(*at[:-1], A)], axis=-2) * jnp.linalg.norm(parts[(*at[:-1], B)], axis=-1)
        sizes[at] = jnp.abs(e) * norms
    kept = _largest(sizes, jnp.int32(budget.last))
    return nested_tree(parts | {at: jnp.where(kept[at], parts[at], 0.0) for at in kept})


def ranks(trained: Params) -> dict[str, int]:
    """Returns how many triplets of each weight are in use, by its module's path; of stacked layers, of all together."""
    return {"/".join(at[:-1]): int(jnp.count_nonzero(e)) for at, e in _lambdas(trained).items()}


def _lambdas(trained: Params) -> dict[At, jax.Array]:
    return {at: leaf for at, leaf in flat_tree(trained).items() if at[-1] == E}


def _smoothed(mean: Params, now: Params) -> Params:
    return jax.tree.map(lambda old, new: SMOOTHING * old + (1.0 - SMOOTHING) * new, mean, now)


def _best(importance: Params, uncertainty: Params, count: jax.Array) -> Params:
    """Returns which triplets are among the `count` best: equation 10, of scores that are importance x uncertainty."""
    scores = flat_tree(jax.tree.map(jnp.multiply, importance, uncertainty))
    triplets = {
        at: e + jnp.mean(scores[(*at[:-1], A)], axis=-2) + jnp.mean(scores[(*at[:-1], B)], axis=-1)
        for at, e in scores.items()
        if at[-1] == E
    }
    return nested_tree(_largest(triplets, count))


def _largest(values: Mapping[At, Float[Array, "..."]], count: jax.Array) -> dict[At, jax.Array]:
    """Returns which values are among the `count` largest of all; of equal ones the first are, so the count is exact."""
    every_N = jnp.concatenate([value.ravel() for value in values.values()])
    place_N = jnp.zeros(len(every_N), jnp.int32).at[jnp.argsort(-every_N, stable=True)].set(jnp.arange(len(every_N)))
    within_N, start, found = place_N < count, 0, {}
    for at, value in values.items():
        found[at] = within_N[start : start + value.size].reshape(value.shape)
        start += value.size
    return found
