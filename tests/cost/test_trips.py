"""Loops whose text decides how often they run, or bounds it: steps of any kind, conjunctions, flags, nests."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from llmjax.cost import cost_module
from llmjax.hlo.parser import parse
from tests.cost.corpus import array, ints
from tests.cost.test_loops import text_of, without_known_counts

LOOP = """HloModule m
body {{ s = ({dtype}[], {dtype}[], f32[]) parameter(0)  i = {dtype}[] get-tuple-element(s), index=0
  k = {dtype}[] get-tuple-element(s), index=1  x = f32[] get-tuple-element(s), index=2  y = f32[] negate(x)
  {body}
  ROOT t = ({dtype}[], {dtype}[], f32[]) tuple(ni, nk, y) }}
cond {{ s = ({dtype}[], {dtype}[], f32[]) parameter(0)  i = {dtype}[] get-tuple-element(s), index=0
  k = {dtype}[] get-tuple-element(s), index=1  x = f32[] get-tuple-element(s), index=2
  {cond} }}
ENTRY e {{ x = f32[] parameter(0)  n = {dtype}[] parameter(1)  a = {dtype}[] constant({i})  b = {dtype}[] constant({k})
  t = ({dtype}[], {dtype}[], f32[]) tuple(a, {second}, x)
  ROOT w = ({dtype}[], {dtype}[], f32[]) while(t), condition=cond, body=body }}
"""


def loop(body: str, cond: str, i: int = 0, k: int = 0, dtype: str = "s32", second: str = "b"):
    """The trip count and its source."""
    body, cond = (text.replace("DT", dtype) for text in (body, cond))
    text = LOOP.format(body=body, cond=cond, i=i, k=k, dtype=dtype, second=second)
    (found,) = cost_module(parse(text)).loops
    return found.trip_count, found.source


def constant(n: int) -> str:
    return f"c{abs(n)} = DT[] constant({n}) "


STAY = "nk = DT[] copy(k) "
BELOW_100 = constant(100) + "ROOT c = pred[] compare(i, c100), direction=LT"
ABOVE_0 = constant(0) + "ROOT c = pred[] compare(i, c0), direction=GT"


@pytest.mark.parametrize(
    ("step", "cond", "start", "dtype", "expected"),
    [
        ("ni = DT[] multiply(i, c2)", BELOW_100, 1, "s32", 7),
        ("ni = DT[] add(i, i)", BELOW_100, 3, "s64", 6),
        ("ni = DT[] shift-left(i, c1)", BELOW_100, 1, "u32", 7),
        ("ni = DT[] divide(i, c2)", ABOVE_0, 1000, "s32", 10),
        ("ni = DT[] shift-right-logical(i, c1)", ABOVE_0, 1024, "u32", 11),
        ("ni = DT[] shift-right-arithmetic(i, c2)", ABOVE_0, 1024, "s32", 6),
        ("m = DT[] multiply(i, c2) ni = DT[] add(m, c1)", BELOW_100, 0, "s32", 7),
        ("ni = DT[] add(i, c4294967295)", ABOVE_0, 10, "u32", 10),  # what an unsigned -1 is
        ("ni = DT[] subtract(i, c1)", ABOVE_0, 10, "u32", 10),
        ("ni = DT[] add(i, c2)", "ROOT c = pred[] compare(i, k), direction=NE", 1, "s32", None),  # past the bound
        ("ni = DT[] multiply(i, c2)", ABOVE_0, 1, "s32", 31),  # overflows to the smallest number, as a machine does
        ("ni = DT[] multiply(i, c1)", BELOW_100, 1, "s32", None),  # stays: something else ends it
        ("ni = DT[] add(i, c1)", constant(200) + "ROOT c = pred[] compare(i, c200), direction=LT", 0, "s8", None),
        ("ni = DT[] subtract(i, c1)", "ROOT c = pred[] compare(i, k), direction=NE", 0, "u64", 0),
    ],
)
def test_steps(step, cond, start, dtype, expected):
    parts = constant(1) + constant(2) + (constant(4294967295) if "c4294967295" in step else "")
    assert loop(parts + STAY + step, cond, start, dtype=dtype)[0] == expected


COUNT = constant(1) + STAY + "ni = DT[] add(i, c1)"
DATA = "z = f32[] constant(1e-6) d = pred[] compare(x, z), direction=GT "
BELOW_50 = constant(50) + "c = pred[] compare(i, c50), direction=LT "
NOT_50 = constant(50) + "g = pred[] compare(i, c50), direction=GE "


@pytest.mark.parametrize(
    ("cond", "expected"),
    [
        (BELOW_50 + DATA + "ROOT r = pred[] and(c, d)", (50, "bounded")),
        (BELOW_50 + DATA + "ROOT r = pred[] and(d, c)", (50, "bounded")),
        (NOT_50 + DATA + "e = pred[] not(d) o = pred[] or(g, e) ROOT r = pred[] not(o)", (50, "bounded")),
        (BELOW_50 + DATA + "f = pred[] constant(false) ROOT r = pred[] select(d, c, f)", (50, "bounded")),
        (BELOW_50 + "d = pred[] compare(k, c50), direction=LT ROOT r = pred[] and(c, d)", (50, "bounded")),
        (BELOW_50 + DATA + "ROOT r = pred[] or(c, d)", (None, "unknown")),
        (BELOW_50 + constant(7) + "d = pred[] compare(i, c7), direction=LE ROOT r = pred[] and(c, d)", (8, "inferred")),
        (BELOW_50 + constant(7) + "d = pred[] compare(i, c7), direction=LT ROOT r = pred[] or(c, d)", (50, "inferred")),
        (constant(50) + "m = DT[] minimum(k, c50) ROOT r = pred[] compare(i, m), direction=LT", (50, "bounded")),
        (constant(50) + "m = DT[] minimum(k, c50) ROOT r = pred[] compare(m, i), direction=GT", (50, "bounded")),
        (constant(50) + "m = DT[] maximum(k, c50) ROOT r = pred[] compare(i, m), direction=LT", (None, "unknown")),
        (constant(0) + BELOW_50 + DATA + "g = pred[] compare(i, c0), direction=LT q = pred[] and(d, g) "
         "ROOT r = pred[] and(q, c)", (0, "inferred")),
    ],
)  # fmt: skip
def test_conjunctions(cond, expected):
    assert loop(COUNT, cond, second="n") == expected


def test_a_bound_is_told_as_one():
    text = text_of(
        lambda x: lax.while_loop(
            lambda s: (s[0] < 20) & (s[1].sum() > 1e-3), lambda s: (s[0] + 1, s[1] @ s[1]), (0, x)
        ),
        array(8, 8),
    )
    cost = cost_module(parse(without_known_counts(text) if "known_trip_count" in text else text))
    assert [(each.trip_count, each.source) for each in cost.loops] == [(20, "bounded")]
    assert cost.upper_bound and not cost.lower_bound
    assert cost.bounded_trip_counts == (cost.loops[0].name,)
    assert cost.totals.matmul_flops == 20 * 2 * 8**3


def test_a_shorter_of_two_lengths_is_a_bound():
    text = text_of(lambda x, n: lax.fori_loop(0, jnp.minimum(n, 30), lambda _, x: x @ x, x), array(8, 8), ints())
    (found,) = cost_module(parse(text)).loops
    assert (found.trip_count, found.source) == (30, "bounded")


def test_a_flag_ends_a_loop():
    flags = """HloModule m
body { s = (pred[], f32[]) parameter(0)  f = pred[] constant(false)  x = f32[] get-tuple-element(s), index=1
  ROOT t = (pred[], f32[]) tuple(f, x) }
cond { s = (pred[], f32[]) parameter(0)  ROOT g = pred[] get-tuple-element(s), index=0 }
ENTRY e { x = f32[] parameter(0)  a = pred[] constant(true)  t = (pred[], f32[]) tuple(a, x)
  ROOT w = (pred[], f32[]) while(t), condition=cond, body=body }"""
    assert cost_module(parse(flags)).loops[0].trip_count == 1
    assert cost_module(parse(flags.replace("constant(true)", "constant(false)"))).loops[0].trip_count == 0
    forever = flags.replace("tuple(f, x)", "tuple(g, x)").replace(
        "f = pred[] constant(false)", "g = pred[] constant(true)"
    )
    assert cost_module(parse(forever)).loops[0].trip_count is None


def test_never_two_to_the_64():
    count = 'backend_config={"known_trip_count":{"n":"18446744073709551615"}}'
    text = LOOP.format(
        body="c1 = s32[] constant(1) ni = s32[] add(i, c1) nk = s32[] copy(k)", i=0, k=0, dtype="s32", second="n",
        cond="ROOT c = pred[] compare(i, k), direction=NE",
    ).replace("body=body", f"body=body, {count}")  # fmt: skip
    assert cost_module(parse(text)).loops[0].source == "unknown"
    wide = loop(COUNT, constant(2**63 - 1) + f"ROOT c = pred[] compare(i, c{2**63 - 1}), direction=NE", dtype="s64")
    assert wide == (None, "unknown")


def nest(bounds, n: int, *args) -> tuple[int, bool]:
    """How often the products of a nest of two or three loops run, where `bounds` gives the inner ones' from, to."""

    def body(counters, x):
        if len(counters) > len(bounds):
            return jnp.tanh(x @ x)
        low, high = bounds[len(counters) - 1](*counters)
        return lax.fori_loop(low, high, lambda j, x: body((*counters, j), x), x)

    text = text_of(lambda x: lax.fori_loop(0, n, lambda i, x: body((i,), x), x), array(8, 8))
    for variant in (text, without_known_counts(text) if "known_trip_count" in text else text):
        cost = cost_module(parse(variant))
        assert not cost.lower_bound and not cost.upper_bound, [(loop.trip_count, loop.source) for loop in cost.loops]
    products, left = divmod(cost.totals.matmul_flops, 2 * 8**3)
    assert not left
    return products


@pytest.mark.parametrize(
    ("bounds", "n", "expected"),
    [
        ([lambda i: (0, i)], 11, 55),
        ([lambda i: (i, 8)], 8, 36),
        ([lambda i: (0, i + 1)], 10, 55),
        ([lambda i: (i - 3, 2 * i)], 6, sum(max(0, i + 3) for i in range(6))),
        ([lambda i: (0, jnp.minimum(i, 4))], 9, sum(min(i, 4) for i in range(9))),
        ([lambda i: (0, i), lambda i, j: (0, j)], 7, sum(j for i in range(7) for j in range(i))),
        ([lambda i: (0, i), lambda i, j: (j, i)], 7, sum(i - j for i in range(7) for j in range(i))),
        ([lambda i: (0, 3), lambda i, j: (0, i)], 5, 30),
    ],
)
def test_triangular_nests(bounds, n, expected):
    assert nest(bounds, n) == expected


def test_a_nest_follows_the_count_that_a_user_gives():
    text = text_of(
        lambda x, n: lax.fori_loop(0, n, lambda i, x: lax.fori_loop(0, i, lambda _, x: x @ x, x), x),
        array(8, 8),
        ints(),
    )
    module = parse(text)
    unknown = cost_module(module)
    assert unknown.lower_bound
    outer = next(loop.name for loop in unknown.loops if loop.computation == module.entry_name)
    cost = cost_module(module, trip_counts={outer: 5})
    assert cost.totals.matmul_flops == (0 + 1 + 2 + 3 + 4) * 2 * 8**3
    assert not cost.lower_bound


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-20, 20), st.integers(1, 9), st.integers(-3, 3), st.integers(-3, 3),
    st.integers(-50, 50), st.sampled_from(["LT", "LE", "GT", "GE", "NE"]),
)  # fmt: skip
def test_any_recurrence_that_ends(i, k, scale, offset, bound, direction):
    """i <- scale * i + offset * k, k <- k + 1 while i compares so: the count of a plain simulation."""
    body = (
        f"a = DT[] constant({scale}) b = DT[] constant({offset}) o = DT[] constant(1) nk = DT[] add(k, o) "
        "m = DT[] multiply(i, a) p = DT[] multiply(k, b) ni = DT[] add(m, p)"
    )
    found, source = loop(body, f"b = DT[] constant({bound}) ROOT c = pred[] compare(i, b), direction={direction}", i, k)
    holds = {"LT": int.__lt__, "LE": int.__le__, "GT": int.__gt__, "GE": int.__ge__, "NE": int.__ne__}[direction]
    turns = 0
    while holds(i, bound) and turns <= 200:
        i, k = (scale * i + offset * k + 2**31) % 2**32 - 2**31, k + 1
        turns += 1
    if turns <= 200:
        assert (found, source) == (turns, "inferred")


def test_a_counter_on_a_machine_counts_the_same():
    """The program, run, says how often its loop ran."""

    def collatz(n):
        return lax.while_loop(
            lambda s: s[0] != 1,
            lambda s: (jnp.where(s[0] % 2 == 0, s[0] // 2, 3 * s[0] + 1), s[1] + 1),
            (jnp.int32(n), jnp.int32(0)),
        )

    cost = cost_module(parse(text_of(lambda: collatz(27))))
    counts = [loop.trip_count for loop in cost.loops]
    assert counts in ([], [int(jax.jit(lambda: collatz(27))()[1])])  # XLA may have run it while it compiled
