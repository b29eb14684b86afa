"""Weight formats: what is kept, how far off, and as what tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmjax.errors import UserError
from llmjax.gpt2 import stack_layers
from llmjax.infer.dense import dense
from llmjax.infer.prepare import BLOCK, FORMATS, check_format, prepare, quantise
from tests.infer.models import random_model

ROWS = arrays.arrays(np.float32, st.sampled_from([(1, 1), (5, 9), (2, 4)]), elements=st.floats(-1e4, 1e4, width=32))


@given(ROWS)
@settings(deadline=None, max_examples=60)
def test_quantising_is_off_by_at_most_half_a_scale(x_ND):
    q_ND, scale_N = quantise(jnp.asarray(x_ND))
    q_ND, scale_N = np.asarray(q_ND, np.float64), np.asarray(scale_N, np.float64)
    assert (np.abs(q_ND) <= 127).all() and (scale_N > 0).all()
    error = np.abs(q_ND * scale_N[:, None] - x_ND)
    assert (error <= 0.5001 * scale_N[:, None] + 1e-30).all()


def test_quantising_uses_the_whole_range_a_row():
    q_ND, scale_N = quantise(jnp.array([[1.1, -2.0], [0.0, 0.0], [1e-6, 6e-7]]))
    np.testing.assert_array_equal(q_ND, [[70, -127], [0, 0], [127, 76]])
    np.testing.assert_allclose(scale_N, [2 / 127, 1.0, 1e-6 / 127], rtol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_prepared_weights_are_a_tree_of_plain_dicts_that_gives_the_weights_back(format):
    config, params = random_model()
    prepared = prepare(params, config, format)
    assert {type(node) for node in (prepared, prepared["h_0"], prepared["h_0"]["attn"]["c_attn"])} == {dict}
    kernel_ED = prepared["h_1"]["mlp"]["c_fc"]["kernel"]
    assert kernel_ED.shape == (config.inner_dim, config.n_embd) and str(kernel_ED.dtype) == format
    assert prepared["wte"]["kernel"].shape[0] % BLOCK == 0
    back_ED = np.asarray(kernel_ED, np.float32)
    if format == "int8":
        back_ED = back_ED * np.asarray(prepared["h_1"]["mlp"]["c_fc"]["scale"])[:, None]
    want_DE = np.asarray(params["h_1"]["mlp"]["c_fc"]["kernel"])
    largest = {"float32": 0, "bfloat16": 2**-8, "int8": 0.5 / 127}[format] * np.abs(want_DE).max()
    assert np.abs(back_ED.T - want_DE).max() <= largest
    for name in ("ln_1", "ln_2"):
        assert prepared["h_0"][name]["scale"].dtype == jnp.float32


def test_stacked_parameters_are_prepared_alike():
    config, params = random_model()
    jax.tree.map(
        np.testing.assert_array_equal,
        prepare(params, config, "int8"),
        prepare(stack_layers(params, config.n_layer), config, "int8"),
    )


@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("outputs", [BLOCK, 3 * BLOCK, 100])
@pytest.mark.parametrize("format", FORMATS)
def test_products_of_every_form_agree_with_numpy(format, tokens, outputs):
    rng = np.random.default_rng(0)
    x_TD, kernel_ED = rng.standard_normal((tokens, 48)), rng.standard_normal((outputs, 48))
    bias_E = rng.standard_normal(outputs).astype(np.float32)
    weight = {"kernel": jnp.asarray(kernel_ED, "float32" if format == "int8" else format), "bias": bias_E}
    if format == "int8":
        weight["kernel"], weight["scale"] = quantise(weight["kernel"])
    got = np.asarray(jax.jit(dense)(jnp.asarray(x_TD, jnp.float32), weight))
    if format == "int8":
        q_TD, scale_T = quantise(jnp.asarray(x_TD, jnp.float32))
        exact = np.asarray(q_TD, np.int64) @ np.asarray(weight["kernel"], np.int64).T
        want = exact * np.asarray(scale_T)[:, None] * np.asarray(weight["scale"]) + bias_E
    else:
        rounded = np.asarray(jnp.asarray(x_TD, format).astype(jnp.float32), np.float64)
        want = rounded @ np.asarray(weight["kernel"].astype(jnp.float32), np.float64).T + bias_E
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_an_unknown_format_is_named():
    with pytest.raises(UserError, match=r"format='int4' must be one of .*Did you mean 'int8'"):
        check_format("int4")
