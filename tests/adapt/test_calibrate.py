"""What products read: seen behind changed layers, summed over batches, drawn from a text that is long enough."""

import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.adapt.calibrate import calibration_texts, kernel_at, layer_by_layer, layer_inputs, with_leaf
from llmjax.errors import UserError
from llmjax.models.params import stack_layers
from tests.adapt.small import SIZES, small, texts


@pytest.mark.parametrize("size", SIZES)
def test_every_product_of_every_layer_is_seen(size):
    config, params = small(size)
    inputs = layer_inputs(params, config, texts())
    assert len(inputs) == config.layers
    for number, layer in enumerate(inputs):
        name = f"{config.layer.names.layer}_{number}"
        for at, seen in layer.items():
            assert seen.gram_DD.shape == (kernel_at(params[name], at).shape[0],) * 2
            assert int(seen.tokens) == texts().size
            norms_D = np.diag(seen.gram_DD)
            assert (np.square(seen.largest_D) <= norms_D * 1.001).all()
            assert (np.square(seen.absolute_D) <= norms_D * texts().size * 1.001).all()
    assert len(inputs[0]) == len(config.layer.names.qkv) + len(config.layer.names.up) + 2


def test_the_first_products_inputs_are_the_normed_embeddings():
    config, params = small("tiny-llama")
    x_BLD = np.asarray(params["embed_tokens"]["embedding"])[texts()].astype(np.float64)
    scale_D = np.asarray(params["layers_0"]["input_layernorm"]["scale"])
    epsilon = config.layer.norm.epsilon
    x_BLD = x_BLD / np.sqrt(np.square(x_BLD).mean(-1, keepdims=True) + epsilon) * scale_D
    x_TD = x_BLD.reshape(-1, config.width)
    seen = layer_inputs(params, config, texts())[0]["self_attn", "k_proj"]
    np.testing.assert_allclose(seen.gram_DD, x_TD.T @ x_TD, rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(seen.largest_D, np.abs(x_TD).max(0), rtol=1e-4)


def test_later_layers_see_what_earlier_ones_became():
    config, params = small("tiny")

    def silence(number, layer, inputs):
        for at in ("attn", "mlp"):
            layer = with_leaf(layer, (at, "c_proj", "kernel"), jnp.zeros_like(layer[at]["c_proj"]["kernel"]))
        return layer, inputs

    plain = layer_inputs(params, config, texts())
    _, seen = layer_by_layer(params, config, texts(), silence)
    at = ("attn", "c_attn")
    np.testing.assert_array_equal(plain[0][at].gram_DD, seen[0][at].gram_DD)
    assert not np.allclose(plain[1][at].gram_DD, seen[1][at].gram_DD, rtol=0.1)


def test_stacked_layers_are_taken_apart():
    config, params = small("tiny")
    apart = layer_inputs(params, config, texts())
    stacked = layer_inputs(stack_layers(params, config), config, texts())
    np.testing.assert_array_equal(apart[1]["mlp", "c_fc"].gram_DD, stacked[1]["mlp", "c_fc"].gram_DD)


def test_a_seed_draws_its_own_texts_and_a_short_text_is_named():
    ids = list(range(1000))
    drawn = calibration_texts(ids, 5, 20, seed=3)
    assert drawn.shape == (5, 20) and (np.diff(drawn, axis=1) == 1).all()
    assert (drawn == calibration_texts(ids, 5, 20, seed=3)).all()
    assert (drawn != calibration_texts(ids, 5, 20, seed=4)).any()
    with pytest.raises(UserError, match=r"calibration text has 99 tokens, but 5 texts of 20 were asked for \(100\)"):
        calibration_texts(ids[:99], 5, 20)
