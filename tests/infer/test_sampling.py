"""Choosing tokens: against sorting, against expected frequencies, against transformers' processors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmjax.errors import UserError
from llmjax.infer import sampling as unjitted
from llmjax.infer.sampling import Sampling, logprob, most_probable

choose = jax.jit(unjitted.choose, static_argnames="plan")
draw, largest = jax.jit(unjitted.draw), jax.jit(unjitted.largest)

# Few shapes, as each is compiled; no denormals, which XLA on a CPU takes for zeros.
LOGITS = arrays.arrays(
    np.float32,
    st.sampled_from([(1, 1), (1, 2), (3, 7), (2, 40)]),
    elements=st.floats(-30, 30, width=32, allow_subnormal=False),
)


@given(LOGITS, st.integers(1, 45))
@settings(deadline=None, max_examples=60)
def test_top_k_is_what_sorting_keeps_equals_included(logits_BV, k):
    kept_BV = np.asarray(largest(jnp.asarray(logits_BV), jnp.ones_like(jnp.asarray(logits_BV)), jnp.int32(k)))
    least_B = np.sort(logits_BV, axis=1)[:, ::-1][:, min(k, logits_BV.shape[1]) - 1]
    np.testing.assert_array_equal(kept_BV, logits_BV >= least_B[:, None])


@given(LOGITS, st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=60)
def test_top_p_is_the_smallest_set_that_holds_the_probability(logits_BV, p):
    probabilities_BV = np.asarray(jax.nn.softmax(logits_BV))
    kept_BV = np.asarray(largest(jnp.asarray(probabilities_BV), jnp.asarray(probabilities_BV), jnp.float32(p)))
    for kept_V, row_V in zip(kept_BV, probabilities_BV.astype(np.float64), strict=True):
        assert row_V[kept_V].sum() >= p - 1e-5
        least = row_V[kept_V].min()
        assert row_V[row_V > least].sum() < p + 1e-5  # without the least probable of them it is too little
        assert not (row_V[~kept_V] >= least).any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 255, 257, 700]))
@settings(deadline=None, max_examples=30)
def test_a_draw_has_weight(seed, size):
    rng = np.random.default_rng(seed)
    weights_BV = (rng.random((4, size)) * (rng.random((4, size)) < 0.2)).astype(np.float32)
    weights_BV[:, rng.integers(size)] += 1e-3
    uniform_B = np.array([0.0, np.nextafter(np.float32(1), np.float32(0)), *rng.random(2)], np.float32)
    index_B = np.asarray(draw(jnp.asarray(weights_BV), jnp.asarray(uniform_B)))
    assert (weights_BV[np.arange(4), index_B] > 0).all()


def test_draws_follow_the_weights():
    weights_V = np.random.default_rng(0).random(600).astype(np.float32) ** 4
    count = 40_000
    uniform_N = jnp.asarray((np.arange(count) + 0.5) / count, jnp.float32)
    index_N = np.asarray(jax.vmap(lambda u: draw(jnp.asarray(weights_V)[None], u[None])[0])(uniform_N))
    frequency_V = np.bincount(index_N, minlength=600) / count
    np.testing.assert_allclose(frequency_V, weights_V / weights_V.sum(), atol=2 / count + 1e-6)


def test_the_first_of_equals_is_the_most_probable():
    np.testing.assert_array_equal(most_probable(jnp.array([[0.0, 2.0, 2.0], [1.0, 1.0, 0.0]])), [1, 0])


def chosen(logits_BV, sampling, rows_B, step, seen_BV=None):
    choice = choose(
        jnp.asarray(logits_BV), seen_BV, jnp.asarray(rows_B), jnp.int32(step), sampling.knobs(), sampling.plan
    )
    return np.asarray(choice)


def test_a_draw_depends_on_seed_row_and_step_and_not_on_the_batch():
    logits_BV = np.zeros((6, 5000), np.float32)
    sampling = Sampling(temperature=1.0, seed=7)
    together = chosen(logits_BV, sampling, np.arange(6), 3)
    assert len(set(together.tolist())) > 3
    assert [chosen(logits_BV[:1], sampling, [row], 3)[0] for row in range(6)] == together.tolist()
    assert (chosen(logits_BV, sampling, np.arange(6), 4) != together).any()
    assert (chosen(logits_BV, Sampling(temperature=1.0, seed=8), np.arange(6), 3) != together).any()


def test_temperature_sharpens_and_flattens():
    logits_BV = np.tile(np.array([[0.0, 1.0]], np.float32), (4000, 1))
    for temperature in (0.5, 1.0, 2.0):
        share = chosen(logits_BV, Sampling(temperature=temperature), np.arange(4000), 0).mean()
        assert share == pytest.approx(1 / (1 + np.exp(-1 / temperature)), abs=0.03)


def test_the_repetition_penalty_lowers_what_was_seen():
    logits_BV = np.array([[3.0, 2.9, -1.0], [-1.0, -1.1, -9.0]], np.float32)
    seen_BV = jnp.array([[True, False, False]] * 2)
    assert chosen(logits_BV, Sampling(), [0, 1], 0).tolist() == [0, 0]
    assert chosen(logits_BV, Sampling(repetition_penalty=1.2), [0, 1], 0, seen_BV).tolist() == [1, 1]


def test_the_kept_tokens_are_those_of_transformers():
    torch = pytest.importorskip("torch", reason="needs the `reference` extra")
    from transformers import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    rng = np.random.default_rng(0)
    logits_BV = rng.normal(0, 3, (1, 400)).astype(np.float32)
    prompt = torch.tensor([[3, 5, 5, 9]])
    scores = torch.from_numpy(logits_BV)
    for step in (RepetitionPenaltyLogitsProcessor(1.7), TemperatureLogitsWarper(0.7), TopKLogitsWarper(30)):
        scores = step(prompt, scores)
    scores = TopPLogitsWarper(0.9)(prompt, scores)
    want_V = torch.softmax(scores, -1).numpy()[0]
    seen_BV = jnp.zeros((1, 400), bool).at[0, jnp.array([3, 5, 9])].set(True)
    sampling = Sampling(temperature=0.7, top_k=30, top_p=0.9, repetition_penalty=1.7)
    count = 4000
    tokens = chosen(np.tile(logits_BV, (count, 1)), sampling, np.arange(count), 0, jnp.tile(seen_BV, (count, 1)))
    frequency_V = np.bincount(tokens, minlength=400) / count
    assert set(np.flatnonzero(frequency_V)) <= set(np.flatnonzero(want_V))
    assert np.abs(frequency_V - want_V).max() < 0.03


def test_log_probabilities_are_the_models_own():
    logits_BV = jnp.array([[0.0, 1.0, 2.0]])
    np.testing.assert_allclose(logprob(logits_BV, jnp.array([1])), np.log(np.e / (1 + np.e + np.e**2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"temperature": -1.0}, r"temperature=-1\.0 must be a finite number, 0 or more"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": "hot"}, "temperature='hot' must be a finite number"),
        ({"temperature": 1.0, "top_k": -1}, "top_k=-1 must be a whole number, 0 to 2,147,483,647"),
        ({"temperature": 1.0, "top_k": 10**11}, "top_k=100000000000 must be"),
        ({"temperature": 1.0, "top_k": 1.5}, r"top_k=1\.5 must be"),
        ({"temperature": 1.0, "top_p": 0.0}, r"top_p=0\.0 must be a finite number, above 0, at most 1"),
        ({"top_p": 0.9}, "need temperature above 0"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty=0\.0 must be a finite number, above 0"),
        ({"seed": -1}, "seed=-1 must be a whole number, 0 to 4,294,967,295"),
        ({"seed": 10**23}, "seed=1000"),
        ({"logprobs": 2}, "logprobs=2 must be True or False"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, line):
    with pytest.raises(UserError, match=line):
        Sampling(**settings)


def test_numbers_of_numpy_are_numbers():
    sampling = Sampling(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint32(7))  # pyright: ignore
    assert sampling.knobs().top_k == 3 and sampling.plan.draws
