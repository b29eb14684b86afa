"""Weight formats: what is kept, how far off, and as what tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmjax.errors import UserError
from llmjax.kernels.formats import BLOCK, FORMATS, LONG, check_format, pack, quantise, quantise_groups
from llmjax.kernels.product import product
from llmjax.models.params import prepare, stack_layers
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
def test_prepared_weights_lie_by_rows_and_give_the_weights_back(format):
    config, params = random_model()
    prepared = prepare(params, config, format)
    assert {type(node) for node in (prepared, prepared["h_0"], prepared["h_0"]["attn"]["c_attn"])} == {dict}
    kernel = prepared["h_1"]["mlp"]["c_fc"]["kernel"]
    want_ED = np.asarray(params["h_1"]["mlp"]["c_fc"]["kernel"]).T
    back_ED = np.asarray(kernel.rows(jnp.arange(config.layer.inner)))
    rounding = {"float32": 0, "bfloat16": 2**-8, "int8": 0.5 / 127, "int4": 1.0001 / 15}
    assert np.abs(back_ED - want_ED).max() <= rounding[format] * np.abs(want_ED).max()
    assert np.any(back_ED != want_ED) == (format != "float32")
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kernel)) / want_ED.size
    assert kept == {"float32": 4, "bfloat16": 2, "int8": 1 + 4 / config.width, "int4": 0.5 + 8 / 32}[format]
    for name in ("ln_1", "ln_2"):
        assert prepared["h_0"][name]["scale"].dtype == jnp.float32


def test_long_weights_are_padded_to_whole_blocks():
    packed = pack(jnp.ones((LONG + 1, 4)), "float32")
    assert packed.values_ED.shape == (LONG + BLOCK, 4) and float(packed.values_ED[LONG + 1 :].sum()) == 0.0
    assert pack(jnp.ones((BLOCK + 1, 4)), "float32").values_ED.shape == (BLOCK + 1, 4)


NORMAL = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


@given(arrays.arrays(np.float32, st.sampled_from([(1, 32), (3, 64)]), elements=NORMAL))
@settings(deadline=None, max_examples=40)
def test_four_bits_are_off_by_at_most_half_a_step_of_their_group(x_ED):
    back_ED = np.asarray(quantise_groups(jnp.asarray(x_ED)).dequantised(), np.float64)
    x_EPG = x_ED.astype(np.float64).reshape(len(x_ED), -1, 32)
    step_EP1 = (x_EPG.max(-1, keepdims=True) - x_EPG.min(-1, keepdims=True)) / 15
    rounding = 1e-6 * np.abs(x_EPG).max() + 1e-36  # of float32; a range below 15 denormals is taken for none
    assert (np.abs(back_ED.reshape(x_EPG.shape) - x_EPG) <= 0.5001 * step_EP1 + rounding).all()


def test_stacked_parameters_are_prepared_alike():
    config, params = random_model()
    jax.tree.map(
        np.testing.assert_array_equal,
        prepare(params, config, "int8"),
        prepare(stack_layers(params, config), config, "int8"),
    )


@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("outputs", [BLOCK, 3 * BLOCK, 100])
@pytest.mark.parametrize("format", FORMATS)
def test_products_of_every_form_agree_with_numpy(format, tokens, outputs):
    rng = np.random.default_rng(0)
    x_TD, kernel_ED = rng.standard_normal((tokens, 64)), rng.standard_normal((outputs, 64))
    weight = pack(jnp.asarray(kernel_ED, jnp.float32), format)
    multiply = jax.jit(lambda x_TD, weight: product(x_TD, weight, outputs))
    got = np.asarray(multiply(jnp.asarray(x_TD, jnp.float32), weight))
    if format == "int8":
        q_TD, scale_T = quantise(jnp.asarray(x_TD, jnp.float32))
        exact = np.asarray(q_TD, np.int64) @ np.asarray(weight.values_ED, np.int64).T
        want = exact * np.asarray(scale_T)[:, None] * np.asarray(weight.scale_E)
    else:
        rounded = np.asarray(
            jnp.asarray(x_TD, "float32" if format == "int4" else format).astype(jnp.float32), np.float64
        )
        want = rounded @ np.asarray(weight.rows(jnp.arange(outputs)), np.float64).T
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_an_unknown_format_is_named():
    with pytest.raises(UserError, match=r"format='int5' must be one of .*Did you mean 'int"):
        check_format("int5")
