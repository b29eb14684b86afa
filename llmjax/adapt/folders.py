"""Adapters from and to folders, in peft's layout for LoRA and AdaLoRA: what was trained, and the name of its base.

Source of the layout: peft's documentation, "PEFT checkpoint format", and the folders that peft 0.21 writes. Houlsby
adapters, which peft lacks, are written the same way under our own names.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llmjax.adapt.bottleneck import draw
from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.layout import PREFIX, TYPES, adapter_config, beside_name, scale_of, stored, tensor_names
from llmjax.adapt.lora import A, B, E, merged
from llmjax.errors import UserError
from llmjax.files import write_sums
from llmjax.json_file import read_json
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of
from llmjax.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_base, read_config, resolve_folder
from llmjax.models.params import At, Head, Params, flat_tree, nested_tree, param_shapes, stack_layers
from llmjax.models.weights import check_sums, load_pretrained, read_tensors, saved_folder, write_config, write_tensors

_NOT_READ = ("use_dora", "use_qalora", "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication")


def load_model(
    path: str | Path, head: Head, *, fresh_head_key: jax.Array | None = None, **overrides: Any
) -> tuple[ModelConfig, Params]:
    """Loads a model as `load_pretrained` does, or the base that an adapter's folder names, the adapter merged into it.

    Raises:
        UserError: as `load_pretrained`, and for an adapter of another base or of a kind that is not read.
    """
    folder = resolve_folder(path)
    base = adapter_base(folder)
    if base is None:
        return load_pretrained(folder, head, fresh_head_key=fresh_head_key, **overrides)
    check_sums(folder)
    raw, tensors = read_json(folder / ADAPTER_CONFIG), read_tensors(folder / ADAPTER_WEIGHTS)
    shape = read_config(base)
    own = family_of(shape).own
    trained = _trained(folder, raw, tensors, shape, head)
    if head == "classifier" and any(at[0] in own for at in trained):
        labels = _labels(folder, trained, own)
        overrides = {"label_names": labels} | overrides
        if len(overrides["label_names"]) == len(labels):
            fresh_head_key = jax.random.key(0)  # the adapter has its own
        else:
            trained = {at: leaf for at, leaf in trained.items() if at[0] not in own}
    apart = overrides | {"scan_layers": False}
    config, params = load_pretrained(base, head, fresh_head_key=fresh_head_key, **apart)
    _check_shapes(folder, raw, trained, params)
    whole = merged(params, nested_tree({at: jnp.asarray(leaf) for at, leaf in trained.items()}), 1.0)
    if not overrides.get("scan_layers"):
        return config, whole
    config = dataclasses.replace(config, scan_layers=True)
    return config, stack_layers(whole, config)


def shapes_of(name: str, config: ModelConfig, head: Head) -> Params:
    """Returns the shapes and dtypes of what `load_model` gives of a size, a folder or a hub id, by its config.

    LoRA and AdaLoRA are merged and leave the base's shapes; Houlsby adapters are parameters of their own.
    """
    shapes, file = param_shapes(config, head), Path(name).expanduser() / ADAPTER_CONFIG
    raw = read_json(file) if name and file.is_file() else {}
    if raw.get("peft_type") != TYPES["adapters"]:
        return shapes
    width = raw.get("width")
    if not isinstance(width, int):
        raise UserError(f"{file}: width={width!r} is no number of a bottleneck's inputs.")

    def whole(params: Params) -> Params:
        return merged(params, draw(params, config, width, jax.random.key(0)), 1.0)

    return jax.eval_shape(whole, shapes)


def save_adapter(
    folder: str | Path,
    config: ModelConfig,
    trained: Params,
    head: Head,
    adapt: AdaptConfig,
    base: str,
    tokenizer: Any | None = None,
) -> None:
    """Writes a folder that peft loads on the base (of LoRA and AdaLoRA), or replaces one, as a whole.

    Args:
        trained: what was trained, layers apart.
        base: the base's folder or name, as `load_model` is to find it.
        tokenizer: a transformers tokenizer to save along.

    Raises:
        UserError: the folder exists and holds other files, or cannot be written.
    """
    parts = flat_tree(trained)
    names = tensor_names(config, head)
    with saved_folder(folder) as fresh:
        tensors = {}
        for at, leaf in parts.items():
            array = np.asarray(leaf)
            if adapt.method == "adapters" and at not in names:
                tensors["/".join(at)] = array
            elif at[-1] in (A, B, E):
                kept = np.asarray(parts[(*at[:-1], E)]) != 0 if (*at[:-1], E) in parts else slice(None)
                tensors[beside_name(names, at, adapt.method)] = stored(at[-1], array, kept)
            else:
                transposed = family_of(config).transposed(at)
                tensors[PREFIX + names[at]] = np.ascontiguousarray(array.T if transposed else array)
        write_tensors(fresh / ADAPTER_WEIGHTS, tensors)
        write_sums(fresh, [fresh / ADAPTER_WEIGHTS])
        raw = adapter_config(config, parts, names, head, adapt, base)
        (fresh / ADAPTER_CONFIG).write_text(json.dumps(raw, indent=2) + "\n", "utf-8")
        write_config(fresh, config, head, tokenizer)


def _trained(
    folder: Path, raw: Mapping[str, Any], tensors: Mapping[str, np.ndarray], config: ModelConfig, head: Head
) -> dict[At, np.ndarray]:
    """Returns an adapter's arrays by our paths, what is added scaled already; heads that are not asked for left out."""
    kind, base = raw.get("peft_type"), raw.get("base_model_name_or_path")
    if kind not in TYPES.values():
        raise UserError(f"{folder}: peft_type={kind!r} is not read, only {', '.join(TYPES.values())}.")
    for name in _NOT_READ:
        if raw.get(name):
            raise UserError(f"{folder}: {name}={raw[name]!r} is not computed here: merge the adapter with peft first.")
    family, found = family_of(config), {}
    prefix = family.prefix
    heads: tuple[Head, ...] = ("classifier", "lm", "none")
    every = {at for one in heads if one in family.architectures for at in flat_tree(param_shapes(config, one))}
    ours = {family.tensor_name(at): at for at in every}
    for name, array in tensors.items():
        if "/" in name:
            found[tuple(name.split("/"))] = array
            continue
        bare = name.removeprefix(PREFIX).removeprefix(prefix).replace(".modules_to_save", "")
        beside = re.fullmatch(r"(.+)\.lora_([ABE])(\.weight)?", bare)
        at = ours.get(f"{beside[1]}.weight" if beside else bare)
        if at is None:
            raise UserError(
                f"{folder}: {name} belongs to no weight of its base {base!r}, a {config.layers}-layer {config.family}: "
                "it is an adapter of another model."
            )
        if beside is None:
            found[at] = array.T if family.transposed(at) else array
            continue
        if beside[2] == "A":
            found[(*at[:-1], A)] = array.T
        elif beside[2] == "B":
            found[(*at[:-1], B)] = array.T * scale_of(folder, raw, beside[1])
        else:
            found[(*at[:-1], E)] = array[:, 0]
    wanted = flat_tree(param_shapes(config, head))
    return {at: leaf for at, leaf in found.items() if at[0] not in family.own or at in wanted}


def _labels(folder: Path, trained: Mapping[At, np.ndarray], own: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the classes of an adapter's head: named where the folder has a config, else numbered."""
    if (folder / "config.json").is_file():
        return read_config(folder).label_names
    last = [leaf for at, leaf in trained.items() if at[0] in own and at[0] != "classifier_dense"]
    return tuple(f"LABEL_{number}" for number in range(last[0].shape[-1]))


def _check_shapes(folder: Path, raw: Mapping[str, Any], trained: Mapping[At, np.ndarray], params: Params) -> None:
    """Raises `UserError` where an adapter's arrays do not fit the base's."""
    flat = flat_tree(params)
    for at, leaf in sorted(trained.items(), key=lambda item: item[0][-1] not in (A, B)):
        kernel, axis = flat.get((*at[:-1], "kernel")), {A: 0, B: -1}.get(at[-1])
        if axis is not None and kernel is not None and leaf.shape[axis] != kernel.shape[axis]:
            made, there = leaf.shape[axis], kernel.shape[axis]
        elif at in flat and leaf.shape != flat[at].shape:
            made, there = leaf.shape, flat[at].shape
        else:
            continue
        raise UserError(
            f"{folder}: {'/'.join(at)} is made for {made}, and its base {raw.get('base_model_name_or_path')!r} has "
            f"{there}: it is an adapter of another model."
        )
