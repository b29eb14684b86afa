"""The same program timed again with one thing changed."""

from dataclasses import replace

import pytest

from llmjax.cost import cost_module
from llmjax.cycles.device import load_device, override
from llmjax.cycles.model import predict
from llmjax.cycles.whatif import main_dtype, rates, what_ifs
from llmjax.hlo import parse

PRODUCT = """HloModule m
ENTRY e {
  a = TYPE[ROWS,4096]{1,0} parameter(0)
  b = TYPE[4096,4096]{1,0} parameter(1)
  c = TYPE[ROWS,4096]{1,0} dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT y = TYPE[ROWS,4096]{1,0} tanh(c)
}
"""


def answers(rows, dtype="bf16", device="gpu:h100"):
    cost = cost_module(parse(PRODUCT.replace("ROWS", str(rows)).replace("TYPE", dtype)))
    time = predict(cost, load_device(device))
    return time, {answer.name: answer for answer in what_ifs(cost, time)}


def test_one_row_wants_bandwidth_and_many_rows_want_compute():
    _, one = answers(1)
    _, many = answers(16384)
    assert one["bandwidth"].speedup > 1.25 > 1.1 > one["compute"].speedup
    assert many["compute"].speedup > 1.5 > 1.2 > many["bandwidth"].speedup


def test_a_change_of_the_device_is_what_that_device_predicts():
    cost = cost_module(parse(PRODUCT.replace("ROWS", "1").replace("TYPE", "bf16")))
    device = load_device("gpu:h100")
    time, found = answers(1)
    faster = override(device, {"bandwidth": 2 * device.main_memory.bandwidth.value})
    assert found["bandwidth"].seconds == pytest.approx(predict(cost, faster).overlapped)
    assert found["bandwidth"].speedup == pytest.approx(time.overlapped / found["bandwidth"].seconds)


def test_nothing_makes_it_slower_and_the_best_comes_first():
    for device in ("gpu:h100", "tpu:v5e"):
        time, found = answers(64, "f32", device)
        speedups = [answer.speedup for answer in found.values()]
        assert speedups == sorted(speedups, reverse=True) and min(speedups) >= 1 - 1e-9
        assert time.overlapped > 0


def test_what_does_not_apply_is_left_out():
    _, found = answers(1, "s8")
    assert not {"dtype", "links"} & set(found)


def test_a_tpu_whose_compiler_wrote_cycles_answers_too(repo):
    cost = cost_module(parse((repo / "tests/testdata/hlo/tpu_block_f32.hlo").read_text()))
    time = predict(cost, load_device("tpu:v5e"))
    found = {answer.name: answer for answer in what_ifs(cost, time)}
    assert found["starts"].speedup > 1.5 and found["bandwidth"].speedup > 1


def test_rates_are_of_the_roofs():
    device = load_device("gpu:h100")
    cost = cost_module(parse(PRODUCT.replace("ROWS", "16384").replace("TYPE", "bf16")))
    found = rates(cost, device, 1e-3)
    assert found.dtype == "bf16"
    assert found.peak_share == pytest.approx(cost.totals.flops / 1e-3 / device.matmul["bf16"].value)
    assert found.ridge == pytest.approx(device.matmul["bf16"].value / device.main_memory.bandwidth.value)
    assert 0 < found.bandwidth_share < 1


def test_the_main_type_is_that_of_products(repo):
    from llmjax.cycles.features import features

    cost = cost_module(parse(PRODUCT.replace("ROWS", "8").replace("TYPE", "bf16")))
    ops = features(cost, load_device("gpu:h100"))
    assert main_dtype(ops) == "bf16" and main_dtype(()) == ""
    assert main_dtype([replace(f, matmul=0.0, dtype="f16") for f in ops]) == "f16"
