"""Reads texts and raw labels out of TSV, CSV, JSONL and parquet files, with the place of every row.

The text formats are read here and not by `datasets`: its readers take quotes in a TSV for quoting and words like `NA`
for missing values, skip blank lines without counting them, and name no line when a file is broken.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjax.errors import UserError, did_you_mean

FORMATS = (".tsv", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Rows:
    """Texts and labels as a source holds them, before labels become class numbers.

    `places[i]` is where row i stands in `origin`: a line number as an editor shows it, or a row number ("unit").
    `label_names` are the names that the source itself declares for whole-number labels, else empty.
    """

    texts: list[Any]
    labels: list[Any]
    places: list[int]
    origin: str
    unit: str = "line"
    label_names: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """Returns "FILE line N" for a row index."""
        return f"{self.origin} {self.unit} {self.places[row]}"


@dataclass(frozen=True)
class Places:
    """Where texts stand in their source: numbers of lines of a file as an editor shows them, or of rows ("unit")."""

    origin: str
    unit: str
    numbers: tuple[int, ...]

    def take(self, rows: Iterable[int]) -> "Places":
        """Returns the places of some of the texts, by their index."""
        return Places(self.origin, self.unit, tuple(self.numbers[row] for row in rows))

    def named(self, rows: Iterable[int]) -> str:
        """Returns "UNITs N, N, ... of FILE" for texts' indices."""
        return f"{self.unit}s {', '.join(str(self.numbers[row]) for row in rows)} of {self.origin}"


def read_file(path: str, text_column: str, label_column: str) -> Rows:
    """Reads one file in the format that its suffix names (`FORMATS`).

    TSV: tab-separated, one header line, no quoting. CSV: RFC 4180, one header line. JSONL: one object a line.
    Blank lines are skipped. Raises UserError with file and line for whatever is wrong.
    """
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"data file {path!r}: cannot tell its format; its name must end in {', '.join(FORMATS)}")
    require_file(file)
    if suffix == ".parquet":
        return _read_parquet(file, text_column, label_column)
    lines = decode(file)
    if suffix == ".jsonl":
        return _read_jsonl(file, lines, text_column, label_column)
    records = _tsv_records(lines) if suffix == ".tsv" else _csv_records(file, lines)
    return _read_table(file, records, text_column, label_column)


def require_columns(origin: str, columns: list[str], *wanted: str) -> None:
    """Raises UserError naming the nearest column when one of `wanted` is absent or stands twice."""
    for name in wanted:
        if name not in columns:
            listed = ", ".join(columns[:20]) or "none"
            near = did_you_mean(name, columns)
            raise UserError(f"{origin}: no column {name!r}; its columns are: {_short(listed, 200)}.{near}")
        if columns.count(name) > 1:
            raise UserError(f"{origin}: column {name!r} stands {columns.count(name)} times in the header; rename one")


def require_file(file: Path) -> None:
    """Raises UserError naming the nearest file when there is no such one."""
    if file.is_file():
        return
    if file.is_dir():
        raise UserError(f"data file {str(file)!r} is a folder; name a file in it")
    if not file.parent.is_dir():
        raise UserError(f"data file {str(file)!r}: there is no folder {str(file.parent)!r}")
    near = did_you_mean(file.name, sorted(other.name for other in file.parent.iterdir()))
    raise UserError(f"data file {str(file)!r}: no such file.{near}")


def decode(file: Path) -> str:
    """Returns the text of a UTF-8 file; what cannot be read, or is not UTF-8, raises UserError with its line."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"data file {str(file)!r} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the byte order mark is not counted in error.start's buffer
        body = error.object
        line = body.count(b"\n", 0, error.start) + 1
        column = error.start - (body.rfind(b"\n", 0, error.start) + 1) + 1
        raise UserError(
            f"{file} line {line}: byte {column} of the line ({body[error.start]:#04x}) is not UTF-8; "
            "save the file as UTF-8"
        ) from None


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _tsv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    # str.splitlines would also split at U+2028, form feeds and the like, which occur inside texts
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line:
            yield number, line.split("\t")


def _csv_records(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    limit = csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file} line {start}: the CSV record that starts here is malformed: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _read_table(file: Path, records: Iterator[tuple[int, list[str]]], text_column: str, label_column: str) -> Rows:
    _, header = next(records, (0, []))
    if not header:
        raise UserError(f"{file} is empty; it needs a header line with {text_column!r} and {label_column!r}")
    require_columns(f"{file} line 1", header, text_column, label_column)
    text_at, label_at = header.index(text_column), header.index(label_column)
    texts, labels, places = [], [], []
    for number, fields in records:
        if len(fields) != len(header):
            raise UserError(
                f"{file} line {number}: {len(fields)} fields where the header has {len(header)} "
                f"({_short(', '.join(header))}): {_short(' | '.join(fields))!r}"
            )
        texts.append(fields[text_at])
        labels.append(fields[label_at])
        places.append(number)
    return Rows(texts, labels, places, str(file))


def _read_jsonl(file: Path, text: str, text_column: str, label_column: str) -> Rows:
    texts, labels, places = [], [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            raise UserError(f"{file} line {number}: not a JSON object on one line: {reason}") from None
        if not isinstance(record, dict):
            raise UserError(f"{file} line {number}: JSON {type(record).__name__} where an object is needed")
        require_columns(f"{file} line {number}", list(record), text_column, label_column)
        texts.append(record[text_column])
        labels.append(record[label_column])
        places.append(number)
    return Rows(texts, labels, places, str(file))


def _read_parquet(file: Path, text_column: str, label_column: str) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file)
        require_columns(str(file), schema.names, text_column, label_column)
        table = pyarrow.parquet.read_table(file, columns=[text_column, label_column])
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {_short(str(error).splitlines()[0], 120)}") from None
    names: tuple[str, ...] = ()
    if b"huggingface" in (schema.metadata or {}):
        from datasets import Features

        names = tuple(getattr(Features.from_arrow_schema(schema)[label_column], "names", ()))
    texts = table.column(text_column).to_pylist()
    labels = table.column(label_column).to_pylist()
    return Rows(texts, labels, list(range(1, len(texts) + 1)), str(file), "row", names)
