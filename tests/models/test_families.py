"""Every family as a function: goldens from torch, and what its table says."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from llmjax.errors import UserError
from llmjax.models.families import FAMILIES, SIZES, from_size, make_model
from llmjax.models.params import init_params, param_shapes, prepare, stack_layers
from llmjax.models.weights import load_pretrained

GOLDEN = Path(__file__).parent.parent / "testdata" / "families_golden.npz"
SMALL = {"gpt2": "tiny", "bert": "tiny-bert", "llama": "tiny-llama"}


@pytest.mark.parametrize("case", ["llama3", "mistral", "qwen2", "qwen3", "bert", "roberta"])
def test_logits_equal_torchs_goldens(case, tmp_path):
    with np.load(GOLDEN) as file:
        golden = {name.removeprefix(f"{case}/"): file[name] for name in file if name.startswith(f"{case}/")}
    weights = {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(str(golden["config"]))
    head = str(golden["head"])
    config, params = load_pretrained(tmp_path, head)
    apply = jax.jit(make_model(config, head).apply)
    for side in ("right", "left"):
        mask_BL, want = golden[f"{side}/mask"], golden[f"{side}/logits"]
        got = np.asarray(apply({"params": params}, golden[f"{side}/tokens"], mask_BL))
        read = mask_BL if head == "lm" else slice(None)
        assert np.abs(want).max() > 0.1
        np.testing.assert_allclose(got[read], want[read], atol=1e-4)


@pytest.mark.parametrize("family", SMALL)
def test_forward_mode_vmap_and_scan_give_what_the_plain_call_gives(family):
    config, params = from_size(SMALL[family], vocab_size=64), drawn(family, "classifier")
    tokens_BL = jax.random.randint(jax.random.key(1), (3, 7), 0, 64)
    model = make_model(config, "classifier")
    scanned = make_model(from_size(SMALL[family], vocab_size=64, scan_layers=True), "classifier")

    @jax.jit
    def found(params):
        def logits(params, tokens_BL=tokens_BL):
            return model.apply({"params": params}, tokens_BL)

        plain_BC, tangent_BC = jax.jvp(logits, (params,), (params,))
        _, pullback = jax.vjp(logits, params)
        (gradient,) = pullback(jnp.ones_like(plain_BC))
        along = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True))
        rows_BC = jax.vmap(lambda tokens_L: logits(params, tokens_L[None])[0])(tokens_BL)
        scanned_BC = scanned.apply({"params": stack_layers(params, config)}, tokens_BL)
        return plain_BC, jnp.sum(tangent_BC), along, rows_BC, scanned_BC

    plain_BC, tangent, along, rows_BC, scanned_BC = found(params)
    np.testing.assert_allclose(tangent, along, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(rows_BC, plain_BC, atol=1e-5)
    np.testing.assert_allclose(scanned_BC, plain_BC, atol=1e-5)


@functools.cache
def drawn(family, head):
    return init_params(from_size(SMALL[family], vocab_size=64), head, jax.random.key(0))


@pytest.mark.parametrize("format", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("family", SMALL)
def test_packed_weights_stay_near_the_plain_ones(family, format):
    config = from_size(SMALL[family], vocab_size=64)
    head = "lm" if FAMILIES[family].causal else "classifier"
    params = jax.tree.map(lambda leaf: 3 * leaf, drawn(family, head))
    tokens_BL = jax.random.randint(jax.random.key(1), (2, 9), 0, 64)
    model = make_model(config, head)
    apply = jax.jit(model.apply)
    want = np.asarray(apply({"params": params}, tokens_BL))
    got = np.asarray(apply({"params": jax.jit(lambda tree: prepare(tree, config, format))(params)}, tokens_BL))
    off = np.std(got - want) / np.std(want)
    assert 0 < off < {"bfloat16": 0.02, "int8": 0.05, "int4": 0.4}[format]


def test_every_size_has_shapes_without_weights():
    counts = {"bert-base": 109_483_778, "minilm-l6": 22_713_216 + 2 * 384 + 2, "smollm2-135m": 134_515_008}
    for size in counts:
        head = "classifier" if SIZES[size][0] == "bert" else "lm"
        shapes = jax.tree.leaves(param_shapes(from_size(size), head))
        assert sum(leaf.size for leaf in shapes) == counts[size]


def test_heads_that_a_family_lacks_are_refused_by_name():
    with pytest.raises(UserError, match="llama has no 'pooler' head"):
        make_model(from_size("tiny-llama"), "pooler")
    with pytest.raises(UserError, match="bert fills gaps"):
        make_model(from_size("tiny-bert"), "score")


def test_the_table_says_all_of_every_family():
    for name, row in FAMILIES.items():
        assert row.config.family == name and {"lm", "classifier", "none"} <= set(row.architectures)
        json.dumps(row.config().to_hf("lm"))
