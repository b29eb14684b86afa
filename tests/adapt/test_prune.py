"""Pruning: exactly as many zeros as asked for, where each method wants them, and least harm where it promises it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.adapt import prune
from llmjax.adapt.compensate import inverse_factor
from llmjax.adapt.prune import TWO_OF_FOUR, Share, magnitude, sparsegpt, sparsity, wanda
from llmjax.errors import UserError
from llmjax.models.weights import load_pretrained, save_pretrained
from tests.adapt.small import SIZES, correlated, logits, output_error, small, texts

METHODS = {"magnitude": lambda params, config, _, share: magnitude(params, config, share), "wanda": wanda}
METHODS |= {"sparsegpt": sparsegpt}


def kernels(params, config):
    return [np.asarray(prune._leaf(params, at)) for at in prune._kernels(params, config)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_sparsity_is_exact_and_the_rest_of_the_model_stays(method, size):
    config, params = small(size)
    pruned, mask = METHODS[method](params, config, texts(), Share(0.5))
    assert jax.tree.structure(pruned) == jax.tree.structure(mask) == jax.tree.structure(params)
    for kernel, keep in zip(kernels(pruned, config), kernels(mask, config), strict=True):
        assert np.count_nonzero(keep) * 2 == keep.size
        np.testing.assert_array_equal(kernel != 0, keep)
    assert sparsity(pruned, config) == 0.5 and sparsity(params, config) == 0
    for name in pruned:
        if not name.startswith(f"{config.layer.names.layer}_"):
            jax.tree.map(np.testing.assert_array_equal, pruned[name], params[name])
    assert np.isfinite(logits(pruned, config)).all()


@pytest.mark.parametrize("method", METHODS)
def test_two_of_four_has_two_zeros_in_every_four_inputs(method):
    config, params = small("tiny-llama")
    for kernel in kernels(METHODS[method](params, config, texts(), TWO_OF_FOUR).params, config):
        zeros = (kernel.T.reshape(len(kernel.T), -1, 4) == 0).sum(-1)
        assert (zeros == 2).all()


def test_wanda_prunes_every_output_alike_and_magnitude_all_matrices_together():
    config, params = small("tiny")
    for kernel in kernels(wanda(params, config, texts(), Share(0.25)).params, config):
        assert ((kernel == 0).sum(0) == len(kernel) // 4).all()
    params = {**params, "h_0": jax.tree.map(lambda leaf: leaf / 100, params["h_0"])}
    pruned = magnitude(params, config, Share(0.5), across="model")
    assert sparsity(pruned.params, config) == 0.5
    assert all((kernel == 0).mean() > 0.95 for kernel in kernels({**params, **pruned.params}, config)[:4])
    kept = min(np.abs(kernel[kernel != 0]).min() for kernel in kernels(pruned.params, config))
    gone = kernels(jax.tree.map(lambda leaf, keep: jnp.where(keep, 0, leaf), params, pruned.mask), config)
    assert max(np.abs(kernel).max() for kernel in gone) <= kept


@given(st.integers(1, 7), st.integers(1, 12), st.data())
@settings(max_examples=30)
def test_ties_do_not_change_how_many_go(rows, columns, data):
    count = data.draw(st.integers(0, columns))
    score = np.array(data.draw(st.lists(st.integers(0, 2), min_size=rows * columns, max_size=rows * columns)))
    score = score.reshape(rows, columns)
    drop = prune._lowest(score, count)
    assert (drop.sum(1) == count).all()
    for row, gone in zip(score, drop, strict=True):
        assert not gone.any() or gone.all() or row[gone].max() <= row[~gone].min()


@pytest.mark.parametrize("share", [Share(0.5), TWO_OF_FOUR])
def test_sparsegpts_outputs_are_nearer_than_magnitudes_and_wandas(share):
    kernel_DE, inputs = correlated()
    new_DE, keep_DE = prune._made_up_for(kernel_DE, jnp.asarray(inverse_factor(inputs.gram_DD)), share)
    assert float(keep_DE.mean()) == 0.5 and ((new_DE != 0) == keep_DE).all()
    norm_D = np.sqrt(np.diag(inputs.gram_DD))
    for score_ED in (np.abs(kernel_DE.T), np.abs(kernel_DE.T) * norm_D):
        plain_DE = np.where(prune._lowest_of(score_ED, share, whole=False).T, 0, kernel_DE)
        assert output_error(new_DE, kernel_DE, inputs) < 0.5 * output_error(plain_DE, kernel_DE, inputs)


def test_the_factor_is_that_of_the_damped_inverse():
    _, inputs = correlated()
    gram_DD = np.asarray(inputs.gram_DD, np.float64)
    factor_DD = inverse_factor(gram_DD).astype(np.float64)
    damped_DD = gram_DD + 0.01 * np.diag(gram_DD).mean() * np.eye(len(gram_DD))
    np.testing.assert_array_equal(factor_DD, np.triu(factor_DD))
    np.testing.assert_allclose(factor_DD.T @ factor_DD @ damped_DD, np.eye(len(gram_DD)), atol=1e-3)


def test_a_pruned_model_is_an_ordinary_folder(tmp_path):
    config, params = small("tiny-llama")
    pruned = wanda(params, config, texts()).params
    save_pretrained(tmp_path / "m", config, pruned, "lm")
    read, back = load_pretrained(tmp_path / "m", "lm")
    np.testing.assert_array_equal(logits(back, read), logits(pruned, config))
    assert sparsity(back, read) == 0.5


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (Share(1.0), r"sparsity=1.0 must be 0 or more and below 1"),
        (Share(0.5, 3), r"0.5 of every 3 inputs is no whole number"),
        (Share(0.5, 48), r"c_attn/kernel has 32 inputs, no multiple of 48"),
    ],
)
def test_a_share_that_cannot_be_is_one_line(share, says):
    config, params = small("tiny")
    with pytest.raises(UserError, match=says):
        magnitude(params, config, share)
    with pytest.raises(UserError, match="across='layer' must be 'matrix' or 'model'"):
        magnitude(params, config, across="layer")
