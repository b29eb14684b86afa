"""Prompts -> texts: a language model over one prompt, a file or standard input, in batches or as a stream."""

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments._settings import values_of
from llmjax.backend import settle
from llmjax.errors import UserError

HOW = "pass --config.prompt='...', --config.input=FILE, or pipe prompts in, one a line"


class _Settings(NamedTuple):
    """The settings of configs/generate.py, which says what each is."""

    checkpoint: str
    tokenizer: str
    prompt: str
    chat: bool
    input: str
    column: str
    output: str
    stream: bool
    max_new_tokens: int
    trim: bool
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    stop: tuple[str, ...]
    seed: int
    logprobs: bool
    format: str
    batch_size: int
    cache_length: int
    kv_cache: str


def run(config: ConfigDict, workdir: str) -> None:
    """Continues the configured prompts and writes one JSON object each; `workdir` is not used."""
    began = time.perf_counter()
    values = values_of(config)
    mesh = values.pop("mesh")
    settings = _Settings(**{**values, "stop": tuple(word for word in values["stop"] if word)})
    if settings.prompt and sys.stdout.isatty() and not settings.output and not settings.logprobs:
        settings = settings._replace(stream=True)
    source = _check(settings)
    settle()
    from experiments._mesh import on_devices

    with on_devices(mesh):
        _generate(settings, source, began)


def _generate(settings: _Settings, source: Path | None, began: float) -> None:
    from llmjax.infer.generate import Speed
    from llmjax.infer.sampling import Sampling
    from llmjax.infer.texts import write_lines
    from llmjax.parallel.processes import own

    names = ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "logprobs")
    sampling = Sampling(**{name: getattr(settings, name) for name in names})
    generator = _load(settings, sampling)
    loaded = time.perf_counter() - began
    prompts = _prompts(settings, source)
    speeds: list[Speed] = []
    if settings.stream:
        _stream(settings, generator, prompts, sampling, speeds)
    else:
        options: dict[str, Any] = {"batch_size": settings.batch_size, "cache_length": settings.cache_length}
        results = generator.generate_batches(
            prompts, settings.max_new_tokens, sampling, settings.stop, trim=settings.trim, **options
        )
        lines = _lines(results, speeds)
        if settings.output:
            write_lines(lines, own(Path(settings.output).expanduser()))
        else:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8, whatever the terminal's locale
            for line in lines:
                print(line, flush=True)
    if not speeds:
        raise UserError(f"no prompt came in: {HOW}.")
    print(_summary(loaded, speeds), file=sys.stderr)


def _check(settings: _Settings) -> Path | None:
    """Refuses settings that cannot work before a model is loaded; returns the input file, if there is one."""
    from llmjax.infer.texts import check_file

    if not settings.checkpoint:
        raise UserError(
            "no model was named: pass --config.checkpoint= smollm2, a folder that transformers wrote, a GGUF file, a"
            " language-model run's workdir, a hub id such as openai-community/gpt2, or random:gpt2 for random weights."
        )
    if settings.prompt and settings.input:
        raise UserError(f"both prompt={settings.prompt!r} and input={settings.input!r} were given: give one of them.")
    if settings.stream and settings.output:
        raise UserError("stream=True prints for people and output= writes JSON lines: give one of them.")
    source = check_file(settings.input) if settings.input else None
    if settings.output:
        output = Path(settings.output).expanduser()
        if output.is_dir() or (source and output.exists() and output.samefile(source)):
            raise UserError(f"output {settings.output!r} is a folder or the input itself; name another file.")
    if not source and not settings.prompt and sys.stdin.isatty():
        raise UserError(f"no prompt was given: {HOW}.")
    return source


def _load(settings: _Settings, sampling: Any) -> Any:
    from llmjax.infer.generate import Expected, batch_shape, load_generator, random_generator
    from llmjax.kernels.formats import check_format

    # Prompts are read as a stream: their length is not known yet, so the check is for short ones.
    rows = 1 if settings.prompt or settings.stream else settings.batch_size
    shape = batch_shape([1] * rows, max(1, settings.max_new_tokens), settings.cache_length)
    kind, _, size = settings.checkpoint.partition(":")
    if kind == "random":
        print(f"{settings.checkpoint}: a model of random weights: its texts mean nothing", file=sys.stderr)
        return random_generator(
            size, settings.tokenizer or "gpt2", check_format(settings.format), shape, kv_cache=settings.kv_cache
        )
    first = None
    if settings.prompt:
        first = Expected(settings.prompt, settings.max_new_tokens, sampling, settings.cache_length, settings.trim)
    return load_generator(
        settings.checkpoint, settings.tokenizer, check_format(settings.format), shape, first, chat=settings.chat,
        kv_cache=settings.kv_cache,
    )  # fmt: skip


def _prompts(settings: _Settings, source: Path | None) -> Iterable[str]:
    from llmjax.infer.texts import read_file, read_lines

    if settings.prompt:
        return [settings.prompt]
    if source:
        return read_file(source, settings.column, lambda size: None)
    return read_lines(sys.stdin.buffer, "standard input", lambda size: None)


def _lines(results: Iterable[Any], speeds: list) -> Iterator[str]:
    for completion, speed in results:
        speeds.append(speed)
        record = {
            "prompt": completion.prompt,
            "completion": completion.text,
            "token_ids": completion.token_ids,
            "finish_reason": completion.finish_reason,
        }
        if completion.logprobs is not None:
            record["logprobs"] = [round(value, 6) for value in completion.logprobs]
        yield json.dumps(record, ensure_ascii=False)


def _stream(settings: _Settings, generator: Any, prompts: Iterable[str], sampling: Any, speeds: list) -> None:
    for row, prompt in enumerate(prompts):
        pieces = generator.stream(
            prompt,
            settings.max_new_tokens,
            sampling,
            settings.stop,
            cache_length=settings.cache_length,
            trim=settings.trim,
            row=row,
        )
        print(prompt, end="\n" if generator.answers else "", flush=True)
        with contextlib.closing(pieces):
            for piece in pieces:
                if isinstance(piece, str):
                    print(piece, end="", flush=True)
                else:
                    speeds.append(piece[1])
        print("\n", flush=True)


def _summary(loaded: float, speeds: list) -> str:
    """Returns the line of speeds: what was made how fast, and what loading and compiling took apart from it."""
    speed = sum(speeds[1:], speeds[0])
    prefill = speed.prompt_tokens / speed.prefill_seconds if speed.prefill_seconds else 0.0
    decode = speed.decoded_tokens / speed.decode_seconds if speed.decode_seconds and speed.decoded_tokens else 0.0
    texts = "1 text" if len(speeds) == 1 else f"{len(speeds):,} texts"
    return (
        f"{texts}: {speed.prompt_tokens:,} prompt tokens at {prefill:,.0f}/s,"
        f" {speed.decoded_tokens:,} new tokens at {decode:,.1f}/s;"
        f" loading {loaded:.1f} s, compiling {speed.compile_seconds:.1f} s"
    )
