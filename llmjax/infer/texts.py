"""Texts in, predictions out, as streams: files of any length are read and written a line at a time."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from llmjax.data.files import require_columns
from llmjax.errors import UserError, did_you_mean
from llmjax.files import appearing
from llmjax.infer.classify import Prediction

TABLES = (".tsv", ".csv", ".jsonl")
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def check_file(path: str) -> Path:
    """Returns `path` as a file that exists, or raises `UserError` with the nearest name."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"input {path!r} is a folder; name a file in it.")
    if not file.exists():
        siblings = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        raise UserError(f"input {path!r}: no such file.{did_you_mean(file.name, siblings)}")
    return file


def read_file(file: Path, column: str, advance: Callable[[int], object]) -> Iterator[str]:
    """Yields the texts of a file: the column `column` of a .tsv, .csv or .jsonl, else its lines.

    TSV: tab-separated, one header line, no quoting. CSV: RFC 4180, one header line. JSONL: one object a line. Blank
    lines of these are passed over; in plain text a blank line is an empty text. `advance` is told the bytes read.

    Raises:
        UserError: a line that is not UTF-8 or not of the format, by its number, or a column that is not there.
    """
    try:
        with file.open("rb") as stream:
            lines = read_lines(stream, str(file), advance)
            suffix = file.suffix.lower()
            if suffix == ".jsonl":
                yield from _jsonl(lines, str(file), column)
            elif suffix in TABLES:
                yield from _table(lines, str(file), column, suffix)
            else:
                yield from lines
    except OSError as error:
        raise UserError(f"input {str(file)!r} cannot be read: {error.strerror}.") from error


def read_lines(stream: BinaryIO, origin: str, advance: Callable[[int], object]) -> Iterator[str]:
    """Yields a stream's lines without their ends; lines end in LF or CRLF and nothing else."""
    for number, line in enumerate(stream, start=1):
        advance(len(line))
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{origin} line {number}: byte {error.start + 1} of the line ({error.object[error.start]:#04x}) is not"
                " UTF-8; save the file as UTF-8."
            ) from None
        yield text.removesuffix("\n").removesuffix("\r")


def _jsonl(lines: Iterator[str], origin: str, column: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{origin} line {number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{where}: not JSON: {getattr(error, 'msg', 'nested too deeply')}.") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}: JSON {type(record).__name__} where an object is needed.")
        if column not in record:
            require_columns(where, list(record), column)
        text = record[column]
        if not isinstance(text, str):
            raise UserError(f"{where}: {column!r} is {json.dumps(text)[:40]}, not a string.")
        if _LONE_SURROGATE.search(line):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UserError(f"{where}: {column!r} holds half of a surrogate pair, which is no character.") from None
        yield text


def _table(lines: Iterator[str], origin: str, column: str, suffix: str) -> Iterator[str]:
    records = _tsv(lines) if suffix == ".tsv" else _csv(lines, origin)
    _, header = next(records, (0, []))
    require_columns(f"{origin} line 1", header, column)
    at = header.index(column)
    for number, fields in records:
        if len(fields) != len(header):
            raise UserError(f"{origin} line {number}: {len(fields)} fields where the header has {len(header)}.")
        yield fields[at]


def _tsv(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line:
            yield number, line.split("\t")


def _csv(lines: Iterator[str], origin: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    # The line ends are put back: they belong to quoted fields of several lines.
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{origin} line {start}: the CSV record that starts here is malformed: {error}.") from None


def to_json(prediction: Prediction) -> str:
    """Returns {"text", "label", "score", "scores"} on one line; probabilities to 6 digits.

    A text none of whose tokens the model was trained on has "known": false too.
    """
    scores = {name: round(p, 6) for name, p in prediction.scores.items()}
    record = {"text": prediction.text, "label": prediction.label, "score": round(prediction.score, 6), "scores": scores}
    if not prediction.known:
        record["known"] = False
    return json.dumps(record, ensure_ascii=False)


def write_lines(lines: Iterable[str], path: str | Path) -> None:
    """Writes a stream of lines to `path`; a file appears under its name when it is whole, or not at all."""
    with appearing(path) as stream:
        for line in lines:
            stream.write(line.encode() + b"\n")
