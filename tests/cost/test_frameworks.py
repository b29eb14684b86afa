"""Whose cost it is in programs of many frameworks, which no table was made for (tests/testdata/frameworks)."""

from __future__ import annotations

import pytest

import llmjax
from llmjax.analysis import analysis_of
from llmjax.cost.kinds import kind_of
from llmjax.cost.roles import OTHER, UNATTRIBUTED
from llmjax.cycles.device import load_device
from llmjax.hlo import parse
from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "testdata" / "frameworks"
FILES = sorted(FOLDER.glob("*.hlo"))


def by_role(name):
    report = llmjax.analyze_hlo(FOLDER / f"{name}.hlo")
    products = report.totals.matmul_flops
    return {row.key: row.cost.matmul_flops / products for row in report.by("role")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_little_is_other(file):
    report = analysis_of(parse(file.read_text()), device=load_device("gpu:a100"))
    rows = [row for row in report.by("role") if row.key in (OTHER, UNATTRIBUTED)]
    assert sum(row.cost.flops for row in rows) < 0.05 * report.totals.flops
    assert sum(row.predicted or 0.0 for row in rows) < 0.05 * report.time.sequential


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("linen_moe", {"attention projections", "attention scores", "experts", "router", "layer norm", "residual"}),
        ("linen_mixer", {"linear layers", "convolutions", "layer norm", "residual", "output head"}),
        ("linen_mamba", {"linear layers", "state space", "convolutions", "embedding", "vocabulary projection"}),
        ("linen_unet", {"convolutions", "layer norm", "linear layers"}),
        ("maxtext_train", {"attention projections", "attention scores", "MLP", "loss", "optimiser", "layer norm"}),
        ("equinox_vit", {"attention projections", "attention scores", "MLP", "layer norm", "output head"}),
        ("haiku_lm", {"attention projections", "attention scores", "linear layers", "layer norm", "embedding"}),
        ("plain_diffusion", {"attention projections", "attention scores", "MLP", "layer norm", "convolutions"}),
        ("plain_rnn", {"matrix products", "elementwise"}),
    ],
)
def test_roles_are_those_of_the_model(name, roles):
    assert roles <= set(by_role(name))


def test_an_equinox_transformer_is_split_by_its_sizes():
    """Two layers of 16 patches of width 32, and a feed-forward of 64: 4 D D, 2 L D and 2 D F a token, in products."""
    patches, d, f = 16, 32, 64
    products = {"attention projections": 4 * d * d, "attention scores": 2 * patches * d, "MLP": 2 * d * f}
    found = by_role("equinox_vit")
    whole = sum(products.values())
    kept = {role: found[role] for role in products}
    assert {role: share / sum(kept.values()) for role, share in kept.items()} == pytest.approx(
        {role: size / whole for role, size in products.items()}
    )


def test_layers_and_paths_of_an_equinox_model_are_its_fields():
    report = llmjax.analyze_hlo(FOLDER / "equinox_vit.hlo")
    assert {0, 1} <= {row.key for row in report.by("layer")}
    assert "blocks/0/attention/query_proj" in {row.key for row in report.by("module_path")}


def test_paths_of_plain_functions_are_their_names():
    paths = {row.key for row in llmjax.analyze_hlo(FOLDER / "plain_diffusion.hlo").by("module_path")}
    assert {"resnet_block/group_norm", "cross_attention"} <= paths


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("dot(a, a), lhs_contracting_dims={0}, rhs_contracting_dims={0}", "matrix products"),
        ("tanh(a)", "elementwise"),
        ("copy(a)", "data movement"),
        ("all-gather(a), dimensions={0}", "collectives"),
        ("all-gather-start(a), dimensions={0}", "collectives"),
        ('custom-call(a), custom_call_target="__cublas$gemm"', "matrix products"),
        ('custom-call(a), custom_call_target="__cudnn$convForward"', "convolutions"),
        ('custom-call(a), custom_call_target="nobody"', "custom calls"),
    ],
)
def test_kinds(line, kind):
    text = f"HloModule m\nENTRY e {{\n  a = f32[4] parameter(0)\n  ROOT y = f32[4] {line}\n}}\n"
    assert kind_of(parse(text).entry.root) == kind
