"""Twice the rows of a program, from its HLO alone."""

import jax
import jax.numpy as jnp
import pytest

import llmjax
from llmjax.cost import cost_module
from llmjax.cycles.batch import kept_of
from llmjax.cycles.device import load_device
from llmjax.cycles.model import predict
from llmjax.cycles.whatif import what_ifs
from llmjax.hlo import parse

PRODUCT = """HloModule m
ENTRY e {
  a = bf16[ROWS,4096]{1,0} parameter(0), metadata={op_name="x"}
  b = bf16[4096,4096]{1,0} parameter(1), metadata={op_name="NAME"}
  c = bf16[ROWS,4096]{1,0} dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT y = bf16[ROWS,4096]{1,0} tanh(c)
}
"""


def cost(rows, name="w['kernel']"):
    return cost_module(parse(PRODUCT.replace("ROWS", str(rows)).replace("NAME", name)))


@pytest.mark.parametrize("rows", [1, 64, 4096])
@pytest.mark.parametrize("device", ["gpu:h100", "tpu:v5e"])
def test_twice_the_rows_take_what_a_program_of_so_many_takes(rows, device):
    chip, few = load_device(device), cost(rows)
    (found,) = (answer for answer in what_ifs(few, predict(few, chip)) if answer.name == "batch")
    assert 2 * found.seconds == pytest.approx(predict(cost(2 * rows), chip).overlapped, rel=0.02)
    assert found.speedup >= 1 - 1e-9


def test_nothing_is_said_where_either_side_could_be_weights():
    assert kept_of(cost(8, "w")) is None


def test_weights_are_seen_through_loops_and_casts_and_rows_are_not_weights():
    def forward(weights, x, cache):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w.astype(jnp.float32)), None), x, weights["layers"])
        return jnp.einsum("bd,bsd->bs", x, cache)

    weights = {"layers": jax.ShapeDtypeStruct((3, 64, 64), jnp.bfloat16)}
    x, cache = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 64), (4, 16, 64)))
    report = llmjax.analyze(forward, weights, x, cache)
    kept = kept_of(report.cost)
    assert kept is not None
    products = {op.name: kept[op.name] for op in report.ops if op.op.cost.matmul_flops}
    assert sorted((each.side is None, each.bytes) for each in products.values()) == [(False, 4 * 64 * 64), (True, 0.0)]
    assert any(each.whole for each in kept.values())  # the cast


def test_nothing_is_said_of_training():
    def loss(weights, x):
        return (jnp.tanh(x @ weights["w"]) ** 2).sum()

    shapes = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)}, jax.ShapeDtypeStruct((4, 64), jnp.float32)
    assert kept_of(llmjax.analyze(jax.grad(loss), *shapes).cost) is None
