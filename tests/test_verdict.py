"""What bounds a program, the ops that matter, and the sentences that say it."""

import json
import re

import pytest

import llmjax
from llmjax.errors import UserError
from llmjax.report.answers import answers
from llmjax.verdict import MOST, op_verdict
from tests.conftest import ROOT

BLOCK = ROOT / "tests/testdata/hlo/gpu_block_bf16.hlo"
ONE_ROW = """HloModule m, input_output_alias={ {0}: (0, {}, may-alias) }
ENTRY e {
  a = bf16[8,4096]{1,0} parameter(0)
  b = bf16[4096,16384]{1,0} parameter(1), metadata={op_name="params['w']"}
  c = bf16[8,16384]{1,0} dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT y = (bf16[8,4096]{1,0}, bf16[8,16384]{1,0}) tuple(a, c)
}
"""


def said(text, card=None):
    return answers(json.loads(llmjax.analyze_hlo(text, card=card).to_json()))


def test_a_verdict_adds_up():
    report = llmjax.analyze_hlo(BLOCK, card="gpu:h100")
    found = report.verdict
    assert sum(share for _, share in found.bounds) == pytest.approx(1)
    shares = [(group.predicted or 0) / sum(g.predicted or 0 for g in report.alike()) for group in report.alike()]
    assert sum(shares[: found.few]) >= MOST > sum(shares[: found.few - 1])
    assert [heavy.share for heavy in found.heavy] == pytest.approx(sorted(shares, reverse=True)[:3])


def test_a_product_of_few_rows_is_bound_by_memory_and_wants_bandwidth_or_rows():
    bound, ops, change = said(ONE_ROW, "gpu:h100")
    assert bound.startswith("Main memory (HBM) bounds ") and "of the chip's bf16 peak" in bound
    assert "Look at c" in ops and "1 of 1 kinds of op make up 80% of it" in ops
    assert "twice the bandwidth of HBM" in change and re.search(
        r"a batch twice as large \(per row\) (1\.[5-9]|2\.0)", change
    )


def test_donated_arguments_are_counted_once():
    arguments, results = 2 * (8 * 4096 + 4096 * 16384), 2 * 8 * (4096 + 16384)
    assert llmjax.analyze_hlo(ONE_ROW).verdict.needed == arguments + results - 2 * 8 * 4096


def test_without_a_chip_it_says_so_and_times_nothing():
    bound, ops, change = said(ONE_ROW)
    assert (
        "a byte of main memory" in bound and "of FLOPs or bytes, whichever is more" in ops and "Name a chip" in change
    )


def test_a_program_without_ops_says_nothing():
    assert said("HloModule m\nENTRY e {\n  ROOT p = f32[4] parameter(0)\n}\n", "gpu:h100") == []


def test_hlo_of_another_chip_is_said_to_be():
    text = (ROOT / "tests/testdata/frameworks/plain_rnn.hlo").read_text()
    assert "compiled for a CPU and is timed as it stands on Google TPU v5e" in " ".join(
        str(llmjax.analyze_hlo(text, card="tpu:v5e")).replace("│", " ").split()
    )
    assert "ANOTHER CHIP" not in str(llmjax.analyze_hlo(BLOCK, card="gpu:h100"))


def test_an_op_is_explained_by_its_name_its_path_or_its_role():
    report = llmjax.analyze_hlo(BLOCK, card="gpu:h100")
    op = max(report.ops, key=lambda op: op.total.matmul_flops)
    found = op_verdict(report, op.name)
    assert op.name in {each.name for group in report.alike() if group.name == found.op.name for each in group.ops}
    assert found.op.bound and found.peak_share and found.what_ifs
    assert op_verdict(report, op.place.role).op.role == op.place.role
    assert op_verdict(report, "h_1").op.where.startswith("h_")
    what, bound, change = report.explain(op.name).splitlines()
    assert op.place.role in what and "It is bound by" in bound and "with one thing changed" in change


def test_an_op_that_is_not_there_is_named():
    with pytest.raises(UserError, match="Did you mean"):
        llmjax.analyze_hlo(ONE_ROW).explain("cc")


def test_without_a_chip_an_op_has_its_counts():
    what, change = llmjax.analyze_hlo(ONE_ROW).explain("c").splitlines()
    assert "of FLOPs or bytes: 1.07 GFLOP" in what and "Name a chip" in change
