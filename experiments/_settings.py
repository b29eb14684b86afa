"""The settings of every job and what each must be: `configs/` says what they are for, and gives their defaults.

A job whose setting is missing here does not start. What several settings must be together, the job itself checks.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean
from llmjax.schema import Check, Schema, checked, flag, literal, many, maybe, number, one_of, shown, table, text, whole

PHASES = ("prefill", "decode", "generate", "classify", "embed", "train", "lm")
COMPUTE = ("float32", "bfloat16")
FORMATS = ("float32", "bfloat16", "int8", "int4")
CACHES = ("int8",)  # of keys and values
# Of the clock job, in the order of its page. The last one tells the others' numbers again, so it comes after them.
SECTIONS = ("token", "parallelism", "resources", "growth", "ladder", "carry", "workloads", "devices", "likeness")

_ROWS = whole(1, 2**20)
_TOKENS = whole(1, 2**24)
_TOKENS_OR_0 = whole(0, 2**24)
_COUNT = whole(0, 10**6)
_RUNS = whole(1, 10**5)
_SEED = whole(0, 2**31 - 1)
_SHARE = number(0, 1)
_PART = number(0, 1, below=True)
_NAME = text(filled=True)

# A program that is compiled with abstract arguments: what it is made for.
_KV_CACHE = one_of(("", *CACHES))
_PROGRAM: Schema = {
    "model": _NAME,
    "phase": one_of(PHASES),
    "batch": _ROWS,
    "length": _TOKENS,
    "new_tokens": _TOKENS,
    "dtype": one_of(FORMATS),
    "kv_cache": _KV_CACHE,
    "function": text(),
    "args": text(),
}
# Devices of each axis of a mesh, and -1 for what the others leave; 0 is refused with the other sizes at hand.
_MESH: Schema = {"data": whole(-1, 2**20), "fsdp": whole(-1, 2**20), "tensor": whole(-1, 2**20)}
_MESH_HERE: Schema = {**_MESH, "coordinator": text(), "processes": whole(0, 2**20), "process": whole(-1, 2**20)}
_MODEL_FOLDER: Schema = {"checkpoint": text(), "tokenizer": text(), "mesh": _MESH_HERE}

_RATE = number(0, 1000, above=True)
_OPTIMIZER: Schema = {
    "learning_rate": _RATE,
    "schedule": one_of(("cosine", "linear", "constant")),
    "warmup_fraction": _SHARE,
    "final_fraction": _SHARE,
    "b1": _PART,
    "b2": _PART,
    "eps": number(1e-30, 1),
    "weight_decay": number(0, 1000),
    "decay_embeddings": flag(),
    "clip_norm": number(0, 1e9),
    "accumulate": whole(1, 10**6),
}

# What one of the methods must be beside, `AdaptConfig` says.
_ADAPT: Schema = {
    "method": text(),
    "targets": many(_NAME),
    "rank": whole(1, 2**16),
    "initial_rank": whole(1, 2**16),
    "alpha": number(0, 1e6, above=True),
    "dropout": _PART,
    "rank_stabilised": flag(),
    "orthogonality": number(0, 1e6),
    "width": whole(1, 2**16),
}

_TEACHER: Schema = {
    "folder": text(),
    "share": number(0, 1, above=True),
    "temperature": number(0, 1000, above=True),
    "hidden": number(0, 1e6),
}

_DATA: Schema = {
    "source": text(),
    "train": text(),
    "dev": text(),
    "test": text(),
    "text_column": _NAME,
    "label_column": _NAME,
    "label_names": many(_NAME),
    "dev_fraction": _PART,
    "test_fraction": _PART,
    "limit": whole(),
    "seed": _SEED,
    "tokenizer": text(),
    "max_length": maybe(_TOKENS),
}
_TEXTS: Schema = {
    "source": _NAME,
    "train": text(),
    "dev": text(),
    "text_column": _NAME,
    "dev_fraction": _PART,
    "tokenizer": text(),
}

_FINETUNE: Schema = {
    "mesh": _MESH_HERE,
    "adapt": _ADAPT,
    "teacher": _TEACHER,
    "data": _DATA,
    "model": {
        "init": text(),
        "size": text(),
        "n_layer": whole(0, 1000),
        "n_embd": maybe(whole(0, 2**17)),
        "n_head": maybe(whole(0, 2**14)),
        "embedding_std": maybe(number(0, 100)),
        "position_std": maybe(number(0, 100)),
        "dropout": maybe(_PART),
        "attention_dropout": maybe(_PART),
        "dtype": one_of(COMPUTE),
        "scan_layers": flag(),
        "remat": flag(),
    },
    "train": {
        "epochs": maybe(_COUNT),
        "batch_size": maybe(_ROWS),
        "eval_batch_size": _ROWS,
        "max_buckets": whole(1, 1000),
        "eval_every": whole(),
        "metric": one_of(("accuracy", "macro_f1", "loss")),
        "patience": whole(),
        "keep": whole(1, 1000),
        "seed": _SEED,
        "label_smoothing": maybe(_PART),
        "token_dropout": maybe(_PART),
        "ema_decay": maybe(_PART),
        "wandb": flag(),
        "optimizer": {**_OPTIMIZER, "learning_rate": maybe(_RATE)},
        "distill_steps": maybe(whole()),
        "turning_words": many(_NAME),
        "pretrain_epochs": _COUNT,
        "pretrain_batch_size": _ROWS,
        "pretrain_optimizer": _OPTIMIZER,
    },
    "examples": many(text()),
}

_LM: Schema = {
    "mesh": _MESH_HERE,
    "adapt": _ADAPT,
    "teacher": _TEACHER,
    "data": _TEXTS,
    "model": {
        "init": text(),
        "size": _NAME,
        "n_layer": whole(0, 10**4),
        "n_embd": whole(0, 2**17),
        "n_head": whole(0, 2**14),
        "dropout": _PART,
        "dtype": one_of(COMPUTE),
        "scan_layers": flag(),
        "remat": flag(),
    },
    "train": {
        "steps": whole(1),
        "length": whole(0, 2**24),
        "batch_size": _ROWS,
        "eval_every": whole(),
        "patience": whole(),
        "keep": whole(1, 1000),
        "seed": _SEED,
        "ema_decay": _PART,
        "wandb": flag(),
        "optimizer": {**_OPTIMIZER, "learning_rate": number(0, 1000)},
    },
    "prompts": many(text()),
    "sample_tokens": whole(1, 2**20),
}

JOBS: dict[str, Schema] = {
    "benchmark": {
        "mesh": _MESH,
        "size": _NAME,
        "cases": many(_NAME, least=1),
        "peers": many(_NAME),
        "peer_python": text(),
        "repeats": _RUNS,
        "new_tokens": _TOKENS,
        "prompt_tokens": _TOKENS,
        "text_tokens": _TOKENS,
        "threads": whole(0, 2**12),
    },
    "calibrate": {"target": text(), "runs": _RUNS, "programs": _COUNT},
    "fit_card": {"chips": text(), "aiconfigurator": flag(), "neusight": text()},
    "classify": {
        **_MODEL_FOLDER,
        "text": text(),
        "input": text(),
        "column": _NAME,
        "output": text(),
        "dtype": one_of(COMPUTE),
    },
    "clock": {
        "mesh": _MESH,
        "subject": one_of(("generate", "classify")),
        "model": _NAME,
        "batch": _ROWS,
        "length": whole(2, 2**24),
        "new_tokens": _TOKENS,
        "dtype": one_of(FORMATS),
        "card": text(),
        "programs": whole(1, 10**6),
        "targets": many(_NAME),
        "models": many(_NAME, least=1),
        "batches": many(_ROWS, least=1),
        "lengths": many(_TOKENS, least=1),
        "widths": many(whole(64, 2**16)),
        "runs": _RUNS,
        "sections": many(one_of(SECTIONS)),
    },
    "compare": {**_PROGRAM, "mesh": _MESH, "targets": many(_NAME, least=1), "card": text()},
    "cost": {
        **_PROGRAM,
        "mesh": _MESH,
        "hlo": text(),
        "only": text(),
        "trace": text(),
        "phase": many(one_of(PHASES), least=1),
        "target": text(),
        "card": text(),
        "device": table(number(above=True)),
        "measure": flag(),
        "trip_counts": table(whole(0, 2**53)),
        "roles": text(),
        "custom_calls": text(),
        "top": _COUNT,
    },
    "diff": {"before": text(), "after": text(), "fail_above": text(), "top": _COUNT},
    "embed": {
        **_MODEL_FOLDER,
        "input": text(),
        "column": _NAME,
        "output": text(),
        "query": text(),
        "nearest": whole(1, 10**6),
        "dtype": one_of(COMPUTE),
    },
    "evaluate": {
        **_MODEL_FOLDER,
        "source": _NAME,
        "input": text(),
        "text_column": _NAME,
        "label_column": _NAME,
        "dtype": one_of(COMPUTE),
        "classes": many(text()),
        "question": _NAME,
    },
    "finetune": _FINETUNE,
    "generate": {
        **_MODEL_FOLDER,
        "prompt": text(),
        "chat": flag(),
        "input": text(),
        "column": _NAME,
        "output": text(),
        "stream": flag(),
        "max_new_tokens": _TOKENS_OR_0,
        "trim": flag(),
        "temperature": number(0, 1e6),
        "top_k": whole(),
        "top_p": number(0, 1, above=True),
        "repetition_penalty": number(0, 1e6, above=True),
        "stop": many(text()),
        "seed": whole(0, 2**32 - 1),
        "logprobs": flag(),
        "format": one_of(FORMATS),
        "kv_cache": _KV_CACHE,
        "batch_size": _ROWS,
        "cache_length": _TOKENS_OR_0,
    },
    "lm": _LM,
    "board": {
        "mesh": _MESH_HERE,
        "task": one_of(("sentiment", "perplexity")),
        "base": _NAME,
        "strategies": many(_NAME, least=1),
        "save": many(_NAME),
        "targets": many(_NAME),
        "batch": _ROWS,
        "runs": _RUNS,
        "epochs": whole(1, 10**6),
        "steps": whole(1),
        "batch_size": _ROWS,
        "seed": _SEED,
        "adapt": _ADAPT,
        "data": {name: check for name, check in _DATA.items() if name not in ("tokenizer", "max_length")},
        "text": {name: check for name, check in _TEXTS.items() if name != "tokenizer"},
        "limit": whole(2),
    },
    "microscope": {
        **_PROGRAM,
        "op": _NAME,
        "dump": text(),
        "card": text(),
        "measure": flag(),
        "runs": _RUNS,
        "cpu": text(),
    },
    "perplexity": {
        **_MODEL_FOLDER,
        "input": text(),
        "formats": many(one_of(FORMATS), least=1),
        "kv_cache": _KV_CACHE,
        "window": _TOKENS_OR_0,
        "stride": _TOKENS_OR_0,
        "limit": whole(),
        "batch_size": _ROWS,
    },
    "plan": {
        "model": _NAME,
        "targets": many(_NAME, least=1),
        "purpose": one_of(("train", "serve")),
        "dtype": one_of((*COMPUTE, "int8")),
        "length": _TOKENS,
        "prices": table(number(above=True)),
        "best": whole(1, 100),
        "tokens": whole(1, 2**31 - 1),
        "total_tokens": number(0, 1e18),
        "most_devices": whole(1, 2**14),
        "new_tokens": _TOKENS,
        "batches": many(_ROWS, least=1),
        "requests": number(0, 1e9),
    },
    "published": {"table": text(), "tiers": _NAME, "chips": text(), "minutes": number(0, 10**5)},
    "validate": {
        "card": text(),
        "calibration": _COUNT,
        "programs": many(_NAME),
        "others": flag(),
        "dtype": one_of(FORMATS),
        "rounds": _RUNS,
        "runs": _RUNS,
    },
}


def settled(config: ConfigDict, typed: Iterable[tuple[str, str | None]] = (), source: str = "") -> ConfigDict:
    """Returns the job's config with what was typed of its settings put in, every one of them checked.

    Args:
        typed: dotted names and texts; None stands for a flag that was only named, which means True. A name under an
            open table (`trip_counts.while.3`) fills that table.
        source: the config file, for the error line.

    Raises:
        UserError: there is no such job or setting, or a value is not what the schema says.
    """
    job, values = _job(config, f"--config={source}: ")
    for name, given in typed:
        _put(values, JOBS[job], name, given, f"--config.{name}")
    return ConfigDict({"experiment": job, **checked(values, JOBS[job], "config.")}, allow_dotted_keys=True)


def values_of(config: ConfigDict) -> dict[str, Any]:
    """Returns a job's settings, checked, lists as tuples and numbers as floats; a wrong one raises `UserError`."""
    job, values = _job(config, "config.")
    return checked(values, JOBS[job], "config.")


def _job(config: ConfigDict, where: str) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = config.to_dict()
    job = values.pop("experiment", None)
    if not isinstance(job, str) or job not in JOBS:
        near = did_you_mean(job, JOBS) if isinstance(job, str) else ""
        raise UserError(f"{where}experiment={shown(job)} must be one of {', '.join(JOBS)}.{near}")
    return job, values


def _put(values: dict[str, Any], schema: Schema, name: str, typed: str | None, flag: str) -> None:
    """Puts what was typed for the setting `name` into `values`; `flag` is its whole name, for the error line."""
    head, _, rest = name.partition(".")
    found = schema.get(head)
    if isinstance(found, Mapping) and rest:
        inner = values.setdefault(head, {})
        if isinstance(inner, dict):  # else `checked` says so
            _put(inner, found, rest, typed, flag)
        return
    if not isinstance(found, Check) or (rest and not found.open):
        known = flag.removesuffix(name)
        raise UserError(f"{flag}: the job has no such setting.{did_you_mean(flag, (known + n for n in names(schema)))}")
    if typed is None and found.of_text("True") is not True:
        raise UserError(f"{flag} needs a value: {flag}=VALUE.")
    if rest:
        inner = values.setdefault(head, {})
        inner[rest] = literal(typed or "")
    else:
        values[head] = found.of_text("True" if typed is None else typed)


def names(schema: Schema, prefix: str = "") -> tuple[str, ...]:
    """Returns the dotted name of every setting in a schema."""
    found: list[str] = []
    for name, check in schema.items():
        found += names(check, f"{prefix}{name}.") if isinstance(check, Mapping) else [prefix + name]
    return tuple(found)


def leaves(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns every setting of `config` under its dotted name, an open table as {}."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict) and len(value):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = {} if isinstance(value, Mapping | ConfigDict) else value
    return found
