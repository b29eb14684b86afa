"""Module paths of programs whose names have no scopes."""

import jax
import jax.numpy as jnp
import pytest

import llmjax
from llmjax.cost.paths import argument_path, is_product_with_weights
from llmjax.hlo.parser import parse

nnx = pytest.importorskip("flax.nnx")
D, V, B, L, N = 16, 40, 2, 8, 2


class Attention(nnx.Module):
    def __init__(self, rngs):
        self.query = nnx.Linear(D, D, rngs=rngs)
        self.out = nnx.Linear(D, D, rngs=rngs)

    def __call__(self, x):
        q = self.query(x)
        return self.out(jax.nn.softmax(q @ q.mT) @ q)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.attention = Attention(rngs)
        self.norm = nnx.LayerNorm(D, rngs=rngs)
        self.mlp = nnx.Linear(D, D, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + jax.nn.gelu(self.mlp(x))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(V, D, rngs=rngs)
        self.layers = nnx.List([Block(rngs) for _ in range(N)])

    def __call__(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.embed.attend(x)


def test_flax_nnx_is_told_by_its_weights_and_classes():
    """FLOPs by role from the sizes: NNX writes no scope into an op's name."""
    graph, state = nnx.split(Net(nnx.Rngs(0)))
    report = llmjax.analyze(lambda s, t: nnx.merge(graph, s)(t), state, jax.ShapeDtypeStruct((B, L), jnp.int32))
    flops = {row.key: row.cost.matmul_flops for row in report.by("role") if row.cost.matmul_flops}
    assert flops == {
        "attention projections": N * 2 * (2 * B * L * D * D),
        "attention scores": N * 2 * (2 * B * L * L * D),
        "MLP": N * 2 * B * L * D * D,
        "vocabulary projection": 2 * B * L * D * V,
    }
    paths = {row.key for row in report.by("module_path")}
    assert paths >= {f"layers/{n}/attention/{name}" for n in range(N) for name in ("query", "out")}
    assert "Net/Block/LayerNorm" in paths
    layers = {row.key: row.cost.matmul_flops for row in report.by("layer")}
    assert layers[0] == layers[1] == 3 * 2 * B * L * D * D


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("state['layers'][1]['attention']['query']['kernel'].value", "layers/1/attention/query"),
        ("model.layers[0].mlp.bias.value", "layers/0/mlp"),
        ("params['wte']['embedding']", "wte"),
        ("tokens", ""),
        ("", ""),
    ],
)
def test_argument_path(name, path):
    assert argument_path(name) == path


@pytest.mark.parametrize(
    ("line", "weights"),
    [
        ("dot(a, b), lhs_contracting_dims={2}, rhs_contracting_dims={1}", True),
        (
            "dot(a, b), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}",
            False,
        ),
        ("negate(a)", False),
        ('custom-call(a, b), custom_call_target="nobody"', False),
    ],
)
def test_a_product_with_weights_has_no_batch_of_matrices(line, weights):
    operands = "  a = f32[2,3,4] parameter(0)\n  b = f32[2,4,5] parameter(1)\n"
    text = f"HloModule m\nENTRY e {{\n{operands}  ROOT y = f32[2,3,5] {line}\n}}\n"
    assert is_product_with_weights(parse(text).entry.root) == weights
