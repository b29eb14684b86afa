"""Labelled texts from any source, as train, dev and test examples with class numbers."""

import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from llmjax.data.doubts import doubts
from llmjax.data.files import Places, Rows, read_file, require_columns
from llmjax.data.vader import load_vader
from llmjax.errors import UserError, did_you_mean


@dataclass(frozen=True)
class DataConfig:
    """Where labelled texts come from and how they are split.

    source: "vader_movies" (movie-review sentences, fetched by pip), "files", or the hub's "hub:OWNER/NAME[/CONFIG]";
        empty = "files" where one is named, else "vader_movies".
    train, dev, test: paths for "files", split names for "hub:"; an empty dev or test is split off from train.
    label_names: the classes in order; empty = those that the source declares, else the labels found, sorted.
    limit: at most so many examples in each of train, dev and test (0 = all), drawn evenly over the classes' shares.
    seed: of the split and of `limit`; "vader_movies" has one fixed split, whatever the seed.
    """

    source: str = ""
    train: str = ""
    dev: str = ""
    test: str = ""
    text_column: str = "text"
    label_column: str = "label"
    label_names: tuple[str, ...] = ()
    dev_fraction: float = 0.1
    test_fraction: float = 0.1
    limit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_names", tuple(self.label_names))
        named = self.train or self.dev or self.test
        if not self.source:
            object.__setattr__(self, "source", "files" if named else "vader_movies")
        if self.source == "vader_movies" and named:
            raise UserError(f"data.source is 'vader_movies', which does not read {named!r}: leave data.source empty")
        fractions = (self.dev_fraction, self.test_fraction)
        if not all(0 <= fraction < 1 for fraction in fractions) or not sum(fractions) < 1:
            raise UserError(
                f"data.dev_fraction, data.test_fraction are {fractions}: each must be in [0, 1), their sum below 1"
            )
        if self.limit < 0:
            raise UserError(f"data.limit is {self.limit}: it must be 0 (all) or more")
        if self.text_column == self.label_column:
            raise UserError(f"data.text_column and data.label_column are both {self.text_column!r}")
        if len(set(self.label_names)) != len(self.label_names) or len(self.label_names) == 1:
            raise UserError(f"data.label_names is {self.label_names}: it needs two or more different names")


@dataclass(frozen=True)
class Examples:
    """Texts and their class numbers, and where they stand in their source, if that is known."""

    texts: list[str]
    labels_N: Int32[np.ndarray, "N"]
    places: Places | None = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """The three splits, the classes in order, and one line for everything that a reader of results should know."""

    train: Examples
    dev: Examples
    test: Examples
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_dataset(config: DataConfig) -> Dataset:
    """Loads, checks and splits the data that `config` names; the same config gives the same examples on any machine.

    Identical texts (after Unicode, case, punctuation and space normalisation) never straddle splits made here. A split
    that is not asked for (fraction 0) is empty. Raises UserError with file and row for whatever is wrong.
    """
    parts, notes = _read(config)
    texts = [_texts(rows) for rows in parts.values()]
    for rows, words in zip(parts.values(), texts, strict=True):
        said = [_label(value, rows.where(row)) for row, value in enumerate(rows.labels)]
        notes += doubts(rows, words, said, normalised)
    label_names, labels = _class_numbers(list(parts.values()), config.label_names)
    splits = {
        name: Examples(words, numbers, Places(rows.origin, rows.unit, tuple(rows.places)))
        for (name, rows), words, numbers in zip(parts.items(), texts, labels, strict=True)
    }
    seed = 0 if config.source == "vader_movies" else config.seed
    _require_classes(splits["train"], label_names, parts["train"].origin)
    splits, split_notes = _split_off(splits, config, seed)
    splits = {name: _limited(examples, config.limit, seed) for name, examples in splits.items()}
    _require_classes(splits["train"], label_names, f"{parts['train'].origin}, what split and limit left of it")
    notes += split_notes + _overlap_notes(splits)
    return Dataset(splits["train"], splits["dev"], splits["test"], label_names, tuple(notes))


def _read(config: DataConfig) -> tuple[dict[str, Rows], list[str]]:
    columns = (config.text_column, config.label_column)
    if config.source == "vader_movies":
        rows, dropped = load_vader()
        return {"train": rows}, [f"{dropped} of {len(rows.texts) + dropped} sentences left out: mean rating exactly 0"]
    if config.source == "files":
        if not config.train:
            raise UserError("data.source is 'files' and data.train is empty: name the training file")
        paths = {"train": config.train, "dev": config.dev, "test": config.test}
        return {name: read_file(path, *columns) for name, path in paths.items() if path}, []
    if config.source.startswith("hub:"):
        return _read_hub(config)
    near = did_you_mean(config.source, ["vader_movies", "files", "hub:"])
    raise UserError(f"data.source is {config.source!r}: it must be 'vader_movies', 'files' or 'hub:OWNER/NAME'.{near}")


def load_hub(source: str) -> Any:
    """Returns the splits of the hub's data set "hub:OWNER/NAME[/CONFIG]", by name; UserError where there is none."""
    import datasets

    parts = source.removeprefix("hub:").split("/")
    if not all(parts) or len(parts) > 3:
        raise UserError(f"data.source is {source!r}: write hub:OWNER/NAME or hub:OWNER/NAME/CONFIG")
    try:
        return datasets.load_dataset("/".join(parts[:2]), parts[2] if len(parts) == 3 else None)
    except Exception as error:  # the hub's client raises dozens of kinds; none is our caller's bug
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{source}: cannot be loaded from the hub ({reason}); check the name and the network, or use your "
            "own data with source 'files'"
        ) from error


def _read_hub(config: DataConfig) -> tuple[dict[str, Rows], list[str]]:
    found = load_hub(config.source)
    named = {"train": config.train or "train", "dev": config.dev, "test": config.test}
    there = [str(name) for name in found]
    for name in named.values():
        if name and name not in there:
            raise UserError(
                f"{config.source}: no split {name!r}; it has {', '.join(there)}.{did_you_mean(name, there)}"
            )
    named["dev"] = named["dev"] or next((name for name in ("validation", "dev", "valid") if name in there), "")
    named["test"] = named["test"] or ("test" if "test" in there else "")
    rows, notes = {}, []
    for split, name in named.items():
        if not name:
            continue
        rows[split] = _hub_rows(found[name], f"{config.source} {name}", config)
        if split != "train" and rows[split].labels and set(rows[split].labels) == {None}:
            notes.append(f"the hub's split {name!r} has no labels and was left out")
            del rows[split]
    return rows, notes


def _hub_rows(table: Any, origin: str, config: DataConfig) -> Rows:
    require_columns(origin, list(table.column_names), config.text_column, config.label_column)
    names = tuple(getattr(table.features[config.label_column], "names", None) or ())
    labels = list(table[config.label_column])
    if names:  # by the hub's convention, -1 is "no label"
        labels = [None if label == -1 else label for label in labels]
    texts = list(table[config.text_column])
    return Rows(texts, labels, list(range(1, len(texts) + 1)), origin, "row", names)


def _texts(rows: Rows) -> list[str]:
    if not rows.texts:
        raise UserError(f"{rows.origin} has no rows")
    texts = []
    for row, text in enumerate(rows.texts):
        if not isinstance(text, str):
            kind = "missing" if text is None or text != text else f"a {type(text).__name__}, not a string"
            raise UserError(f"{rows.where(row)}: the text is {kind}")
        text = text.strip()
        if not text:
            raise UserError(f"{rows.where(row)}: the text is empty; fill it or remove the row")
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            raise UserError(f"{rows.where(row)}: the text holds half of a surrogate pair, which UTF-8 cannot write")
        texts.append(text)
    return texts


_MISSING = {"", "nan", "null", "<na>"}
_WHOLE = re.compile(r"-?(0|[1-9]\d*)(\.0+)?")
_FRACTION = re.compile(r"-?\d*\.\d+([eE][-+]?\d+)?")


def _label(value: Any, where: str) -> int | str:
    """Returns a label as an int where it is a whole number in any spelling ("1", 1.0, true), else as a string."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{where}: the label is missing")
    if not isinstance(value, bool | int | float | str):
        raise UserError(f"{where}: the label is a {type(value).__name__}; it must be a whole number or a name")
    text = str(int(value)) if isinstance(value, bool) else str(value).strip()
    if text.lower() in _MISSING:
        raise UserError(f"{where}: the label is missing ({value!r})")
    if _WHOLE.fullmatch(text):
        return int(text.split(".")[0])
    if isinstance(value, float) or _FRACTION.fullmatch(text):
        raise UserError(f"{where}: label {value!r} is not a class; labels are whole numbers or names")
    return text


def _class_numbers(
    parts: Sequence[Rows], label_names: tuple[str, ...]
) -> tuple[tuple[str, ...], list[Int32[np.ndarray, "N"]]]:
    """Returns the class names and, per part, each row's class number.

    With names given, labels are names if any of them is one, else numbers 0..n-1. Without, whole-number labels are
    classes in numeric order and anything else in the order of its characters; classes stand in the first part (train).
    """
    declared = parts[0].label_names
    values = [[_label(v, rows.where(i)) for i, v in enumerate(rows.labels)] for rows in parts]
    names = label_names or declared
    if not names:
        whole = all(isinstance(value, int) for part in values for value in part)
        found = set(values[0]) if whole else {str(value) for value in values[0]}
        names = tuple(str(value) for value in sorted(found))  # type: ignore[type-var]
        if len(names) > max(20, len(values[0]) // 2):
            count = f"{len(names)} different labels in {len(values[0])} rows"
            raise UserError(f"{parts[0].origin}: {count}; is data.label_column the column of the labels?")
    number = {name: i for i, name in enumerate(names)}
    by_name = not declared and any(str(value) in number for part in values for value in part)
    if declared and any(isinstance(value, str) for part in values for value in part):
        by_name = True
    if not by_name:
        number = {str(i): i for i in range(len(names))}
    result = []
    for rows, part in zip(parts, values, strict=True):
        for row, value in enumerate(part):
            if str(value) not in number:
                valid = ", ".join(names)[:200] + ("" if by_name else f", numbered 0 to {len(names) - 1}")
                near = did_you_mean(str(value), [*names, *number])
                raise UserError(f"{rows.where(row)}: label {value!r} is not one of the classes {valid}.{near}")
        result.append(np.array([number[str(value)] for value in part], np.int32))
    return names, result


def normalised(text: str) -> str:
    """Returns what makes two texts the same sentence: its words, without case, punctuation, spacing or Unicode form."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or "".join(folded.split())


def _quantiles(examples: Examples, seed: int) -> Float[np.ndarray, "N"]:
    """Returns a number in (0, 1) a row, evenly spread over each class's rows in an order drawn by hashing the text.

    Rows of the same text get the same number, so any cut of the numbers splits no such group and keeps the classes'
    shares. It depends on texts, labels and seed only: not on the platform, Python's hash seed or NumPy's version.
    """
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(examples.texts):
        groups.setdefault(normalised(text), []).append(row)
    order = sorted(groups, key=lambda text: (hashlib.sha256(f"{seed}\n{text}".encode()).digest(), text))
    totals = np.zeros(int(examples.labels_N.max(initial=0)) + 1)
    for text in order:
        totals[examples.labels_N[groups[text][0]]] += len(groups[text])
    seen = np.zeros_like(totals)
    quantiles_N = np.zeros(len(examples))
    for text in order:
        label, size = examples.labels_N[groups[text][0]], len(groups[text])
        quantiles_N[groups[text]] = (seen[label] + size / 2) / totals[label]
        seen[label] += size
    return quantiles_N


def _take(examples: Examples, chosen_N: np.ndarray) -> Examples:
    rows = np.flatnonzero(chosen_N)
    places = examples.places.take(rows) if examples.places else None
    return Examples([examples.texts[row] for row in rows], examples.labels_N[rows], places)


def _split_off(splits: dict[str, Examples], config: DataConfig, seed: int) -> tuple[dict[str, Examples], list[str]]:
    splits, notes = dict(splits), []
    whole = splits["train"]
    asked = {"test": config.test_fraction, "dev": config.dev_fraction}
    fractions = {name: 0.0 if name in splits else fraction for name, fraction in asked.items()}
    quantiles_N = _quantiles(whole, seed) if any(fractions.values()) else np.zeros(len(whole))
    low = 0.0
    for name, fraction in fractions.items():
        if name not in splits:
            splits[name] = _take(whole, (quantiles_N >= low) & (quantiles_N < low + fraction))
        if fraction > 0:
            if not len(splits[name]):
                few = f"{len(whole)} rows are too few to split off {fraction:g} of them for {name}"
                raise UserError(f"{few}; name a {name} file (data.{name})")
            notes.append(f"{name}: {len(splits[name])} of {len(whole)} examples split off from train")
        low += fraction
    splits["train"] = _take(whole, quantiles_N >= low)
    return splits, notes


def _limited(examples: Examples, limit: int, seed: int) -> Examples:
    if not limit or len(examples) <= limit:
        return examples
    chosen_N = np.zeros(len(examples), bool)
    chosen_N[np.argsort(_quantiles(examples, seed), kind="stable")[:limit]] = True
    return _take(examples, chosen_N)


def _require_classes(train: Examples, label_names: tuple[str, ...], origin: str) -> None:
    present = np.unique(train.labels_N)
    if len(present) < 2:
        which = f"every row of train has the label {label_names[present[0]]!r}" if len(present) else "train has no rows"
        raise UserError(f"{origin}: {which}; a classifier needs two or more classes")


def _overlap_notes(splits: dict[str, Examples]) -> list[str]:
    known = {normalised(text) for text in splits["train"].texts}
    counts = {name: sum(normalised(text) in known for text in splits[name].texts) for name in ("dev", "test")}
    return [f"{name}: {n} of {len(splits[name])} texts also stand in train" for name, n in counts.items() if n]
