import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.adapt import adalora
from llmjax.adapt.adalora import Budget, allocator, finished, orthogonality, ranks
from llmjax.models.params import flat_tree, nested_tree

MOST = 400
SHAPES = {("one",): (8, 6), ("two",): (6, 10), ("three", "in"): (7, 7)}


def triplets(rank: int = 4, seed: int = 0):
    drawn = flat_tree(adalora.draw(SHAPES, rank, jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(drawn))
    lambdas = {at: jax.random.normal(key, leaf.shape) for key, (at, leaf) in zip(keys, drawn.items(), strict=True)}
    return nested_tree(drawn | {at: leaf for at, leaf in lambdas.items() if at[-1] == "lora_e"})


@given(first=st.integers(1, 500), cut=st.floats(0, 1), updates=st.integers(1, MOST))
def test_the_budget_falls_from_the_first_to_the_last_and_stays(first: int, cut: float, updates: int) -> None:
    budget = Budget(first, max(1, round(first * cut)))
    kept = np.asarray(budget.at(jnp.arange(MOST + 1), updates))[: updates + 1]
    assert kept[0] == budget.first and kept[-1] == budget.last
    assert (np.diff(kept) <= 0).all()
    final = round(adalora.FINAL * updates)
    assert (kept[updates - final :] == budget.last).all()


def test_the_important_triplets_survive_and_their_number_is_exact() -> None:
    # The loss pulls on one weight's lambdas alone: they are the important ones.
    params, updates = triplets(), 60
    budget = Budget(12, 5)
    optimizer = allocator(budget)(optax.sgd(0.05), updates)
    target = 3.0 * jnp.ones(4)

    def loss(params):
        rest = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.sum((params["two"]["lora_e"] - target) ** 2) + 1e-4 * rest

    @jax.jit
    def step(params, state):
        changes, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, changes), state

    state, counts = optimizer.init(params), []
    for _ in range(updates):
        params, state = step(params, state)
        counts.append(sum(ranks(params).values()))
    final = round(adalora.FINAL * updates)
    assert counts[0] == 12 and counts[-final:] == [5] * final
    assert ranks(params)["two"] == 4
    jax.tree.map(np.testing.assert_array_equal, finished(params, budget), params)


@given(kept=st.integers(0, 12), seed=st.integers(0, 50))
def test_finished_keeps_exactly_the_largest(kept: int, seed: int) -> None:
    params = triplets(seed=seed)
    done = finished(params, Budget(12, kept))
    assert sum(ranks(done).values()) == kept
    parts, left = flat_tree(params), flat_tree(done)
    sizes = {
        at: np.abs(parts[(*at, "lora_e")])
        * np.linalg.norm(parts[(*at, "lora_a")], axis=0)
        * np.linalg.norm(parts[(*at, "lora_b")], axis=1)
        for at in SHAPES
    }
    inside = np.concatenate([sizes[at][np.asarray(left[(*at, "lora_e")]) != 0] for at in SHAPES])
    outside = np.concatenate([sizes[at][np.asarray(left[(*at, "lora_e")]) == 0] for at in SHAPES])
    assert not len(inside) or not len(outside) or inside.min() >= outside.max()


def test_equal_triplets_are_kept_to_the_exact_number_too() -> None:
    same = jax.tree.map(jnp.ones_like, triplets())
    assert sum(ranks(finished(same, Budget(12, 7))).values()) == 7


def test_orthogonality_is_zero_of_orthogonal_matrices_alone_and_falls_under_its_own_gradient() -> None:
    turned = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (8, 4)))[0]
    exact = {"one": {"lora_a": turned, "lora_b": turned.T, "lora_e": jnp.ones(4)}}
    assert orthogonality(exact) == pytest.approx(0.0, abs=1e-10)
    params = triplets()
    before = orthogonality(params)

    def down(_, params):
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, jax.grad(orthogonality)(params))

    assert orthogonality(jax.jit(lambda p: jax.lax.fori_loop(0, 200, down, p))(params)) < 1e-2 * before
