"""Texts that a language model continues: batches of prompts, or one as a stream."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from llmjax.data.tokenizer import load_tokenizer
from llmjax.errors import UserError, no_numbers
from llmjax.infer.chat import end_ids, has_template, render
from llmjax.infer.checkpoint import arranged, folder_tokenizer, language_model_folder, load_prepared
from llmjax.infer.loop import ENDS, NO_TOKEN, News, Programs, Shape, State, compile_programs
from llmjax.infer.memory import check_memory
from llmjax.infer.plain_tokenizer import plain_tokenizer
from llmjax.infer.sampling import Sampling
from llmjax.infer.text import continuation, find_stop, settled
from llmjax.kernels.formats import Format
from llmjax.memory import available
from llmjax.models.cache import bucket
from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size
from llmjax.models.folders import is_gguf, read_config
from llmjax.models.layout import check_heads
from llmjax.models.params import Params, init_params, param_shapes, prepare
from llmjax.models.weights import check_sums
from llmjax.parallel.mesh import current, whole_rows
from llmjax.parallel.processes import fetched

GREEDY = Sampling()
SHORTEST_PROMPT = 16
STOP_CHECK = 8  # tokens between two looks for stop strings, in a batch that has any


class Completion(NamedTuple):
    """One continued text.

    `token_ids` are the tokens that were made, without the end-of-text token; where a stop string ended the text, up to
    the token that completed it, while `text` ends before it. `finish_reason` is "end" (end-of-text token), "stop"
    (stop string) or "length". `logprobs`, if asked for: each token's natural log-probability under the model.
    """

    prompt: str
    text: str
    token_ids: list[int]
    finish_reason: str
    logprobs: list[float] | None


@dataclasses.dataclass(frozen=True)
class Speed:
    """Where the time of some generations went, in seconds, and how many tokens it was for; `+` adds up."""

    compile_seconds: float = 0.0
    prefill_seconds: float = 0.0  # to each batch's first token
    decode_seconds: float = 0.0
    prompt_tokens: int = 0
    decoded_tokens: int = 0  # after each row's first

    def __add__(self, other: "Speed") -> "Speed":
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Speed(*(a + b for a, b in zip(mine, others, strict=True)))


class Expected(NamedTuple):
    """The first generation that will be asked for; fields as the arguments of `Generator.stream`."""

    prompt: str
    max_new_tokens: int
    sampling: Sampling = GREEDY
    cache_length: int = 0
    trim: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """A loaded language model: a value; make one with `load_generator` or `from_params`.

    chat: where the model has a chat template, prompts are messages that it answers.
    """

    config: ModelConfig
    params: Params
    tokenizer: Any
    format: Format
    chat: bool = False

    @property
    def answers(self) -> bool:
        """Whether prompts are messages that the model answers, not texts that it continues."""
        return self.chat and has_template(self.tokenizer)

    @classmethod
    def from_params(
        cls, config: ModelConfig, params: Params, tokenizer: Any, format: Format = "float32"
    ) -> "Generator":
        """Makes a generator of parameters in memory, as `make_model(config, "lm")` has them."""
        return cls(config, arranged(params, config, format), tokenizer, format)

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text: the config's own, and of a model of conversations those that end a turn."""
        own = self.config.eos_token_id
        if has_template(self.tokenizer):
            return end_ids(self.tokenizer, own)[:ENDS]
        return () if own is None else (own,)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
        **options: Any,
    ) -> list[Completion]:
        """Returns one completion a prompt, in order; see `generate_batches` for the options."""
        return [done for done, _ in self.generate_batches(prompts, max_new_tokens, sampling, stop, **options)]

    def generate_batches(
        self,
        prompts: Iterable[str],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
        *,
        batch_size: int = 8,
        cache_length: int = 0,
        trim: bool = False,
        first_row: int = 0,
    ) -> Iterator[tuple[Completion, Speed]]:
        """Yields (completion, speed) a prompt, in order, a batch at a time; a batch's speed comes with its first row.

        Args:
            prompts: texts of at least one token.
            max_new_tokens: at most so many tokens a text.
            sampling: how tokens are chosen.
            stop: a text ends before the first of these that it would hold.
            batch_size: rows at a time.
            cache_length: tokens a row of the cache holds; 0 = the smallest bucket that holds prompt and new tokens.
            trim: cut prompts that leave no room in the context at their beginning, rather than refuse them.
            first_row: the number of the first prompt in the whole input: with the seed, it decides a row's draws.

        Raises:
            UserError: a prompt that is empty or too long, by its number.
        """
        check_request(max_new_tokens, stop, self.config)
        batch: list[tuple[int, str, list[int]]] = []
        for row, prompt in enumerate(prompts, start=first_row):
            batch.append((row, prompt, self.encode(prompt, max_new_tokens, trim, row)))
            if len(batch) == batch_size:
                yield from self._batch(batch, max_new_tokens, sampling, stop, cache_length)
                batch = []
        if batch:
            yield from self._batch(batch, max_new_tokens, sampling, stop, cache_length)

    def stream(
        self,
        prompt: str,
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
        *,
        cache_length: int = 0,
        trim: bool = False,
        row: int = 0,
    ) -> Iterator[str | tuple[Completion, Speed]]:
        """Yields pieces of text as they come, whole characters only, and at the end the (completion, speed).

        The pieces together are the completion's text, which is the one that `generate` gives. Arguments as there.
        """
        check_request(max_new_tokens, stop, self.config)
        ids = self.encode(prompt, max_new_tokens, trim, row)
        batch = _Batch.make(self, [(row, prompt, ids)], max_new_tokens, sampling, cache_length)
        began = time.perf_counter()
        state, news = batch.start()
        first, shown, count = 0.0, 0, 1
        while True:
            # The next token is under way while the host turns this one into text.
            following = batch.advance(state, np.zeros(1, bool), count + 1) if count < max_new_tokens else None
            done = bool(fetched(news.done_B)[0])
            first = first or time.perf_counter() - began
            row_ids = batch.ids(news, 0)
            text = continuation(self.tokenizer, ids, row_ids)
            stopped = find_stop(text, stop)
            if stopped >= 0 or done or following is None:
                break
            safe = settled(text, stop)
            if safe > shown:
                yield text[shown:safe]
                shown = safe
            state, news = following
            count += 1
        completion = batch.completion(news, 0, stop)
        if completion.text[shown:]:
            yield completion.text[shown:]
        decode = time.perf_counter() - began - first
        yield completion, Speed(batch.programs.seconds * batch.compiled, first, decode, len(ids), count - 1)

    def encode(self, prompt: str, max_new_tokens: int, trim: bool = False, row: int = 0) -> list[int]:
        """Returns a prompt's tokens, at most as many as leave room for the new ones."""
        text = render(self.tokenizer, [{"role": "user", "content": prompt}]) if self.answers and prompt else prompt
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if not ids:
            raise UserError(f"prompt {row + 1} is empty ({prompt!r}): it gives no token to continue from.")
        room = self.config.context - max_new_tokens
        if len(ids) > room and not trim:
            raise UserError(
                f"prompt {row + 1} has {len(ids)} tokens; with max_new_tokens={max_new_tokens} that is more than the"
                f" model's {self.config.context}: shorten it, ask for fewer, or pass --config.trim=True to cut its"
                " beginning."
            )
        return ids[-room:]

    def _batch(
        self,
        rows: list[tuple[int, str, list[int]]],
        max_new_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
        cache_length: int,
    ) -> Iterator[tuple[Completion, Speed]]:
        batch = _Batch.make(self, rows, max_new_tokens, sampling, cache_length)
        began = time.perf_counter()
        state, news = batch.start()
        jax.block_until_ready(news.done_B)
        first = time.perf_counter() - began
        stopped_B = np.zeros(batch.shape.batch, bool)
        count, limit = 1, max_new_tokens
        while count < max_new_tokens and not (fetched(news.done_B) | stopped_B).all():
            limit = min(count + STOP_CHECK, max_new_tokens) if stop else max_new_tokens
            state, news = batch.advance(state, stopped_B, limit)
            count = int(news.count)
            for at in range(len(rows)) if stop else ():
                text = continuation(self.tokenizer, rows[at][2], batch.ids(news, at))
                stopped_B[at] |= find_stop(text, stop) >= 0
        decode = time.perf_counter() - began - first
        completions = [batch.completion(news, at, stop) for at in range(len(rows))]
        prompt_tokens = sum(len(ids) for _, _, ids in rows)
        decoded = len(rows) * (count - 1)
        speed = Speed(batch.programs.seconds * batch.compiled, first, decode, prompt_tokens, decoded)
        for completion in completions:
            yield completion, speed
            speed = Speed()


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """A batch of rows (number, prompt, tokens) with the programs that generate it."""

    generator: Generator
    rows: list[tuple[int, str, list[int]]]
    max_new_tokens: int
    sampling: Sampling
    shape: Shape
    programs: Programs
    compiled: bool  # in this call, so that its time is told

    @classmethod
    def make(
        cls,
        generator: Generator,
        rows: list[tuple[int, str, list[int]]],
        max_new_tokens: int,
        sampling: Sampling,
        cache_length: int,
    ) -> "_Batch":
        shape = batch_shape([len(ids) for _, _, ids in rows], max_new_tokens, cache_length)
        began = time.perf_counter()
        programs = compile_programs(generator.config, generator.params, shape, sampling.plan)
        compiled = programs.seconds <= time.perf_counter() - began
        return cls(generator, rows, max_new_tokens, sampling, shape, programs, compiled)

    def start(self) -> tuple[State, News]:
        """Runs the prompts; rows beyond the real ones are done from the beginning."""
        tokens_BL = np.zeros((self.shape.batch, self.shape.length), np.int32)
        lengths_B, rows_B = np.ones(self.shape.batch, np.int32), np.zeros(self.shape.batch, np.int32)
        for at, (row, _, ids) in enumerate(self.rows):
            tokens_BL[at, : len(ids)], lengths_B[at], rows_B[at] = ids, len(ids), row
        done_B = np.arange(self.shape.batch) >= len(self.rows)
        ends_E = np.full(ENDS, -1, np.int32)
        ends_E[: len(self.generator.ends)] = self.generator.ends
        knobs = self.sampling.knobs()
        return self.programs.start(self.generator.params, tokens_BL, lengths_B, rows_B, done_B, knobs, ends_E)

    def advance(self, state: State, done_B: np.ndarray, limit: int) -> tuple[State, News]:
        return self.programs.advance(self.generator.params, state, done_B, np.int32(limit))

    def ids(self, news: News, at: int) -> list[int]:
        """Tokens of a row so far, to the end-of-text token, which is left out."""
        made = fetched(news.tokens_BT)[at, : min(int(news.count), self.max_new_tokens)].tolist()
        if NO_TOKEN in made:
            raise no_numbers("the logits")
        ends = self.generator.ends
        return made[: next((at for at, token in enumerate(made) if token in ends), len(made))]

    def completion(self, news: News, at: int, stop: Sequence[str]) -> Completion:
        _, prompt, prompt_ids = self.rows[at]
        tokenizer, ids = self.generator.tokenizer, self.ids(news, at)
        reason = "length" if len(ids) == self.max_new_tokens else "end"
        text = continuation(tokenizer, prompt_ids, ids)
        if find_stop(text, stop) >= 0:
            # The first token with which the text holds a stop string: texts of fewer tokens do not.
            size = next(
                n for n in range(1, len(ids) + 1) if find_stop(continuation(tokenizer, prompt_ids, ids[:n]), stop) >= 0
            )
            text, ids, reason = continuation(tokenizer, prompt_ids, ids[:size]), ids[:size], "stop"
            text = text[: find_stop(text, stop)]
        logprobs = None if news.logprobs_BT is None else fetched(news.logprobs_BT)[at, : len(ids)].tolist()
        return Completion(prompt, text, ids, reason, logprobs)


def check_request(max_new_tokens: int, stop: Sequence[str], config: ModelConfig) -> None:
    """Raises `UserError` for a number of new tokens or stop strings that cannot work."""
    if not 1 <= max_new_tokens < config.context:
        raise UserError(
            f"max_new_tokens={max_new_tokens} must be between 1 and {config.context - 1}, the model's context less"
            " a token of prompt."
        )
    if any(not word for word in stop):
        raise UserError("stop: an empty string would stop every text at once; leave it out.")


def batch_shape(lengths: Sequence[int], max_new_tokens: int, cache_length: int = 0) -> Shape:
    """Returns the compiled shape that holds prompts of these lengths: powers of two in each direction.

    On a mesh there are rows enough for each device to have as many.

    Raises:
        UserError: `cache_length` is given and too short.
    """
    batch = whole_rows(1 << (len(lengths) - 1).bit_length())
    length = max(SHORTEST_PROMPT, 1 << (max(lengths) - 1).bit_length())
    new = max(SHORTEST_PROMPT, 1 << (max_new_tokens - 1).bit_length())
    if not cache_length:
        return Shape(batch, length, bucket(length + max_new_tokens), new)
    if cache_length < max(lengths) + max_new_tokens:
        raise UserError(
            f"cache_length={cache_length} cannot hold a prompt of {max(lengths)} tokens and {max_new_tokens} new ones;"
            f" make it {max(lengths) + max_new_tokens} or more, or 0 for the smallest that does."
        )
    return Shape(batch, min(length, cache_length - max_new_tokens), cache_length, new)


def load_generator(
    path: str | Path,
    tokenizer: str = "",
    format: Format = "float32",
    shape: Shape | None = None,
    expected: "Expected | None" = None,
    *,
    chat: bool = False,
    kv_cache: str = "",
) -> Generator:
    """Loads a language model: a folder that transformers or `save_pretrained` wrote, a run's workdir, a GGUF file,
    a name of `PRETRAINED`, or a hub id.

    Args:
        path: where the model is.
        tokenizer: "gpt2", a folder or a hub id; empty = the one saved with the model.
        format: of the weights.
        shape: the largest batch that will be generated: it is checked, before loading, that there is memory for it.
        expected: the first generation, for which programs are then made while the weights are read.
        chat: where the model has a chat template, prompts are messages that it answers.
        kv_cache: "int8" keeps keys and values in 8 bits; "" in the type that the format computes in.

    Raises:
        UserError: nothing readable there, or not enough memory.
    """
    folder = language_model_folder(path, tokenizer)
    config = read_config(folder, kv_cache=kv_cache)
    check_memory(config, format, shape or batch_shape([1], 64), available())
    check_heads(config)
    with concurrent.futures.ThreadPoolExecutor(2) as others:
        waited, checked = others.submit(load_prepared, folder, format, current()), others.submit(check_sums, folder)
        loaded = (None if tokenizer or is_gguf(folder) else plain_tokenizer(folder)) or folder_tokenizer(
            folder, tokenizer
        )
        if expected is not None:
            abstract = jax.eval_shape(lambda params: prepare(params, config, format), param_shapes(config, "lm"))
            generator = Generator(config, abstract, loaded, format, chat)
            ids = generator.encode(expected.prompt, expected.max_new_tokens, expected.trim)
            size = batch_shape([len(ids)], expected.max_new_tokens, expected.cache_length)
            compile_programs(config, abstract, size, expected.sampling.plan)
        checked.result()
        return Generator(config, waited.result(), loaded, format, chat)


def random_generator(
    size: str, tokenizer: str, format: Format, shape: Shape | None = None, seed: int = 0, kv_cache: str = ""
) -> Generator:
    """Makes a generator of a named size with random weights, to time and to try; arguments as `load_generator`."""
    loaded = load_tokenizer(tokenizer)
    config = from_size(size, vocab_size=len(loaded), kv_cache=kv_cache)
    check_memory(config, format, shape or batch_shape([1], 64), available())
    params = init_params(config, "lm", jax.random.key(seed))
    return Generator.from_params(config, params, loaded, format)
