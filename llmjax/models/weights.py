"""Parameters from and to the folders that transformers reads and writes, for every family of `families.FAMILIES`."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from llmjax.errors import UserError
from llmjax.files import SUMS, damaged, default_mode, write_sums
from llmjax.gguf import Blocks, StoredTensor, hf_tensors, read_gguf
from llmjax.kernels.formats import Groups
from llmjax.memory import available, require
from llmjax.models import compressed
from llmjax.models.config import ModelConfig
from llmjax.models.families import Family, family_of
from llmjax.models.folders import (
    CONFIG_FILE,
    TOKENIZER_FILES,
    WEIGHTS_FILE,
    is_gguf,
    read_config,
    resolve_folder,
    some,
    weight_files,
)
from llmjax.models.params import (
    At,
    Head,
    Params,
    flat_tree,
    nested_tree,
    param_shapes,
    stack_layers,
    unstack_layers,
    vocabulary_table,
)

_STORED_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_WHOLE_DTYPES = {"I32": np.int32, "I64": np.int64}  # of parts of packed weights


def load_pretrained(
    path: str | Path,
    head: Head,
    *,
    fresh_head_key: PRNGKeyArray | jax.Array | None = None,
    **overrides: Any,
) -> tuple[ModelConfig, Params]:
    """Loads a model that transformers, or `save_pretrained`, wrote.

    Args:
        path: a folder (config.json and model.safetensors, whole or sharded), a finished run's workdir (its `best/` is
            taken), a GGUF file (quantised tensors are dequantised), a name of `PRETRAINED`, or a hub id such as
            `openai-community/gpt2`.
        head: the head that the parameters are for. The other head's weights, where the file has them, are left out.
        fresh_head_key: draws the classification head afresh from this key where the checkpoint has none or one for
            another number of classes: to fine-tune a language model. Without it both are errors.
        **overrides: `ModelConfig` fields that take precedence over config.json (`dtype`, `label_names`, ...).

    Returns:
        The config, and parameters in `config.param_dtype` as `make_model(config, head)` wants them.

    Raises:
        UserError: nothing readable at `path`, tensors that are missing, not expected or of another shape, weights
            whose sums, where `save_pretrained` wrote some, are others, or not enough memory.
    """
    folder = resolve_folder(path)
    check_sums(folder)
    config, flat, missing = _read(folder, head, fresh_head_key is not None, overrides)
    size = jnp.dtype(config.param_dtype).itemsize * sum(leaf.size for leaf in flat.values())
    require({"parameters": size}, "take a smaller model", available())
    # Copied: an array that only maps the file would change, or crash the process, with the file.
    flat = {at: jnp.array(leaf, config.param_dtype) for at, leaf in flat.items()}
    for at, shape in missing.items():
        draw = jax.random.normal(fresh_head_key, shape, jnp.float32)  # pyright: ignore[reportArgumentType]
        flat[at] = (config.initializer_range * draw).astype(config.param_dtype)
    params = nested_tree(flat)
    return config, stack_layers(params, config) if config.scan_layers else params


def map_pretrained(path: str | Path, head: Head, *, packed: bool = False) -> tuple[ModelConfig, Params]:
    """Returns what `load_pretrained` does, layers apart, as views of the files, which are read on use.

    For those who copy every array at once: a view shows what becomes of the file later. Sums are left to `check_sums`,
    which reads the files whole. packed: kernels that a file has in 4 bits (GGUF's Q4_0 and Q4_1, `compressed`'s groups)
    are `Groups`, exactly as they are there.
    """
    config, flat, _ = _read(path, head, False, {}, packed)
    return config, nested_tree(flat)


def check_sums(folder: Path) -> None:
    """Raises `UserError` where files of a saved model are not those whose sums stand beside them, if any do."""
    changed = damaged(folder) if folder.is_dir() else []
    if changed:
        raise UserError(
            f"{folder}: {', '.join(changed)} missing or not as it was saved ({SUMS} tells): copy the folder again, or "
            "train the model again."
        )


def save_pretrained(
    folder: str | Path, config: ModelConfig, params: Params, head: Head, tokenizer: Any | None = None
) -> None:
    """Writes a folder that transformers' `AutoModel...` and `AutoTokenizer` load, or replaces one, as a whole.

    The folder is written under a temporary name beside it and then renamed, so that a reader never meets half of it.

    Args:
        folder: where to write. An existing folder is replaced only if it holds nothing but a saved model.
        config: the model's shape; goes to config.json. Where it names no padding token, the tokenizer's is written, or
            else the end-of-text token: transformers refuses batches without one.
        params: as `make_model(config, head)` has them, stacked (`scan_layers`) or not.
        head: the head that `params` is for.
        tokenizer: a transformers tokenizer to save along.

    Raises:
        UserError: the folder exists and holds other files, or cannot be written.
    """
    with saved_folder(folder) as fresh:
        _write(fresh, config, params, head, tokenizer)


@contextlib.contextmanager
def saved_folder(folder: str | Path) -> Iterator[Path]:
    """Gives a fresh folder to write a model to, which then takes the place of `folder`.

    Raises:
        UserError: as `save_pretrained`.
    """
    folder = Path(folder)
    fresh, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    try:
        if old.exists() and not folder.exists():  # a kill between the two renames below
            old.rename(folder)
        _check_replaceable(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        for file in fresh.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot save the model there ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _read(
    path: str | Path, head: Head, fresh_head: bool, overrides: dict[str, Any], packed: bool = False
) -> tuple[ModelConfig, dict[At, Any], dict[At, tuple[int, ...]]]:
    """Returns the config, mapped tensors by their place among the parameters, and the shapes of a head to be drawn."""
    folder = resolve_folder(path)
    config = read_config(folder, **overrides)
    family = family_of(config)
    wanted = {family.tensor_name(at): (at, leaf.shape) for at, leaf in flat_tree(param_shapes(config, head)).items()}
    stored: dict[str, _Stored] = {}
    for file in [folder] if is_gguf(folder) else weight_files(folder):
        stored |= {name.removeprefix(family.prefix): tensor for name, tensor in _tensors(file).items()}
    whole = compressed.packed_tensors(stored, folder)
    if whole:
        stored = {name: tensor for name, tensor in stored.items() if not compressed.is_part(name)}
        stored |= {name: _Stored("F32", tensor.shape, tensor) for name, tensor in whole.items()}
    fresh = _to_draw(family, stored, wanted) if fresh_head else set()
    _check(folder, head, config, stored, wanted, fresh)
    flat: dict[At, Any] = {}
    for name, (at, _) in wanted.items():
        if name not in fresh:
            groups = _groups(stored[name]) if packed and at[-1] == "kernel" else None
            flat[at] = _ours(stored[name], family.transposed(at)) if groups is None else groups
    return config, flat, {at: shape for name, (at, shape) in wanted.items() if name in fresh}


def _to_draw(family: Family, stored: dict[str, "_Stored"], wanted: dict[str, tuple[At, tuple[int, ...]]]) -> set[str]:
    """Returns the tensors of a head that the files lack in the wanted shapes, and of optional parts that they lack."""
    heads = {name for name, (at, _) in wanted.items() if at[0] in family.own}
    fresh = set() if all(_fits(stored, wanted, name, family) for name in heads) else heads
    return fresh | {name for name, (at, _) in wanted.items() if at[0] in family.optional and name not in stored}


class _Stored(NamedTuple):
    """A tensor of a file: its type as the file names it, its shape, and its elements, mapped; None in other types."""

    dtype: str
    shape: tuple[int, ...]
    source: np.ndarray | StoredTensor | compressed.PackedTensor | None

    @property
    def array(self) -> np.ndarray | None:
        return self.source if isinstance(self.source, np.ndarray | None) else self.source.array()


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a safetensors file by name, in float32.

    Raises:
        UserError: it is not readable, or holds other types than floats.
    """
    if not file.is_file():
        raise UserError(f"{file.parent}: has no {file.name}.")
    found = _tensors(file)
    for name, tensor in found.items():
        if tensor.array is None:
            raise UserError(f"{file}: {name} is stored in a type that is not read ({tensor.dtype}).")
    return {name: np.asarray(tensor.array, np.float32) for name, tensor in found.items()}


def _tensors(file: Path) -> dict[str, _Stored]:
    """Returns the tensors of a safetensors file by name, mapped into memory; those of a GGUF file float32 on use.

    The library checks the file; its arrays are copies, so that the views are made here. Source of the layout (length
    of the header in 8 bytes, header in JSON, tensors): the format's description in safetensors' README.
    """
    if is_gguf(file):
        found = hf_tensors(read_gguf(file))
        return {name: _Stored("F32", tensor.shape, tensor) for name, tensor in found.items()}
    import safetensors

    try:
        with safetensors.safe_open(str(file), framework="numpy"), file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
    except (safetensors.SafetensorError, OSError) as error:
        with file.open("rb") as stream:
            pointer = stream.read(19) == b"version https://git"
        what = "is a Git LFS pointer: run 'git lfs pull'" if pointer else f"is not readable ({error}): copy it again"
        raise UserError(f"{file}: {what}.") from error
    header.pop("__metadata__", None)
    data = np.memmap(file, np.uint8, "r", offset=8 + size) if header else np.zeros(0, np.uint8)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = (_STORED_DTYPES | _WHOLE_DTYPES).get(entry["dtype"])
        array = None if dtype is None else data[begin:end].view(dtype).reshape(entry["shape"])
        tensors[name] = _Stored(entry["dtype"], tuple(entry["shape"]), array)
    return tensors


def _shape(tensor: _Stored, transposed: bool) -> tuple[int, ...]:
    """Shape of a stored tensor in our orientation."""
    return tensor.shape[::-1] if transposed else tensor.shape


def _ours(tensor: _Stored, transposed: bool) -> np.ndarray:
    """A stored tensor in our orientation."""
    array = np.asarray(tensor.array)
    return array.T if transposed else array


def _groups(tensor: _Stored) -> Groups | None:
    """A stored tensor's 4-bit groups, a row an output; None where the file has it in another type."""
    if isinstance(tensor.source, compressed.PackedTensor):
        return tensor.source.groups()
    rows = tensor.source.rows() if isinstance(tensor.source, StoredTensor) else None
    if not isinstance(rows, Blocks) or rows.type == "Q8_0":
        return None
    scale_EP = rows.scales.astype(np.float32)
    minimum_EP = -8 * scale_EP if rows.minima is None else rows.minima.astype(np.float32)
    return Groups(*map(jnp.asarray, (rows.packed, scale_EP, minimum_EP)))


def _fits(stored: dict[str, _Stored], wanted: dict[str, tuple[At, tuple[int, ...]]], name: str, family: Family) -> bool:
    at, shape = wanted[name]
    return name in stored and _shape(stored[name], family.transposed(at)) == shape


def _check(
    folder: Path,
    head: Head,
    config: ModelConfig,
    stored: dict[str, _Stored],
    wanted: dict[str, tuple[At, tuple[int, ...]]],
    fresh: set[str],
) -> None:
    """Raises one `UserError` that names every tensor that is missing, not expected, or of another shape or kind."""
    family = family_of(config)
    needed = [name for name in wanted if name not in fresh]
    missing = [name for name in needed if name not in stored]
    if head == "classifier" and missing and all(wanted[name][0][0] in family.own for name in missing):
        raise UserError(
            f"{folder}: a {config.family} without a classification head ({some(missing)}), so it cannot classify;"
            " fine-tune it first (python launch.py --config=configs/finetune.py). In Python, fresh_head_key= starts a"
            " new head."
        )
    ignored = {name for name in stored if family.is_head(name) or family.buffers.fullmatch(name)}
    extra = sorted(set(stored) - set(wanted) - ignored)
    shared = [name for name in needed if name in stored]
    shapes = {name: _shape(stored[name], family.transposed(wanted[name][0])) for name in shared}
    misshapen = [
        f"{name} is {list(shape)}, expected {list(wanted[name][1])}"
        for name, shape in shapes.items()
        if shape != wanted[name][1]
    ]
    dtypes = {name: stored[name].dtype for name in shared}
    unreadable = [f"{name} ({dtype})" for name, dtype in dtypes.items() if dtype not in _STORED_DTYPES]
    problems = [f"missing: {some(missing)}"] if missing else []
    problems += [f"not expected: {some(extra)}"] if extra else []
    problems += [f"shapes that config.json does not give: {some(misshapen)}"] if misshapen else []
    problems += [f"stored in a type that is not read: {some(unreadable)}"] if unreadable else []
    if problems:
        raise UserError(
            f"{folder}: its tensors are not those of a {config.layers}-layer {config.family}; {'; '.join(problems)}."
        )
    if head == "lm" and config.tie_word_embeddings:
        _check_tied(folder, family, stored, vocabulary_table(at[0] for at, _ in wanted.values()))


def _check_tied(folder: Path, family: Family, stored: dict[str, _Stored], table: str) -> None:
    """Raises `UserError` where a file has another language head than the embedding that its config ties it to."""
    untied, tied = family.tensor_name(("lm_head", "kernel")), family.tensor_name((table, "embedding"))
    if untied not in stored:
        return
    lm_head, embedding = stored[untied].array, stored[tied].array
    if lm_head is None or embedding is None or not np.array_equal(lm_head, embedding):
        raise UserError(
            f"{folder}: {untied} differs from {tied} although config.json ties them;"
            ' set "tie_word_embeddings": false in config.json.'
        )


def _write(folder: Path, config: ModelConfig, params: Params, head: Head, tokenizer: Any | None) -> None:
    family = family_of(config)
    bare = "none" in family.architectures and family.architectures[head] == family.architectures["none"]
    tensors: dict[str, np.ndarray] = {}
    packed: dict[str, Groups] = {}
    plain = [family.tensor_name(("lm_head", "kernel"))]  # a module of transformers' even where it is the embedding
    for at, leaf in flat_tree(unstack_layers(params, config)).items():
        name = family.tensor_name(at)
        name = name if bare or at[0] in family.own else family.prefix + name
        if isinstance(leaf, Groups):
            if not family.transposed(at):
                raise UserError(f"a {config.family} in 4-bit groups cannot be saved: the format is of torch's Linear.")
            packed[name] = leaf
            tensors |= compressed.tensors_of(name, leaf)
            continue
        plain += [name] if at[-1] == "kernel" else []
        array = np.asarray(leaf)
        tensors[name] = np.ascontiguousarray(array.T if family.transposed(at) else array)
    write_tensors(folder / WEIGHTS_FILE, tensors)
    write_sums(folder, [folder / WEIGHTS_FILE])  # config.json is for people to change
    modules = [name.removesuffix(".weight") for name in plain]
    more = {"quantization_config": compressed.quantization_config(packed, modules)} if packed else {}
    write_config(folder, config, head, tokenizer, more)


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file; what cannot be written is an `OSError`."""
    import safetensors.numpy

    # transformers asks for this "format" before it reads a file.
    try:
        safetensors.numpy.save_file(dict(tensors), str(file), metadata={"format": "pt"})
    except safetensors.SafetensorError as error:  # a full disk, for one
        raise OSError(str(error)) from error
    file.chmod(default_mode())  # the library leaves it to its owner alone


def write_config(
    folder: Path, config: ModelConfig, head: Head, tokenizer: Any | None, more: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Writes config.json, `more` in it, and the tokenizer; transformers wants a padding token to be named."""
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))
    if config.pad_token_id is None:
        pad = getattr(tokenizer, "pad_token_id", None)
        config = dataclasses.replace(config, pad_token_id=config.eos_token_id if pad is None else pad)
    about = json.dumps({**config.to_hf(head), **more}, indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(about + "\n", "utf-8")


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the name of a folder to save the model to.")
    files = r"(adapter_)?model.*\.safetensors|.*\.index\.json|((generation|adapter)_)?config\.json|calibration\.json"
    ours = re.compile(rf"({re.escape(SUMS)}|{files})")
    others = [
        file.name for file in folder.iterdir() if file.name not in TOKENIZER_FILES and not ours.fullmatch(file.name)
    ]
    if others:
        raise UserError(f"{folder}: holds other things than a saved model ({some(sorted(others))}); save elsewhere.")
