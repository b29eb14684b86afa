"""Products with a vocabulary's table, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.kernels.product import unembed

VOCABULARY, WIDTH = 50, 16


def operands(dtype):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 3, WIDTH)), dtype)
    return x, jnp.asarray(random.normal(size=(VOCABULARY, WIDTH)), dtype)


def loss(x, table):
    return -jax.nn.log_softmax(unembed(x, table, VOCABULARY))[..., 7].sum()


def test_logits_are_float32_sums_of_what_they_are_made_of():
    x, table = operands(jnp.bfloat16)
    want = np.einsum("bld,vd->blv", np.asarray(x, np.float64), np.asarray(table, np.float64))
    logits = unembed(x, table, VOCABULARY)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_gradients_are_those_of_the_plain_product(dtype, tolerance):
    x, table = operands(dtype)

    def plain(x, table):
        logits = jnp.einsum("bld,vd->blv", x, table, preferred_element_type=jnp.float32)
        return -jax.nn.log_softmax(logits)[..., 7].sum()

    wide = [part.astype(jnp.float32) for part in (x, table)]
    for found, want in zip(jax.grad(loss, (0, 1))(x, table), jax.grad(plain, (0, 1))(*wide), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, np.float32), want, rtol=tolerance, atol=tolerance)


def test_float32_logits_have_derivatives_in_both_directions():
    x, table = operands(jnp.float32)
    _, tangent = jax.jvp(lambda x: unembed(x, table, VOCABULARY), (x,), (x,))
    np.testing.assert_allclose(tangent, unembed(x, table, VOCABULARY), rtol=1e-5)


def test_products_of_a_16_bit_gradient_read_16_bits():
    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(*operands(jnp.bfloat16)))
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert sum("bf16" in line.split("=")[0] for line in products) == 2
