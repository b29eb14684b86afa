"""Where a saved model is: a folder, a run's workdir or a hub id, and the files it should hold."""

import contextlib
import difflib
import os
import re
from pathlib import Path
from typing import Any

from llmjax.errors import UserError, did_you_mean
from llmjax.gguf import hf_config, read_gguf
from llmjax.json_file import read_json
from llmjax.models.compressed import without_quantization
from llmjax.models.config import ModelConfig
from llmjax.models.families import SIZES, from_hf, from_size
from llmjax.pretrained import PRETRAINED, resolve
from llmjax.schema import maybe, text

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"  # peft's names
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
)
_FOREIGN_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")


def resolve_folder(path: str | Path) -> Path:
    """Returns the folder of a checkpoint: `path` itself, its `best/` if it is a workdir, or the hub's local snapshot.

    A GGUF file stands for a folder: it holds the config, the weights and the tokenizer. The names of `PRETRAINED` are
    those of trained models that pip brings.

    Raises:
        UserError: there is no such folder, or it cannot be fetched.
    """
    name = str(path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (
            not any((folder / file).exists() for file in (WEIGHTS_FILE, INDEX_FILE, ADAPTER_CONFIG))
            and (folder / "best").is_dir()
        ):
            return folder / "best"
        return folder
    if is_gguf(folder) and folder.is_file():
        return folder
    if folder.exists():
        raise UserError(f"{name!r} is a file; give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.")
    fetched = resolve(name)
    if fetched is not None:
        return fetched
    if not _is_hub_id(name):
        raise UserError(f"{name!r}: no such folder.{_nearest_path(folder)}")
    return _download(name)


def is_gguf(path: Path) -> bool:
    """Whether a checkpoint's path is that of a GGUF file."""
    return path.suffix == ".gguf"


def adapter_base(folder: Path) -> Path | None:
    """Returns where the base of an adapter's folder is; None of a folder that holds no adapter.

    Raises:
        UserError: it names none, or one that is not there.
    """
    file = folder / ADAPTER_CONFIG
    if is_gguf(folder) or not file.is_file():
        return None
    name = read_json(file, schema={"base_model_name_or_path": maybe(text())}).get("base_model_name_or_path")
    if not name:
        raise UserError(f"{file}: names no base_model_name_or_path: write the folder or the name of its base there.")
    try:
        base = resolve_folder(name)
    except UserError as error:
        raise UserError(f"{folder}: is an adapter, and its base is not to be had: {error}") from error
    if base.resolve() == folder.resolve():
        raise UserError(f"{file}: names its own folder as base_model_name_or_path: name that of its base.")
    return base


def tokenizer_home(folder: Path) -> Path:
    """Returns the folder that holds a checkpoint's tokenizer: its own, or that of its base."""
    if is_gguf(folder) or any((folder / name).exists() for name in TOKENIZER_FILES):
        return folder
    return adapter_base(folder) or folder


def read_config(folder: Path, **overrides: Any) -> ModelConfig:
    """Reads `folder/config.json`, or what a GGUF file says, with `overrides` on top.

    Raises:
        UserError: it is absent or malformed.
    """
    if is_gguf(folder):
        return from_hf(hf_config(read_gguf(folder)), str(folder), **overrides)
    file = folder / CONFIG_FILE
    base = None if file.is_file() else adapter_base(folder)
    if base is not None:
        return read_config(base, **overrides)
    if not file.is_file():
        raise UserError(f"{folder}: has no {CONFIG_FILE}, so it is not a saved model.{_contents(folder)}")
    return from_hf(without_quantization(read_json(file), str(file)), str(file), **overrides)


def named_config(name: str, **overrides: Any) -> ModelConfig:
    """Returns the config of a named size, or that of a checkpoint: a folder, its config.json or a hub id.

    No weights are read or needed.

    Raises:
        UserError: neither a size nor a checkpoint.
    """
    file = Path(name).expanduser()
    if file.is_file() and not is_gguf(file):
        return from_hf(without_quantization(read_json(file), name), name, **overrides)
    if name in SIZES and not file.is_dir():
        return from_size(name, **overrides)
    if "/" not in name and name not in PRETRAINED and not file.exists():
        raise UserError(
            f"model={name!r} is neither a size ({', '.join(SIZES)}), nor a trained model ({', '.join(PRETRAINED)}), nor"
            f" a folder with a {CONFIG_FILE}.{did_you_mean(name, [*SIZES, *PRETRAINED])}"
        )
    return read_config(resolve_folder(name), **overrides)


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a saved model: the whole one, or every shard that the index names."""
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).exists():
        weight_map = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map or not all(map(_is_file_name, weight_map.values())):
            raise UserError(f"{folder / INDEX_FILE}: has no 'weight_map' of tensor names to files in its folder.")
        files = [folder / name for name in sorted(set(weight_map.values()))]
        absent = [file.name for file in files if not file.exists()]
        if absent:
            raise UserError(f"{folder}: {INDEX_FILE} names {some(absent)}, not in the folder; copy or download again.")
        return files
    foreign = [name for name in _FOREIGN_WEIGHTS if (folder / name).exists()]
    if foreign:
        raise UserError(
            f"{folder}: holds {foreign[0]} but no {WEIGHTS_FILE}; convert it once where torch is installed: python -c"
            f' "from transformers import AutoModelForCausalLM as M; M.from_pretrained({str(folder)!r})'
            f'.save_pretrained({str(folder)!r})" (AutoModelForSequenceClassification for a classifier).'
        )
    raise UserError(f"{folder}: has no {WEIGHTS_FILE}.{_contents(folder)}")


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value and Path(value).name == value


def _is_hub_id(name: str) -> bool:
    """Whether a name that is no folder here is meant for the hub: `model` or `owner/model`."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name):
        return False
    return "/" not in name or not Path(name.split("/")[0]).is_dir()


def _download(name: str) -> Path:
    """Fetches config, weights and tokenizer of a hub id into the hub's cache, and returns the folder."""
    from huggingface_hub import errors, snapshot_download

    wanted = [
        CONFIG_FILE,
        INDEX_FILE,
        "model*.safetensors",
        ADAPTER_CONFIG,
        ADAPTER_WEIGHTS,
        "calibration.json",
        *TOKENIZER_FILES,
    ]
    nearby = _nearest_path(Path(name))
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name!r}: this hub model is gated; accept its terms on the hub, then 'hf auth login'."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{name!r}: neither a folder here nor a public model on the Hugging Face hub.{nearby}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{name!r}: no such folder, and the Hugging Face hub cannot be reached for a model of that name;"
            f" connect, or give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.{nearby}"
        ) from error
    except Exception as error:  # among others the own errors of whichever HTTP library the client uses
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{name!r}: cannot be fetched from the Hugging Face hub ({line}).{nearby}") from error


def _nearest_path(path: Path) -> str:
    """Returns " Did you mean 'x'?" for the existing folder nearest to a path that is not there."""
    parent = path.absolute()
    missing = parent.name
    while not parent.is_dir() and parent != parent.parent:
        parent, missing = parent.parent, parent.name
    with contextlib.suppress(OSError):
        folders = [entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        near = difflib.get_close_matches(missing, folders, n=1, cutoff=0.5)
        if near:
            found = parent / near[0]
            return f" Did you mean {(str(found) if path.is_absolute() else os.path.relpath(found))!r}?"
        if parent != path.absolute().parent:
            return f" There is no {missing!r} in {str(parent)!r}."
    return ""


def _contents(folder: Path) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    return f" It holds: {some(names)}." if names else " It is empty."


def some(names: list[str], limit: int = 6) -> str:
    """Returns the first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
