"""The stages that a token goes through, and how long each takes: in Python, in the tokenizer, and op by op in XLA."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.clock_parts.phases import Run, built, values_of
from experiments.clock_parts.settings import Settings
from llmjax.analysis import Analysis
from llmjax.cost.attribution import Place
from llmjax.cycles.measured import Measured, measured
from llmjax.cycles.profile import profile
from llmjax.data.tokenizer import load_tokenizer
from llmjax.infer.generate import Generator, Speed, random_generator
from llmjax.infer.sampling import Sampling, choose
from llmjax.infer.text import continuation
from llmjax.models.families import from_size
from llmjax.models.params import init_params

# In the order in which a token meets them. What XLA's runtime does between ops comes after the ops.
TOKENISE, DISPATCH, GAPS, SAMPLE, DETOKENISE = "tokenise", "Python dispatch", "between ops", "sample", "detokenise"
HEAD = "class head and the rest"
OPS: tuple[str, ...] = (
    "embed",
    "layer norm",
    "QKV projection",
    "cache write",
    "attention scores",
    "softmax",
    "output projection",
    "MLP",
    "residual",
    "vocabulary projection",
    HEAD,
)
STAGES = (TOKENISE, DISPATCH, *OPS, GAPS, SAMPLE, DETOKENISE)
HOST = (TOKENISE, DISPATCH, DETOKENISE)  # where no op of XLA runs

_BY_ROLE = {
    "embedding": "embed",
    "layer norm": "layer norm",
    "attention scores": "attention scores",
    "softmax": "softmax",
    "MLP": "MLP",
    "residual": "residual",
    "vocabulary projection": "vocabulary projection",
}
_TEXT = (
    "The clock of a processor ticks a few thousand million times a second, and at each tick it can begin several"
    " instructions. How many of these ticks go by before a language model has chosen its next word? "
)


def stage_of(place: Place) -> str:
    """The stage of an op, by its role and module path."""
    if place.role == "attention projections":
        return "QKV projection" if place.module_path.endswith("c_attn") else "output projection"
    if place.module_path.endswith("/cache"):
        return "cache write"
    return _BY_ROLE.get(place.role, HEAD)


def op_stages(report: Analysis, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage of the ops named, each with the stage of its largest part."""
    found = dict.fromkeys(OPS, 0.0)
    for op in report.ops:
        found[stage_of(op.place)] += seconds.get(op.name, 0.0)
    return found


def run_stages(run: Run, dispatch: float) -> dict[str, float]:
    """Seconds by stage of one run, Python's dispatch to XLA's last op; they add up to the run's wall time.

    The ops' shares of the run are those that the profiler saw; a run without it is as long as they add up to. Of the
    time outside of ops `dispatch` is Python's, at most.
    """
    times = run.report.measured
    assert times is not None
    seconds = {name: op.time.median for name, op in times.ops.items()}
    scale = run.wall.median / max(times.traced.median, sum(seconds.values()))
    ops = op_stages(run.report, {name: value * scale for name, value in seconds.items()})
    outside = max(0.0, run.wall.median - sum(ops.values()))
    python = min(dispatch, outside)
    return {DISPATCH: python, **ops, GAPS: outside - python}


def timed(work: Callable[[], Any], runs: int) -> Measured:
    """Wall time of some work, after a first time that does not count."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return measured(times)


def dispatch_seconds(run: Run, runs: int) -> float:
    """Seconds to call an empty compiled program with the arguments of this one: what is Python's and XLA's part."""
    phase, _ = built(run.shape)
    args = (values_of(run.shape), jnp.ones(phase.args[1].shape, phase.args[1].dtype))
    empty = jax.jit(lambda params, tokens: tokens + 1, keep_unused=True).lower(*args).compile()
    return timed(lambda: empty(*args).block_until_ready(), 4 * runs).median


def sample_seconds(settings: Settings, runs: int) -> float:
    """Seconds of XLA's ops that choose the most probable token of each row."""
    sampling, rows = Sampling(), settings.batch
    config = from_size(settings.model)

    def greedy(logits_BV: jax.Array, rows_B: jax.Array) -> jax.Array:
        return choose(logits_BV, None, rows_B, jnp.int32(0), sampling.knobs(), sampling.plan)

    args = (jax.ShapeDtypeStruct((rows, config.vocab_size), jnp.float32), jax.ShapeDtypeStruct((rows,), jnp.int32))
    return sum(op.time.median for op in profile(greedy, *args, runs=runs).ops.values())


def tokenise_seconds(settings: Settings, runs: int) -> float:
    """Seconds a token of turning a text of `length` tokens into token ids."""
    tokenizer = load_tokenizer("gpt2")
    words = text_of(tokenizer, settings.length)
    count = len(tokenizer(words, verbose=False)["input_ids"])
    return timed(lambda: tokenizer(words, verbose=False), 4 * runs).median / count


def detokenise_seconds(settings: Settings, runs: int) -> float:
    """Seconds of turning one more token into text, halfway through an answer, as a stream does for each."""
    tokenizer = load_tokenizer("gpt2")
    ids = tokenizer(_TEXT, verbose=False)["input_ids"]
    made = (ids * (1 + settings.new_tokens // len(ids)))[: max(1, settings.new_tokens // 2)]
    return timed(lambda: continuation(tokenizer, ids, made), 4 * runs).median


def text_of(tokenizer: Any, tokens: int) -> str:
    """An English text of about so many tokens."""
    ids = tokenizer(_TEXT, verbose=False)["input_ids"]
    return tokenizer.decode((ids * (1 + tokens // len(ids)))[:tokens])


def streamed_seconds(settings: Settings) -> float:
    """Seconds a token of a streamed answer, from Python to text: the whole that the stages are parts of."""
    generator = random_generator(settings.model, "gpt2", settings.dtype)  # pyright: ignore[reportArgumentType]
    prompt = text_of(generator.tokenizer, max(1, settings.length - settings.new_tokens))
    _stream(generator, prompt, 2)
    speed = _stream(generator, prompt, max(2, settings.new_tokens))
    return speed.decode_seconds / speed.decoded_tokens if speed.decoded_tokens else float("nan")


def _stream(generator: Generator, prompt: str, new_tokens: int) -> Speed:
    last = list(generator.stream(prompt, new_tokens))[-1]
    assert not isinstance(last, str)
    return last[1]


def classified_seconds(settings: Settings, runs: int) -> float:
    """Seconds a text of classifying a batch of texts, from Python to labels."""
    from llmjax.infer.classify import Classifier

    config = from_size(settings.model, dtype=settings.dtype)
    params = init_params(config, "classifier", jax.random.key(0))
    classifier = Classifier.from_params(config, params, load_tokenizer("gpt2"))
    texts = [text_of(classifier.tokenizer, settings.length)] * settings.batch
    return timed(lambda: classifier.classify(texts), runs).median / len(texts)
