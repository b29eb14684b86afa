"""Texts without labels, to learn a language from: files, folders of them, or a set of the hub."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmjax.data.files import decode, require_columns, require_file
from llmjax.data.sources import load_hub
from llmjax.errors import UserError, did_you_mean

SUFFIXES = (".txt", ".md", ".jsonl")


@dataclass(frozen=True)
class CorpusConfig:
    """Where texts come from.

    source: "files", or the hub's "hub:OWNER/NAME[/CONFIG]".
    train, dev: for "files" a .txt or .md (one text a file), a .jsonl (one a line, in `text_column`), or a folder of
        such; for "hub:" names of splits. An empty dev is the end of train, `dev_fraction` of its characters.
    """

    source: str = "files"
    train: str = ""
    dev: str = ""
    text_column: str = "text"
    dev_fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.dev_fraction < 1:
            raise UserError(f"data.dev_fraction is {self.dev_fraction}: it must be in [0, 1)")


class Corpus(NamedTuple):
    """Texts to train on, texts to evaluate on, and where they are from, in a line."""

    train: list[str]
    dev: list[str]
    origin: str


def load_corpus(config: CorpusConfig) -> Corpus:
    """Returns the texts that `config` names; blank ones are left out.

    Raises:
        UserError: nothing there, not UTF-8, not of the format, or no text in it; file and line where that helps.
    """
    if config.source == "files":
        if not config.train:
            raise UserError(
                "no text was named: --config.data.train=FILE.txt (or .jsonl, or a folder of them), or a set of the "
                "hub: --config.data.source=hub:OWNER/NAME"
            )
        parts = {name: _read_path(path, config.text_column) for name, path in _paths(config).items()}
    elif config.source.startswith("hub:"):
        parts = _read_hub(config)
    else:
        near = did_you_mean(config.source, ["files", "hub:"])
        raise UserError(f"data.source is {config.source!r}: it must be 'files' or 'hub:OWNER/NAME'.{near}")
    origin = config.train if config.source == "files" else config.source
    for name, texts in parts.items():
        parts[name] = [text for text in texts if text.strip()]
        if not parts[name]:
            raise UserError(f"{origin}: no text in it ({name})")
    if "dev" in parts:
        return Corpus(parts["train"], parts["dev"], origin)
    train, dev = split_end(parts["train"], config.dev_fraction)
    return Corpus(train, dev, origin)


def split_end(texts: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Returns texts without, and the texts of, the last `fraction` of all characters.

    A text in the middle of which that begins is cut at the next line's start, or else at the next space.
    """
    left = round((1 - fraction) * sum(map(len, texts)))
    for number, text in enumerate(texts):
        if left < len(text):
            line, space = text.find("\n", left), text.find(" ", left)
            cut = line + 1 if line >= 0 else space + 1 if space >= 0 else len(text)
            first, second = text[:cut], text[cut:]
            begin, end = list(texts[:number]), list(texts[number + 1 :])
            return begin + [first] * bool(first.strip()), [second] * bool(second.strip()) + end
        left -= len(text)
    return list(texts), []


def _paths(config: CorpusConfig) -> dict[str, str]:
    return {name: path for name, path in (("train", config.train), ("dev", config.dev)) if path}


def _read_path(path: str, column: str) -> list[str]:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return _read_file(folder, column)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"{path}: no {', '.join(SUFFIXES)} in this folder")
    return [text for file in files for text in _read_file(file, column)]


def _read_file(file: Path, column: str) -> list[str]:
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"text file {str(file)!r}: its name must end in {', '.join(SUFFIXES)}")
    require_file(file)
    text = decode(file)
    if file.suffix.lower() != ".jsonl":
        return [text]
    return [_text(line, column, f"{file} line {at}") for at, line in enumerate(text.split("\n"), 1) if line.strip()]


def _text(line: str, column: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {getattr(error, 'msg', 'nested too deeply')}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: JSON {type(record).__name__} where an object is needed")
    require_columns(where, list(record), column)
    if not isinstance(record[column], str):
        raise UserError(f"{where}: {column!r} is {json.dumps(record[column])[:40]}, not a string")
    return record[column]


def _read_hub(config: CorpusConfig) -> dict[str, list[str]]:
    found: Any = load_hub(config.source)
    there = [str(name) for name in found]
    named = {"train": config.train or "train", "dev": config.dev}
    named["dev"] = named["dev"] or next((name for name in ("validation", "dev", "valid", "test") if name in there), "")
    parts = {}
    for part, name in named.items():
        if name and name not in there:
            near = did_you_mean(name, there)
            raise UserError(f"{config.source}: no split {name!r}; it has {', '.join(there)}.{near}")
        if name:
            require_columns(f"{config.source} {name}", list(found[name].column_names), config.text_column)
            parts[part] = [text for text in found[name][config.text_column] if isinstance(text, str)]
    return parts
