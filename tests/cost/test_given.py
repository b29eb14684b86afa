"""A user's own figures for custom calls."""

import json

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

import llmjax
from llmjax.cost import Cost
from llmjax.cost.given import given_table
from llmjax.errors import UserError

TEXT = """HloModule m
ENTRY e {
  a = f32[8,16] parameter(0)
  b = f32[16,4] parameter(1)
  ROOT y = f32[8,4] custom-call(a, b), custom_call_target="my_kernel"
}
"""
FIGURES = {"flops": "2 * x0[0] * x0[1] * x1[-1]", "transcendentals": "size(y0)", "bytes": "nbytes(x0) + nbytes(y0)"}


def op_of(figures):
    (op,) = llmjax.analyze_hlo(TEXT, custom_calls={"my_kernel": figures}).ops
    return op.op


def test_formulas_of_shapes():
    op = op_of(FIGURES)
    assert op.cost == Cost(2 * 8 * 16 * 4, 0, 32, 8 * 16 * 4, 8 * 4 * 4)
    assert op.given and not op.unmodelled
    assert op.traffic.cost.bytes == op.cost.bytes


def test_numbers_and_all_operands_where_no_bytes_are_given():
    op = op_of({"flops": 1000, "vector_flops": 5})
    assert op.cost == Cost(1000, 5, 0, (8 * 16 + 16 * 4) * 4, 8 * 4 * 4)


def test_a_file_is_as_good_and_the_report_says_whose_they_are(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"my_kernel": FIGURES}))
    report = llmjax.analyze_hlo(TEXT, custom_calls=file)
    (op,) = json.loads(report.to_json())["ops"]
    assert op["provenance"] == "user"
    assert "By figures that the user gave: y." in str(report)


def test_without_them_it_is_unmodelled():
    (op,) = llmjax.analyze_hlo(TEXT).ops
    assert op.op.unmodelled and not op.op.given


@pytest.mark.parametrize(
    "formula", ["2 * x7[0]", "x0[5]", "0 - 3", "1 / (x0[0] - 8)", "9 ** 9", "2 ** -x0[1]", "size(z0)"]
)
def test_what_does_not_fit_the_shapes_is_named_and_not_counted(formula):
    op = op_of({"flops": formula})
    assert formula in op.unmodelled and not op.given


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"k": {"flop": 1}}, "'flop' is none of flops, vector_flops, transcendentals, bytes. Did you mean 'flops'?"),
        ({"k": {"flops": "__import__('os')"}}, "is not allowed"),
        ({"k": {"flops": "(lambda: 1)()"}}, "is not allowed"),
        ({"k": {"flops": "2 *"}}, "is no formula"),
        ({"k": {"flops": -1}}, "must be a number of 0 or more"),
        ({"k": {"flops": True}}, "must be a number"),
        ({"k": 3}, "must be figures such as"),
        ("nowhere.json", "cannot be read"),
    ],
)
def test_mistakes_are_named_in_one_line(table, said):
    with pytest.raises(UserError) as caught:
        given_table(table)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@for_all(st.text(alphabet="xy01[]()*+-/ sizenbt.,", max_size=30))
def test_any_formula_is_counted_or_refused(formula):
    try:
        op = op_of({"flops": formula})
    except UserError:
        return
    assert op.unmodelled or op.cost.matmul_flops >= 0
