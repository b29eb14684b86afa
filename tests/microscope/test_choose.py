"""Which op is meant, which are alike, whose code is whose."""

import pytest

from llmjax import analyze_hlo
from llmjax.errors import UserError
from llmjax.microscope import choose

TEXT = """HloModule m, is_scheduled=true

fused_a (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %e = f32[8]{0} exponential(%p), metadata={op_name="jit(f)/GPT2/h_0/attn/softmax/exp"}
}

fused_b (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %e.1 = f32[8]{0} exponential(%q), metadata={op_name="jit(f)/GPT2/h_1/attn/softmax/exp"}
}

fused_c (r: f32[8]) -> f32[8] {
  %r = f32[8]{0} parameter(0)
  ROOT %t = f32[8]{0} tanh(%r), metadata={op_name="jit(f)/GPT2/h_1/mlp/tanh"}
}

ENTRY main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %exp_fusion = f32[8]{0} fusion(%x), kind=kLoop, calls=fused_a, metadata={op_name="jit(f)/GPT2/h_0/attn/softmax/exp"}
  %exp_fusion.1 = f32[8]{0} fusion(%exp_fusion), kind=kLoop, calls=fused_b, metadata={op_name="a/GPT2/h_1/softmax/exp"}
  ROOT %tanh_fusion = f32[8]{0} fusion(%exp_fusion.1), kind=kLoop, calls=fused_c, metadata={op_name="jit(f)/x/y"}
}
"""


@pytest.fixture(scope="module")
def report():
    return analyze_hlo(TEXT)


def names(report, wanted, size=lambda op: 1.0):
    return [op.name for op in choose.choose(report.cost.module, report.ops, wanted, size)]


def test_by_name_role_and_path(report):
    assert names(report, "%tanh_fusion") == ["tanh_fusion"]
    assert names(report, "mlp") == names(report, "GPT2/h_1/mlp") == names(report, "h_*/mlp") == ["tanh_fusion"]
    assert sorted(names(report, "softmax")) == ["exp_fusion", "exp_fusion.1"]
    assert names(report, "h_1/attn/softmax") == ["exp_fusion.1"]
    assert sorted(names(report, "h_1")) == ["exp_fusion.1", "tanh_fusion"]


def test_what_is_alike_counts_together_and_the_median_is_shown(report):
    sizes = {"exp_fusion": 3.0, "exp_fusion.1": 2.0, "tanh_fusion": 4.0}
    assert names(report, "GPT2", lambda op: sizes[op.name]) == ["exp_fusion.1", "exp_fusion", "tanh_fusion"]


def test_unknown_names_are_one_line(report):
    with pytest.raises(
        UserError, match=r"'softmx' is no op, role or module path\. Near it: softmax.*Roles: MLP, softmax"
    ):
        names(report, "softmx")
    with pytest.raises(UserError, match="is no op"):
        names(report, "")


def test_one_kernel_serves_all_that_compute_the_same(report):
    module = report.cost.module
    by_name = {op.name: op for op in report.ops}
    twins = choose.alike(module, by_name["exp_fusion"], report.ops)
    assert [op.name for op in twins] == ["exp_fusion", "exp_fusion.1"]
    assert choose.symbol_of(by_name["exp_fusion"], twins, ["exp_fusion.1", "tanh_fusion"]) == "exp_fusion.1"
    assert choose.symbol_of(by_name["exp_fusion"], twins, ["exp_fusion_kernel", "exp_fusion.1"]) == "exp_fusion_kernel"
    assert choose.symbol_of(by_name["exp_fusion"], twins, ["tanh_fusion"]) is None


def test_hlo_with_and_without_its_clutter(report):
    op = next(op for op in report.ops if op.name == "tanh_fusion")
    text = choose.hlo_text(TEXT, report.cost.module, op)
    assert text.startswith("fused_c (r") and text.rstrip().splitlines()[-1].startswith("ROOT %tanh_fusion")
    assert choose.short_hlo(text) == [
        "fused_c (r: f32[8]) -> f32[8] {",
        "  ROOT t = f32[8] tanh(r)",
        "}",
        "ROOT tanh_fusion = f32[8] fusion(exp_fusion.1), kind=kLoop, calls=fused_c",
    ]
