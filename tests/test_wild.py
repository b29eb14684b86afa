"""Programs from strangers that lie beside a development checkout, each with the figure that is right."""

from __future__ import annotations

from pathlib import Path

import pytest

import llmjax
from llmjax.analyser import read_hlo
from llmjax.analysis import Analysis
from llmjax.cost.collectives import exchanges, nodes_spanned
from llmjax.errors import UserError
from llmjax.hlo import split_modules
from tests.conftest import ROOT

WILD = ROOT.parent / "shared" / "wild"
FILES = sorted(path for path in WILD.glob("*") if path.suffix != ".md") if WILD.is_dir() else []


@pytest.fixture
def wild(shared_wild: Path):
    return lambda name: llmjax.analyze_hlo(shared_wild / name)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("all_reduce_start_nested.hlo", 3_145_728),
        ("all_reduce_start_plain.hlo", 3_145_728),
        ("async_fusion_allreduce.hlo", 7_000),
        ("group_spaces.hlo", 2 * 4096 * 63 // 64),
        ("mesh_ok.hlo", 4_096),
        ("permute_slices.hlo", 512),
        ("s4_packed.hlo", 57_344),
        ("tpu_all_reduce_scatter.hlo", 14_680_064),
    ],
)
def test_bytes_sent(wild, name, sent):
    assert wild(name).totals.collective_bytes == sent


def test_the_forms_of_a_start_cost_the_same(wild):
    assert wild("all_reduce_start_nested.hlo").totals == wild("all_reduce_start_plain.hlo").totals
    assert wild("call_start.hlo").totals == wild("call_start_braces.hlo").totals


def test_sixteen_devices_lie_on_two_nodes_of_eight(wild):
    report = wild("all_to_all_16.hlo")
    (op,) = report.cost.ops
    groups = exchanges(op, report.cost.module)
    assert groups == (tuple(range(16)),) and nodes_spanned(groups, 8) == 2


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("nested_inline.hlo", 3_000),
        ("nested_inline_shaped.hlo", 3_000),
        ("log_prefixed.hlo", 3_000),
        ("comment_in_shape.hlo", 2 * 128 * 20 * 16),
        ("bom_crlf.hlo", 4),
        ("call_start.hlo", 1_000),
        ("async_start_host.hlo", 1_000),
    ],
)
def test_flops(wild, name, flops):
    assert wild(name).totals.flops == flops


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("loop_twice_step.hlo", [(10, "inferred")]),
        ("loop_and_tolerance.hlo", [(50, "bounded")]),
        ("loop_once_flag.hlo", [(1, "inferred")]),
        ("loop_triangle.hlo", [(11, "inferred"), (5, "inferred")]),
    ],
)
def test_loops(wild, name, counts):
    report = wild(name)
    assert [(loop.trip_count, loop.source) for loop in report.cost.loops] == counts
    assert report.cost.upper_bound == (name == "loop_and_tolerance.hlo")
    assert not report.cost.lower_bound


def test_a_triangle_runs_its_inner_body_fifty_five_times(wild):
    counts = {op.op.computation: op.count for op in wild("loop_triangle.hlo").ops}
    assert counts["ibody"] == 55


def test_a_whole_program_says_so(wild):
    report: Analysis = wild("unpartitioned.hlo")
    assert (report.stage.name, report.stage.devices) == ("whole", 8)
    assert report.totals.matmul_flops / report.stage.devices == 33_554_432
    assert "WHOLE PROGRAM" in str(report) and "33.6 M" in str(report)


@pytest.mark.parametrize("name", ["torch_xla_metadata.hlo", "torch_xla_scope.hlo"])
def test_the_line_is_known(wild, name):
    assert wild(name).ops[0].place.source == "/home/me/net/linear.py:114"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openxla_45559.hlo", "there is no bogus"),
        ("openxla_46955.hlo", "as many elements as the operand has (32, not 31"),
        ("openxla_49227.hlo", "there is no nope"),
        ("two_modules.hlo", "holds 2 modules (first, second)"),
        ("jaxpr.txt", "is a jaxpr, not HLO text: take the text after compilation"),
        ("proto.pbtxt", "is an HloProto in text form, not HLO text"),
        ("truncated.hlo", "the text is cut off there"),
    ],
)
def test_what_is_refused_is_named(wild, name, said):
    with pytest.raises(UserError) as caught:
        wild(name)
    assert said in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_two_modules_are_two_programs(shared_wild):
    texts = split_modules(read_hlo(shared_wild / "two_modules.hlo"))
    assert [llmjax.analyze_hlo(text).name for text in texts] == ["first", "second"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_analysed_or_refused_in_one_line(file):
    try:
        assert llmjax.analyze_hlo(file).ops is not None
    except UserError as error:
        assert "\n" not in str(error)


def test_stablehlo_is_compiled_and_counted(wild):
    report = wild("stablehlo.mlir")
    assert report.backend == "cpu" and report.totals.flops == 4
