"""Trip counts: from the compiler, from the induction variable, from the user, or unknown and said so."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from llmjax.cost import ModuleCost, cost_module
from llmjax.errors import UserError
from llmjax.hlo.parser import parse
from tests.cost.corpus import array, gpt2, ints


def text_of(function, *args) -> str:
    return jax.jit(function).lower(*args).compile().as_text()


def without_known_counts(text: str) -> str:
    """The text as a TPU's, whose loops carry no count."""
    stripped = re.sub(r"( while\([^\n]*), backend_config=[^\n]*", r"\1", text)
    assert "known_trip_count" not in stripped
    return stripped


def matmuls(cost: ModuleCost) -> Counter:
    """How often a matrix product of so many FLOPs runs."""
    found = Counter()
    for op in cost.ops:
        for part in op.fused or (op,):
            if part.cost.matmul_flops:
                found[part.cost.matmul_flops] += op.count
    return found


def forward_text(**overrides) -> str:
    model, params, tokens = gpt2("tiny", n_layer=5, **overrides)
    return text_of(lambda p, t: model.apply({"params": p}, t), params, tokens)


@pytest.fixture(scope="module")
def scanned() -> str:
    return forward_text(scan_layers=True)


def test_scanned_gpt2_equals_unrolled(scanned):
    loop, flat = cost_module(parse(scanned)), cost_module(parse(forward_text()))
    assert matmuls(loop) == matmuls(flat)
    assert loop.totals.matmul_flops == flat.totals.matmul_flops
    assert [(each.trip_count, each.source) for each in loop.loops] == [(5, "known_trip_count")]
    assert not flat.loops


def test_inferred_equals_known(scanned):
    known, inferred = cost_module(parse(scanned)), cost_module(parse(without_known_counts(scanned)))
    assert [(loop.trip_count, loop.source) for loop in inferred.loops] == [(5, "inferred")]
    assert inferred.totals == known.totals


def test_gradient_of_scan_is_three_times_forward():
    def loss(w, x):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()

    args = array(7, 32, 32), array(8, 32)
    forward = 2 * 7 * 8 * 32 * 32
    text = text_of(jax.grad(loss, argnums=(0, 1)), *args)
    assert cost_module(parse(without_known_counts(text))).totals.matmul_flops == 3 * forward


def test_nested_scans():
    def function(x, w):
        def inner(x, _):
            return jnp.tanh(x @ w), None

        def outer(x, _):
            return lax.scan(inner, x, length=5)[0] + (x @ w), None

        return lax.scan(outer, x, length=3)[0]

    text = text_of(function, array(16, 32), array(32, 32))
    one = 2 * 16 * 32 * 32
    for variant in (text, without_known_counts(text)):
        cost = cost_module(parse(variant))
        assert cost.totals.matmul_flops == (3 * 5 + 3) * one
        assert sorted((loop.trip_count, loop.count) for loop in cost.loops) == [(3, 1), (5, 3)]
        assert not cost.lower_bound


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (3, 17), (-4, 4)])
def test_fori_loop_with_static_bounds(start, stop):
    text = text_of(lambda x: lax.fori_loop(start, stop, lambda _, x: jnp.tanh(x @ x), x), array(32, 32))
    for variant in (text, without_known_counts(text)):
        cost = cost_module(parse(variant))
        assert cost.totals.matmul_flops == (stop - start) * 2 * 32**3
        assert cost.totals.transcendentals == (stop - start) * 32**2


def test_fori_loop_with_a_dynamic_bound():
    text = text_of(lambda x, n: lax.fori_loop(0, n, lambda _, x: jnp.tanh(x @ x), x), array(32, 32), ints())
    module = parse(text)
    cost = cost_module(module)
    (loop,) = cost.loops
    assert loop.trip_count is None and loop.source == "unknown"
    assert cost.lower_bound and cost.unknown_trip_counts == (loop.name,)
    assert cost.totals.matmul_flops == 2 * 32**3
    for name in (loop.name, loop.instruction.attr("body")):
        given_count = cost_module(module, trip_counts={name: 64})
        assert given_count.totals.matmul_flops == 64 * 2 * 32**3
        assert given_count.loops[0].source == "given" and not given_count.lower_bound


def test_the_user_may_shorten_a_loop(scanned):
    module = parse(scanned)
    name = cost_module(module).loops[0].name
    assert cost_module(module, trip_counts={name: 0}).totals.matmul_flops == 2 * 2 * 16 * 32 * 500


def test_wrong_names_and_counts(scanned):
    module = parse(scanned)
    name = cost_module(module).loops[0].name
    with pytest.raises(UserError, match=r"has no such loop\. Did you mean"):
        cost_module(module, trip_counts={name + "x": 3})
    with pytest.raises(UserError, match="must be 0 or more, and at most 2\\^53"):
        cost_module(module, trip_counts={name: -1})


LOOP = """HloModule loop

body {{
  carry = ({type}[], f32[8]) parameter(0)
  i = {type}[] get-tuple-element(carry), index=0
  step = {type}[] constant({step})
  next = {type}[] {change}(i, step)
  x = f32[8] get-tuple-element(carry), index=1
  y = f32[8] negate(x)
  ROOT out = ({type}[], f32[8]) tuple(next, y)
}}

condition {{
  carry = ({type}[], f32[8]) parameter(0)
  i = {type}[] get-tuple-element(carry), index=0
  bound = {type}[] constant({bound})
  ROOT less = pred[] compare({sides}), direction={direction}
}}

ENTRY main {{
  start = {type}[] constant({start})
  again = {type}[] copy(start)
  x = f32[8] parameter(0)
  carry = ({type}[], f32[8]) tuple(again, x)
  ROOT loop = ({type}[], f32[8]) while(carry), condition=condition, body=body
}}
"""
HOLDS = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "NE": lambda a, b: a != b,
    "EQ": lambda a, b: a == b,
}


def simulated(start, step, bound, holds) -> int | None:
    count = 0
    while holds(start, bound):
        start, count = start + step, count + 1
        if count > 500:
            return None
    return count


@given(
    start=st.integers(-40, 40),
    step=st.integers(-5, 5),
    bound=st.integers(-40, 40),
    direction=st.sampled_from(sorted(HOLDS)),
    swapped=st.booleans(),
    subtract=st.booleans(),
    type=st.sampled_from(["s32", "s64", "s16"]),
)
def test_any_counter(start, step, bound, direction, swapped, subtract, type):
    holds = HOLDS[direction]
    text = LOOP.format(
        type=type, start=start, bound=bound, direction=direction, step=-step if subtract else step,
        change="subtract" if subtract else "add", sides="bound, i" if swapped else "i, bound",
    )  # fmt: skip
    cost = cost_module(parse(text))
    expected = simulated(start, step, bound, (lambda a, b: holds(b, a)) if swapped else holds)
    assert cost.loops[0].trip_count == expected
    assert (
        cost.totals.vector_flops
        == (1 if expected is None else expected) * 9 + (1 if expected is None else expected) + 1
    )


TPU_LIKE = """HloModule tpu, is_scheduled=true

%add_s32 (p.0: s32[], p.1: s32[]) -> s32[] {
  %p.0 = s32[]{:T(128)} parameter(0)
  %p.1 = s32[]{:T(128)} parameter(1)
  ROOT %sum = s32[]{:T(128)} add(%p.0, %p.1)
}

%step (p: s32[]) -> s32[] {
  %p = s32[]{:T(128)} parameter(0)
  %one = s32[]{:T(128)} constant(2)
  ROOT %sum = s32[]{:T(128)} call(%p, %one), to_apply=%add_s32
}

%body (carry: (s32[], s32[], f32[8])) -> (s32[], s32[], f32[8]) {
  %carry = (s32[]{:T(128)}, s32[]{:T(128)}, f32[8]{0:T(1024)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %n = s32[]{:T(128)} get-tuple-element(%carry), index=1
  %x = f32[8]{0:T(1024)} get-tuple-element(%carry), index=2
  %next = s32[]{:T(128)} fusion(%i), kind=kLoop, calls=%step
  %y = f32[8]{0:T(1024)} tanh(%x)
  ROOT %out = (s32[]{:T(128)}, s32[]{:T(128)}, f32[8]{0:T(1024)}) tuple(%next, %n, %y)
}

%test (a: s32[], b: s32[]) -> pred[] {
  %a = s32[]{:T(128)} parameter(0)
  %b = s32[]{:T(128)} parameter(1)
  %reached = pred[]{:T(512)} compare(%b, %a), direction=GE
  ROOT %not = pred[]{:T(512)} not(%reached)
}

%condition (carry: (s32[], s32[], f32[8])) -> pred[] {
  %carry = (s32[]{:T(128)}, s32[]{:T(128)}, f32[8]{0:T(1024)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %n = s32[]{:T(128)} get-tuple-element(%carry), index=1
  ROOT %less = pred[]{:T(512)} fusion(%n, %i), kind=kLoop, calls=%test
}

%outer_body (c: (s32[], (s32[], f32[8]))) -> (s32[], (s32[], f32[8])) {
  %c = (s32[], (s32[], f32[8])) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %rest = (s32[], f32[8]) get-tuple-element(%c), index=1
  %n = s32[] get-tuple-element(%rest), index=0
  %x = f32[8] get-tuple-element(%rest), index=1
  %zero = s32[] constant(0)
  %carry = (s32[], s32[], f32[8]) tuple(%zero, %n, %x)
  %inner = (s32[], s32[], f32[8]) while(%carry), condition=%condition, body=%body
  %y = f32[8] get-tuple-element(%inner), index=2
  %kept = s32[] get-tuple-element(%inner), index=1
  %one = s32[] constant(1)
  %next = s32[] subtract(%k, %one)
  %new = (s32[], f32[8]) tuple(%kept, %y)
  ROOT %out = (s32[], (s32[], f32[8])) tuple(%next, %new)
}

%outer_condition (c: (s32[], (s32[], f32[8]))) -> pred[] {
  %c = (s32[], (s32[], f32[8])) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %zero = s32[] constant(0)
  ROOT %more = pred[] compare(%zero, %k), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %n = s32[] constant(-7)
  %k = s32[] constant(4)
  %inner = (s32[], f32[8]) tuple(%n, %x)
  %carry = (s32[], (s32[], f32[8])) tuple(%k, %inner)
  %loop = (s32[], (s32[], f32[8])) while(%carry), condition=%outer_condition, body=%outer_body
  %rest = (s32[], f32[8]) get-tuple-element(%loop), index=1
  ROOT %y = f32[8] get-tuple-element(%rest), index=1
}
"""


@pytest.mark.parametrize(("bound", "inner"), [(-7, 0), (7, 4), (8, 4), (9, 5)])
def test_bounds_carried_through_loops_fusions_and_calls(bound, inner):
    """The inner bound is a constant of the entry, carried unchanged by both loops."""
    cost = cost_module(parse(TPU_LIKE.replace("constant(-7)", f"constant({bound})")))
    assert {loop.name: loop.trip_count for loop in cost.loops} == {"loop": 4, "inner": inner}
    assert cost.totals.transcendentals == 4 * inner * 8


def test_a_bound_that_changes_is_unknown():
    text = TPU_LIKE.replace("tuple(%next, %n, %y)", "tuple(%next, %next, %y)")
    assert cost_module(parse(text)).unknown_trip_counts == ("inner",)


FLAG = """HloModule flag

body {
  carry = (s32[], pred[]) parameter(0)
  i = s32[] get-tuple-element(carry), index=0
  one = s32[] constant(1)
  next = s32[] add(i, one)
  bound = s32[] constant(10)
  more = pred[] compare(next, bound), direction=LT
  ROOT out = (s32[], pred[]) tuple(next, more)
}

condition {
  carry = (s32[], pred[]) parameter(0)
  ROOT flag = pred[] get-tuple-element(carry), index=1
}

ENTRY main {
  zero = s32[] constant(0)
  first = pred[] constant(true)
  carry = (s32[], pred[]) tuple(zero, first)
  ROOT loop = (s32[], pred[]) while(carry), condition=condition, body=body
}
"""


def test_a_condition_computed_in_the_body():
    assert cost_module(parse(FLAG)).loops[0].trip_count == 10
    assert cost_module(parse(FLAG.replace("constant(true)", "constant(false)"))).loops[0].trip_count == 0
