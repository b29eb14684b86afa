"""4-bit groups by rounding, GPTQ and AWQ, and smoothing: on their grids, nearer where promised, the same in float."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmjax.adapt import awq as awq_module
from llmjax.adapt import gptq as gptq_module
from llmjax.adapt.awq import awq, smooth
from llmjax.adapt.compensate import inverse_factor
from llmjax.adapt.fold import fold, folds
from llmjax.adapt.gptq import gptq
from llmjax.adapt.quantise import Grid, dequantised, on_grid, round_weights
from llmjax.errors import UserError
from llmjax.kernels.formats import Groups
from llmjax.models.params import prepare
from tests.adapt.small import SIZES, correlated, logits, output_error, small, texts

GRID = Grid(4, 16)
NORMAL = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)


@given(arrays.arrays(np.float32, (2, 32), elements=NORMAL), st.integers(2, 4))
@settings(max_examples=40)
def test_rounding_is_off_by_at_most_half_a_step(weight_ED, bits):
    groups = on_grid(jnp.asarray(weight_ED), Grid(bits, 16))
    assert int(groups.packed_EPH.max() & 15) < 2**bits
    off_EPC = np.asarray(groups.dequantised() - weight_ED).reshape(2, 2, 16)
    step_EP1 = np.asarray(groups.scale_EP, np.float64)[..., None]
    # A zero point is rounded, too, so that the ends of a range may be off by as much again.
    assert (np.abs(off_EPC) <= 1.001 * step_EP1 + 1e-4).all()


@pytest.mark.parametrize("size", SIZES)
def test_quantised_models_keep_their_groups_when_prepared(size):
    config, params = small(size)
    quantised = {"round": round_weights(params, config, GRID), "gptq": gptq(params, config, texts(), GRID)}
    quantised["awq"] = awq(params, config, texts(), GRID)
    want, names = logits(params, config), config.layer.names
    for tree in quantised.values():
        groups = [leaf for leaf in jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Groups))]
        assert sum(isinstance(leaf, Groups) for leaf in groups) == config.layers * (len(names.qkv) + len(names.up) + 2)
        np.testing.assert_allclose(logits(dequantised(tree), config), logits(tree, config), atol=1e-5)
        assert np.abs(logits(tree, config) - want).mean() < 0.2 * want.std()
    name = f"{names.layer}_0"
    kernel = prepare(quantised["gptq"], config, "int4")[name][names.mlp][names.down]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, kernel, quantised["gptq"][name][names.mlp][names.down]["kernel"])


@pytest.mark.parametrize("by", [gptq_module._in_turn, gptq_module._ordered])
def test_gptqs_outputs_are_nearer_than_roundings(by):
    kernel_DE, inputs = correlated()
    gram_DD = np.asarray(inputs.gram_DD)
    order_D = np.argsort(-np.diag(gram_DD)) if by is gptq_module._ordered else np.arange(len(gram_DD))
    factor_DD = jnp.asarray(inverse_factor(gram_DD[np.ix_(order_D, order_D)]))
    made = by(kernel_DE.T, factor_DD, jnp.asarray(order_D), GRID).dequantised().T
    plain = on_grid(kernel_DE.T, GRID).dequantised().T
    assert output_error(made, kernel_DE, inputs) < 0.7 * output_error(plain, kernel_DE, inputs)


def test_awqs_search_is_never_worse_than_rounding():
    kernel_DE, inputs = correlated()
    large_D = jnp.where(jnp.arange(64) % 16 == 3, 30.0, 1.0)
    inputs = inputs._replace(
        gram_DD=inputs.gram_DD * large_D * large_D[:, None], absolute_D=inputs.absolute_D * large_D
    )
    scale_D = awq_module._searched(kernel_DE.T, inputs, GRID)
    scaled = (on_grid(kernel_DE.T * scale_D, GRID).dequantised() / scale_D).T
    plain = on_grid(kernel_DE.T, GRID).dequantised().T
    assert output_error(scaled, kernel_DE, inputs) < output_error(plain, kernel_DE, inputs)


@pytest.mark.parametrize("size", SIZES)
def test_folding_changes_no_float_logits(size):
    config, params = small(size)
    rng, name = np.random.default_rng(5), f"{config.layer.names.layer}_1"
    layer = params[name]
    assert len(folds(config.layer)) == {"tiny": 3, "tiny-bert": 1, "tiny-llama": 3}[size]
    for where in folds(config.layer):
        kernel = layer[where.consumers[0][0]][where.consumers[0][1]]["kernel"]
        layer = fold(layer, where, jnp.asarray(rng.uniform(0.5, 2, kernel.shape[0]), jnp.float32))
    changed = {**params, name: layer}
    np.testing.assert_allclose(logits(changed, config), logits(params, config), atol=1e-5)


def test_smoothing_keeps_the_model_and_evens_out_what_int8_rounds():
    config, params = small("tiny-llama")
    scale_D = params["layers_0"]["input_layernorm"]["scale"].at[5].set(60.0)
    params = {**params, "layers_0": {**params["layers_0"], "input_layernorm": {"scale": scale_D}}}
    want, smoothed = logits(params, config), smooth(params, config, texts())
    np.testing.assert_allclose(logits(smoothed, config), want, atol=2e-4)
    off = [np.square(logits(prepare(tree, config, "int8"), config) - want).mean() for tree in (params, smoothed)]
    assert off[1] < 0.7 * off[0]


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (Grid(8, 16), "bits=8 must be 2, 3 or 4"),
        (Grid(4, 7), "group=7 must be even"),
        (Grid(4, 48), "group=48 does not divide the 32 inputs of the model's width"),
    ],
)
def test_a_grid_that_cannot_be_is_one_line(grid, says):
    config, params = small("tiny")
    for make in (round_weights, lambda *args: gptq(*args[:2], texts(), args[2])):
        with pytest.raises(UserError, match=says):
            make(params, config, grid)
