"""Texts to class probabilities, in few compiled shapes, as a stream of bounded memory."""

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llmjax.adapt.folders import load_model
from llmjax.data.tokenizer import Encoded, encode, load_tokenizer
from llmjax.errors import UserError, no_numbers
from llmjax.infer.calibration import Calibration, knows_any, read_calibration
from llmjax.infer.memory import check_forward
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.folders import TOKENIZER_FILES, resolve_folder, tokenizer_home
from llmjax.models.layout import place_model
from llmjax.models.params import Params
from llmjax.parallel.layout import place_rows
from llmjax.parallel.mesh import whole_rows
from llmjax.parallel.processes import fetched

CHUNK = 4096  # texts read, tokenised and sorted by length at a time: the bound on memory
SHORTEST_BUCKET = 16
ROWS = (1, 8, 64)
MAX_TOKENS = 8192  # of one batch: keeps the attention scores of long texts within memory


class Prediction(NamedTuple):
    """The class of one text: the most probable `label`, its probability `score`, and all classes' probabilities."""

    text: str
    label: str
    score: float
    scores: dict[str, float]
    truncated: bool  # the text was longer than the model's context, and its end was not read
    known: bool = True  # whether the model was trained on any token of the text, as far as its folder says


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A loaded GPT-2 classifier: a value; make one with `load_classifier` or `from_params`.

    `apply(params, tokens_BL, lengths_B)` is the compiled function that everything goes through: it returns class
    probabilities [B, C] in float32, before the calibration's temperature.
    """

    config: ModelConfig
    params: Params
    tokenizer: Any
    apply: Callable[[Params, Int[np.ndarray, "B L"], Int[np.ndarray, "B"]], Float[Array, "B C"]]
    calibration: Calibration = dataclasses.field(default_factory=Calibration)

    @classmethod
    def from_params(
        cls, config: ModelConfig, params: Params, tokenizer: Any, calibration: Calibration | None = None
    ) -> "Classifier":
        """Makes a classifier of parameters in memory, as `make_model(config, "classifier")` has them."""
        if config.num_labels < 2:
            raise UserError(f"a classifier needs at least 2 classes; this model has {config.num_labels}: a regression?")
        return cls(config, place_model(params, config), tokenizer, _compiled(config), calibration or Calibration())

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return self.config.label_names

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Returns one prediction a text, in order; see `classify_stream`."""
        if isinstance(texts, str):
            raise UserError("classify takes a list of texts; for one text: classify([text])")
        return list(self.classify_stream(texts))

    def classify_stream(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """Yields one prediction a text, in order, holding a few thousand texts at a time.

        A text without any token (an empty one) is classified as the end-of-text token alone, so that output lines stay
        aligned with input lines. A text longer than the context is cut at its end and marked `truncated`.

        The next chunk is tokenised in a thread while the device works on this one, and a batch is fetched only when
        the next one is under way.
        """
        in_flight: deque[tuple[_Chunk, np.ndarray, jax.Array]] = deque()
        for chunk in self._chunks(texts):
            for rows_B, tokens_BL, lengths_B in chunk.batches:
                check_forward(self.config, *tokens_BL.shape)
                in_flight.append((chunk, rows_B, self.apply(self.params, *place_rows((tokens_BL, lengths_B)))))
                if len(in_flight) > 1:
                    yield from self._fetch(*in_flight.popleft())
        while in_flight:
            yield from self._fetch(*in_flight.popleft())

    def _chunks(self, texts: Iterable[str]) -> Iterator["_Chunk"]:
        """Yields tokenised chunks; the tokenizer is one chunk ahead, in a thread where there is more than one."""
        groups = iter(lambda: list(itertools.islice(iterator, CHUNK)), [])
        iterator = iter(texts)
        first, second = next(groups, None), next(groups, None)
        if first is None:
            return
        if second is None:
            yield self._prepare(first)
            return
        with ThreadPoolExecutor(1, "tokenizer") as pool:
            ahead = pool.submit(self._prepare, first)
            for group in itertools.chain([second], groups):
                current, ahead = ahead.result(), pool.submit(self._prepare, group)
                yield current
            yield ahead.result()

    def _prepare(self, texts: list[str]) -> "_Chunk":
        limit = self.config.context
        empty = self.tokenizer.eos_token_id
        empty = self.config.eos_token_id if empty is None else empty
        encoded = encode(self.tokenizer, texts, 2**31 - 1, 0 if empty is None else empty)
        truncated_N = encoded.lengths_N > limit
        if truncated_N.any():
            # Cut by the tokenizer, which keeps the special tokens that it ends a text with.
            rows = np.flatnonzero(truncated_N)
            cut = encode(self.tokenizer, [texts[row] for row in rows], limit)
            short = iter(range(len(cut)))
            parts = [cut[next(short)] if truncated_N[row] else encoded[row] for row in range(len(texts))]
            offsets_M = np.cumsum([0, *map(len, parts)], dtype=np.int64)
            encoded = dataclasses.replace(encoded, tokens_T=np.concatenate(parts), offsets_M=offsets_M)
        largest = int(encoded.tokens_T.max())
        if largest >= self.config.vocab_size:
            raise UserError(
                f"the tokenizer gives token {largest}, but the model's vocabulary has {self.config.vocab_size}:"
                " name the tokenizer that the model was trained with (tokenizer=...)"
            )
        trained_U, known_N = self.calibration.trained_U, np.ones(len(texts), bool)
        if trained_U is not None:
            known_N = knows_any(trained_U, encoded.tokens_T, encoded.offsets_M, self.tokenizer.all_special_ids)
        probs_NC = np.zeros((len(texts), self.config.num_labels), np.float32)
        return _Chunk(texts, truncated_N, known_N, probs_NC, list(batches(encoded, limit)))

    def _fetch(self, chunk: "_Chunk", rows_B: np.ndarray, probs_BC: jax.Array) -> Iterator[Prediction]:
        """Stores one batch's probabilities, and yields the chunk's predictions where that was its last batch."""
        chunk.probs_NC[rows_B] = fetched(probs_BC)[: len(rows_B)]
        if rows_B is not chunk.batches[-1][0]:
            return
        if not np.isfinite(chunk.probs_NC).all():
            raise no_numbers("the class probabilities")
        names, best_N = self.label_names, chunk.probs_NC.argmax(-1).tolist()
        probs_NC = self.calibration.apply(chunk.probs_NC)
        flags = (chunk.truncated_N.tolist(), chunk.known_N.tolist())
        for text, probs, best, *flagged in zip(chunk.texts, probs_NC.tolist(), best_N, *flags, strict=True):
            yield Prediction(text, names[best], probs[best], dict(zip(names, probs, strict=True)), *flagged)


class _Chunk(NamedTuple):
    texts: list[str]
    truncated_N: np.ndarray
    known_N: np.ndarray
    probs_NC: np.ndarray  # filled batch by batch
    batches: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def load_classifier(path: str | Path, tokenizer: str = "", **overrides: Any) -> Classifier:
    """Loads a classifier that llmjax trained or transformers wrote.

    Args:
        path: a training run's workdir, a folder that transformers wrote, or a hub id.
        tokenizer: "gpt2", a folder or a hub id; empty = the one saved beside the weights.
        **overrides: `ModelConfig` fields that take precedence over config.json (`dtype="bfloat16"`, ...).

    Raises:
        UserError: there is no such model, it has no classification head, or it comes without a tokenizer.
    """
    folder = resolve_folder(path)
    config, params = load_model(folder, "classifier", **overrides)
    home = tokenizer_home(folder)
    if not tokenizer and not any((home / name).exists() for name in TOKENIZER_FILES):
        raise UserError(
            f"{folder}: has no tokenizer files; name the tokenizer that the model was trained with (tokenizer='gpt2'"
            " is GPT-2's own)."
        )
    words = load_tokenizer(tokenizer or str(home))
    return Classifier.from_params(config, params, words, read_calibration(folder))


def bucket_lengths(context: int) -> tuple[int, ...]:
    """Returns the padded lengths that are compiled: 16, 32, 64, ... and the context length itself, in tokens."""
    doublings = itertools.takewhile(lambda length: length < context, (SHORTEST_BUCKET << i for i in itertools.count()))
    return (*doublings, context)


def row_counts(rows: int, length: int) -> list[int]:
    """Splits `rows` texts of one bucket into batches of 1, 8 or 64 rows a device, fewer where `length` is long.

    A lone text never pays for a full batch, and the number of compiled shapes stays bounded.
    """
    least = whole_rows(1)  # a row a device of the mesh in use
    most = least * max(1, min(ROWS[-1], MAX_TOKENS // length))
    few = min(least * ROWS[1], most)
    full, rest = divmod(rows, most)
    if rest > most // 2:
        return [most] * (full + 1)
    return [most] * full + ([least] if 0 < rest <= least else [few] * -(-rest // few))


def batches(encoded: Encoded, context: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (rows_R, tokens_BL, lengths_B), short texts first, so that every text stands in exactly one batch.

    Rows of a batch beyond its R texts are padding: one token long, so that attention is defined there. Padding is
    token 0, which every vocabulary has; the lengths say what is real.
    """
    buckets = np.array(bucket_lengths(context))
    lengths_N = encoded.lengths_N
    bucket_N = np.searchsorted(buckets, lengths_N)
    for index in np.unique(bucket_N):
        length = int(buckets[index])
        remaining = np.flatnonzero(bucket_N == index)
        for count in row_counts(len(remaining), length):
            rows_R, remaining = remaining[:count], remaining[count:]
            slots_RL = np.arange(length) < lengths_N[rows_R, None]
            source_RL = np.where(slots_RL, encoded.offsets_M[rows_R, None] + np.arange(length), 0)
            tokens_BL = np.zeros((count, length), np.int32)
            tokens_BL[: len(rows_R)] = np.where(slots_RL, encoded.tokens_T[source_RL], 0)
            lengths_B = np.ones(count, np.int32)
            lengths_B[: len(rows_R)] = lengths_N[rows_R]
            yield rows_R, tokens_BL, lengths_B


@functools.lru_cache(maxsize=8)
def _compiled(config: ModelConfig) -> Callable[..., jax.Array]:
    """Returns one jitted function a config, so that models of one shape share what XLA compiled."""
    model = make_model(config, "classifier")

    def probabilities(params: Params, tokens_BL: jax.Array, lengths_B: jax.Array) -> jax.Array:
        mask_BL = jnp.arange(tokens_BL.shape[1])[None, :] < lengths_B[:, None]
        logits_BC: Any = model.apply({"params": params}, tokens_BL, mask_BL)
        return jax.nn.softmax(logits_BC, axis=-1)

    return jax.jit(probabilities)
