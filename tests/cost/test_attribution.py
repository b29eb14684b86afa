"""Whose cost it is: breakdowns that add up exactly, over fixtures of every backend and a GPT-2."""

from collections import Counter
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmjax
from llmjax.cost import Cost, cost_module
from llmjax.cost.attribution import KEYS, attribute, breakdown
from llmjax.cost.values import total
from llmjax.data.batches import Batch
from llmjax.hlo import parse
from llmjax.models.families import from_size, make_model
from llmjax.models.params import init_params, param_shapes
from llmjax.train import OptimizerConfig, init_state, make_optimizer, make_train_step
from llmjax.train.lm import lm_loss

HLO = Path(__file__).parent.parent / "testdata" / "hlo"
FIXTURES = sorted(path.name for path in HLO.glob("*.hlo"))
B, L, V = 2, 8, 100


@pytest.mark.parametrize("name", FIXTURES)
def test_breakdowns_of_fixtures_add_up(name):
    cost = cost_module(parse((HLO / name).read_text()))
    ops = attribute(cost)
    assert len(ops) == len(cost.ops) > 0
    for op in ops:
        assert total(part.cost for part in op.parts) == op.op.cost
    for key in KEYS:
        assert total(row.cost for row in breakdown(ops, key)) == cost.totals


FUSED = """HloModule m
f {{
  a = f32[{n}] parameter(0)
  b = f32[{n}] parameter(1)
  c = f32[{n}] constant({{...}})
  r = f32[{n}] bitcast(a)
  x = f32[{n}] add(r, b), metadata={{op_name="jit(f)/M/h_0/mlp/add" source_file="m.py" source_line=3}}
  y = f32[{n}] multiply(a, c), metadata={{op_name="jit(f)/M/h_1/mlp/mul" source_file="m.py" source_line=4}}
  z = f32[{n}] negate(x)
  ROOT t = (f32[{n}], f32[{n}]) tuple(y, z)
}}
ENTRY e {{
  p = f32[{n}] parameter(0)
  q = f32[{n}] parameter(1)
  ROOT o = (f32[{n}], f32[{n}]) fusion(p, q), kind=kLoop, calls=f, metadata={{op_name="jit(f)/M/h_2/add"}}
}}
"""


@given(st.integers(1, 10**6))
def test_a_fusion_is_split_over_its_interior(n):
    (op,) = attribute(cost_module(parse(FUSED.format(n=n))))
    shares = {part.instruction.name: part for part in op.parts}
    # `a` is read by x (through a bitcast) and y, `b` by x; y and z are written; the constant is left to the first
    # result.
    half = 4 * n // 2
    constant = 4 * n if n > 1 else 0
    assert shares["x"].cost == Cost(vector_flops=n, bytes_read=half + 4 * n)
    assert shares["y"].cost == Cost(vector_flops=n, bytes_read=half + constant, bytes_written=4 * n)
    assert shares["z"].cost == Cost(vector_flops=n, bytes_written=4 * n)
    assert [shares[name].place.layer for name in "xyz"] == [0, 1, 2]  # z has no name and takes the fusion's
    assert shares["x"].place.source == "m.py:3"
    assert shares["y"].place.source == "m.py:4"


def test_odd_bytes_go_to_the_first_reader():
    text = FUSED.format(n=3).replace("f32", "pred").replace("negate", "not").replace("add(r", "or(r")
    (op,) = attribute(cost_module(parse(text.replace("multiply", "and"))))
    read = {part.instruction.name: part.cost.bytes_read for part in op.parts}
    assert (read["x"], read["y"]) == (2 + 3, 1 + 3)


NAMELESS = """HloModule m
f {
  a = f32[4,4] parameter(0)
  s = f32[] parameter(1)
  b = f32[4,4] broadcast(s), dimensions={}
  ROOT x = f32[4,4] multiply(a, b), metadata={op_name="jit(f)/GPT2/h_5/attn/scores/mul"}
}
body {
  t = (s32[], f32[4,4]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  x = f32[4,4] get-tuple-element(t), index=1
  c = s32[] constant(1)
  j = s32[] add(i, c)
  y = f32[4,4] copy(x)
  ROOT r = (s32[], f32[4,4]) tuple(j, y)
}
cond {
  t = (s32[], f32[4,4]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  n = s32[] constant(3)
  ROOT l = pred[] compare(i, n), direction=LT
}
ENTRY e {
  p = f32[4,4] parameter(0), metadata={op_name="params['w']"}
  k = f32[] parameter(1)
  zero = s32[] constant(0)
  q = f32[4,4] copy(p), metadata={op_name="params['w']"}
  d = f32[4,4] dot(p, q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  o = f32[4,4] fusion(d, k), kind=kLoop, calls=f, metadata={op_name="jit(f)/GPT2/h_5/attn/softmax/exp"}
  m = (s32[], f32[4,4]) tuple(zero, o)
  w = (s32[], f32[4,4]) while(m), condition=cond, body=body, metadata={op_name="jit(f)/GPT2/blocks/while"}
  ROOT u = f32[4,4] get-tuple-element(w), index=1
  lonely = f32[] negate(k)
}
"""


def test_names_are_borrowed_nearby():
    ops = {op.name: op for op in attribute(cost_module(parse(NAMELESS)))}
    # The dot is read by an instruction inside the fusion; the copy, which has an argument's name, by the dot.
    assert (ops["d"].place.module_path, ops["d"].place.role) == ("GPT2/h_5/attn/scores", "attention scores")
    assert (ops["q"].place.module_path, ops["q"].place.role) == ("GPT2/h_5/attn/scores", "data movement")
    assert (ops["y"].place.module_path, ops["y"].place.role) == ("GPT2/blocks", "data movement")
    assert ops["y"].count == 3
    assert (ops["lonely"].place.module_path, ops["lonely"].place.role) == ("", "elementwise")
    rows = {row.key: row.cost for row in breakdown(ops.values(), "module_path")}
    assert rows["unattributed"] == ops["lonely"].total


@cache
def train_report():
    """A GPT-2's training step with a next-token loss, compiled from shapes."""
    # Without dropout, whose random numbers are most of what XLA would compile.
    config = from_size("tiny", vocab_size=V, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    settings = OptimizerConfig()
    step = make_train_step(lm_loss(config), settings, 10)
    key = jax.random.key(0)
    params = jax.eval_shape(lambda: init_params(config, "lm", key))
    state = jax.eval_shape(lambda params: init_state(params, make_optimizer(settings, 10), 0, False), params)
    ints, floats = jax.ShapeDtypeStruct((B,), jnp.int32), jax.ShapeDtypeStruct((B,), jnp.float32)
    batch = Batch(jax.ShapeDtypeStruct((B, L), jnp.int32), jax.ShapeDtypeStruct((B, L), jnp.bool_), ints, floats, ints)
    return config, llmjax.analyze(step, state, batch)


def test_a_line_without_a_scope_is_kept():
    """torch-xla writes `op_name="aten__mm"`, which is no path, beside the line."""
    text = """ENTRY e {
  p = f32[8,8] parameter(0)
  d = f32[8,8] dot(p, p), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="aten__mm" source_file="net/linear.py" source_line=114}
  ROOT r = f32[8,8] tanh(d), metadata={op_name="jit(f)/M/tanh" source_file="net/act.py" source_line=7}
}"""  # noqa: E501
    sources = {op.name: op.place.source for op in llmjax.analyze_hlo(text).ops}
    assert sources == {"d": "net/linear.py:114", "r": "net/act.py:7"}


def test_matmul_flops_of_a_train_step_by_role():
    """Forward, and twice that backward: 2 x tokens x weights of each projection, 2 x 2 x B L L D a layer of scores."""
    config, report = train_report()
    d, f, layers = config.width, config.layer.inner, config.layers
    expected = {
        "attention projections": layers * 2 * B * L * (3 * d * d + d * d),
        "attention scores": layers * 2 * 2 * B * L * L * d,
        "MLP": layers * 2 * B * L * 2 * d * f,
        "vocabulary projection": 2 * B * L * d * V,
    }
    found = {row.key: row.cost.matmul_flops for row in report.by("role") if row.cost.matmul_flops}
    assert found == {role: 3 * flops for role, flops in expected.items()}


def test_passes_of_a_train_step():
    _, report = train_report()
    flops = {row.key: row.cost.matmul_flops for row in report.by("pass")}
    assert flops["backward"] == 2 * flops["forward"] > 0
    assert flops["other"] == 0
    optimiser = [part for op in report.ops for part in op.parts if part.place.role == "optimiser"]
    assert {part.place.direction for part in optimiser} == {"other"}


def test_layers_of_a_train_step():
    config, report = train_report()
    flops = {row.key: row.cost.matmul_flops for row in report.by("layer")}
    assert flops[0] == flops[1] > 0
    assert set(flops) >= set(range(config.layers))
    assert flops["no layer"] == 3 * 2 * B * L * config.width * V
    assert [row.key for row in report.by("layer")][: config.layers] == list(range(config.layers))


def test_sources_of_a_train_step():
    _, report = train_report()
    scores = [p for op in report.ops for p in op.parts if p.place.module_path == "GPT2/h_0/attn/scores"]
    source = Path(llmjax.__file__).parent / "kernels" / "attention.py"
    lines = source.read_text().splitlines()
    found = Counter(part.place.source for part in scores if part.cost.matmul_flops)
    file, _, number = found.most_common(1)[0][0].rpartition(":")
    assert Path(file) == source
    assert "einsum" in lines[int(number) - 1]
    # Layer norms are Linen's own code: the source is the line of the model that calls it.
    norms = {p.place.source.rpartition(":")[0] for op in report.ops for p in op.parts if p.place.role == "layer norm"}
    assert not any("site-packages" in file for file in norms)


def test_a_recomputed_layer_is_backward():
    config = from_size("tiny", vocab_size=V, remat=True, n_layer=1)
    model = make_model(config, "none")
    params = param_shapes(config, "none")
    tokens = jax.ShapeDtypeStruct((B, L), jnp.int32)

    def loss(params, tokens):
        return model.apply({"params": params}, tokens).sum()

    report = llmjax.analyze(jax.grad(loss), params, tokens)
    d, f = config.width, config.layer.inner
    flops = {row.key: row.cost.matmul_flops for row in report.by("pass")}
    layer = 2 * B * L * (4 * d * d + 2 * d * f) + 2 * 2 * B * L * L * d
    assert flops["backward"] >= 2 * layer
    assert {row.key for row in report.by("module_path")} >= {"GPT2/h_0/attn/c_attn", "GPT2/h_0/mlp/c_fc"}
    assert not any("checkpoint" in str(row.key) for row in report.by("module_path"))


@pytest.mark.parametrize("scan", [False, True])
def test_a_prompt_by_role(scan):
    """The forward pass's products from the config, in a loop over layers and without."""
    config = from_size("tiny", vocab_size=V, scan_layers=scan)
    model = make_model(config, "lm")
    params = jax.eval_shape(lambda: init_params(config, "lm", jax.random.key(0)))
    report = llmjax.analyze(
        lambda params, tokens: model.apply({"params": params}, tokens), params, jax.ShapeDtypeStruct((B, L), jnp.int32)
    )
    d, f, layers = config.width, config.layer.inner, config.layers
    found = {row.key: row.cost.matmul_flops for row in report.by("role") if row.cost.matmul_flops}
    assert found == {
        "attention projections": layers * 2 * B * L * 4 * d * d,
        "attention scores": layers * 2 * 2 * B * L * L * d,
        "MLP": layers * 2 * B * L * 2 * d * f,
        "vocabulary projection": 2 * B * L * d * V,
    }
    assert {row.key for row in report.by("pass") if row.cost.flops} <= {"forward", "other"}
