"""Perplexity over windows: every token once, and the loss of the full forward pass and of transformers."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.infer.perplexity import perplexity, windows
from llmjax.kernels.formats import FORMATS
from llmjax.models.params import prepare
from llmjax.models.weights import save_pretrained
from tests.infer.models import full_logits, random_model


@given(st.integers(2, 200), st.integers(2, 40), st.integers(1, 40), st.integers(1, 5))
def test_every_token_but_the_first_is_scored_once(length, window, stride, batch_size):
    stride = min(stride, window)
    ids = list(range(length))
    scored = []
    for batch in windows(ids, window, stride, batch_size):
        assert batch.tokens_BL.shape == (batch_size, window)
        for tokens_L, size, scored_L in zip(*batch, strict=True):
            begin = tokens_L[0]
            at = np.flatnonzero(scored_L)
            if at.size:
                np.testing.assert_array_equal(tokens_L[:size], np.arange(begin, begin + size))
                assert at[-1] == size - 1
                # Enough before it: a window less a stride, or all there is.
                assert at[0] >= window - stride or begin == 0
            scored += tokens_L[at].tolist()
    # With windows that do not overlap, the first token of each has nothing before it to be predicted from.
    expected = ids[1:] if stride < window else [i for i in ids if i % window]
    assert scored == expected


def test_one_window_has_the_loss_of_the_full_forward_pass():
    config, params = random_model()
    ids = np.random.default_rng(0).integers(0, 300, 60).tolist()
    logprobs = jax.nn.log_softmax(full_logits(config, params, ids))
    want = -np.mean([float(logprobs[i, ids[i + 1]]) for i in range(59)])
    got = perplexity(prepare(params, config, "float32"), config, "float32", ids, 60, 30, 2)
    assert got.tokens == 59 and got.error is None and got.interval == (got.perplexity, got.perplexity)
    assert got.loss == pytest.approx(want, abs=1e-5)
    assert got.perplexity == pytest.approx(math.exp(want), rel=1e-4)


def test_sliding_windows_see_what_stands_before_them():
    config, params = random_model()
    ids = np.random.default_rng(1).integers(0, 300, 50).tolist()
    parts = []
    for begin, end, first in ((0, 20, 1), (8, 28, 20), (16, 36, 28), (24, 44, 36), (32, 50, 44)):
        logprobs = jax.nn.log_softmax(full_logits(config, params, ids[begin:end]))
        parts.append((-sum(float(logprobs[i - begin - 1, ids[i]]) for i in range(first, end)), end - first))
    got = perplexity(prepare(params, config, "float32"), config, "float32", ids, 20, 12 - 4, 3)
    assert got.tokens == 49
    mean = sum(loss for loss, _ in parts) / 49
    assert got.loss == pytest.approx(mean, abs=1e-5)
    error = math.sqrt(5 / 4 * sum((loss - mean * count) ** 2 for loss, count in parts)) / 49
    assert got.error == pytest.approx(error, rel=1e-3)
    assert got.interval == pytest.approx((math.exp(mean - 1.96 * error), math.exp(mean + 1.96 * error)), rel=1e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_near_float32(format):
    config, params = random_model()
    ids = np.random.default_rng(2).integers(0, 300, 90).tolist()
    exact = perplexity(prepare(params, config, "float32"), config, "float32", ids, 90, 45, 1)
    rounded = perplexity(prepare(params, config, format), config, format, ids, 90, 45, 1)
    assert rounded.loss == pytest.approx(
        exact.loss, rel={"float32": 1e-6, "bfloat16": 0.01, "int8": 0.02, "int4": 0.2}[format]
    )


def test_the_loss_is_that_of_transformers(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the `reference` extra")
    from transformers import GPT2LMHeadModel

    config, params = random_model()
    save_pretrained(tmp_path, config, params, "lm")
    model = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids = np.random.default_rng(3).integers(0, 300, 80).tolist()
    with torch.no_grad():
        want = float(model(torch.tensor([ids]), labels=torch.tensor([ids])).loss)
    got = perplexity(prepare(params, config, "float32"), config, "float32", ids, 80, 40, 1)
    assert got.loss == pytest.approx(want, abs=1e-4)
