"""Measured times: made exclusive, by hand; and of a real program."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.analyser import analyze
from llmjax.cycles.measured import Measured, Profile, measured
from llmjax.cycles.profile import Event, example, exclusive, profile
from llmjax.errors import UserError


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Event(0, 2, "a"), Event(3, 4, "b")], {"a": 2, "b": 1}),
        ([Event(0, 2, "a"), Event(5, 7, "a")], {"a": 4}),
        # asynchronous: the op ends where its `end:` is
        ([Event(0, 1, "a"), Event(4, 4.1, "end: a"), Event(4, 6, "b")], {"a": 4, "b": 2}),
        # two executions, each with its own end
        ([Event(0, 1, "a"), Event(2, 2, "end: a"), Event(5, 6, "a"), Event(7, 7, "end: a")], {"a": 4}),
        # side by side: in equal parts
        ([Event(0, 4, "a"), Event(2, 6, "b")], {"a": 3, "b": 3}),
        # a loop has only what its body leaves
        ([Event(0, 10, "while"), Event(1, 4, "a"), Event(5, 9, "b")], {"while": 3, "a": 3, "b": 4}),
        ([], {}),
    ],
)
def test_exclusive_by_hand(events, expected):
    assert exclusive(events, frozenset({"while"})) == pytest.approx(expected)


spans = st.tuples(st.integers(0, 100), st.integers(1, 30), st.sampled_from("abcw"))


@given(st.lists(spans, max_size=12))
def test_exclusive_times_cover_what_runs(found):
    events = [Event(start, start + length, name) for start, length, name in found]
    busy = {instant for e in events for instant in range(int(e.start), int(e.end))}
    assert sum(exclusive(events, frozenset("w")).values()) == pytest.approx(len(busy))


def test_a_real_program():
    def work(x, w):
        return jax.lax.fori_loop(0, 3, lambda n, x: jnp.tanh(x @ w), x)

    x = jax.ShapeDtypeStruct((64, 256), jnp.float32)
    w = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    report = analyze(work, x, w, measure=True)
    found = report.measured
    assert found is not None and found.runs == 10
    assert 0 < found.covered <= 1
    names = {op.name: op for op in report.ops}
    products = [op for op in found.ops.values() if op.name in names and names[op.name].total.matmul_flops]
    assert products and all(op.calls == 3 and op.time.median > 0 and op.threads for op in products)
    assert "ops cover" in found.reconciliation()
    assert sum(op.time.median for op in found.ops.values()) <= found.traced.high * 1.5


def test_donated_arguments_are_copied():
    step = jax.jit(lambda state, x: (state + x, x.sum()), donate_argnums=0)
    state, x = jnp.ones((128, 128)), jnp.ones((128, 128))
    assert profile(step, state, x, runs=2).ops
    assert float(state.sum()) == 128 * 128  # still there


def test_examples():
    assert example(jax.ShapeDtypeStruct((3,), jnp.int32)).tolist() == [1, 1, 1]
    assert abs(float(example(jax.ShapeDtypeStruct((1000,), jnp.bfloat16)).std()) - 0.02) < 0.002
    for kind in ("threefry2x32", "rbg"):
        key = jax.eval_shape(lambda kind=kind: jax.random.key(0, impl=kind))
        assert example(key).dtype == key.dtype


def test_a_profile_that_covers_little_says_what_is_missing():
    whole = measured([1e-3])
    assert "ops cover only 50%" in Profile("m", whole, whole, {}, 0.5, 1).note
    assert Profile("m", whole, whole, {}, 0.95, 1).note == ""
    assert Measured(2.0, 1.0, 3.0).spread == 1.0


def test_mistakes():
    with pytest.raises(UserError, match="at least one run"):
        profile(lambda x: x, jnp.ones(3), runs=0)
    with pytest.raises(UserError, match="expected a function"):
        profile(3)
    with pytest.raises(UserError, match="only a program of the device here"):
        analyze(lambda x: x, jnp.ones(3), target="gpu:h100", measure=True)
