"""GPT-2 as a function: goldens from torch, causality, padding, and the ways of computing the same thing."""

import dataclasses
import json
import math
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.kernels.training import dropout
from llmjax.models.families import from_size, make_model
from llmjax.models.forward import last_token
from llmjax.models.params import init_params, param_shapes, stack_layers, unstack_layers
from llmjax.models.weights import load_pretrained

GOLDEN = Path(__file__).parent.parent / "testdata" / "gpt2_golden.npz"
CONFIG = from_size("tiny", vocab_size=60, n_positions=24, label_names=("a", "b", "c"))


def init(config, head):
    """Parameters with biases and norms drawn too: at their initial 0 and 1 they hide mistakes."""
    rng = np.random.default_rng(0)
    params = init_params(config, head, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), params)


@pytest.fixture(scope="module")
def params():
    return {head: init(CONFIG, head) for head in ("lm", "classifier", "none")}


@pytest.fixture(scope="module")
def applies():
    return {head: jax.jit(make_model(CONFIG, head).apply) for head in ("lm", "classifier", "none")}


@cache
def tokens(batch=2, length=9, seed=0):
    return jax.random.randint(jax.random.key(seed), (batch, length), 0, CONFIG.vocab_size)


@pytest.mark.parametrize("case", ["plain", "variant"])
@pytest.mark.parametrize("head", ["lm", "classifier"])
def test_logits_equal_torchs_goldens(case, head, tmp_path):
    with np.load(GOLDEN) as file:
        golden = {name.removeprefix(f"{case}/"): file[name] for name in file if name.startswith(f"{case}/")}
    weights = {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    raw = json.loads(str(golden["config"]))
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config, params = load_pretrained(tmp_path, head)
    apply = jax.jit(make_model(config, head).apply)
    for side in ("right", "left"):
        mask_BL = golden[f"{side}/mask"]
        got = np.asarray(apply({"params": params}, golden[f"{side}/tokens"], mask_BL))
        want = golden[f"{side}/{head}"]
        assert np.abs(want).max() > 0.1
        np.testing.assert_allclose(
            got[mask_BL] if head == "lm" else got, want[mask_BL] if head == "lm" else want, atol=1e-4
        )


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("distilgpt2", 81_912_576),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_parameter_counts_are_the_released_models(size, count):
    shapes = param_shapes(from_size(size), "lm")
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count


def test_initial_scales_are_gpt2s():
    config = from_size("small", n_layer=3)
    params = init_params(config, "classifier", jax.random.key(0))
    std = config.initializer_range
    for kernel, expected in [
        (params["wte"]["embedding"], std),
        (params["h_1"]["attn"]["c_attn"]["kernel"], std),
        (params["h_1"]["mlp"]["c_fc"]["kernel"], std),
        (params["h_1"]["attn"]["c_proj"]["kernel"], std / math.sqrt(2 * 3)),
        (params["h_1"]["mlp"]["c_proj"]["kernel"], std / math.sqrt(2 * 3)),
    ]:
        assert float(jnp.std(kernel)) == pytest.approx(expected, rel=0.03)
    assert not np.any(params["h_0"]["attn"]["c_attn"]["bias"])


@pytest.mark.parametrize("scan", [False, True])
def test_no_gradient_from_a_position_to_later_tokens(scan, params):
    config = dataclasses.replace(CONFIG, scan_layers=scan)
    tree = stack_layers(params["lm"], CONFIG) if scan else params["lm"]
    tokens_BL = tokens(1, 8)
    direction_V = jax.random.normal(jax.random.key(1), (CONFIG.vocab_size,))

    def outputs(wpe):  # the position embedding stands at every token, so its rows tell the tokens apart
        changed = {**tree, "wpe": {"embedding": wpe}}
        return make_model(config, "lm").apply({"params": changed}, tokens_BL)[0] @ direction_V

    influence_LS = np.abs(jax.jit(jax.jacobian(outputs))(tree["wpe"]["embedding"])).sum(-1)[:, :8]
    later = np.arange(8)[None, :] > np.arange(8)[:, None]
    assert np.all(influence_LS[later] == 0.0)
    assert np.all(influence_LS[~later] > 0.0)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 8), left=st.integers(0, 4), filler=st.integers(0, 59), seed=st.integers(0, 99))
def test_padding_on_either_side_changes_no_real_logit(params, applies, length, left, filler, seed):
    total = 12
    tokens_BL = np.asarray(tokens(1, length, seed))
    slots = np.arange(total)[None, :]
    mask_BL = (slots >= left) & (slots < left + length)
    padded_BL = np.full((1, total), filler, np.int32)
    padded_BL[mask_BL] = tokens_BL[0]
    positions_BL = np.clip(slots - left, 0, None)  # what a caller who pads left and wants the same result passes
    exact_BL = np.zeros((1, total), np.int32)
    exact_BL[:, :length] = tokens_BL
    for head in ("lm", "classifier"):
        alone = applies[head]({"params": params[head]}, exact_BL, slots < length)
        padded = applies[head]({"params": params[head]}, padded_BL, mask_BL, positions_BL)
        if head == "lm":
            alone, padded = alone[0, :length], padded[0, left : left + length]
        np.testing.assert_allclose(alone, padded, atol=2e-5)


def test_what_stands_in_the_padding_is_never_read(params, applies):
    mask_BL = np.arange(9)[None, :] < np.array([[9], [4]])
    one = np.where(mask_BL, tokens(), 0)
    other = np.where(mask_BL, tokens(), 59)
    for head in ("lm", "classifier"):
        a, b = (np.asarray(applies[head]({"params": params[head]}, t, mask_BL)) for t in (one, other))
        a, b = (a[mask_BL], b[mask_BL]) if head == "lm" else (a, b)
        np.testing.assert_array_equal(a, b)


def test_no_mask_means_every_token_is_real(params, applies):
    for head in ("lm", "classifier"):
        with_mask = applies[head]({"params": params[head]}, tokens(), jnp.ones((2, 9), bool))
        np.testing.assert_array_equal(applies[head]({"params": params[head]}, tokens()), with_mask)


def test_a_row_of_padding_is_finite(params, applies):
    mask_BL = jnp.array([[True] * 9, [False] * 9])
    for head in ("lm", "classifier"):
        assert np.all(np.isfinite(applies[head]({"params": params[head]}, tokens(), mask_BL)))


def test_the_classifier_scores_the_last_real_hidden_state(params, applies):
    """The last layer computes one query a row: it must equal pooling the full hidden states."""
    classifier = params["classifier"]
    body = {name: value for name, value in classifier.items() if name != "score"}
    for mask_BL in (np.arange(9) < np.array([[9], [4]]), np.arange(9) >= np.array([[3], [8]])):
        hidden_BLD = applies["none"]({"params": body}, tokens(), mask_BL)
        last_B = last_token(jnp.asarray(mask_BL), 2, 9)
        want = hidden_BLD[jnp.arange(2), last_B] @ classifier["score"]["kernel"]
        np.testing.assert_allclose(applies["classifier"]({"params": classifier}, tokens(), mask_BL), want, atol=2e-5)


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_last_token_is_the_last_true(rows):
    want = [max((i for i, real in enumerate(row) if real), default=0) for row in rows]
    assert last_token(jnp.array(rows), len(rows), 6).tolist() == want


@pytest.mark.parametrize(
    ("head", "fields"),
    [("lm", {}), ("lm", {"scale_attn_by_inverse_layer_idx": True}), ("classifier", {})],
    ids=["lm", "inverse_layer", "classifier"],
)
def test_scan_and_remat_agree_with_unrolled_layers(head, fields, params):
    tokens_BL, mask_BL = tokens(), jnp.arange(9) < jnp.array([[9], [4]])

    def loss_and_grad(config, tree):
        def loss(tree):
            logits = make_model(config, head).apply({"params": tree}, tokens_BL, mask_BL)
            return jnp.mean(jax.nn.log_softmax(logits)[..., 0])

        return jax.jit(jax.value_and_grad(loss))(tree)

    config = dataclasses.replace(CONFIG, **fields)
    want_loss, want_grad = loss_and_grad(config, params[head])
    for scan, remat in [(False, True), (True, False), (True, True)]:
        tree = stack_layers(params[head], CONFIG) if scan else params[head]
        loss, grad = loss_and_grad(dataclasses.replace(config, scan_layers=scan, remat=remat), tree)
        grad = unstack_layers(grad, CONFIG) if scan else grad
        assert loss == pytest.approx(float(want_loss), rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grad, want_grad)


def test_init_of_scanned_layers_has_the_stacked_shapes(params):
    config = dataclasses.replace(CONFIG, scan_layers=True)
    scanned = jax.eval_shape(lambda: init_params(config, "lm", jax.random.key(0)))
    stacked = stack_layers(params["lm"], CONFIG)
    assert jax.tree.map(lambda leaf: leaf.shape, scanned) == jax.tree.map(lambda leaf: leaf.shape, stacked)
    back = unstack_layers(stacked, CONFIG)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), back, params["lm"]))


@pytest.mark.parametrize("head", ["lm", "classifier"])
def test_bfloat16_is_close_to_float32(head, params, applies):
    want = applies[head]({"params": params[head]}, tokens())
    half = make_model(dataclasses.replace(CONFIG, dtype="bfloat16"), head)
    got = jax.jit(half.apply)({"params": params[head]}, tokens())
    assert got.dtype == jnp.float32
    error = float(jnp.abs(got - want).max() / jnp.abs(want).max())
    assert 0 < error < 0.03  # above 0: it did compute in bfloat16


def test_dtype_and_param_dtype_are_apart():
    config = dataclasses.replace(CONFIG, param_dtype="bfloat16")
    params = init_params(config, "lm", jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert jax.jit(make_model(config, "lm").apply)({"params": params}, tokens()).dtype == jnp.float32


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    n = 200_000
    kept = np.asarray(dropout(jnp.ones(n), rate, jax.random.key(3)))
    sigma = math.sqrt(rate * (1 - rate) / n)
    assert abs((kept == 0).mean() - rate) <= 5 * sigma
    assert np.unique(kept[kept != 0]) == pytest.approx(1 / (1 - rate), rel=1e-6)
    # neighbours are dropped independently
    both = ((kept[1:] == 0) & (kept[:-1] == 0)).mean()
    assert abs(both - rate**2) <= 5 * math.sqrt(rate**2 / n) + 1e-12


@pytest.mark.parametrize("field", ["embd_pdrop", "attn_pdrop", "resid_pdrop"])
@pytest.mark.parametrize("scan", [False, True])
def test_every_dropout_acts_and_only_when_asked(field, scan, params):
    off = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "scan_layers": scan}
    config = dataclasses.replace(CONFIG, **{**off, field: 0.3})
    tree = stack_layers(params["lm"], CONFIG) if scan else params["lm"]
    apply = jax.jit(make_model(config, "lm").apply, static_argnames="deterministic")

    def run(seed):
        return np.asarray(
            apply({"params": tree}, tokens(), deterministic=False, rngs={"dropout": jax.random.key(seed)})
        )

    quiet = np.asarray(apply({"params": tree}, tokens()))
    np.testing.assert_array_equal(run(0), run(0))
    assert not np.allclose(run(0), run(1))
    assert not np.allclose(run(0), quiet)
    zero = jax.jit(make_model(dataclasses.replace(CONFIG, **off), "lm").apply, static_argnames="deterministic")
    np.testing.assert_allclose(zero({"params": tree}, tokens(), deterministic=False), quiet, atol=1e-6)


def test_layers_drop_different_elements():
    """Each module folds its own path into the key: equal masks in every layer would be a silent mistake."""
    config = dataclasses.replace(CONFIG, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.5)
    model = make_model(config, "none")
    params = init(config, "none")
    apply = partial(
        model.apply, deterministic=False, rngs={"dropout": jax.random.key(0)}, mutable=["intermediates"],
        capture_intermediates=lambda module, _: module.name == "resid_dropout",
    )  # fmt: skip
    _, state = jax.jit(apply)({"params": params}, tokens())
    masks = [np.asarray(leaf) == 0 for leaf in jax.tree.leaves(state["intermediates"])]
    assert len(masks) == 2 * CONFIG.layers
    for i, one in enumerate(masks):
        for other in masks[i + 1 :]:
            assert 0.4 < (one == other).mean() < 0.6
