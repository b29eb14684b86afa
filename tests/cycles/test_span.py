"""Work and span: of small programs by hand, and of any by their laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cost import cost_module
from llmjax.cycles.span import depth, op_span, work_and_span
from llmjax.hlo import parse

DIAMOND = """HloModule m
ENTRY e {
  a = f32[8]{0} parameter(0)
  b = f32[8]{0} negate(a)
  c = f32[8]{0} exponential(a)
  d = f32[8]{0} tanh(c)
  ROOT r = f32[8]{0} add(b, d)
}
"""

LOOP = """HloModule m
body {
  p = (s32[], f32[8]{0}) parameter(0)
  n = s32[] get-tuple-element(p), index=0
  one = s32[] constant(1)
  next = s32[] add(n, one)
  x = f32[8]{0} get-tuple-element(p), index=1
  y = f32[8]{0} negate(x)
  z = f32[8]{0} exponential(x)
  w = f32[8]{0} multiply(y, z)
  ROOT t = (s32[], f32[8]{0}) tuple(next, w)
}
cond {
  p = (s32[], f32[8]{0}) parameter(0)
  n = s32[] get-tuple-element(p), index=0
  most = s32[] constant(5)
  ROOT less = pred[] compare(n, most), direction=LT
}
ENTRY e {
  zero = s32[] constant(0)
  a = f32[8]{0} parameter(0)
  start = (s32[], f32[8]{0}) tuple(zero, a)
  ROOT loop = (s32[], f32[8]{0}) while(start), condition=cond, body=body
}
"""

PRODUCT = """HloModule m
sum {
  l = f32[] parameter(0)
  r = f32[] parameter(1)
  ROOT s = f32[] add(l, r)
}
inside {
  p = f32[4,100]{1,0} parameter(0)
  q = f32[100,4]{1,0} parameter(1)
  d = f32[4,4]{1,0} dot(p, q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT n = f32[4,4]{1,0} negate(d)
}
ENTRY e {
  a = f32[4,100]{1,0} parameter(0)
  b = f32[100,4]{1,0} parameter(1)
  f = f32[4,4]{1,0} fusion(a, b), kind=kCustom, calls=inside
  zero = f32[] constant(0)
  ROOT r = f32[] reduce(f, zero), dimensions={0,1}, to_apply=sum
}
"""


def seconds(**times):
    return dict(times)


def test_branches_of_a_diamond_run_side_by_side():
    found = op_span(cost_module(parse(DIAMOND)), seconds(b=3.0, c=1.0, d=1.5, r=1.0))
    assert found.work == 6.5
    assert found.span == 4.0  # b and r
    assert found.chain == ("b", "r")
    assert found.parallelism == pytest.approx(6.5 / 4.0)


def test_iterations_come_one_after_another():
    # 5 turns, each with `y` beside `z`, then `w`; the times are those of all turns together.
    found = op_span(cost_module(parse(LOOP)), seconds(y=10.0, z=20.0, w=5.0))
    assert found.work == 35.0
    assert found.span == 25.0
    assert found.chain == ("loop",)


def test_an_unnamed_op_takes_no_time_and_nothing_at_all_has_parallelism_one():
    found = op_span(cost_module(parse(DIAMOND)), {})
    assert (found.work, found.span, found.chain, found.parallelism) == (0.0, 0.0, (), 1.0)


def test_depth_looks_into_fusions_and_sums_by_pairs():
    # a product of 100 terms: multiply and 7 rounds of sums, negate, 4 rounds over 16 elements
    assert depth(cost_module(parse(PRODUCT))) == 1 + 7 + 1 + 4


def test_depth_counts_every_turn_of_a_loop():
    # a turn: the condition's compare, then negate or exp beside it, then multiply
    assert depth(cost_module(parse(LOOP))) == 5 * (1 + 2)


def test_control_dependencies_are_dependencies():
    text = DIAMOND.replace("tanh(c)", "tanh(c), control-predecessors={b}")
    found = op_span(cost_module(parse(text)), seconds(b=3.0, c=1.0, d=1.5, r=1.0))
    assert found.span == 5.5  # b, d, r


@st.composite
def graphs(draw):
    """A program of n negations and additions, each of earlier results, and a weight for each."""
    n = draw(st.integers(1, 12))
    lines, names = ["a0 = f32[2]{0} parameter(0)"], ["a0"]
    for k in range(1, n + 1):
        needed = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
        opcode = "negate" if len(needed) == 1 else "add"
        lines.append(f"a{k} = f32[2]{{0}} {opcode}({', '.join(needed)})")
        names.append(f"a{k}")
    lines[-1] = f"ROOT {lines[-1]}"
    weights = {name: draw(st.floats(0, 10)) for name in names[1:]}
    return "HloModule m\nENTRY e {\n  " + "\n  ".join(lines) + "\n}\n", weights


@given(graphs())
def test_span_is_between_the_longest_op_and_the_work(graph):
    text, weights = graph
    module = parse(text)
    found = work_and_span(module, lambda i, _: weights.get(i.name, 0.0))
    assert found.work == pytest.approx(sum(weights.values()))
    assert max(weights.values()) <= found.span + 1e-9
    assert found.span <= found.work + 1e-9
    assert sum(weights.get(name, 0.0) for name in found.chain) == pytest.approx(found.span)
    # The chain is one: each needs the one before it, directly or through ops that take no time.
    order = {i.name: n for n, i in enumerate(module.entry)}
    assert list(found.chain) == sorted(found.chain, key=lambda name: order[name])


@given(graphs(), st.floats(0.1, 10))
def test_span_scales_with_the_weights(graph, factor):
    text, weights = graph
    module = parse(text)
    once = work_and_span(module, lambda i, _: weights.get(i.name, 0.0))
    scaled = work_and_span(module, lambda i, _: factor * weights.get(i.name, 0.0))
    assert scaled.span == pytest.approx(factor * once.span)


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        ("ROOT y = f32[4096,8]{1,0} sort(x), dimensions={1}, to_apply=less", 3 * 4 / 2),  # of 8, not of 4096
        ("ROOT y = f32[4096,8]{1,0} sort(x), dimensions={0}, to_apply=less", 12 * 13 / 2),
        (
            'ROOT y = (f32[4096,16]{1,0}, s8[64]{0}) custom-call(x, w), custom_call_target="__cublas$gemm", '
            'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}',
            1 + 3,  # 8 terms by pairs
        ),
    ],
)
def test_depth_of_sorts_and_of_library_products(line, steps):
    text = f"""HloModule m
less {{ a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT c = pred[] compare(a, b), direction=LT }}
ENTRY e {{
  x = f32[4096,8]{{1,0}} parameter(0)
  w = f32[8,16]{{1,0}} parameter(1)
  {line}
}}
"""
    assert depth(cost_module(parse(text))) == steps
