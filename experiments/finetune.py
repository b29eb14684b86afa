"""The main job: labelled texts -> a trained classifier in a folder, its figures, and what to try next."""

import json
import shlex
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments._adapt import best_told, lesson_of, part_of
from experiments._command import launch_command
from experiments._figures import baseline_json, examples_json, measured_json, print_figures
from experiments._mesh import check_rows, on_devices, say_mesh
from experiments._reports import write_classifier_page
from experiments._settings import values_of
from experiments._workdir import RESULTS, claim, fingerprint, flat_settings, held, results, show
from llmjax.adapt.folders import load_model
from llmjax.data import (
    DataConfig,
    Dataset,
    Encoded,
    choose_buckets,
    encode,
    encode_cached,
    load_dataset,
    load_tokenizer,
    token_counts,
)
from llmjax.data.tokenizer import end_tokens
from llmjax.data.trained_tokenizer import MANY, tokens_per_character, train_tokenizer
from llmjax.data.vader import EXAMPLES as MOVIE_EXAMPLES
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.infer.calibration import Calibration, fit_temperature, read_calibration, write_calibration
from llmjax.memory import available
from llmjax.models.config import ModelConfig
from llmjax.models.families import SIZES, from_size
from llmjax.models.folders import read_config, resolve_folder
from llmjax.models.gpt2 import GPT2Config
from llmjax.models.layout import place_model
from llmjax.models.params import Params, init_params
from llmjax.parallel.processes import fetched_tree, leads, one_first
from llmjax.train import (
    DistillConfig,
    OptimizerConfig,
    Split,
    TrainConfig,
    fit_classifier,
    make_predict,
    predict_logits,
)
from llmjax.train.defaults import Start, resolve, told
from llmjax.train.memory import check_training
from llmjax.train.task import Tuning

EXAMPLES = {"vader_movies": MOVIE_EXAMPLES}  # of a source; other data show their own texts
MOST_EXAMPLES = 4


def run(config: ConfigDict, workdir: str) -> None:
    """Runs the job, or goes on with it where an earlier try with the same settings stopped, or shows what it gave."""
    with ExitStack() as stack:
        _run(config, workdir, stack)


def _run(config: ConfigDict, workdir: str, stack: ExitStack) -> None:
    folder = Path(workdir)
    values = values_of(config)
    done = results(folder, values)
    if done is not None:
        print(f"{workdir}: this run is finished; its results once more (another --workdir starts another run)")
        show(_print_results, done, folder)
        return

    devices = stack.enter_context(ExitStack())
    devices.enter_context(on_devices(values["mesh"]))
    init = values["model"]["init"]
    given = {name: value for name, value in values["data"].items() if name not in ("tokenizer", "max_length")}
    data_config = DataConfig(**given)
    dataset = load_dataset(data_config)
    init = str(resolve_folder(init)) if init else ""
    tokenizer, about = _tokenizer(values["data"]["tokenizer"], init, dataset.train.texts)
    settings = flat_settings(values)
    chosen = resolve(settings, _start(values, init, token_counts(tokenizer, dataset.train.texts)))
    values = _filled(values, chosen)
    training = dict(values["train"])
    turns = _turning_tokens(training.pop("turning_words"), tokenizer)
    train_config = _train_config(training, turns)
    for name in ("batch_size", "eval_batch_size", *(["pretrain_batch_size"] if train_config.pretrain_epochs else [])):
        check_rows(f"train.{name}", getattr(train_config, name))
    max_length = values["data"]["max_length"]
    model, params = _model(values["model"], train_config.seed, init, dataset, (tokenizer, max_length))
    names = (values["model"]["init"], init)
    part = part_of(values["adapt"], model, params, "classifier", train_config.seed, names)
    lesson, tuning = lesson_of(values["teacher"], model, part, "classifier")
    _refuse_teachers(tuning, train_config)
    train_config = replace(train_config, lesson=lesson)
    replacement = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id or 0
    most, sets = min(max_length, model.context), {"train": dataset.train, "dev": dataset.dev, "test": dataset.test}
    encoded = one_first(lambda: {name: encode_cached(tokenizer, one.texts, most) for name, one in sets.items()})
    splits = {name: Split(encoded[name], one.labels_N, one.places) for name, one in sets.items()}
    _print_data(dataset, splits, [*about, *([told(chosen, bool(init))] if chosen else [])], max_length)
    arrays = [a for s in splits.values() for a in (s.encoded.tokens_T, s.encoded.offsets_M, s.labels_N)]
    settings |= {"data.fingerprint": fingerprint(arrays), "chosen": chosen}
    stack.enter_context(held(folder))
    claim(folder, settings)

    say_mesh(params, f"{train_config.batch_size} texts a step")
    longest = int(splits["train"].encoded.lengths_N.max())
    rows, eval_rows = train_config.batch_size, train_config.eval_batch_size
    check_training(model, rows, eval_rows, longest, train_config.ema_decay > 0, available(), part=part.bytes)
    fitted = fit_classifier(
        model, part.params, splits["train"], splits["dev"], train_config, folder, replacement, settings, not init,
        tuning,
    )  # fmt: skip
    params = part.whole(fitted.params)

    predict = make_predict(model)

    def logits_of(encoded: Encoded) -> np.ndarray:
        buckets = choose_buckets(encoded.lengths_N, train_config.max_buckets, longest=model.context)
        return predict_logits(predict, params, encoded, train_config.eval_batch_size, buckets)

    measured = {name: splits[name] for name in ("test", "dev") if len(splits[name])}
    logits = {name: logits_of(split.encoded) for name, split in measured.items()}
    temperature = fit_temperature(logits["dev"], splits["dev"].labels_N) if "dev" in logits else 1.0
    examples, labels = _examples(list(values["examples"]), data_config.source, dataset)
    example_logits_NC = logits_of(encode(tokenizer, examples, model.context, empty_id=replacement))
    found = {
        "best_step": fitted.best_step,
        "steps": fitted.steps,
        "label_names": model.label_names,
        "temperature": temperature,
        **part.figures(fitted.params),
        **measured_json(logits, measured, temperature, model.label_names),
        "baseline": baseline_json(splits["train"], measured, model.label_names, len(tokenizer)),
        "examples": examples_json(examples, labels, example_logits_NC / temperature, model.label_names),
    }
    fetched = fetched_tree(fitted.params), fetched_tree(params)
    devices.close()
    if not leads():
        return
    part.save(folder / "best", model, fetched, "classifier", tokenizer)
    write_calibration(folder / "best", Calibration(temperature, _trained_tokens(splits["train"].encoded, init)))
    atomic_write(folder / RESULTS, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    try:
        write_classifier_page(folder / "cost", model, min(max_length, model.context))
    except UserError as error:
        print(f"no cost report: {error}")  # a trained model is not lost for it
    _print_results(found, folder)


def _tokenizer(name: str, init: str, texts: list[str]) -> tuple[Any, list[str]]:
    """Returns the tokenizer that the settings name or the texts want, and a line where that needs one."""
    if name == "train":
        return train_tokenizer(texts), []
    if name or init:
        tokenizer = load_tokenizer(name or init)
        many = tokens_per_character(tokenizer, texts)
        remedy = "" if init else ": --config.data.tokenizer=train makes one of the training texts"
        return tokenizer, [f"the tokenizer makes {many:.1f} tokens of a character{remedy}"] if many > MANY else []
    tokenizer = load_tokenizer("gpt2-words")
    many = tokens_per_character(tokenizer, texts)
    if many <= MANY:
        return tokenizer, []
    tokenizer = train_tokenizer(texts)
    few = tokens_per_character(tokenizer, texts)
    return tokenizer, [
        f"tokenizer: made of the training texts, {len(tokenizer):,} tokens: {few:.2f} a character, where GPT-2's makes "
        f"{many:.2f} (data.tokenizer=train; gpt2-words is GPT-2's)"
    ]


def _trained_tokens(encoded: Encoded, init: str) -> np.ndarray | None:
    """Returns the tokens that training has seen; None where pretrained weights may know the others."""
    before = read_calibration(init).trained_U if init else np.zeros(0, np.int32)
    return None if before is None else np.union1d(before, encoded.tokens_T).astype(np.int32)


def _examples(chosen: list[str], source: str, dataset: Dataset) -> tuple[list[str], list[str]]:
    """Returns texts to classify at the end, and their labels where they have some: the data's own, one a class."""
    chosen = chosen or list(EXAMPLES.get(source, ()))
    if chosen:
        return chosen, [""] * len(chosen)
    part = next(part for part in (dataset.test, dataset.dev, dataset.train) if len(part))
    rows = np.unique(part.labels_N, return_index=True)[1][:MOST_EXAMPLES]
    return [part.texts[row] for row in rows], [dataset.label_names[part.labels_N[row]] for row in rows]


def _width(model: dict[str, Any]) -> int:
    """Returns the width of the fresh model that was asked for, or 0."""
    if model["init"]:
        return 0
    return model["n_embd"] or (from_size(model["size"]).width if model["size"] else 0)


def _filled(values: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with what was chosen for those that are None, by dotted names."""

    def fill(section: dict[str, Any], prefix: str) -> dict[str, Any]:
        return {
            name: fill(value, f"{prefix}{name}.") if isinstance(value, dict) else chosen.get(prefix + name, value)
            for name, value in section.items()
        }

    return fill(values, "")


def _start(values: dict[str, Any], init: str, lengths_N: np.ndarray) -> Start:
    return Start(bool(init), _width(values["model"]), lengths_N, values["adapt"]["method"])


def _refuse_teachers(tuning: Tuning | None, config: TrainConfig) -> None:
    if tuning is not None and (config.pretrain_epochs or config.distill.steps):
        raise UserError(
            "adapt.method and teacher.folder learn from labels: set train.pretrain_epochs and train.distill_steps to 0"
        )


def _train_config(values: dict[str, Any], turns: tuple[int, ...]) -> TrainConfig:
    distill = DistillConfig(values.pop("distill_steps"), turns)
    optimizers: dict[str, Any] = {name: OptimizerConfig(**values[name]) for name in ("optimizer", "pretrain_optimizer")}
    return TrainConfig(**values | optimizers, distill=distill)


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
    values: dict[str, Any], seed: int, init: str, dataset: Dataset, words: tuple[Any, int]
) -> tuple[ModelConfig, Params]:
    """Returns the model and its parameters; `words`: the tokenizer, and how many tokens a text has at most."""
    tokenizer, max_length = words
    vocabulary = len(tokenizer)
    options = {name: value for name, value in values.items() if name not in ("init", "size") and value is not None}
    dropout = {name: options.pop(name, None) for name in ("dropout", "attention_dropout")}
    stds = {"wte": options.pop("embedding_std", None), "wpe": options.pop("position_std", None)}
    shape = {name: options.pop(name, 0) for name in ("n_layer", "n_embd", "n_head")}
    options["label_names"] = dataset.label_names
    key = jax.random.key(seed)
    if init:
        if any(shape.values()):
            raise UserError(f"model.init={init!r} fixes the shape: leave model.n_layer, n_embd and n_head at 0")
        family = type(read_config(Path(init)))
        options |= _rates(family, **dropout)
        strange = set(options) - {field.name for field in fields(family)}
        if strange:
            raise UserError(f"model.{min(strange)}: a {family.family} has no such setting: leave it open")
        model, params = load_model(init, "classifier", fresh_head_key=key, **options)
        if vocabulary > model.vocab_size:
            raise UserError(
                f"the tokenizer has {vocabulary} tokens and {init!r} only {model.vocab_size}: set data.tokenizer to "
                "the one that belongs to the model"
            )
        return model, place_model(params, model)
    chosen = {name: value for name, value in shape.items() if value}
    if values["size"] and SIZES.get(values["size"], ("gpt2",))[0] != "gpt2":
        raise UserError(f"model.size={values['size']!r}: fresh classifiers are GPT-2s; model.init names others")
    # Places beyond the longest text would keep what was drawn for them.
    options |= _rates(GPT2Config, **dropout)
    options |= {"vocab_size": vocabulary, "n_positions": max_length, **end_tokens(tokenizer)}
    model = from_size(values["size"] or "small", **chosen, **options)
    params = init_params(model, "classifier", key)
    embeddings = {
        name: {"embedding": params[name]["embedding"] * (std / model.initializer_range)} for name, std in stds.items()
    }
    return model, place_model(params | embeddings, model)


def _rates(family: type[ModelConfig], dropout: float | None, attention_dropout: float | None) -> dict[str, float]:
    """Returns a family's own fields for the two kinds of dropout; one that it lacks keeps our name, to be refused."""
    own = [name for name in family.rates if name != family.attention_rate] or ["dropout"]
    rates = {name: dropout for name in own} | {family.attention_rate: attention_dropout}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _print_data(dataset: Dataset, splits: dict[str, Split], about: list[str], max_length: int) -> None:
    counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    print(f"data: {counts}; classes: {', '.join(dataset.label_names)}")
    if all(name.isdecimal() for name in dataset.label_names):
        names = ",".join(f"NAME{name}" for name in dataset.label_names)
        print(f"  the classes are called what the file calls them; --config.data.label_names={names} gives them names")
    for note in dataset.notes:
        print(f"  {note}")
    for line in about:
        print(line)
    cut = sum(split.encoded.truncated for split in splits.values())
    if cut:
        print(
            f"  {cut:,} texts were longer than {max_length} tokens and were cut; --config.data.max_length= reads more"
        )


def _print_results(results: dict[str, Any], folder: Path) -> None:
    print_figures(results)
    files = f"{best_told(results.get('method', 'full'))}, eval.json, metrics.jsonl, checkpoints/, TensorBoard events"
    print(f"\nwritten to {folder}: {files}")
    best, text = shlex.quote(str(folder / "best")), shlex.quote(results["examples"][0]["text"][:100])
    commands = (
        launch_command("classify.py", f"--config.checkpoint={best}", f"--config.text={text}"),
        launch_command("finetune.py", "--config.data.train=YOUR.tsv", "--workdir=runs/mine"),
        launch_command("cost.py", "--config.measure=True"),
    )
    print("\n  ".join(("try next:", *commands)))
    page = folder / "cost" / "cost.html"
    if page.exists():
        print(f"what this classifier computes, op by op: {page} (open it in a browser)")
