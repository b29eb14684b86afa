"""Structured pruning: the small model is the large one with zeros, its folder says its shapes, and fitting helps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.adapt.structured import (
    layer_influence,
    prune_channels,
    prune_heads,
    prune_layers,
    refitted,
    without_channels,
    without_heads,
)
from llmjax.errors import UserError
from llmjax.models.params import param_shapes
from llmjax.models.weights import load_pretrained, save_pretrained
from tests.adapt.small import SIZES, correlated, logits, output_error, small, texts


def zeroed(params, config, module, name, rows):
    """The model with rows of one product's kernel of every layer set to zero."""
    changed = dict(params)
    for number in range(config.layers):
        layer = f"{config.layer.names.layer}_{number}"
        product = changed[layer][module][name]
        product = {**product, "kernel": product["kernel"].at[rows].set(0)}
        changed[layer] = {**changed[layer], module: {**changed[layer][module], name: product}}
    return changed


@pytest.mark.parametrize("size", SIZES)
def test_a_shrunk_model_is_the_whole_one_with_zeros(size, tmp_path):
    config, params = small(size)
    spec, names = config.layer, config.layer.names
    keep = np.arange(0, spec.inner, 2)
    narrow = without_channels(params, config, [keep] * config.layers)
    want = logits(zeroed(params, config, names.mlp, names.down, keep + 1), config)
    np.testing.assert_allclose(logits(*narrow), want, atol=1e-5)
    few = without_heads(params, config, [np.array([1])] * config.layers)
    gone = np.arange(spec.heads * spec.head_width // spec.kv_heads)
    want = logits(zeroed(params, config, names.attention, names.out, gone), config)
    np.testing.assert_allclose(logits(*few), want, atol=1e-5)
    assert few.config.layer.head_width == spec.head_width and few.config.layer.kv_heads == 1
    for model in (narrow, few):
        save_pretrained(tmp_path / "m", model.config, model.params, "lm")
        read, back = load_pretrained(tmp_path / "m", "lm")
        assert read.layer == model.config.layer
        np.testing.assert_array_equal(logits(back, read), logits(*model))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prune", [prune_channels, prune_heads, prune_layers])
def test_half_of_what_is_pruned_is_gone(prune, size):
    config, params = small(size)
    small_params, after = prune(params, config, texts(), 0.5)
    shapes = param_shapes(after, "lm")
    assert shapes.keys() == small_params.keys()
    for name, layer in shapes.items():
        flat = [np.shape(leaf) for leaf in jax.tree.leaves(small_params[name])]
        assert flat == [leaf.shape for leaf in jax.tree.leaves(layer)], name
    halves = {prune_channels: "inner", prune_heads: "kv_heads"}
    if prune in halves:
        assert getattr(after.layer, halves[prune]) * 2 == getattr(config.layer, halves[prune])
    else:
        assert after.layers * 2 == config.layers
    assert np.isfinite(logits(small_params, after)).all()


def test_fitting_what_stays_brings_outputs_nearer():
    kernel_ID, inputs = correlated()
    rows = np.arange(0, 64, 2)
    cut = np.zeros_like(kernel_ID)
    cut[rows] = np.asarray(kernel_ID)[rows]
    fitted = np.zeros_like(kernel_ID)
    fitted[rows] = refitted(kernel_ID, inputs.gram_DD, rows)
    assert output_error(fitted, kernel_ID, inputs) < 0.3 * output_error(cut, kernel_ID, inputs)


def test_a_layer_that_does_nothing_goes_first():
    config, params = small("tiny")
    idle = zeroed(params, config, "attn", "c_proj", np.arange(32))["h_0"]
    idle = {**idle, "mlp": {**idle["mlp"], "c_proj": {"kernel": jnp.zeros((128, 32)), "bias": jnp.zeros(32)}}}
    idle = {**idle, "attn": {**idle["attn"], "c_proj": {**idle["attn"]["c_proj"], "bias": jnp.zeros(32)}}}
    params = {**params, "h_0": idle}
    influence = layer_influence(params, config, texts())
    assert influence[0] < 1e-5 < influence[1]
    shrunk, after = prune_layers(params, config, texts(), 0.5)
    np.testing.assert_allclose(logits(shrunk, after), logits(params, config), atol=1e-5)


def test_a_share_that_leaves_nothing_is_one_line():
    config, params = small("tiny")
    for share in (1.0, -0.5, 0.99):
        with pytest.raises(UserError, match=rf"share={share} of 2 layers leaves none"):
            prune_layers(params, config, texts(), share)
