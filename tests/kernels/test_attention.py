"""Forms of attention: all take the arguments of the plain one and give its shapes."""

import jax
import jax.numpy as jnp
import pytest

from llmjax.kernels.attention import FORMS


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("queries", [1, 5])
def test_every_form_gives_as_many_rows_as_it_has_queries(form, queries):
    key, seen_BLS = jax.random.key(0), jnp.ones((2, queries, 5), jnp.bool_)
    q_BLHK, kv_BSGK = jax.random.normal(key, (2, queries, 4, 8)), jax.random.normal(key, (2, 5, 2, 8))
    texts = FORMS[form].texts(q_BLHK, kv_BSGK, kv_BSGK, seen_BLS, 1.0, lambda weights: weights)
    q_BHLK, kv_BGSK = q_BLHK.transpose(0, 2, 1, 3), kv_BSGK.transpose(0, 2, 1, 3)
    prompt = FORMS[form].prompt(q_BHLK, kv_BGSK, kv_BGSK, seen_BLS, 1.0, jnp.dtype("float32"))
    assert texts.shape == q_BLHK.shape and prompt.shape == q_BHLK.shape
    assert jnp.allclose(texts, prompt.transpose(0, 2, 1, 3), atol=1e-5)


def test_a_sum_adds_what_each_position_has_and_computes_no_product():
    ones_BLHK = jnp.ones((1, 3, 2, 4))
    assert (FORMS["sum"].texts(ones_BLHK, ones_BLHK, ones_BLHK, None, 1.0, lambda w: w) == 3).all()
    text = str(jax.make_jaxpr(lambda x: FORMS["sum"].prompt(x, x, x, None, 1.0, x.dtype))(ones_BLHK))
    assert "dot_general" not in text
