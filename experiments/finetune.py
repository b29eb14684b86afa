"""The main job: labelled texts -> a trained classifier in a folder, its figures, and what to try next."""

import json
import shlex
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from experiments._command import launch_command
from experiments._reports import write_classifier_page
from experiments._settings import values_of
from llmjax.data import DataConfig, Dataset, choose_buckets, encode, encode_cached, load_dataset, load_tokenizer
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.memory import available
from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size
from llmjax.models.folders import resolve_folder
from llmjax.models.params import Params, init_params
from llmjax.models.weights import load_pretrained, save_pretrained
from llmjax.train import (
    OptimizerConfig,
    Split,
    TrainConfig,
    evaluate_logits,
    fit,
    make_predict,
    predict_logits,
)
from llmjax.train.memory import check_training
from llmjax.train.metrics import from_json, table, to_json


def run(config: ConfigDict, workdir: str) -> None:
    """Runs the job, or goes on with it where an earlier try with the same settings stopped, or shows what it gave."""
    folder = Path(workdir)
    values = values_of(config)
    init, data = values["model"]["init"], dict(values["data"])
    tokenizer_name, max_length = data.pop("tokenizer"), data.pop("max_length")
    training = dict(values["train"])
    turning_words = training.pop("turning_words")
    data_config, train_config = DataConfig(**data), _train_config(training)
    done = _results(folder, values)
    if done is not None:
        print(f"{workdir}: this run is finished; its results once more (another --workdir starts another run)")
        _print_results(done, folder)
        return

    dataset = load_dataset(data_config)
    init = str(resolve_folder(init)) if init else ""
    tokenizer = load_tokenizer(tokenizer_name or init or "gpt2")
    train_config = replace(train_config, turning_tokens=_turning_tokens(turning_words, tokenizer))
    model, params = _model(values["model"], train_config.seed, init, dataset, len(tokenizer))
    replacement = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id or 0
    splits = {
        name: Split(encode_cached(tokenizer, part.texts, min(max_length, model.context)), part.labels_N, part.places)
        for name, part in (("train", dataset.train), ("dev", dataset.dev), ("test", dataset.test))
    }
    _print_data(dataset, splits)
    settings = _settings(values) | {"data.fingerprint": _fingerprint(splits)}
    _claim(folder, settings)

    longest = int(splits["train"].encoded.lengths_N.max())
    rows, eval_rows = train_config.batch_size, train_config.eval_batch_size
    check_training(model, rows, eval_rows, longest, train_config.ema_decay > 0, available())
    fitted = fit(
        model, params, splits["train"], splits["dev"], train_config, folder, replacement, settings, fresh=not init
    )

    predict = make_predict(model)

    def logits_of(encoded: Any) -> np.ndarray:
        buckets = choose_buckets(encoded.lengths_N, train_config.max_buckets, longest=model.context)
        return predict_logits(predict, fitted.params, encoded, train_config.eval_batch_size, buckets)

    results: dict[str, Any] = {"best_step": fitted.best_step, "steps": fitted.steps, "label_names": model.label_names}
    for name in ("test", "dev"):
        if len(splits[name]):
            logits_NC = logits_of(splits[name].encoded)
            results[name] = to_json(evaluate_logits(logits_NC, splits[name].labels_N, model.label_names))
    results["examples"] = []
    if values["examples"]:
        texts = list(values["examples"])
        logits_NC = logits_of(encode(tokenizer, texts, min(max_length, model.context), empty_id=replacement))
        for text, probs_C in zip(texts, np.asarray(jax.nn.softmax(logits_NC)), strict=True):
            best = int(probs_C.argmax())
            results["examples"].append(
                {"text": text, "label": model.label_names[best], "score": round(float(probs_C[best]), 6)}
            )
    save_pretrained(folder / "best", model, fitted.params, "classifier", tokenizer)
    # Written last: a folder that has it is a finished run.
    atomic_write(folder / "eval.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    try:
        write_classifier_page(folder / "cost", model, min(max_length, model.context))
    except UserError as error:
        print(f"no cost report: {error}")  # a trained model is not lost for it
    _print_results(results, folder)


def _train_config(values: dict[str, Any]) -> TrainConfig:
    optimizers: dict[str, Any] = {name: OptimizerConfig(**values[name]) for name in ("optimizer", "pretrain_optimizer")}
    return TrainConfig(**values | optimizers)


def _turning_tokens(words: tuple[str, ...], tokenizer: Any) -> tuple[int, ...]:
    """Returns the token of each word as it stands inside a text."""
    tokens = {word: tokenizer.encode(f" {word}", add_special_tokens=False) for word in words}
    for word, ids in tokens.items():
        if len(ids) != 1:
            raise UserError(
                f"train.turning_words: {word!r} is {len(ids)} tokens to this tokenizer; each word must be one "
                "(write several as \"('but', 'yet')\")"
            )
    return tuple(ids[0] for ids in tokens.values())


def _model(
    values: dict[str, Any], seed: int, init: str, dataset: Dataset, vocabulary: int
) -> tuple[ModelConfig, Params]:
    options = {name: value for name, value in values.items() if name not in ("init", "size")}
    stds = {"wte": options.pop("embedding_std"), "wpe": options.pop("position_std")}
    shape = {name: options.pop(name) for name in ("n_layer", "n_embd", "n_head")}
    options["label_names"] = dataset.label_names
    key = jax.random.key(seed)
    if init:
        if any(shape.values()):
            raise UserError(f"model.init={init!r} fixes the shape: leave model.n_layer, n_embd and n_head at 0")
        model, params = load_pretrained(init, "classifier", fresh_head_key=key, **options)
        if vocabulary > model.vocab_size:
            raise UserError(
                f"the tokenizer has {vocabulary} tokens and {init!r} only {model.vocab_size}: set data.tokenizer to "
                "the one that belongs to the model"
            )
        return model, params
    chosen = {name: value for name, value in shape.items() if value}
    model = from_size(values["size"], vocab_size=vocabulary, **chosen, **options)
    check_training(model, 0, 0, 0, False, available())
    params = init_params(model, "classifier", key)
    embeddings = {
        name: {"embedding": params[name]["embedding"] * (std / model.initializer_range)} for name, std in stds.items()
    }
    return model, params | embeddings


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """Returns every setting under its dotted name, as JSON would give it back."""

    def leaves(section: dict[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in section.items():
            found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return found

    return json.loads(json.dumps(leaves(values, "")))


def _fingerprint(splits: dict[str, Split]) -> int:
    """Returns a checksum of tokens and labels, so that data which changed under a run are noticed."""
    value = 0
    for split in splits.values():
        for array in (split.encoded.tokens_T, split.encoded.offsets_M, split.labels_N):
            value = zlib.crc32(array.tobytes(), value)
    return value


def _stored(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _refuse_changes(folder: Path, settings: dict[str, Any]) -> None:
    stored = _stored(folder)
    for name, value in settings.items():
        if name in stored and stored[name] != value:
            raise UserError(
                f"{folder} holds a run with {name}={stored[name]!r}, now it is {value!r}: use another --workdir, or "
                "the settings of that run"
            )


def _results(folder: Path, values: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the results of a finished run in `folder`, or None; other settings than that run's are refused."""
    file = folder / "eval.json"
    if not file.exists():
        return None
    _refuse_changes(folder, _settings(values))
    return json.loads(file.read_text("utf-8"))


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Writes down the settings of the run in `folder`; refuses where another run has left checkpoints."""
    last = folder / "checkpoints" / "last"
    if last.is_dir() and any(path.name.isdigit() for path in last.iterdir()):
        _refuse_changes(folder, settings)
    atomic_write(folder / "config.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _print_data(dataset: Dataset, splits: dict[str, Split]) -> None:
    counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    print(f"data: {counts}; classes: {', '.join(dataset.label_names)}")
    for note in dataset.notes:
        print(f"  {note}")
    truncated = sum(split.encoded.truncated for split in splits.values())
    if truncated:
        print(f"  {truncated:,} texts were longer than data.max_length tokens and were cut")


def _print_results(results: dict[str, Any], folder: Path) -> None:
    console = Console(highlight=False)
    measured = [name for name in ("test", "dev") if name in results]
    for name in measured:
        console.print(table(from_json(results[name]), f"{name} (parameters of step {results['best_step']})"))
    if measured:
        figures = results[measured[0]]
        low, high = figures["accuracy_95"]
        print(
            f"{measured[0]} accuracy {figures['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}); "
            f"always answering the commonest class: {figures['majority_accuracy']:.4f}"
        )
    for example in results["examples"]:
        print(f"  {example['text']!r} -> {example['label']} ({example['score']:.3f})")
    files = "best/ (transformers loads it), eval.json, metrics.jsonl, checkpoints/, TensorBoard events"
    print(f"\nwritten to {folder}: {files}")
    best = shlex.quote(str(folder / "best"))
    commands = (
        launch_command("classify.py", f"--config.checkpoint={best}", '--config.text="What a lovely film."'),
        launch_command("finetune.py", "--config.data.train=YOUR.tsv", "--workdir=runs/mine"),
        launch_command("cost.py", "--config.measure=True"),
    )
    print("\n  ".join(("try next:", *commands)))
    page = folder / "cost" / "cost.html"
    if page.exists():
        print(f"what this classifier computes, op by op: {page} (open it in a browser)")
