"""The cycle model: by hand on small programs, and what must hold of any."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cost import cost_module
from llmjax.cycles.device import Figure, load_device, override
from llmjax.cycles.features import features
from llmjax.cycles.fitted import DEFAULTS, Terms, coordinates, interpolate, key_of, terms_of, unlike
from llmjax.cycles.model import op_time, predict
from llmjax.cycles.times import combine
from llmjax.hlo import parse

HLO = Path(__file__).parent.parent / "testdata" / "hlo"
H100 = load_device("gpu:h100")

DOT = """HloModule m
ENTRY main {
  x = f32[512,1024] parameter(0)
  w = f32[1024,2048] parameter(1)
  y = f32[512,2048] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT z = f32[512,2048] exponential(y)
}
"""


def exact(**terms):
    """A device whose every kind of work has the same terms."""
    return replace(H100, fit={"dispatch": 0.0, "terms": {name: vars_of(Terms(**terms)) for name in DEFAULTS}})


def vars_of(terms):
    return {name: getattr(terms, name) for name in Terms.__dataclass_fields__}


def test_a_product_by_hand():
    device = exact()
    dot, exp = features(cost_module(parse(DOT)), device)
    assert (dot.term, dot.m, dot.n, dot.k, dot.batch, dot.dtype) == ("gemm", 512, 2048, 1024, 1, "tf32")
    assert dot.matmul == 2 * 512 * 1024 * 2048
    assert exp.term == "loop" and exp.vector == 14 * 512 * 2048
    compute = dot.matmul / device.matmul["tf32"].value
    memory = sum(b / m.bandwidth.value for b, m in zip(dot.bytes, device.memory, strict=True))
    expected = device.launch.value + (compute**3 + memory**3) ** (1 / 3)
    assert op_time(dot, device).seconds == pytest.approx(expected)


def test_what_was_just_written_is_near():
    dot, exp = features(cost_module(parse(DOT)), H100)
    assert exp.bytes[-1] == 0  # 4 MB written a moment ago are in the L2 of 50 MB
    assert sum(dot.bytes) == (512 * 1024 + 1024 * 2048 + 512 * 2048) * 4


def test_small_products_are_less_efficient():
    device = exact(m0=16.0)
    (dot, _) = features(cost_module(parse(DOT)), device)
    thin = replace(dot, m=1, matmul=dot.matmul / 512)
    assert op_time(thin, device).compute * 512 / op_time(dot, device).compute == pytest.approx(17 / (1 + 16 / 512))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_parts_never_cancel(compute, memory, overhead, link):
    whole = combine(compute, memory, overhead, link)
    assert whole >= max(compute, memory, link, overhead) * (1 - 1e-12)
    assert whole <= (compute + memory + overhead + link) * (1 + 1e-12)


@pytest.mark.parametrize("name", ["gpu:h100", "tpu:v5e", "tpu:v6e"])
def test_programs_add_up(name):
    device = load_device(name)
    time = predict(cost_module(parse(DOT)), device)
    assert time.sequential == pytest.approx(sum(op.seconds for op in time.ops) + time.dispatch)
    assert time.low < time.overlapped < time.high and time.overlapped <= time.sequential
    assert time.cycles == pytest.approx(time.overlapped * device.clock_hz.value)
    for op in time.ops:
        assert op.bound in {"compute", "overhead", "link", *(f"memory:{m.name}" for m in device.memory)}


def test_a_faster_memory_never_slows_a_program():
    cost = cost_module(parse(DOT.replace("512", "65536")))  # more than the caches hold
    slow = predict(cost, H100).overlapped
    assert predict(cost, override(H100, {"bandwidth": 1e14})).overlapped < slow
    assert predict(cost, override(H100, {"clock_hz": 2 * H100.clock_hz.value})).overlapped < slow


@pytest.mark.parametrize("path", sorted(HLO.glob("*.hlo*")) + sorted(HLO.glob("*.txt")), ids=lambda path: path.name)
def test_every_op_of_real_programs_takes_time(path):
    cost = cost_module(parse(path.read_text()))
    time = predict(cost, H100)
    assert {op.name for op in time.ops} == {op.name for op in cost.ops if op.count}
    assert all(0 < op.low < op.seconds < op.high < 60 for op in time.ops)


HANDED_ON = """HloModule handed_on, is_scheduled=true

%exponential (p: f32[64,64]) -> f32[64,64] {
  %p = f32[64,64]{1,0} parameter(0)
  ROOT %e = f32[64,64]{1,0} exponential(%p)
}

ENTRY %main (a: f32[64,64]) -> f32[64,64] {
  %a = f32[64,64]{1,0} parameter(0)
  %both = f32[64,64]{1,0} fusion(%a), kind=kLoop, calls=%exponential, backend_config=PARTS
  %one = f32[64,64]{1,0} fusion(%both), kind=kLoop, calls=%exponential
  ROOT %same = f32[64,64]{1,0} fusion(%one), kind=kLoop, calls=%exponential
}
""".replace("PARTS", '{"outer_dimension_partitions":["2"]}')


def test_what_two_cores_wrote_is_far_from_one():
    cpu = replace(H100, kind="cpu", cores=Figure(2, "user", "test"))
    found = {f.name: (f.threads, "remote" in f.does.split()) for f in features(cost_module(parse(HANDED_ON)), cpu)}
    assert found == {"both": (2, False), "one": (1, True), "same": (1, False)}
    assert not any("remote" in f.does for f in features(cost_module(parse(HANDED_ON)), H100))


def test_what_passes_between_ops_adds_up():
    cost = cost_module(parse(HANDED_ON))
    seconds = {"dispatch": 5e-5, "argument": 2e-6, "gap": 1e-6}
    assert predict(cost, replace(H100, fit=seconds)).dispatch == pytest.approx(5e-5 + 2e-6 + 3 * 1e-6)
    assert predict(cost, replace(H100, terms={})).dispatch == H100.launch.value
    assert predict(cost, H100).dispatch == H100.terms["host.start"].value


def test_terms_are_those_of_the_nearest_kind():
    (dot, exp) = features(cost_module(parse(DOT)), H100)
    assert terms_of(dot, H100) == DEFAULTS["gemm"]
    fitted = replace(
        H100, fit={"terms": {"gemm:tf32": vars_of(Terms(compute=3.0)), "loop": vars_of(Terms(compute=5.0))}}
    )
    assert key_of(dot) == "gemm:tf32" and terms_of(dot, fitted).compute == 3.0
    assert terms_of(exp, fitted).compute == 5.0
    assert terms_of(replace(dot, library="cublas"), fitted).compute == 3.0


places = st.tuples(st.floats(0, 30), st.floats(0, 30))
doings = st.sampled_from(["add", "add multiply", "copy strided", ""])
rows = st.lists(st.tuples(places, doings, st.floats(0.1, 10)), max_size=8)


@given(rows, places, doings)
def test_an_interpolation_stays_between_its_rows(rows, at, does):
    factors = [1.0, *(row[-1] for row in rows)]
    assert min(factors) * (1 - 1e-9) <= interpolate(rows, at, does) <= max(factors) * (1 + 1e-9)


@given(places, doings, st.floats(0.1, 10))
def test_an_interpolation_is_near_a_row_at_its_place_and_1_far_away(at, does, factor):
    rows = [(at, does, factor)] * 20
    assert interpolate(rows, at, does) == pytest.approx(factor, rel=0.05)
    assert interpolate(rows, (at[0] + 100, at[1]), does) == pytest.approx(1.0)


def test_an_interpolation_listens_to_what_does_the_same():
    rows = [((1.0,), "add exponential", 4.0), ((1.0,), "copy strided", 0.5)]
    assert interpolate(rows, (1.0,), "add exponential") > 2 > 1 > interpolate(rows, (1.0,), "copy strided")
    assert unlike("add", "add") == unlike("", "") == 0.0 < unlike("add copy", "add") < unlike("add", "")
    assert unlike("add", "add strided") == unlike("add remote", "add") < unlike("add remote", "add strided")


def test_a_table_corrects_the_ops_that_are_like_its_rows():
    (dot, exp) = features(cost_module(parse(DOT)), H100)
    terms = {"gemm": vars_of(Terms()), "loop": vars_of(Terms())}
    plain = replace(H100, fit={"terms": terms})
    tabled = replace(H100, fit={"terms": terms, "table": {"gemm": [[coordinates(dot), dot.does, 3.0]]}})
    ratio = op_time(dot, tabled).seconds / op_time(dot, plain).seconds
    assert 2 < ratio < 3 and op_time(exp, tabled) == op_time(exp, plain)
