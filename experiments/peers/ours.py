"""llmjax as a contestant of its own benchmark, through the code that the jobs run."""

import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.peers.case import PROMPT, Case, Timing, prompt_tokens
from llmjax.data.batches import Batch
from llmjax.infer.checkpoint import load_prepared
from llmjax.infer.classify import Classifier
from llmjax.infer.loop import ENDS, Shape, compile_programs
from llmjax.infer.sampling import Sampling
from llmjax.kernels.formats import check_format
from llmjax.models.cache import bucket
from llmjax.models.folders import read_config
from llmjax.models.layout import table_of
from llmjax.models.params import init_params
from llmjax.parallel.layout import place, place_rows
from llmjax.parallel.mesh import current
from llmjax.train.classification import classification_loss
from llmjax.train.optimizer import OptimizerConfig, make_optimizer
from llmjax.train.step import init_state, make_train_step


class Contestant:
    """Holds the weights of one format; programs are compiled when a case first needs them."""

    def __init__(self, folder: str, format: str, threads: int) -> None:
        self.format = check_format(format)
        self.folder = Path(folder)
        self.config = read_config(self.folder)
        self.run_of: dict[Case, Any] = {}

    def run(self, case: Case) -> Timing:
        """Runs a case once; the first time of a case, it is compiled and run once before."""
        began = time.perf_counter()
        if case not in self.run_of:
            self.run_of[case] = getattr(self, f"_{case.kind}")(case)
            self.run_of[case]()
        once = time.perf_counter() - began
        began = time.perf_counter()
        self.run_of[case]()
        return Timing(time.perf_counter() - began, once)

    @functools.cached_property
    def _prepared(self) -> Any:
        return load_prepared(self.folder, self.format, current())

    def _decode(self, case: Case) -> Any:
        shape = Shape(case.batch, PROMPT, bucket(PROMPT + case.tokens), case.tokens)
        return self._generation(case, shape, PROMPT, case.tokens)

    def _prefill(self, case: Case) -> Any:
        return self._generation(case, Shape(case.batch, case.tokens, bucket(case.tokens + 1), 1), case.tokens, 1)

    def _generation(self, case: Case, shape: Shape, length: int, new: int) -> Any:
        sampling = Sampling()
        programs = compile_programs(self.config, self._prepared, shape, sampling.plan)
        tokens_BL = np.array(prompt_tokens(case, self.config.vocab_size), np.int32)
        lengths_B, rows_B = np.full(case.batch, length, np.int32), np.arange(case.batch, dtype=np.int32)
        done_B, ends_E = np.zeros(case.batch, bool), np.full(ENDS, -1, np.int32)  # nothing ends a text early

        def run() -> None:
            state, news = programs.start(self._prepared, tokens_BL, lengths_B, rows_B, done_B, sampling.knobs(), ends_E)
            if new > 1:
                state, news = programs.advance(self._prepared, state, done_B, np.int32(new))
            if int(news.count) != new:
                raise RuntimeError(f"{int(news.count)} tokens instead of {new}")
            np.asarray(news.tokens_BT)

        return run

    def _classify(self, case: Case) -> Any:
        params = init_params(self.config, "classifier", jax.random.key(0))
        classifier = Classifier.from_params(self.config, params, None)
        tokens_BL = np.array(prompt_tokens(case, self.config.vocab_size), np.int32)
        lengths_B = np.full(case.batch, case.tokens, np.int32)
        args = classifier.params, *place_rows((tokens_BL, lengths_B))
        return lambda: np.asarray(classifier.apply(*args))

    def _train(self, case: Case) -> Any:
        settings = OptimizerConfig(learning_rate=1e-5)
        loss = classification_loss(self.config, 0.0, 0.0, 0)
        table = table_of(self.config)
        step = jax.jit(make_train_step(loss, settings, total_steps=1000, table=table), donate_argnums=0)
        params = init_params(self.config, "classifier", jax.random.key(0))
        state = place(init_state(params, make_optimizer(settings, 1000), seed=0, use_ema=False), table)
        tokens_BL = np.array(prompt_tokens(case, self.config.vocab_size), np.int32)
        ones_B, rows_B = np.ones(case.batch, np.float32), np.arange(case.batch, dtype=np.int32)
        batch = place_rows(Batch(tokens_BL, np.ones(tokens_BL.shape, bool), rows_B % 2, ones_B, rows_B))

        def run() -> None:
            nonlocal state
            state, metrics = step(state, batch)
            jax.block_until_ready(state)
            if not bool(metrics.finite):
                raise RuntimeError("the loss is not finite")

        return run
