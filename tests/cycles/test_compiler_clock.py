"""The compiler's own clock, read from text of TPU and GPU, and how predictions agree with it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cost import cost_module
from llmjax.cycles.compiler_clock import OpClock, agreement, compiler_clock, models, total_cycles
from llmjax.hlo import parse

HLO = Path(__file__).parent.parent / "testdata" / "hlo"


def clock_of(name):
    return compiler_clock(cost_module(parse((HLO / f"{name}.hlo").read_text())))


def text(config, opcode="negate"):
    return (
        f"HloModule m\nENTRY e {{\n  p = f32[8]{{0}} parameter(0)\n"
        f"  ROOT x = f32[8]{{0}} {opcode}(p), backend_config={config}\n}}\n"
    )


def one(config):
    return compiler_clock(cost_module(parse(text(config)))).get("x")


def test_tpu_text_has_cycles_of_most_fusions():
    clock = clock_of("tpu_block_bf16")
    op = clock["convert_reduce_fusion.7"]
    assert (op.cycles, op.seconds, op.model, op.count) == (1868, None, "estimated_cycles", 1)
    assert models(clock) == ("estimated_cycles",)
    assert total_cycles(clock) == sum(op.cycles for op in clock.values()) > 30_000


def test_a_loop_body_counts_as_often_as_it_runs():
    clock = clock_of("tpu_scan_f32")
    inside = [op for op in clock.values() if op.count == 3]
    assert inside and all(op.total_cycles == 3 * op.cycles for op in inside)


def test_gpu_text_names_its_models():
    clock = clock_of("gpu_block_bf16")
    softmax, product = clock["triton_softmax.22"], clock["gemm_fusion_dot"]
    assert softmax.model == "gpu-performance-model"
    assert softmax.cycles == pytest.approx(10873.665) and softmax.seconds == pytest.approx(5.49175e-6)
    # The general model takes this product for 131 cycles; the one made for products says 10128.
    assert product.model == "experimental-gemm-cost-model" and product.cycles == pytest.approx(10128.195)
    assert set(models(clock)) == {"gpu-performance-model", "experimental-gemm-cost-model"}


def test_cpu_text_has_none():
    clock = clock_of("cpu_0.12.0.1_block_f32")
    assert clock == {} and total_cycles(clock) is None and models(clock) == ()


@pytest.mark.parametrize(
    ("config", "cycles"),
    [
        ('{"window_config":{"estimated_cycles":"12"}}', 12),
        ('{"window_config":{"estimated_cycles":12.5}}', 12.5),
        ('{"window_config":{"estimated_cycles":"0"}}', None),
        ('{"window_config":{"estimated_cycles":"-34"}}', None),
        ('{"window_config":{"estimated_cycles":"nan"}}', None),
        ('{"window_config":{"estimated_cycles":"many"}}', None),
        ('{"window_config":{}}', None),
        ('{"window_config":[]}', None),
        ('{"reification_cost":[]}', None),
        ('{"reification_cost":{"end_to_end_cycles":3}}', None),
        ('{"reification_cost":[3,{"end_to_end_cycles":7,"name":""}]}', 7),
        ('{"reification_cost":[{"end_to_end_cycles":7,"name":"sol"}]}', None),
        (
            '{"reification_cost":[{"end_to_end_cycles":0,"name":""},'
            '{"end_to_end_cycles":9,"name":"indexing-cost-model"}]}',
            9,
        ),
        ('"no json"', None),
    ],
)  # fmt: skip
def test_odd_configs(config, cycles):
    found = one(config)
    assert (found and found.cycles) == cycles


def test_agreement_of_known_figures():
    clock = {n: OpClock(n, 2, c, None, "estimated_cycles") for n, c in dict(a=10, b=20, c=30, d=40, e=0).items()}
    found = agreement(clock, {"a": 40, "b": 80, "c": 120, "d": 8000, "e": 5, "f": 1}, worst=2)
    assert (found.ops, found.median_ratio) == (4, 2.0)
    assert found.kendall == pytest.approx(1) and found.spearman == pytest.approx(1)
    assert found.worst[0] == ("d", 8000, 80) and len(found.worst) == 2
    nothing = agreement({}, {"a": 1.0})
    assert (nothing.ops, nothing.median_ratio, nothing.kendall, nothing.worst) == (0, None, None, ())
    assert agreement(clock, {"a": 1.0}).kendall is None


@given(st.lists(st.floats(1, 1e9), min_size=2, max_size=20, unique=True), st.floats(0.01, 100))
def test_a_constant_factor_is_the_ratio_and_keeps_the_ranks(cycles, factor):
    clock = {str(k): OpClock(str(k), 1, c, None, "m") for k, c in enumerate(cycles)}
    found = agreement(clock, {str(k): c * factor for k, c in enumerate(cycles)})
    assert found.median_ratio == pytest.approx(factor)
    if len({c * factor for c in cycles}) == len(cycles):
        assert found.kendall == pytest.approx(1) and found.spearman == pytest.approx(1)
