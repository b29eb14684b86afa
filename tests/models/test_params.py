"""The shapes of parameters, told without the model, are the model's own."""

import jax
import pytest

from llmjax.models.families import from_size
from llmjax.models.params import init_params, param_shapes


@pytest.mark.parametrize("head", ["lm", "classifier", "none"])
@pytest.mark.parametrize("change", [{}, {"n_inner": 40, "tie_word_embeddings": False, "param_dtype": "bfloat16"}])
def test_shapes_are_those_of_the_model(head, change):
    config = from_size("tiny", vocab_size=50, label_names=("a", "b", "c"), **change)
    expected = jax.eval_shape(lambda: init_params(config, head, jax.random.key(0)))
    got = param_shapes(config, head)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, got, expected)
    assert jax.tree.all(same)
