"""A language model and a text -> perplexity in each weight format."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments._mesh import on_devices
from experiments._settings import settled
from llmjax.data.tokenizer import load_tokenizer
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.infer.checkpoint import arranged, folder_tokenizer, language_model_folder, load_prepared
from llmjax.infer.loop import Shape
from llmjax.infer.memory import check_memory
from llmjax.infer.perplexity import Perplexity, perplexity
from llmjax.infer.texts import check_file
from llmjax.kernels.formats import Format, check_format
from llmjax.memory import available
from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size
from llmjax.models.folders import read_config
from llmjax.models.params import Params, init_params
from llmjax.parallel.mesh import current, whole_rows
from llmjax.parallel.processes import own


def run(config: Any, workdir: str) -> None:
    """Measures the configured model on the configured text; prints a table and writes `workdir`/perplexity.json."""
    config = settled(config)
    if not config.input:
        raise UserError("no text was named: pass --config.input=FILE, a text file in UTF-8.")
    formats: list[Format] = [check_format(name, "formats") for name in config.formats]
    file = check_file(config.input)
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start + 1} is not UTF-8; save the file as UTF-8.") from None
    with on_devices(config.mesh.to_dict()):
        _measure(config, text, formats, file, Path(workdir))


def _measure(config: Any, text: str, formats: list[Format], file: Path, workdir: Path) -> None:
    kind, _, size = config.checkpoint.partition(":")
    folder = None
    if kind == "random":
        tokenizer = load_tokenizer(config.tokenizer or "gpt2")
        shape = from_size(size, vocab_size=len(tokenizer), kv_cache=config.kv_cache)
        print(f"{config.checkpoint}: a model of random weights", file=sys.stderr)
    else:
        folder = language_model_folder(config.checkpoint, config.tokenizer)
        tokenizer = folder_tokenizer(folder, config.tokenizer)
        shape = read_config(folder, kv_cache=config.kv_cache)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids = ids[: config.limit or None]
    if len(ids) < 2:
        raise UserError(f"{file}: has {len(ids)} tokens; perplexity needs at least 2.")
    window, stride = _window(config, shape.context, len(ids))
    rows = whole_rows(min(config.batch_size, 1 + max(0, -(-(len(ids) - window) // stride))))
    for name in formats:
        check_memory(shape, name, Shape(rows, window, window, 1), available())
    results: dict[str, Perplexity] = {}
    for name in formats:
        began = time.perf_counter()
        prepared = load_prepared(folder, name, current()) if folder else _drawn(shape, name)
        results[name] = perplexity(prepared, shape, name, ids, window, stride, rows)
        seconds = time.perf_counter() - began
        print(f"{name}: {results[name].tokens / seconds:,.0f} tokens/s, compiling included", file=sys.stderr)
    _report(config, results, window, stride, workdir)


def _drawn(shape: ModelConfig, format: Format) -> Params:
    import jax

    return arranged(init_params(shape, "lm", jax.random.key(0)), shape, format)


def _window(config: Any, context: int, tokens: int) -> tuple[int, int]:
    """Returns window and stride, checked."""
    window = min(config.window or context, tokens)
    stride = config.stride or max(1, window // 2)
    if not 2 <= window <= context:
        raise UserError(f"window={config.window} must be between 2 and {context}, the model's context.")
    if not 1 <= stride <= window:
        raise UserError(f"stride={config.stride} must be between 1 and the window, {window}.")
    return window, stride


def _report(config: Any, results: dict[str, Perplexity], window: int, stride: int, workdir: Path) -> None:
    base_name, base = next(iter(results.items()))
    table = Table(
        "format", "loss", "perplexity", "95% interval", f"against {base_name}",
        title=f"{base.tokens:,} tokens of {config.input}",
    )  # fmt: skip
    rows = {}
    for name, result in results.items():
        change = result.perplexity / base.perplexity - 1
        low, high = result.interval
        within = "" if result.error is None else f"{low:,.1f} to {high:,.1f}"
        table.add_row(name, f"{result.loss:.5f}", f"{result.perplexity:,.3f}", within, f"{change:+.3%}")
        rows[name] = {**result._asdict(), f"relative_to_{base_name}": change}
    Console().print(table)
    summary = {"checkpoint": config.checkpoint, "input": config.input, "window": window, "stride": stride}
    atomic_write(own(workdir / "perplexity.json"), json.dumps({**summary, "formats": rows}, indent=2) + "\n")
    print(f"written to {workdir / 'perplexity.json'}")
