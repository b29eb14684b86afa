"""What a board is about: a classifier on labelled texts, or a language model on a text.

A subject says how its model begins, is trained, is measured, and what one execution of it is.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments._adapt import Part, taught_by
from experiments.board_parts.strategies import State
from llmjax.adapt.calibrate import calibration_texts
from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.folders import load_model
from llmjax.adapt.tuning import begin
from llmjax.data import DataConfig, choose_buckets, encode_cached, load_dataset, load_tokenizer
from llmjax.data.corpus import CorpusConfig, load_corpus
from llmjax.data.packing import join
from llmjax.errors import UserError
from llmjax.infer.checkpoint import folder_tokenizer, language_model_folder
from llmjax.infer.perplexity import perplexity
from llmjax.infer.step import decode_step
from llmjax.kernels.formats import activation_dtype
from llmjax.memory import available
from llmjax.models.cache import bucket, empty_cache
from llmjax.models.families import make_model
from llmjax.models.folders import resolve_folder
from llmjax.models.layout import table_of
from llmjax.models.params import Head, Params, prepare
from llmjax.train import (
    LoopConfig,
    OptimizerConfig,
    Phase,
    Split,
    TrainConfig,
    evaluate_logits,
    fit,
    fit_classifier,
    predict_logits,
)
from llmjax.train.defaults import PART_RATES, PRETRAINED
from llmjax.train.lesson import Lesson
from llmjax.train.lm import Stream, lm_task
from llmjax.train.memory import check_training
from llmjax.train.task import Tuning

SEGMENTS = 32  # of calibration
FULL_RATE: float = PRETRAINED["train.optimizer.learning_rate"]


class Quality(NamedTuple):
    """What was measured on held-out data, with the ends of its interval where it has one."""

    value: float
    low: float
    high: float


class Training(NamedTuple):
    """What training gave: the model, how many parameters were trained, how long it took, AdaLoRA's ranks."""

    state: State
    trained: int
    seconds: float
    ranks: dict[str, int]


class Subject(Protocol):
    """A model, its data, and how it is trained and measured."""

    @property
    def head(self) -> Head:
        """What the model answers."""
        ...

    @property
    def about(self) -> str:
        """The model and its data in a line."""
        ...

    def begin(self) -> State:
        """Returns the base."""
        ...

    def train(self, state: State, method: str, teacher: State | None, folder: Path) -> Training:
        """Returns the model after training by a method of `adapt`, under the board's budget."""
        ...

    def quality(self, state: State) -> Quality:
        """Returns how good a model is on held-out data."""
        ...

    def execution(self, state: State) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Returns the function that is timed, and its arguments."""
        ...

    def calibration(self) -> np.ndarray:
        """Returns tokens [N, L] of training texts."""
        ...

    @property
    def tokenizer(self) -> Any:
        """transformers' tokenizer of the base."""
        ...


def readied(state: State) -> Params:
    """Returns parameters as inference reads them."""
    return prepare(state.params, state.config, state.format)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every row has: passes over labelled texts, or steps; batches; the seed; the settings of its method."""

    epochs: int
    steps: int
    batch_size: int
    seed: int
    adapt: dict[str, Any]


def _part(state: State, method: str, head: Head, budget: Budget) -> tuple[Part, float]:
    """Returns what a method trains of a model, and its rate."""
    adapt = AdaptConfig(method, **budget.adapt)
    trained, tuning = begin(adapt, state.config, state.params, head, jax.random.key(budget.seed))
    return Part(adapt, trained, tuning, ""), PART_RATES.get(method, FULL_RATE)


def _lesson(teacher: State | None, state: State, tuning: Tuning | None) -> tuple[Lesson | None, Tuning | None]:
    if teacher is None:
        return None, tuning
    return taught_by(teacher.config, teacher.params, state.config, tuning)


def _trained(state: State, part: Part, fitted: Params, seconds: float) -> Training:
    made = state._replace(params=part.whole(fitted))
    return Training(made, _count(part.params), seconds, part.figures(fitted).get("ranks", {}))


def _segments(tokens_T: np.ndarray, length: int, seed: int) -> np.ndarray:
    """Returns segments to calibrate on: `SEGMENTS`, or as many as a short text has."""
    return calibration_texts(tokens_T.tolist(), max(1, min(SEGMENTS, len(tokens_T) // length)), length, seed)


def _count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@dataclasses.dataclass(frozen=True, eq=False)
class Sentiment:
    """A classifier fine-tuned on labelled texts; its quality is accuracy on the test split."""

    base: State
    splits: dict[str, Split]
    budget: Budget
    batch: int
    about: str
    tokenizer: Any
    head: Head = "classifier"

    def begin(self) -> State:
        """Returns the base with a fresh head."""
        return self.base

    def train(self, state: State, method: str, teacher: State | None, folder: Path) -> Training:
        """Fine-tunes for the budget's epochs; dev chooses the best parameters."""
        part, rate = _part(state, method, self.head, self.budget)
        lesson, tuning = _lesson(teacher, state, part.tuning)
        config = TrainConfig(
            epochs=self.budget.epochs, batch_size=self.budget.batch_size, seed=self.budget.seed, lesson=lesson,
            optimizer=OptimizerConfig(learning_rate=rate),
        )  # fmt: skip
        longest = int(self.splits["train"].encoded.lengths_N.max())
        rows, averaged = config.batch_size, config.ema_decay > 0
        check_training(state.config, rows, config.eval_batch_size, longest, averaged, available(), part=part.bytes)
        began = time.perf_counter()
        fitted = fit_classifier(
            state.config, part.params, self.splits["train"], self.splits["dev"], config, folder, tuning=tuning
        )
        seconds = time.perf_counter() - began
        return _trained(state, part._replace(tuning=tuning), fitted.params, seconds)

    def quality(self, state: State) -> Quality:
        """Returns accuracy on test, with a bootstrap interval."""
        test, model = self.splits["test"], make_model(state.config, "classifier")
        apply: Any = jax.jit(lambda params, tokens_BL, mask_BL: model.apply({"params": params}, tokens_BL, mask_BL))
        buckets = choose_buckets(test.encoded.lengths_N, 4, longest=state.config.context)
        logits_NC = predict_logits(apply, readied(state), test.encoded, 128, buckets)
        found = evaluate_logits(logits_NC, test.labels_N, state.config.label_names)
        return Quality(found.accuracy, found.accuracy_low, found.accuracy_high)

    def execution(self, state: State) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Returns the classification of a batch of texts of the commonest padded length."""
        length = int(choose_buckets(self.splits["test"].encoded.lengths_N, 4, longest=state.config.context)[1])
        model = make_model(state.config, "classifier")

        def classify(params: Params, tokens_BL: jax.Array) -> Any:
            return model.apply({"params": params}, tokens_BL)

        return classify, (readied(state), jnp.ones((self.batch, length), jnp.int32))

    def calibration(self) -> np.ndarray:
        """Returns segments of the training texts' tokens, one text after the other."""
        return _segments(self.splits["train"].encoded.tokens_T, min(64, self.base.config.context), self.budget.seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Language:
    """A language model; its quality is the perplexity of a held-out text."""

    base: State
    train_T: np.ndarray
    test_T: np.ndarray
    budget: Budget
    batch: int
    about: str
    tokenizer: Any
    head: Head = "lm"
    window: int = 256

    def begin(self) -> State:
        """Returns the base."""
        return self.base

    def train(self, state: State, method: str, teacher: State | None, folder: Path) -> Training:
        """Trains for the budget's steps on windows of half the evaluation's length."""
        part, rate = _part(state, method, self.head, self.budget)
        lesson, tuning = _lesson(teacher, state, part.tuning)
        stream = Stream(self.train_T, len(self.train_T))
        task = lm_task(state.config, stream, self.window // 2, self.budget.batch_size, self.budget.seed, lesson=lesson)
        phase = Phase(task, self.budget.steps, OptimizerConfig(learning_rate=rate))
        rows, free = self.budget.batch_size, available()
        check_training(state.config, rows, rows, self.window // 2, False, free, head="lm", part=part.bytes)
        began = time.perf_counter()
        fitted = fit(
            [phase], part.params, LoopConfig(self.budget.seed, table=table_of(state.config)), folder, tuning=tuning
        )
        seconds = time.perf_counter() - began
        return _trained(state, part._replace(tuning=tuning), fitted.params, seconds)

    def quality(self, state: State) -> Quality:
        """Returns the perplexity of the held-out text, windows overlapping by half, with its interval over them."""
        stride = self.window // 2
        found = perplexity(readied(state), state.config, state.format, self.test_T.tolist(), self.window, stride, 4)
        return Quality(found.perplexity, *found.interval)

    def execution(self, state: State) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Returns the decoding of one token a row, over a cache of the window's length."""
        dtype = activation_dtype(state.format)
        cache = empty_cache(state.config, self.batch, bucket(self.window), dtype)
        step = partial(decode_step, config=state.config)
        return step, (readied(state), jnp.ones((self.batch,), jnp.int32), cache)

    def calibration(self) -> np.ndarray:
        """Returns segments of the training text."""
        return _segments(self.train_T, min(self.window, self.base.config.context), self.budget.seed)


def sentiment(base: str, data: dict[str, Any], budget: Budget, batch: int) -> Sentiment:
    """Returns the board's subject of labelled texts, from the settings of `data`."""
    dataset = load_dataset(DataConfig(**data))
    folder = resolve_folder(base)
    tokenizer = load_tokenizer(str(folder))
    key = jax.random.key(budget.seed)
    config, params = load_model(folder, "classifier", fresh_head_key=key, label_names=dataset.label_names)
    most = min(128, config.context)
    splits = {
        name: Split(encode_cached(tokenizer, part.texts, most), part.labels_N, part.places)
        for name, part in (("train", dataset.train), ("dev", dataset.dev), ("test", dataset.test))
    }
    if not len(splits["test"]):
        raise UserError("data: has no test texts: set data.test, or data.test_fraction above 0")
    about = f"{base} on {len(splits['train']):,} labelled texts, {len(splits['test']):,} held out"
    return Sentiment(State(config, params), splits, budget, batch, about, tokenizer)


def language(base: str, data: dict[str, Any], budget: Budget, batch: int, limit: int) -> Language:
    """Returns the board's subject of a text, from the settings of `data`; `limit` tokens are held out at most."""
    corpus = load_corpus(CorpusConfig(**data))
    folder = language_model_folder(base)
    tokenizer = folder_tokenizer(folder)
    config, params = load_model(folder, "lm")
    end = tokenizer.eos_token_id or 0
    train_T, test_T = (
        join(encode_cached(tokenizer, texts, 2**31 - 1, empty_id=end), end) for texts in (corpus.train, corpus.dev)
    )
    test_T = test_T[:limit]
    about = f"{base} on {len(train_T):,} tokens of {corpus.origin}, {len(test_T):,} held out"
    return Language(State(config, params), train_T, test_T, budget, batch, about, tokenizer)
