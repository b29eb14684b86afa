"""Measured times: made exclusive, by hand; and of a real program."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.analyser import analyze
from llmjax.cycles.events import TASK, Event, by_device, ends, exclusive
from llmjax.cycles.measured import Measured
from llmjax.cycles.profile import example, interleave, profile, runnable
from llmjax.errors import UserError


def task(at, thread):
    return Event(at, at, TASK, thread)


def shares(events, control=frozenset()):
    return {name: share.seconds for name, share in exclusive(events, control).items()}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Event(0, 2, "a"), Event(3, 4, "b")], {"a": 2, "b": 1}),
        ([Event(0, 2, "a"), Event(5, 7, "a")], {"a": 4}),
        # asynchronous: the op ends where its `end:` is
        ([Event(0, 1, "a", "x", 7), Event(4, 4.1, "end: a", "y", 7), Event(4, 6, "b", "y")], {"a": 4, "b": 2}),
        # two executions, each with its own end
        (
            [
                Event(0, 1, "a", "", 1),
                Event(2, 2, "end: a", "", 1),
                Event(5, 6, "a", "", 2),
                Event(7, 7, "end: a", "", 2),
            ],
            {"a": 4},
        ),
        # the thread that finished an op runs what waited for it before it marks the end
        (
            [Event(0, 1, "a", "x", 1), task(0.5, "y"), Event(3, 5, "b", "y"), Event(5, 5.1, "end: a", "y", 1)],
            {"a": 3, "b": 2},
        ),
        # what that thread started before it took the task up says nothing
        (
            [Event(0, 1, "a", "x", 1), Event(2, 4, "b", "y"), task(4, "y"), Event(6, 6.1, "end: a", "y", 1)],
            {"a": 5, "b": 1},
        ),
        # side by side: in equal parts
        ([Event(0, 4, "a"), Event(2, 6, "b")], {"a": 3, "b": 3}),
        # a loop has only what its body leaves
        ([Event(0, 10, "while"), Event(1, 4, "a"), Event(5, 9, "b")], {"while": 3, "a": 3, "b": 4}),
        ([], {}),
    ],
)
def test_exclusive_by_hand(events, expected):
    assert shares(events, frozenset({"while"})) == pytest.approx(expected)


def test_what_ran_beside_others_is_told():
    found = exclusive([Event(0, 4, "a"), Event(2, 6, "b"), Event(7, 8, "c")])
    assert [found[name].beside for name in "abc"] == [1, 1, 0]


def test_devices_are_told_apart():
    one = [Event(0, 1, "a", "x", 7), Event(3, 3, "end: a", "y", 7)]  # what marks an end does not say of which device
    two = [Event(1, 5, "a", "z", 8, 1), Event(5, 6, "b", "z", 9, 1)]
    assert [shares(events) for events in by_device([*one, *two])] == [{"a": 3}, {"a": 4, "b": 1}]
    assert shares([*one, *two])["a"] == 5  # not told apart, it is when any of them ran it


spans = st.tuples(st.integers(0, 100), st.integers(1, 30), st.sampled_from("abcw"))


@given(st.lists(spans, max_size=12))
def test_exclusive_times_cover_what_runs(found):
    events = [Event(start, start + length, name) for start, length, name in found]
    busy = {instant for e in events for instant in range(int(e.start), int(e.end))}
    assert sum(shares(events, frozenset("w")).values()) == pytest.approx(len(busy))


asynchronous = st.tuples(spans, st.integers(0, 40), st.sampled_from("xy"), st.sampled_from("xy"), st.integers(0, 30))


@given(st.lists(asynchronous, max_size=8))
def test_ops_end_between_their_event_and_their_mark(found):
    events = []
    for link, ((start, length, name), late, thread, other, taken) in enumerate(found, start=1):
        mark = start + length + late
        events += [Event(start, start + length, name, thread, link), Event(mark, mark, f"end: {name}", other, link)]
        events.append(task(start + taken, other))
    for event in ends(events):
        (_, length, _), late, *_ = found[event.link - 1]
        assert event.start + length <= event.end <= event.start + length + late


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
    assert sum(op.time.median for op in found.ops.values()) <= found.traced.high * 1.5


def test_programs_in_turn():
    known = {}
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    subjects = [runnable(f, x, known=known) for f in (lambda x: jnp.tanh(x) @ x, lambda x: (x @ x).sum())]
    said, beats = [], []
    found = interleave(subjects, 3, 2, lambda what, share: said.append(share), lambda: beats.append(1))
    assert len(known) == 1 and len(beats) == 3 and said == sorted(said)
    for times in found:
        assert len(times.rounds) == 3 and times.runs == 6
        assert all(len(op.rounds) == 3 and 0 <= op.beside <= 1 for op in times.ops.values())


def test_a_trace_of_a_long_program_holds_one_run(monkeypatch):
    x = jnp.ones((64, 64))
    monkeypatch.setattr("llmjax.cycles.profile._LONG", 1e9)  # any program is short
    assert len(profile(jnp.tanh, x, runs=3).rounds) == 1
    monkeypatch.setattr("llmjax.cycles.profile._LONG", 1e-9)
    found = profile(jnp.tanh, x, runs=3)
    assert len(found.rounds) == 3 and found.runs == 3


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


def test_the_spread_is_that_of_the_quartiles():
    assert Measured(2.0, 1.0, 3.0).spread == 1.0


def test_mistakes():
    with pytest.raises(UserError, match="at least one run"):
        profile(lambda x: x, jnp.ones(3), runs=0)
    with pytest.raises(UserError, match="expected a function"):
        profile(3)
    with pytest.raises(UserError, match="only a program of the device here"):
        analyze(lambda x: x, jnp.ones(3), target="gpu:h100", measure=True)
