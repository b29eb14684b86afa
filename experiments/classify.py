"""Texts -> labels: a trained classifier over one text, a file or standard input, as a stream."""

import io
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from experiments._mesh import on_devices
from experiments._settings import values_of
from llmjax.data import load_tokenizer
from llmjax.errors import UserError
from llmjax.infer import Classifier, Prediction, load_classifier
from llmjax.infer.texts import check_file, read_file, read_lines, to_json, write_lines
from llmjax.models.families import from_size
from llmjax.models.params import init_params
from llmjax.parallel.processes import own

TABLE_ROWS = 20  # on a terminal, up to so many predictions are shown as a table
HOW = "pass --config.text='...', --config.input=FILE, or pipe texts in, one a line"


class _Settings(NamedTuple):
    """The settings of configs/classify.py, which says what each is."""

    checkpoint: str
    tokenizer: str
    text: str
    input: str
    column: str
    output: str
    dtype: str


def run(config: ConfigDict, workdir: str) -> None:
    """Classifies the configured texts and writes one JSON object each; `workdir` is not used."""
    values = values_of(config)
    mesh, settings = values.pop("mesh"), _Settings(**values)
    source = _check(settings)
    with on_devices(mesh):
        _classify(settings, source)


def _classify(settings: _Settings, source: Path | None) -> None:
    classifier = load(settings.checkpoint, settings.tokenizer, settings.dtype)
    shown_live = sys.stderr.isatty() and (bool(settings.output) or not sys.stdout.isatty())
    progress = Progress(
        TextColumn("{task.fields[texts]:,} texts, {task.fields[rate]:,.0f} a second"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not shown_live,
    )
    counts = {"texts": 0, "truncated": 0, "empty": 0, "unknown": 0}
    start = time.perf_counter()
    with progress:
        size = source.stat().st_size if source and source.is_file() else None
        task = progress.add_task("", total=size, texts=0, rate=0.0)
        texts = _texts(settings, source, lambda size: progress.advance(task, size))
        predictions = _counted(classifier.classify_stream(texts), counts)
        predictions = _watched(predictions, lambda n, rate: progress.update(task, texts=n, rate=rate), shown_live)
        if settings.output:
            write_lines(map(to_json, predictions), own(Path(settings.output).expanduser()))
        else:
            _print(predictions)
    if not counts["texts"] and not settings.input:
        raise UserError(f"no text came in: {HOW}.")
    seconds = time.perf_counter() - start
    if settings.output:
        texts = "1 text" if counts["texts"] == 1 else f"{counts['texts']:,} texts"
        rate = f"{texts} in {seconds:.1f} s ({counts['texts'] / seconds:,.0f} a second)"
        print(f"{rate}: {settings.output}", file=sys.stderr)
    _warn(counts, classifier.config.context)


def _check(settings: _Settings) -> Path | None:
    """Refuses settings that cannot work before a model is loaded; returns the input file, if there is one."""
    if settings.text and settings.input:
        raise UserError(f"both text={settings.text!r} and input={settings.input!r} were given: give one of them.")
    source = check_file(settings.input) if settings.input else None
    if settings.output:
        output = Path(settings.output).expanduser()
        if output.is_dir():
            raise UserError(
                f"output {settings.output!r} is a folder; name a file, e.g. {output / 'predictions.jsonl'}."
            )
        if source and output.exists() and output.samefile(source):
            raise UserError(f"output {settings.output!r} is the input file: it would be overwritten; name another.")
    if not source and not settings.text and sys.stdin.isatty():
        raise UserError(f"no text was given: {HOW}.")
    return source


def load(checkpoint: str, tokenizer: str, dtype: str) -> Classifier:
    """Returns the classifier that a job's settings name: a folder's, a hub id's, or random:SIZE for trials."""
    kind, _, size = checkpoint.partition(":")
    if not checkpoint:
        raise UserError(
            "no model was named: pass --config.checkpoint= a training run's workdir (e.g. runs/quickstart), a folder"
            " that transformers wrote, or a hub id."
        )
    if kind != "random":
        return load_classifier(checkpoint, tokenizer, dtype=dtype)
    print(f"{checkpoint}: a model of random weights: its labels mean nothing", file=sys.stderr)
    words = load_tokenizer(tokenizer or "gpt2")
    labels = ("negative", "positive")
    shape = from_size(size, vocab_size=len(words), label_names=labels, dtype=dtype)
    return Classifier.from_params(shape, init_params(shape, "classifier", jax.random.key(0)), words)


def _texts(settings: _Settings, source: Path | None, advance: Callable[[int], object]) -> Iterable[str]:
    if settings.text:
        return [settings.text]
    return (
        read_file(source, settings.column, advance)
        if source
        else read_lines(sys.stdin.buffer, "standard input", advance)
    )


def _counted(predictions: Iterable[Prediction], counts: dict[str, int]) -> Iterator[Prediction]:
    for prediction in predictions:
        counts["texts"] += 1
        counts["truncated"] += prediction.truncated
        empty = not prediction.text or prediction.text.isspace()
        counts["empty"] += empty
        counts["unknown"] += not (prediction.known or empty)
        yield prediction


def _watched(
    predictions: Iterable[Prediction], show: Callable[[int, float], object], live: bool
) -> Iterator[Prediction]:
    """Shows count and rate twice a second on a live display, else a line every half minute."""
    start = due = time.perf_counter()
    due += 0.5 if live else 30
    for number, prediction in enumerate(predictions, start=1):
        yield prediction
        if number % 256 == 0 and (now := time.perf_counter()) >= due:
            show(number, number / (now - start))
            if not live:
                print(f"{number:,} texts, {number / (now - start):,.0f} a second", file=sys.stderr, flush=True)
            due = now + (0.5 if live else 30)


def _print(predictions: Iterator[Prediction]) -> None:
    """Prints JSON lines, or a table where a person looks at a few."""
    few = list(itertools.islice(predictions, TABLE_ROWS + 1)) if sys.stdout.isatty() else []
    if few and len(few) <= TABLE_ROWS:
        table = Table("text", "label", "score")
        for prediction in few:
            label = prediction.label if prediction.known else f"{prediction.label} (a guess)"
            table.add_row(Text(prediction.text), Text(label), f"{prediction.score:.3f}")
        Console().print(table)
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8, whatever the terminal's locale
    for prediction in itertools.chain(few, predictions):
        sys.stdout.write(to_json(prediction) + "\n")


def _warn(counts: dict[str, int], context: int) -> None:
    def texts(count: int) -> str:
        return f"warning: {count:,} text was" if count == 1 else f"warning: {count:,} texts were"

    if counts["truncated"]:
        print(f"{texts(counts['truncated'])} longer than the model's {context} tokens and cut there", file=sys.stderr)
    if counts["unknown"]:
        print(
            f"{texts(counts['unknown'])} without any token that the model was trained on: its label is a guess",
            file=sys.stderr,
        )
    if counts["empty"]:
        print(f"{texts(counts['empty'])} blank: the label of a blank text means nothing", file=sys.stderr)
