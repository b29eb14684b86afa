from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.data.packing import join, packed_batches, windows_in_order, windows_per_epoch
from llmjax.data.tokenizer import Encoded


def test_join_ends_every_text() -> None:
    encoded = Encoded(np.array([5, 6, 7, 8], np.int32), np.array([0, 2, 3, 4]), 0, 0)
    assert join(encoded, 1).tolist() == [5, 6, 1, 7, 1, 8, 1]


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_reads_windows_that_do_not_overlap(tokens: int, length: int, batch_size: int, seed: int) -> None:
    length = min(length, tokens - 1)
    stream_T = np.arange(tokens, dtype=np.int32)
    per_epoch = windows_per_epoch(tokens, length)
    assert per_epoch * length <= tokens - 1 < (per_epoch + 1) * length
    steps = -(-2 * per_epoch // batch_size)
    batches = list(islice(packed_batches(stream_T, length, batch_size, seed), steps))
    for batch in batches:
        assert batch.tokens_BL.shape == batch.targets_BL.shape == (batch_size, length)
        np.testing.assert_array_equal(batch.tokens_BL, batch.starts_B[:, None] + np.arange(length))
        np.testing.assert_array_equal(batch.targets_BL, batch.tokens_BL + 1)
        assert batch.weights_BL.all()
    starts = np.concatenate([batch.starts_B for batch in batches])
    for epoch in range(2):
        gaps = np.diff(np.sort(starts[epoch * per_epoch : (epoch + 1) * per_epoch]))
        assert (gaps == length).all() and len(gaps) == per_epoch - 1


@settings(deadline=None)
@given(st.integers(0, 30))
def test_a_batch_depends_on_its_number_only(start: int) -> None:
    stream_T = np.arange(100, dtype=np.int32)
    whole = list(islice(packed_batches(stream_T, 7, 4, seed=1), start + 1))
    later = next(packed_batches(stream_T, 7, 4, seed=1, start_step=start))
    for one, other in zip(whole[-1], later, strict=True):
        np.testing.assert_array_equal(one, other)


def test_seeds_and_epochs_differ_in_order_and_edges() -> None:
    stream_T = np.arange(1003, dtype=np.int32)
    epochs = [next(packed_batches(stream_T, 100, 10, seed, step)).starts_B for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(starts.tolist()) for starts in epochs}) == 4
    assert len({int(starts.min()) for starts in epochs}) > 1


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 5))
def test_in_order_every_token_but_the_first_is_predicted_once(tokens: int, length: int, batch_size: int) -> None:
    stream_T = np.arange(100, 100 + tokens, dtype=np.int32)
    predicted = []
    for batch in windows_in_order(stream_T, length, batch_size):
        assert batch.tokens_BL.shape == (batch_size, length)
        real_BL = batch.weights_BL > 0
        predicted += batch.targets_BL[real_BL].tolist()
        np.testing.assert_array_equal(batch.targets_BL[real_BL], batch.tokens_BL[real_BL] + 1)
    assert sorted(predicted) == list(range(101, 100 + tokens))


@pytest.mark.parametrize("length", [0, 5, 6])
def test_a_window_needs_a_token_after_it(length: int) -> None:
    with pytest.raises(ValueError, match="5 tokens have no window"):
        windows_per_epoch(5, length)
