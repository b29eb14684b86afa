import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.data import (
    Encoded,
    bucket_of,
    choose_buckets,
    eval_batches,
    pad_batch,
    steps_per_epoch,
    train_batches,
)

PAD = 99


def ragged(lengths) -> Encoded:
    """Row i holds the tokens 1000 * i + 1, 1000 * i + 2, ..., so that every token tells where it came from."""
    tokens = [1000 * i + j for i, length in enumerate(lengths) for j in range(1, length + 1)]
    return Encoded(np.array(tokens, np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), 0, PAD)


def labels(encoded: Encoded) -> np.ndarray:
    return np.arange(len(encoded), dtype=np.int32) % 5


def check(batch, encoded, batch_size, buckets):
    """Every property that one batch has; returns its rows."""
    assert batch.tokens_BL.shape == batch.mask_BL.shape
    assert batch.tokens_BL.shape[0] == batch_size and batch.tokens_BL.shape[1] in buckets
    kinds = [np.int32, np.bool_, np.int32, np.float32, np.int32]
    assert [array.dtype for array in batch] == kinds
    np.testing.assert_array_equal(batch.weights_B, (batch.rows_B >= 0).astype(np.float32))
    for tokens, mask, label, row in zip(batch.tokens_BL, batch.mask_BL, batch.labels_B, batch.rows_B, strict=True):
        if row < 0:
            assert mask.tolist() == [True] + [False] * (len(mask) - 1) and (tokens == PAD).all()
        else:
            np.testing.assert_array_equal(tokens[mask], encoded[row])
            assert (tokens[~mask] == PAD).all() and mask[: len(encoded[row])].all()
            assert label == row % 5
    return batch.rows_B[batch.rows_B >= 0].tolist()


lengths = st.lists(st.integers(1, 70), min_size=1, max_size=60)


@given(lengths, st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**63))
@settings(deadline=None)
def test_an_epoch_is_every_row_once_and_one_partial_batch_at_most(lengths, batch_size, max_buckets, seed):
    encoded = ragged(lengths)
    buckets = choose_buckets(encoded.lengths_N, max_buckets)
    steps = steps_per_epoch(len(encoded), batch_size)
    batches = list(itertools.islice(train_batches(encoded, labels(encoded), batch_size, buckets, seed), 2 * steps))
    for epoch in (batches[:steps], batches[steps:]):
        rows = [check(batch, encoded, batch_size, buckets) for batch in epoch]
        assert sorted(row for part in rows for row in part) == list(range(len(encoded)))
        assert sum(len(part) < batch_size for part in rows) <= 1


@given(lengths, st.integers(1, 9), st.integers(0, 40), st.integers(0, 5))
@settings(deadline=None)
def test_resuming_equals_going_on(lengths, batch_size, start, seed):
    encoded = ragged(lengths)
    buckets = choose_buckets(encoded.lengths_N)
    arguments = (encoded, labels(encoded), batch_size, buckets, seed)
    for whole, resumed in zip(
        itertools.islice(train_batches(*arguments), start, start + 5), train_batches(*arguments, start), strict=False
    ):
        for a, b in zip(whole, resumed, strict=True):
            np.testing.assert_array_equal(a, b)


@given(lengths, st.integers(1, 9), st.integers(1, 4))
@settings(deadline=None)
def test_evaluation_restores_input_order(lengths, batch_size, max_buckets):
    encoded = ragged(lengths)
    buckets = choose_buckets(encoded.lengths_N, max_buckets)
    out_N = np.full(len(encoded), -1)
    batches = list(eval_batches(encoded, labels(encoded), batch_size, buckets))
    for batch in batches:
        check(batch, encoded, batch_size, buckets)
        real_B = batch.rows_B >= 0
        assert (out_N[batch.rows_B[real_B]] == -1).all()
        out_N[batch.rows_B[real_B]] = batch.tokens_BL[real_B, 0]
    np.testing.assert_array_equal(out_N, np.arange(len(encoded)) * 1000 + 1)
    assert len(batches) == steps_per_epoch(len(encoded), batch_size)


def test_evaluation_without_labels():
    (batch,) = eval_batches(ragged([3, 4]), None, 2, (8,))
    assert batch.labels_B.tolist() == [0, 0]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 4), st.sampled_from([1, 4, 8]))
@settings(deadline=None)
def test_buckets_are_the_best_there_are(lengths, max_buckets, multiple):
    lengths_N = np.array(lengths)
    buckets = choose_buckets(lengths_N, max_buckets, multiple)

    def padded(candidate):
        return sum(bucket_of(length, candidate) for length in lengths)

    assert list(buckets) == sorted(set(buckets)) and 1 <= len(buckets) <= max_buckets
    assert all(bucket % multiple == 0 for bucket in buckets)
    top = -(-max(lengths) // multiple) * multiple
    candidates = sorted({-(-length // multiple) * multiple for length in lengths} - {top})[:8]
    for count in range(min(max_buckets - 1, len(candidates)) + 1):
        for others in itertools.combinations(candidates, count):
            assert padded(buckets) <= padded((*others, top))


def test_buckets_stop_at_the_context_length():
    assert choose_buckets(np.array([3, 57]), longest=60) == (8, 60)
    assert choose_buckets(np.array([3]), max_buckets=4, longest=60) == (8,)
    with pytest.raises(ValueError, match="a length of 61 exceeds"):
        choose_buckets(np.array([61]), longest=60)
    with pytest.raises(ValueError, match="0 lengths"):
        choose_buckets(np.array([], np.int32))


def test_bucket_of():
    assert [bucket_of(length, (8, 16)) for length in (0, 1, 8, 9, 16)] == [8, 8, 8, 16, 16]
    with pytest.raises(ValueError, match="17 tokens fit none of the buckets"):
        bucket_of(17, (8, 16))


def test_padding_on_either_side():
    tokens_BL, mask_BL = pad_batch([[1, 2, 3], [], [4]], 4, 4, 9)
    assert tokens_BL.tolist() == [[1, 2, 3, 9], [9, 9, 9, 9], [4, 9, 9, 9], [9, 9, 9, 9]]
    assert mask_BL.astype(int).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    tokens_BL, mask_BL = pad_batch([[1, 2, 3], []], 4, 3, 9, side="left")
    assert tokens_BL.tolist() == [[9, 1, 2, 3], [9, 9, 9, 9], [9, 9, 9, 9]]
    assert mask_BL.astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="5 tokens do not fit a length of 4"):
        pad_batch([[1] * 5], 4, 1, 9)
    with pytest.raises(ValueError, match="2 rows do not fit a batch of 1"):
        pad_batch([[1], [2]], 4, 1, 9)


def test_wrong_arguments_are_refused():
    encoded = ragged([3, 20])
    with pytest.raises(ValueError, match="20 tokens fit none"):
        next(train_batches(encoded, labels(encoded), 2, (8,), 0))
    with pytest.raises(ValueError, match="1 labels"):
        next(train_batches(encoded, np.zeros(1, np.int32), 2, (24,), 0))
    with pytest.raises(ValueError, match="must ascend"):
        next(eval_batches(encoded, None, 2, (24, 8)))


def test_short_and_long_batches_are_mixed_and_seeds_and_epochs_differ():
    encoded = ragged([4] * 64 + [12] * 64)
    steps = steps_per_epoch(128, 8)

    def epoch(seed, number):
        return list(itertools.islice(train_batches(encoded, labels(encoded), 8, (8, 16), seed, number * steps), steps))

    widths = [batch.tokens_BL.shape[1] for batch in epoch(0, 0)]
    assert widths != sorted(widths) and widths != sorted(widths, reverse=True)
    orders = [np.concatenate([batch.rows_B for batch in epoch(*at)]).tolist() for at in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2] and orders[1] != orders[2]


ORDER = """
import itertools
import numpy as np
from llmjax.data import Encoded, train_batches
encoded = Encoded(np.ones(20, np.int32), np.arange(21), 0, 0)
print([b.rows_B.tolist() for b in itertools.islice(train_batches(encoded, np.zeros(20, np.int32), 6, (8,), 7, 3), 5)])
"""
GOLDEN_ORDER = (
    "[[2, 17, 8, 7, 5, 1], [17, 9, 19, 0, 12, 14], [13, 6, -1, -1, -1, -1], "
    "[11, 1, 3, 2, 18, 10], [7, 8, 15, 16, 4, 5]]"
)


def test_the_order_is_the_same_on_every_machine_and_in_every_process():
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", ORDER],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == GOLDEN_ORDER, done.stderr


def test_real_texts_waste_little(shared_data, gpt2_tokenizer):
    from llmjax.data import DataConfig, encode, load_dataset

    path = str(shared_data / "zh_hotel" / "dev.tsv")
    data = load_dataset(DataConfig(source="files", train=path, dev_fraction=0, test_fraction=0))
    encoded = encode(gpt2_tokenizer, data.train.texts, 256)
    padded = {}
    for count in (1, 4):
        buckets = choose_buckets(encoded.lengths_N, count)
        batches = itertools.islice(
            train_batches(encoded, data.train.labels_N, 16, buckets, 0), steps_per_epoch(len(encoded), 16)
        )
        padded[count] = sum(batch.tokens_BL.size for batch in batches) / encoded.lengths_N.sum()
    assert padded[4] < 1.3 < padded[1]
