"""The source tables at the head of a module: FileNames, FunctionNames, FileLocations, StackFrames."""

from __future__ import annotations

import re

from llmjax.hlo.attributes import SourceTables
from llmjax.hlo.lexer import SPACE, STRING, fail, pattern, unquote

TABLE_RE = pattern(r"(FileNames|FunctionNames|FileLocations|StackFrames)(?![\w.\-])")
_NAME_ROW_RE = pattern(rf"{SPACE}(\d{{1,9}})\s++({STRING})")
_FIELDS_ROW_RE = pattern(rf"{SPACE}(\d{{1,9}})\s++\{{([^{{}}]*+)\}}")
_FIELD_RE = pattern(r"\s*+(\w++)=(\d{1,9})\s*+,?")
_ROW_RE = pattern(rf"{SPACE}\d")
_LOCATION = ("file_name_id", "function_name_id", "line", "end_line", "column", "end_column")
_FRAME = ("file_location_id", "parent_frame_id")


def read_table(text: str, head: re.Match[str], tables: SourceTables, source: str) -> int:
    """Adds the rows of the table whose title `head` matched to `tables`; returns the place after them."""
    title, pos = head[1], head.end()
    if title in ("FileNames", "FunctionNames"):
        names = tables.files if title == "FileNames" else tables.functions
        while m := _NAME_ROW_RE.match(text, pos):
            names[int(m[1])] = unquote(m[2])
            pos = m.end()
        expected = 'a row such as 1 "name"'
    else:
        while m := _FIELDS_ROW_RE.match(text, pos):
            fields = _fields(text, m, source)
            if title == "FileLocations":
                file, function, *rest = (fields.get(key, 0) for key in _LOCATION)
                line, end_line, column, end_column = rest
                tables.locations[int(m[1])] = (file, function, line, end_line, column, end_column)
            else:
                location, parent = (fields.get(key, 0) for key in _FRAME)
                tables.frames[int(m[1])] = (location, parent)
            pos = m.end()
        if title == "StackFrames" and tables.frames.get(1, (0, 0))[1] == 1:
            # XLA of 2025 writes every parent one too high: the first frame, which is always an outermost one, would be
            # its own parent.
            tables.frames.update({frame: (place, parent - 1) for frame, (place, parent) in tables.frames.items()})
        expected = "a row such as 1 {file_location_id=1}"
    if m := _ROW_RE.match(text, pos):
        fail(text, m.end() - 1, expected, source)
    return pos


def _fields(text: str, row: re.Match[str], source: str) -> dict[str, int]:
    found: dict[str, int] = {}
    pos = row.start(2)
    while pos < row.end(2):
        m = _FIELD_RE.match(text, pos, row.end(2))
        if not m:
            fail(text, pos, "a field such as line=1", source)
        found[m[1]] = int(m[2])
        pos = m.end()
    return found
