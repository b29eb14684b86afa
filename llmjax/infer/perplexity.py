"""How well a language model predicts a text: perplexity over sliding windows."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

from llmjax.errors import no_numbers
from llmjax.infer.step import score
from llmjax.kernels.formats import Format, activation_dtype
from llmjax.models.cache import empty_cache
from llmjax.models.config import ModelConfig
from llmjax.models.params import Params
from llmjax.parallel.layout import place_rows
from llmjax.parallel.processes import fetched


class Windows(NamedTuple):
    """Windows over a text: `tokens_BL`, `lengths_B`, and `scored_BL`, the positions whose loss counts."""

    tokens_BL: np.ndarray
    lengths_B: np.ndarray
    scored_BL: np.ndarray


class Perplexity(NamedTuple):
    """Mean negative log-likelihood a token (natural), its exponential, over how many tokens, and the loss's error.

    error: the loss's standard error, were the text's windows drawn apart from one another: of a ratio of two sums over
    them (Cochran 1977, "Sampling Techniques", equation 6.13). None of one window alone. Two models' difference on one
    text is surer than that.
    """

    loss: float
    perplexity: float
    tokens: int
    error: float | None

    @property
    def interval(self) -> tuple[float, float]:
        """The perplexity's 95% interval; its value twice where the error is not known."""
        low, high = (math.exp(min(self.loss + side * 1.96 * (self.error or 0.0), 700)) for side in (-1, 1))
        return low, high


def windows(ids: Sequence[int], window: int, stride: int, batch_size: int) -> Iterator[Windows]:
    """Yields windows of `window` tokens, `stride` apart, in batches, the last ones padded to the same shape.

    Every token but the first of the text is scored exactly once, in the first window that holds it: with at least
    `window - stride` tokens before it, but for those of the first window. Where windows do not overlap, the first
    token of each is not scored. Source: transformers' documentation, "Perplexity of fixed-length models".
    """
    spans = []  # start, end, first scored
    scored = 1
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        if end > scored:
            # Nothing predicts a window's own first token: with windows that do not overlap it is not scored.
            spans.append((begin, end, max(scored, begin + 1)))
            scored = end
        if end == len(ids):
            break
    for at in range(0, len(spans), batch_size):
        batch = Windows(
            np.zeros((batch_size, window), np.int32),
            np.ones(batch_size, np.int32),
            np.zeros((batch_size, window), bool),
        )
        for row, (begin, end, first) in enumerate(spans[at : at + batch_size]):
            batch.tokens_BL[row, : end - begin] = ids[begin:end]
            batch.lengths_B[row] = end - begin
            batch.scored_BL[row, first - begin : end - begin] = True
        yield batch


def perplexity(
    params: Params, config: ModelConfig, format: Format, ids: Sequence[int], window: int, stride: int, batch_size: int
) -> Perplexity:
    """Returns the perplexity of prepared parameters on the tokens `ids`, at least two of them.

    Raises UserError where it is no number.
    """

    @jax.jit
    def scores(params: Params, tokens_BL: jax.Array, lengths_B: jax.Array) -> jax.Array:
        cache = empty_cache(config, batch_size, window, activation_dtype(format))
        return score(params, tokens_BL, lengths_B, cache, config=config)[0]

    losses, counts = [], []
    for batch in windows(ids, window, stride, batch_size):
        scores_BL = fetched(scores(params, *place_rows((batch.tokens_BL, batch.lengths_B)))).astype(np.float64)
        losses.append(-np.where(batch.scored_BL, scores_BL, 0.0).sum(axis=1))
        counts.append(batch.scored_BL.sum(axis=1))
    losses_W, counts_W = (np.concatenate(parts) for parts in (losses, counts))
    losses_W, counts_W = losses_W[counts_W > 0], counts_W[counts_W > 0]
    loss, tokens = float(losses_W.sum() / counts_W.sum()), int(counts_W.sum())
    if not math.isfinite(loss):
        raise no_numbers("the log-likelihoods")
    return Perplexity(loss, math.exp(min(loss, 700)), tokens, _error(losses_W - loss * counts_W, tokens))


def _error(off_W: Float64[np.ndarray, "W"], tokens: int) -> float | None:
    """Returns the standard error of the mean loss, of what each window's loss is off what its tokens should have."""
    count = len(off_W)
    return math.sqrt(count / (count - 1) * float((off_W**2).sum())) / tokens if count > 1 else None
