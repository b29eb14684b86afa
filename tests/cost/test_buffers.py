"""Memory over time from what XLA dumps beside a module."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmjax
from llmjax.cost.buffers import KINDS, find_buffers, parse_buffers
from llmjax.errors import UserError

ASSIGNMENT = """BufferAssignment:
allocation 0: size 16384, parameter 0, shape |f32[64,64]| at ShapeIndex {}:
 value: <28 w.1 @0> (size=16384,offset=0): f32[64,64]{1,0}
allocation 1: size 8192, maybe-live-out:
 value: <29 first @0> (size=8192,offset=0): f32[32,64]{1,0}
 value: <30 last @0> (size=8192,offset=0): f32[32,64]{1,0}
allocation 2: size 16, output shape is |(f32[32,64])|, maybe-live-out:
 value: <38 tuple.1{} @0> (size=16,offset=0): (f32[32,64]{1,0})
allocation 3: size 4, constant:
 value: <35 k @0> (size=4,offset=0): f32[]
allocation 4: size 4, thread-local:
 value: <2 sum.5 @0> (size=4,offset=0): f32[]
allocation 5: size 8192, preallocated-temp:
 value: <31 middle @0> (size=4096,offset=4096): f32[16,64]{1,0}
"""
RANGES = """HloLiveRange (max 6):
  InstructionSequence:
    0:w.1
    1:k
    2:first
    3:middle
    4:last
    5:tuple.1
  BufferLiveRange:
    w.1{}:0-6
    k{}:1-3
    first{}:2-3
    middle{}:3-4
    last{}:4-6
    tuple.1{}:5-6
  Live ranges at 3 (peak):
    w.1{}: 16384 bytes (cumulative: 16384 bytes)
"""


def test_allocations_and_what_is_held_at_each_step():
    found = parse_buffers(ASSIGNMENT, RANGES)
    assert {kind: found.of(kind) for kind in KINDS} == {
        "arguments": 16384, "results": 8208, "constants": 4, "temporaries": 8192, "thread-local": 4,
    }  # fmt: skip
    assert found.reserved == 16384 + 8208 + 4 + 8192
    assert found.held == (16384, 16388, 24580, 28676, 28672, 24592)
    assert found.steps[found.peak_step] == "middle"
    assert found.at_peak == (("w.1", 16384), ("first", 8192), ("middle", 4096), ("k", 4))


def test_without_live_ranges_there_is_what_is_reserved():
    found = parse_buffers(ASSIGNMENT)
    assert (found.held, found.peak_step, found.reserved) == ((), None, 32788)


def test_what_is_no_assignment_is_refused():
    with pytest.raises(UserError, match="lists no allocation"):
        parse_buffers("HloModule m")


def test_a_dump_of_xla_is_read_with_its_module(tmp_path):
    """XLA's own peak, in its own dump of this machine's compiler, is the one that is found."""
    from tests.cost.dump import dump

    hlo = dump(tmp_path)
    own = next(tmp_path.glob("*live-range.txt")).read_text()
    peak = int(re.findall(r"cumulative: (\d+) bytes", own)[-1])
    report = llmjax.analyze_hlo(hlo)
    assert max(report.buffers.held) == peak
    assert report.buffers.of("arguments") + report.buffers.of("results") >= report.verdict.needed - 64
    memory = json.loads(report.to_json())["memory"]
    assert (memory["peak"], memory["steps"]) == (peak, len(memory["held"]))
    page = report.save_html(tmp_path / "page.html").read_text()
    assert "Memory over time" in page and "held at once" in page


def test_text_alone_has_none(tmp_path):
    file = tmp_path / "m.hlo"
    file.write_text("HloModule m\nENTRY e {\n  ROOT p = f32[4] parameter(0)\n}\n")
    assert find_buffers(file) is None and llmjax.analyze_hlo(file).buffers is None


@st.composite
def programs(draw):
    """Sizes of values, and the steps between which each lives."""
    steps = draw(st.integers(1, 8))
    span = st.tuples(st.integers(0, steps), st.integers(0, steps)).map(sorted)
    return steps, draw(st.lists(st.tuples(st.integers(0, 10**6), span), min_size=1, max_size=8))


@given(programs())
def test_what_is_held_is_the_sum_of_what_lives(program):
    steps, values = program
    lines = [
        f"allocation {k}: size {size}, preallocated-temp:\n value: <{k} v{k} @0> (size={size},offset=0): u8[]"
        for k, (size, _) in enumerate(values)
    ]
    ranges = ["  InstructionSequence:", *(f"    {k}:i{k}" for k in range(steps)), "  BufferLiveRange:"]
    ranges += [f"    v{k}{{}}:{first}-{last}" for k, (_, (first, last)) in enumerate(values)]
    found = parse_buffers("\n".join(lines), "\n".join(ranges))
    for step in range(steps):
        assert found.held[step] == sum(size for size, (first, last) in values if first <= step <= last)
    assert sum(size for _, size in found.at_peak) == max(found.held)


@given(st.text(max_size=200), st.integers(0, len(ASSIGNMENT)), st.integers(0, len(RANGES)))
def test_damaged_texts_are_read_or_refused(noise, one, other):
    try:
        found = parse_buffers(ASSIGNMENT[:one] + noise + ASSIGNMENT[one:], RANGES[:other] + noise + RANGES[other:])
    except UserError:
        return
    assert len(found.held) == len(found.steps)
