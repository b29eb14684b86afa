"""What a file or a text holds before it is parsed: encodings, logs, several modules, and what is not HLO at all."""

from __future__ import annotations

import gzip
import io
import zlib
from itertools import pairwise
from pathlib import Path

from llmjax.errors import UserError
from llmjax.hlo.lexer import ANONYMOUS, HloParseError, pattern

LARGEST = 1 << 30  # bytes of text; the largest modules known have a tenth of it
DUMP = "XLA_FLAGS='--xla_dump_to=FOLDER --xla_dump_hlo_as_text'"
_COMPILE = "take the text after compilation, jax.jit(f).lower(*args).compile().as_text()"
_ANOTHER = f"take the file of a dump that ends in after_optimizations.txt; {DUMP} makes one"

_MAGIC = (
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"ML\xefR", f"MLIR bytecode, as StableHLO is exported: {_COMPILE}"),
    (b"\x7fELF", f"machine code: {_ANOTHER}"),
)
# (what a text that begins so is, and what to do); the first that is found within its first lines.
_KINDS = tuple(
    (pattern(expression), kind, remedy)
    for expression, kind, remedy in (
        (r"\s*\{\s*(?:lambda|\x1b\[)", "a jaxpr", _COMPILE),
        (r'.{0,4000}?"schema": "llmjax\.', "a report of llmjax", "configs/diff.py compares such files; give the HLO"),
        (r"\s*(?:#[\w.]+ = .{0,2000}?)?(?:module\b[^{\n]{0,4000}\{|func\.func\b|tt\.func\b)", "MLIR, as StableHLO is",
         _COMPILE),
        (r'.{0,4000}?(?:= (?=\w+\.\w+ )|"(?=\w+\.\w+"\())(?:stablehlo|mhlo|chlo|vhlo)\.', "StableHLO", _COMPILE),
        (r"\s*(?:hlo_module|hlo|computations|hlo_modules)\s*:?\s*\{", "an HloProto in text form", _ANOTHER),
        (r'\s*name:\s*"[^"\n]*"', "a proto in text form", _ANOTHER),
        (r"\s*(?:; ModuleID|source_filename =|target triple)", "LLVM IR", _ANOTHER),
        (r"(?:\s*//[^\n]*\n)*\s*\.version\b", "PTX, an NVIDIA GPU's assembly", _ANOTHER),
        (r"\s*BufferAssignment:", "a buffer assignment", _ANOTHER),
        (r"\s*(?:import|from) \w+|\s*(?:@[\w.]+\s+)?def \w+\(", "Python",
         "give its function to llmjax.analyze(f, *args)"),
        (r"\s*<[!?a-zA-Z]", "HTML or XML", _ANOTHER),
        (r'\s*[\[{]\s*(?:"|\[|\{|\})', "JSON", _ANOTHER),
    )
)  # fmt: skip
_HEAD_RE = pattern(r"(?:^|\n)HloModule[ \t]++([^\s,]++)")
# Of Abseil's and of TensorFlow's logs; the file and line tell the lines of one message from others.
_LOG_RE = pattern(
    r"(?:[IWEFD]\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWEF]) ([\w./+\-]+:\d+)\] ?"
)


class NotHloError(HloParseError):
    """What is not the text of one module, named for what it is, with what to do; `error` is where parsing ended."""

    def __init__(self, source: str, message: str, error: HloParseError):
        UserError.__init__(self, f"{'the text' if source == ANONYMOUS else source} {message}.")
        self.line, self.column, self.found, self.expected = error.line, error.column, error.found, error.expected


def decode(data: bytes, source: str) -> str:
    """The text of a file: UTF-8 or, with a byte order mark, UTF-16; unpacked where gzip packed it.

    Raises:
        UserError: it is empty, damaged, too large or binary; the message says what it is.
    """
    data = unpacked(data, source)
    for magic, what in _MAGIC:
        if data.startswith(magic):
            raise UserError(f"{source} is {what}.")
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{source} is binary, perhaps an HloProto (.pb): dump text, with {DUMP}.")
    if not text.strip():
        raise UserError(f"{source} is empty: expected HLO text.")
    return text


def read_bytes(path: Path) -> bytes:
    """Reads a file, or raises UserError: it is not there, or cannot be read."""
    try:
        with path.expanduser().open("rb") as opened:
            return opened.read(LARGEST + 1)
    except IsADirectoryError as error:
        raise UserError(f"{str(path)!r} is a folder; name one file of HLO text in it.") from error
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def unpacked(data: bytes, source: str) -> bytes:
    """The bytes of a file, unpacked where gzip packed them. Raises UserError: they are damaged, or too many."""
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(LARGEST + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{source} is damaged gzip: {error}.") from error
    if len(data) > LARGEST:
        raise UserError(f"{source} has more than {LARGEST:,} bytes: no module's text is so large.")
    return data


def plain_text(text: str) -> str:
    """The text without a byte order mark and, where a log printed it, without the log's prefixes and other messages."""
    text = text.removeprefix("\ufeff")
    if "] HloModule" not in text:
        return text
    lines: list[str] = []
    place = ""
    for line in text.split("\n"):
        m = _LOG_RE.match(line)
        rest = line[m.end() :] if m else line
        if m and rest.startswith("HloModule"):
            place = m[1]
        ours = bool(place) and (not m or m[1] == place)
        lines.append(rest if ours else "")  # an empty line keeps the numbers of the lines
    return "\n".join(lines) if place else text


def split_modules(text: str) -> tuple[str, ...]:
    """The texts of the modules in a text, each from its `HloModule` to its last brace; the text where there is none."""
    text = plain_text(text)
    starts = [m.start() for m in _HEAD_RE.finditer(text)]
    return tuple(_without_tail(text[start:end]) for start, end in pairwise([*starts, len(text)])) or (text,)


def _without_tail(text: str) -> str:
    """A module without what a log says after it; what is cut off inside a computation stays."""
    brace = text.rfind("\n}")
    end = text.find("\n", brace + 1) if brace >= 0 else -1
    tail = text[end:] if end >= 0 else ""
    cut = any(line.endswith("{") for line in tail.splitlines())
    return (text if cut else text.removesuffix(tail)).strip("\n") + "\n"


def explain(error: HloParseError, text: str, source: str) -> HloParseError:
    """The error, or one that says more: what the text is in place of HLO, that it holds several modules, or is cut."""
    for expression, kind, remedy in _KINDS:
        if expression.match(text):
            return NotHloError(source, f"is {kind}, not HLO text: {remedy}", error)
    heads = list(_HEAD_RE.finditer(text))
    if len(heads) > 1:
        names = ", ".join(m[1] for m in heads[:5]) + (f" and {len(heads) - 5} more" if len(heads) > 5 else "")
        each = "configs/cost.py counts each of them; in Python take one of llmjax.hlo.split_modules(text)"
        return NotHloError(source, f"holds {len(heads)} modules ({names}): {each}", error)
    if heads and text[: heads[0].start()].strip() and error.line <= text.count("\n", 0, heads[0].start()) + 1:
        line = text.count("\n", 0, heads[0].end()) + 1
        return NotHloError(
            source, f"has other text before the module, which begins in line {line}: take that away", error
        )
    if error.line > text.rstrip().count("\n") and text.count("{") > text.count("}"):
        cut = f"{error.found} (the text is cut off there)"
        return HloParseError(source, error.line, error.column, cut, error.expected)
    return error
