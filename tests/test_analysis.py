"""The pipeline: rows and groups add up to the ops, in cost and in time."""

from pathlib import Path

import pytest

from llmjax.analysis import Analysis, analysis_of
from llmjax.cost.attribution import KEYS
from llmjax.cost.values import total
from llmjax.cycles.device import load_device
from llmjax.cycles.measured import Measured, MeasuredOp, Profile
from llmjax.hlo import parse

HLO = Path(__file__).parent / "testdata" / "hlo"
LOOP = """HloModule m
body {
  x = f32[4,4] parameter(0)
  ROOT y = f32[4,4] dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
cond {
  x = f32[4,4] parameter(0)
  ROOT l = pred[] custom-call(x), custom_call_target="mystery"
}
ENTRY e {
  p = f32[4,4] parameter(0)
  ROOT w = f32[4,4] while(p), condition=cond, body=body
}
"""


def timed(name: str) -> Analysis:
    """A module with predicted times, and a microsecond more for each op as measured ones."""
    module = parse((HLO / name).read_text())
    names = [op.name for op in analysis_of(module).ops]
    ops = {op: MeasuredOp(op, Measured(*[k * 1e-6] * 3), 1, ("t",)) for k, op in enumerate(names, 1)}
    whole = Measured(*[sum(op.time.median for op in ops.values())] * 3)
    measured = Profile(module.name, whole, whole, ops, 1.0, 5)
    return analysis_of(module, device=load_device("gpu:h100"), measured=measured)


@pytest.mark.parametrize("name", ["gpu_block_bf16.hlo", "cpu_0.12.0.1_scan_f32.hlo", "tpu_block_bf16.hlo"])
def test_rows_add_up_to_the_ops(name: str) -> None:
    found = timed(name)
    assert found.time is not None and found.measured is not None
    predicted = sum(found.time.by_name[op.name].seconds for op in found.ops)
    measured = sum(op.time.median for op in found.measured.ops.values())
    for rows in (*(found.by(key) for key in KEYS), found.alike()):
        assert total(row.cost for row in rows) == found.totals
        assert sum(row.predicted or 0 for row in rows) == pytest.approx(predicted)
        assert sum(row.measured or 0 for row in rows) == pytest.approx(measured)


def test_the_longest_time_comes_first() -> None:
    rows = timed("gpu_block_bf16.hlo").by("role")
    times = [row.measured or 0 for row in rows]
    assert times == sorted(times, reverse=True) and times[0] > times[-1]


def test_without_times_rows_have_none() -> None:
    found = analysis_of(parse((HLO / "gpu_block_bf16.hlo").read_text()))
    assert not found.is_timed and found.hertz is None
    assert {(row.predicted, row.measured) for row in (*found.by("role"), *found.alike())} == {(None, None)}


def test_layers_that_are_alike_are_one() -> None:
    groups = timed("gpu_block_bf16.hlo").alike()
    both = [group for group in groups if len(group.ops) == 2 and "*" in group.where]
    assert both
    for group in both:
        first, second = group.ops
        assert first.op.cost == second.op.cost and first.place.layer != second.place.layer
        assert group.name == f"{first.name} +1" and group.count == first.count + second.count


def test_trips_are_those_of_the_loops_left_open() -> None:
    module = parse(LOOP)
    assert analysis_of(module).cost.unknown_trip_counts == ("w",)
    assert analysis_of(module, trips=7).totals.matmul_flops == 7 * 2 * 4**3
    assert analysis_of(module, trips=7, trip_counts={"w": 2}).totals.matmul_flops == 2 * 2 * 4**3
