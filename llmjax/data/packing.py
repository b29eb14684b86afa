"""Texts as one stream of tokens, cut into windows of one length: no token is padding.

A window reads over the ends of texts, as GPT-2 was trained; the token that ends each text says where it is.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from llmjax.data.tokenizer import Encoded


class Windows(NamedTuple):
    """Windows of a stream: `targets_BL` are the tokens that follow `tokens_BL`; those of weight 0 do not count.

    starts_B: where in the stream each window begins; -1 for a row that is only there to fill the batch.
    """

    tokens_BL: Int32[np.ndarray, "B L"]
    targets_BL: Int32[np.ndarray, "B L"]
    weights_BL: Float32[np.ndarray, "B L"]
    starts_B: Int64[np.ndarray, "B"]


def join(encoded: Encoded, end_id: int) -> Int32[np.ndarray, "T"]:
    """Returns the tokens of all texts in order, `end_id` after each."""
    return np.insert(encoded.tokens_T, encoded.offsets_M[1:], end_id).astype(np.int32)


def windows_per_epoch(tokens: int, length: int) -> int:
    """Returns how many whole windows of `length` tokens, each followed by a token, a stream of `tokens` has."""
    if not 1 <= length < tokens:
        raise ValueError(f"{tokens} tokens have no window of {length} with a token after it")
    return (tokens - 1) // length


def packed_batches(
    tokens_T: Int32[np.ndarray, "T"], length: int, batch_size: int, seed: int, start_step: int = 0
) -> Iterator[Windows]:
    """Yields batches of whole windows for ever, beginning with batch number `start_step`.

    An epoch is `windows_per_epoch` windows in random order that do not overlap; fewer than `length` tokens at the ends
    of the stream are left out, others in each epoch. A batch may hold the last windows of one epoch and the first ones
    of the next, so all are full. Batch k depends on the tokens, seed and k only.
    """
    per_epoch = windows_per_epoch(len(tokens_T), length)
    spare = len(tokens_T) - 1 - per_epoch * length
    starts_B, epoch = np.zeros(batch_size, np.int64), -1
    order_N, offset = np.zeros(0, np.int64), 0
    ones_BL = np.ones((batch_size, length), np.float32)
    number = start_step * batch_size
    while True:
        for row in range(batch_size):
            if epoch != number // per_epoch:
                epoch = number // per_epoch
                random = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
                # Raw bits and a stable sort: NumPy keeps a bit generator's stream for ever.
                offset = int(random.random_raw() % np.uint64(spare + 1))
                order_N = np.argsort(random.random_raw(per_epoch), kind="stable")
            starts_B[row] = offset + order_N[number % per_epoch] * length
            number += 1
        yield _windows(tokens_T, starts_B.copy(), length, ones_BL)


def windows_in_order(tokens_T: Int32[np.ndarray, "T"], length: int, batch_size: int) -> Iterator[Windows]:
    """Yields windows that predict every token but the first exactly once; the last batch is filled with weight 0."""
    starts_N = np.arange(0, len(tokens_T) - 1, length)
    padded_T = np.pad(tokens_T, (0, length))
    for at in range(0, len(starts_N), batch_size):
        starts_B = starts_N[at : at + batch_size]
        starts_B = np.pad(starts_B, (0, batch_size - len(starts_B)), constant_values=-1)
        targets_BL = starts_B[:, None] + 1 + np.arange(length)
        real_BL = (targets_BL < len(tokens_T)) & (starts_B[:, None] >= 0)
        yield _windows(padded_T, starts_B, length, real_BL.astype(np.float32))


def _windows(tokens_T: np.ndarray, starts_B: np.ndarray, length: int, weights_BL: np.ndarray) -> Windows:
    at_BL = np.maximum(starts_B, 0)[:, None] + np.arange(length + 1)
    read_BL = tokens_T[at_BL].astype(np.int32)
    return Windows(read_BL[:, :-1], read_BL[:, 1:], weights_BL, starts_B)
