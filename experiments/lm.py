"""Texts -> a language model in a folder: trained from scratch, or from trained weights on."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments._adapt import best_told, lesson_of, part_of
from experiments._command import launch_command
from experiments._mesh import check_rows, on_devices, say_mesh
from experiments._settings import values_of
from experiments._workdir import RESULTS, claim, fingerprint, flat_settings, held, results, show
from llmjax.adapt.folders import load_model
from llmjax.data import encode_cached, load_tokenizer
from llmjax.data.corpus import CorpusConfig, load_corpus
from llmjax.data.packing import join
from llmjax.data.tokenizer import end_tokens
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.infer.generate import Generator
from llmjax.memory import available
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of, from_size
from llmjax.models.folders import read_config, resolve_folder
from llmjax.models.layout import check_heads, place_model, table_of
from llmjax.models.params import Params, init_params
from llmjax.parallel.processes import fetched_tree, leads, one_first
from llmjax.train import LoopConfig, OptimizerConfig, Phase, fit
from llmjax.train.defaults import PART_RATES
from llmjax.train.lesson import Lesson
from llmjax.train.lm import Stream, evaluation, lm_task
from llmjax.train.memory import check_training

FRESH_RATE, TRAINED_RATE = 1e-3, 5e-5
WHOLE = 2**31 - 1  # tokens: no text is cut


def run(config: ConfigDict, workdir: str) -> None:
    """Runs the job, or goes on with it where an earlier try with the same settings stopped, or shows what it gave."""
    folder, values = Path(workdir), values_of(config)
    done = results(folder, values)
    if done is not None:
        print(f"{workdir}: this run is finished; its results once more (another --workdir starts another run)")
        show(_print_results, done, folder)
        return
    with on_devices(values["mesh"]):
        found = _train(values, folder)
    _print_results(found, folder)


def _train(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains, writes what the run gives into `folder`, and returns the figures."""
    check_rows("train.batch_size", values["train"]["batch_size"])
    data = dict(values["data"])
    tokenizer_name = data.pop("tokenizer")
    corpus = load_corpus(CorpusConfig(**data))
    init = str(resolve_folder(values["model"]["init"])) if values["model"]["init"] else ""
    tokenizer = load_tokenizer(tokenizer_name or init or "gpt2")
    model, params = _model(values["model"], init, tokenizer)
    train, dev = (_stream(tokenizer, texts) for texts in (corpus.train, corpus.dev))
    print(f"data: {corpus.origin}: {_size(train)} to train on, {_size(dev)} in dev")
    if len(train.tokens_T) < 3:
        raise UserError(f"{corpus.origin}: has {len(train.tokens_T)} tokens to train on; at least 3 are needed")
    settings = flat_settings(values) | {"data.fingerprint": fingerprint([train.tokens_T, dev.tokens_T])}
    length = min(values["train"]["length"] or model.context, model.context)
    check_heads(model)
    if params is None:
        _check_memory(values, model, min(length, len(train.tokens_T) - 1), None)
        params = init_params(model, "lm", jax.random.key(values["train"]["seed"]))
    sample = _sampler(model, tokenizer, values["prompts"], values["sample_tokens"])
    with held(folder):
        claim(folder, settings)
        params = place_model(params, model)
        part = part_of(values["adapt"], model, params, "lm", values["train"]["seed"], (values["model"]["init"], init))
        evaluate = evaluation(model, dev, length, values["train"]["batch_size"], sample)
        say_mesh(params, f"{values['train']['batch_size'] * length:,} tokens a step")
        rate = PART_RATES.get(part.config.method, TRAINED_RATE if init else FRESH_RATE)
        lesson, tuning = lesson_of(values["teacher"], model, part, "lm")
        phase = _phase(values["train"], model, train, length, evaluate, (rate, lesson))
        if init:
            _check_memory(values, model, min(length, len(train.tokens_T) - 1), part.bytes)
        train_config = {name: values["train"][name] for name in ("seed", "patience", "keep", "wandb")}
        loop = LoopConfig(**train_config, dtype=model.dtype, table=table_of(model))
        fitted = fit([phase], part.params, loop, folder, settings, tuning)
        params = part.whole(fitted.params)
        found: dict[str, Any] = {"best_step": fitted.best_step, "steps": fitted.steps, **part.figures(fitted.params)}
        if evaluate is not None:
            figures = dict(evaluate(params).figures)
            found |= {"samples": figures.pop("samples", []), "dev": figures}
            found["dev"] |= {"tokens": len(dev.tokens_T) - 1, "bytes": dev.size}
        fetched = fetched_tree(fitted.params), fetched_tree(params)
        if leads():
            part.save(folder / "best", model, fetched, "lm", tokenizer)
            atomic_write(folder / RESULTS, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


def _check_memory(values: dict[str, Any], model: ModelConfig, length: int, part: int | None) -> None:
    rows, averaged = values["train"]["batch_size"], values["train"]["ema_decay"] > 0
    check_training(model, rows, rows, length, averaged, available(), head="lm", part=part)


def _model(values: dict[str, Any], init: str, tokenizer: Any) -> tuple[ModelConfig, Params | None]:
    """Returns the model and its parameters; None: fresh ones, to be drawn when it is known that they fit."""
    vocabulary = len(tokenizer)
    base = read_config(Path(init)) if init else from_size(values["size"])
    if not family_of(base).causal:
        raise UserError(f"model.init={init!r}: a {base.family} fills gaps in texts and does not continue them.")
    options = {name: values[name] for name in ("dtype", "scan_layers", "remat")}
    options |= dict.fromkeys(base.rates, values["dropout"])
    shape = {name: values[name] for name in ("n_layer", "n_embd", "n_head") if values[name]}
    if not init:
        fields = [field.name for field in dataclasses.fields(base)]
        for name in shape:
            if name not in fields:
                raise UserError(
                    f"model.{name} is set, and a {base.family} has no such field: choose another model.size"
                )
        options |= {"vocab_size": vocabulary, **end_tokens(tokenizer)}
        model = from_size(values["size"], **shape, **options)
        return model, None
    if shape:
        raise UserError(f"model.init={init!r} fixes the shape: leave model.n_layer, n_embd and n_head at 0")
    model, params = load_model(init, "lm", **options)
    if vocabulary > model.vocab_size:
        raise UserError(
            f"the tokenizer has {vocabulary} tokens and {init!r} only {model.vocab_size}: set data.tokenizer to the "
            "one that belongs to the model"
        )
    return model, params


def _stream(tokenizer: Any, texts: list[str]) -> Stream:
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id or 0
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return Stream(join(one_first(lambda: encode_cached(tokenizer, texts, WHOLE, empty_id=end)), end), size)


def _size(stream: Stream) -> str:
    return f"{len(stream.tokens_T):,} tokens ({stream.size:,} bytes)"


def _sampler(
    model: ModelConfig, tokenizer: Any, prompts: tuple[str, ...], tokens: int
) -> Callable[[Params], list[str]] | None:
    if not prompts:
        return None
    fitting = min(tokens, model.context // 2)

    def sample(params: Params) -> list[str]:
        done = Generator.from_params(model, params, tokenizer).generate(prompts, fitting, trim=True)
        return [completion.prompt + completion.text for completion in done]

    return sample


def _phase(
    values: dict[str, Any],
    model: ModelConfig,
    train: Stream,
    length: int,
    evaluate: Any,
    more: tuple[float, Lesson | None],
) -> Phase:
    """The one phase of a run; `more`: the rate where none was set, and what is learnt of a teacher."""
    optimizer = dict(values["optimizer"])
    optimizer["learning_rate"] = optimizer["learning_rate"] or more[0]
    task = lm_task(model, train, length, values["batch_size"], values["seed"], evaluate, more[1])
    return Phase(task, values["steps"], OptimizerConfig(**optimizer), values["ema_decay"], values["eval_every"])


def _print_results(found: dict[str, Any], folder: Path) -> None:
    if "dev" in found:
        dev = found["dev"]
        print(
            f"dev (parameters of step {found['best_step']}): perplexity {dev['perplexity']:,.2f} a token, "
            f"{dev['bits_per_byte']:.4f} bits per byte, over {dev['tokens']:,} tokens and {dev['bytes']:,} bytes"
        )
    for text in found.get("samples", []):
        print(f"  {text!r}")
    print(f"\nwritten to {folder}: {best_told(found.get('method', 'full'))}, {RESULTS}, metrics.jsonl, checkpoints/")
    print("try next:")
    print("  " + launch_command("generate.py", f"--config.checkpoint={folder / 'best'}", "--config.prompt='The '"))
