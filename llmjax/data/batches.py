"""Ragged token ids to padded batches of few shapes, in an order that depends on seed and epoch only."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from llmjax.data.tokenizer import Encoded


class Batch(NamedTuple):
    """One padded batch. A padding row has weight 0, row -1 and one unmasked pad token, so that pooling is defined.

    rows_B are the examples' numbers: `out_N[rows_B[rows_B >= 0]] = values_B[rows_B >= 0]` restores input order.
    """

    tokens_BL: Int32[np.ndarray, "B L"]
    mask_BL: Bool[np.ndarray, "B L"]
    labels_B: Int32[np.ndarray, "B"]
    weights_B: Float32[np.ndarray, "B"]
    rows_B: Int32[np.ndarray, "B"]


def choose_buckets(
    lengths_N: Int32[np.ndarray, "N"], max_buckets: int = 4, multiple: int = 8, longest: int | None = None
) -> tuple[int, ...]:
    """Returns at most `max_buckets` padded lengths that cover `lengths_N` with the least padding, in ascending order.

    Each is a multiple of `multiple`, except that none exceeds `longest` (the model's context length). Exact, by dynamic
    programming over the distinct rounded lengths. Give it the lengths of all splits that will use the buckets.
    Raises ValueError when a length exceeds `longest`, or there are no lengths.
    """
    lengths_N = np.asarray(lengths_N)
    if not len(lengths_N) or max_buckets < 1:
        raise ValueError(f"{len(lengths_N)} lengths and max_buckets={max_buckets}: at least one of each is needed")
    if longest is not None and lengths_N.max() > longest:
        raise ValueError(f"a length of {lengths_N.max()} exceeds the longest bucket allowed, {longest}")
    rounded_N = -(-np.maximum(lengths_N, 1) // multiple) * multiple
    sizes_C, counts_C = np.unique(np.minimum(rounded_N, longest or rounded_N.max()), return_counts=True)
    rows_M = np.concatenate([[0], np.cumsum(counts_C)])  # rows_M[c] rows fit the first c candidates
    # after k rounds, cost_M[c] = least padded tokens of the rows that fit the first c candidates, in at most k buckets
    cost_M = np.where(rows_M == 0, 0.0, np.inf)
    rounds = []
    for _ in range(min(max_buckets, len(sizes_C))):
        new_M, from_M = cost_M.copy(), np.full(len(rows_M), -1)
        for c in range(1, len(rows_M)):
            options = cost_M[:c] + (rows_M[c] - rows_M[:c]) * sizes_C[c - 1]
            best = int(np.argmin(options))
            if options[best] < new_M[c]:
                new_M[c], from_M[c] = options[best], best
        cost_M = new_M
        rounds.append(from_M)
    buckets, c = [], len(sizes_C)
    for from_M in reversed(rounds):
        if from_M[c] >= 0:  # else a bucket more did not help here
            buckets.append(int(sizes_C[c - 1]))
            c = int(from_M[c])
    return tuple(reversed(buckets))


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """Returns the least bucket that holds `length` tokens; raises ValueError when none does."""
    for bucket in buckets:
        if length <= bucket:
            return bucket
    raise ValueError(f"{length} tokens fit none of the buckets {tuple(buckets)}")


def pad_batch(
    token_lists: Sequence[Sequence[int] | Int32[np.ndarray, "_"]],
    length: int,
    batch_size: int,
    pad_id: int,
    side: Literal["left", "right"] = "right",
) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
    """Returns `tokens_BL`, `mask_BL` (True = real token) for up to `batch_size` token lists of up to `length` tokens.

    A row beyond the lists, or of no tokens, is pad ids with one of them unmasked (the first, or the last when padding
    stands left), so that attention and last-token pooling are defined there.
    """
    if len(token_lists) > batch_size:
        raise ValueError(f"{len(token_lists)} rows do not fit a batch of {batch_size}")
    tokens_BL = np.full((batch_size, length), pad_id, np.int32)
    lengths_B = np.ones(batch_size, np.int32)
    for row, tokens in enumerate(token_lists):
        if len(tokens) > length:
            raise ValueError(f"{len(tokens)} tokens do not fit a length of {length}")
        if len(tokens):
            lengths_B[row] = len(tokens)
            first = 0 if side == "right" else length - len(tokens)
            tokens_BL[row, first : first + len(tokens)] = tokens
    at_L = np.arange(length, dtype=np.int32)
    first_B = np.zeros_like(lengths_B) if side == "right" else length - lengths_B
    mask_BL = (at_L[None, :] >= first_B[:, None]) & (at_L[None, :] < (first_B + lengths_B)[:, None])
    return tokens_BL, mask_BL


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Returns the batches an epoch has: every example once, one batch at most not full."""
    return -(-examples // batch_size)


def train_batches(
    encoded: Encoded,
    labels_N: Int32[np.ndarray, "N"],
    batch_size: int,
    buckets: Sequence[int],
    seed: int,
    start_step: int = 0,
) -> Iterator[Batch]:
    """Yields batches for ever, epoch after epoch, beginning with batch number `start_step`.

    An epoch holds every example exactly once, in `steps_per_epoch` batches of `batch_size` rows; rows left over in a
    bucket go to the next longer one, so one batch at most has padding rows. Batch k depends on the data, seed and k
    only: not on where the iterator began, the platform or NumPy's version. Starting late costs one epoch's shuffle.
    """
    lengths_N = _check(encoded, labels_N, batch_size, buckets)
    steps = steps_per_epoch(len(encoded), batch_size)
    epoch, skip = divmod(start_step, steps)
    while True:
        random = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
        plan = _plan(lengths_N, _shuffled(len(encoded), random), batch_size, buckets)
        for step in _shuffled(steps, random)[skip:]:
            yield _batch(encoded, labels_N, batch_size, *plan[step])
        epoch, skip = epoch + 1, 0


def eval_batches(
    encoded: Encoded, labels_N: Int32[np.ndarray, "N"] | None, batch_size: int, buckets: Sequence[int]
) -> Iterator[Batch]:
    """Yields every example once, shortest bucket first; without labels, `labels_B` is 0."""
    labels_N = np.zeros(len(encoded), np.int32) if labels_N is None else labels_N
    lengths_N = _check(encoded, labels_N, batch_size, buckets)
    for bucket, rows in _plan(lengths_N, np.arange(len(encoded)), batch_size, buckets):
        yield _batch(encoded, labels_N, batch_size, bucket, rows)


def _check(encoded: Encoded, labels_N: np.ndarray, batch_size: int, buckets: Sequence[int]) -> np.ndarray:
    lengths_N = encoded.lengths_N
    if not len(encoded) or len(labels_N) != len(encoded) or batch_size < 1:
        raise ValueError(f"{len(encoded)} texts, {len(labels_N)} labels, batch_size={batch_size}: nothing to batch")
    if list(buckets) != sorted(set(buckets)):
        raise ValueError(f"buckets {tuple(buckets)} must ascend")
    bucket_of(int(lengths_N.max()), buckets)
    return lengths_N


def _shuffled(count: int, random: np.random.PCG64) -> np.ndarray:
    # raw bits and a stable sort: NumPy keeps a bit generator's stream for ever, but not Generator.permutation's
    return np.argsort(random.random_raw(count), kind="stable")


def _plan(
    lengths_N: np.ndarray, order_N: np.ndarray, batch_size: int, buckets: Sequence[int]
) -> list[tuple[int, np.ndarray]]:
    """Returns (bucket, rows) for every batch: full ones but for the last of the longest bucket that is used."""
    bucket_N = np.searchsorted(np.asarray(buckets), lengths_N)[order_N]
    plan, left = [], order_N[:0]
    for index, bucket in enumerate(buckets):
        rows = np.concatenate([left, order_N[bucket_N == index]])
        last = not (bucket_N > index).any()
        end = len(rows) if last else len(rows) // batch_size * batch_size
        plan += [(bucket, rows[start : min(start + batch_size, end)]) for start in range(0, end, batch_size)]
        left = rows[end:]
        if last:
            break
    return plan


def _batch(encoded: Encoded, labels_N: np.ndarray, batch_size: int, bucket: int, rows: np.ndarray) -> Batch:
    tokens_BL, mask_BL = pad_batch([encoded[int(row)] for row in rows], bucket, batch_size, encoded.pad_id)
    empty = batch_size - len(rows)
    return Batch(
        tokens_BL,
        mask_BL,
        labels_B=np.pad(labels_N[rows], (0, empty)).astype(np.int32),
        weights_B=np.pad(np.ones(len(rows), np.float32), (0, empty)),
        rows_B=np.pad(rows, (0, empty), constant_values=-1).astype(np.int32),
    )
