"""Where things are in HLO text: regular expressions, extents of values, and errors with a place."""

from __future__ import annotations

import re
from typing import NoReturn

from llmjax.errors import UserError

# Possessive quantifiers throughout (Python 3.11): on damaged text a pattern fails at once instead of backtracking.
NAME = r"[A-Za-z_][\w.\-]*+"
STRING = r'"(?:[^"\\]++|\\.)*+"'
COMMENT = r"/\*(?:[^*]++|\*(?!/))*+\*/"
SPACE = rf"(?:[ \t\r\n]++|{COMMENT}|//[^\r\n]*+)*+"


def _braces(depth: int) -> str:
    inner = f"|{_braces(depth - 1)}" if depth else ""
    return rf'\{{(?:[^{{}}"/]++|{STRING}|{COMMENT}|/{inner})*+\}}'


def pattern(text: str) -> re.Pattern[str]:
    """Compiles a pattern in which `.` is any character and letters and digits are ASCII."""
    return re.compile(text, re.ASCII | re.DOTALL)


SPACE_RE = pattern(SPACE)
STRING_RE = pattern(STRING)
BRACES_RE = pattern(_braces(2))
_COMMENT_RE = pattern(rf"({STRING})|{COMMENT}")
_NESTING_RE = pattern(rf'[^{{}}()\[\]"/]++|{STRING}|{COMMENT}|/|[{{}}()\[\]]')
_ESCAPE_RE = pattern(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"}": "{", ")": "(", "]": "["}


_LONGEST = 300  # characters of what was expected, which may quote the text
ANONYMOUS = "HLO text"  # the source of a text that came from no file


class HloParseError(UserError):
    """Text that is not HLO: `line` and `column` count from 1, `found` is the text there, `expected` what should be."""

    def __init__(self, source: str, line: int, column: int, found: str, expected: str):
        expected = expected if len(expected) <= _LONGEST else f"{expected[:_LONGEST]}..."
        super().__init__(f"{source}, line {line}, column {column}: expected {expected}, found {found}")
        self.line = line
        self.column = column
        self.found = found
        self.expected = expected


def fail(text: str, pos: int, expected: str, source: str = ANONYMOUS) -> NoReturn:
    """Raises HloParseError for the place `pos`."""
    line = text.count("\n", 0, pos) + 1
    column = pos - (text.rfind("\n", 0, pos) + 1) + 1
    end = text.find("\n", pos)
    rest = text[pos : min(end if end >= 0 else len(text), pos + 40)].rstrip("\r")
    found = repr(rest) if rest else ("the end of the line" if pos < len(text) else "the end of the text")
    raise HloParseError(source, line, column, found, expected)


def skip_space(text: str, pos: int) -> int:
    """The first place from `pos` on that is neither white space nor comment."""
    m = SPACE_RE.match(text, pos)
    return m.end() if m else pos


def balanced_end(text: str, pos: int) -> int:
    """The place after the bracket that closes the one at `pos`, or -1; strings may hold brackets of their own."""
    m = BRACES_RE.match(text, pos)
    if m:
        return m.end()
    stack: list[str] = []
    while m := _NESTING_RE.match(text, pos):
        token = m[0]
        pos = m.end()
        if token in ("{", "(", "["):
            stack.append(token)
        elif token in _CLOSING:
            if not stack or stack.pop() != _CLOSING[token]:
                return -1
            if not stack:
                return pos
    return -1


def without_comments(text: str) -> str:
    """The text less its `/*index=5*/` comments."""
    return _COMMENT_RE.sub(lambda m: m[1] or "", text) if "/*" in text else text


def unquote(text: str) -> str:
    """The value of a quoted string with C escapes."""
    inner = text[1:-1]
    return _ESCAPE_RE.sub(_unescape, inner) if "\\" in inner else inner


def _unescape(m: re.Match[str]) -> str:
    code = m[1]
    if code[0] in "01234567":
        return chr(int(code, 8))
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    return _ESCAPES.get(code, code)


def split_list(text: str) -> list[str]:
    """Items of a comma-separated list, stripped; commas inside brackets or strings do not split.

    Raises ValueError for brackets that do not match and for an empty item.
    """
    items: list[str] = []
    depth = start = 0
    for m in re.finditer(rf"{STRING}|[{{}}()\[\],]", text):
        token = m[0]
        if token in "{([":
            depth += 1
        elif token in "})]":
            depth -= 1
        elif token == "," and depth == 0:
            items.append(text[start : m.start()].strip())
            start = m.end()
    if depth:
        raise ValueError("matching brackets")
    last = text[start:].strip()
    if items or last:
        items.append(last)
    if any(not item for item in items):
        raise ValueError("a value between commas")
    return items
