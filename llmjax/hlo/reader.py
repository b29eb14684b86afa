"""Reads shapes and values of attributes at places of an HLO text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from llmjax.hlo.attribute_text import CONVERTERS, to_any, to_name
from llmjax.hlo.ir import CALL_ATTRIBUTES, ProgramShape
from llmjax.hlo.lexer import SPACE, STRING, balanced_end, fail, pattern, skip_space
from llmjax.hlo.shape import Shape
from llmjax.hlo.shape_text import ShapeReader

ATTRIBUTE_RE = pattern(rf"{SPACE},{SPACE}([A-Za-z_][\w\-]*+){SPACE}={SPACE}")
_COMMA_RE = pattern(rf"{SPACE},{SPACE}")
_VALUE_RE = pattern(
    rf"{STRING}"
    r"|\[[\d,\s]++\]\s*+<=\s*+\[[\d,\s]++\](?:\s*+T\s*+\([\d,\s]++\))?"
    r"|[^\s,{}()\[\]\"=]++(?:\[[^\[\]]*+\])?(?:\{[^{}]*+\})?"
)
_DEVICE_IDS_RE = pattern(rf",{SPACE}device_ids=\(\[[\d,\s]++\](?:T\([\d,\s]++\))?+\)")
_ARROW_RE = pattern(rf"{SPACE}->{SPACE}")
_PADDING_STARTS = tuple("-0123456789")


class Reader:
    """A text and where it came from; methods take a place, and return what is there and the place after it."""

    def __init__(self, text: str, source: str):
        self.text = text
        self.source = source
        self.shapes = ShapeReader(text)
        self.line = 1
        self.line_pos = 0

    def fail(self, pos: int, expected: str) -> NoReturn:
        fail(self.text, pos, expected, self.source)

    def line_at(self, pos: int) -> int:
        """The number of the line; places are asked for in ascending order."""
        if pos >= self.line_pos:
            self.line += self.text.count("\n", self.line_pos, pos)
            self.line_pos = pos
        return self.line

    def entry_layout(self, pos: int) -> tuple[ProgramShape, int]:
        text = self.text
        if not text.startswith("{", pos):
            self.fail(pos, "a signature in braces")
        start = skip_space(text, pos + 1)
        if not text.startswith("(", start):
            self.fail(start, "shapes of parameters in parentheses")
        parameters, pos = self.shape(start)
        result, pos = self.result_shape(pos)
        pos = skip_space(text, pos)
        if not text.startswith("}", pos):
            self.fail(pos, "'}' after the entry's layout")
        return ProgramShape(tuple(("", s) for s in parameters.tuple_shapes), result), pos + 1

    def result_shape(self, pos: int) -> tuple[Shape, int]:
        m = _ARROW_RE.match(self.text, pos)
        if not m:
            self.fail(pos, "'->'")
        return self.shape(m.end())

    def shape(self, pos: int) -> tuple[Shape, int]:
        try:
            found = self.shapes.read(pos)
        except ValueError as error:
            self.fail(pos, str(error))
        if found is None:
            self.fail(pos, "a shape such as f32[2,3]{1,0}")
        return found

    def value_text(self, pos: int, key: str = "") -> tuple[str, int]:
        """The whole text of one value."""
        text = self.text
        if key == "literal":
            start = pos
            if not text.startswith("(", pos):
                _, pos = self.shape(pos)
                pos = skip_space(text, pos)
            end = balanced_end(text, pos) if text.startswith(("{", "("), pos) else pos
            m = _VALUE_RE.match(text, pos)
            pos = end if end > pos else m.end() if m else -1
            if pos < 0:
                self.fail(start, "a literal")
            return text[start:pos], pos
        if text.startswith(("{", "("), pos):
            end = balanced_end(text, pos)
            if end < 0:
                self.fail(pos, "matching brackets")
            return text[pos:end], end
        if key == "padding" and not text.startswith(_PADDING_STARTS, pos):  # of a scalar: nothing stands there
            return "", pos
        m = _VALUE_RE.match(text, pos)
        if m and key == "replica_groups" and text.startswith(("mesh", "@mesh"), pos):
            ids = _DEVICE_IDS_RE.match(text, m.end())
            # `mesh['x'=4] {'x'}`: the axes stand apart, and their order of devices before them.
            axes = skip_space(text, ids.end() if ids else m.end())
            end = balanced_end(text, axes) if text.startswith("{", axes) else m.end()
            return text[pos:end], end
        if m:
            return m[0], m.end()
        self.fail(pos, "a value" + (f" of {key}" if key else ""))

    def convert(self, key: str, value: str, pos: int, how: Callable[[str], Any] | None = None) -> Any:
        if how is None:
            how = to_name if key in CALL_ATTRIBUTES else CONVERTERS.get(key, to_any)
        try:
            return how(value)
        except ValueError as error:
            self.fail(pos, str(error))

    def no_comma(self, pos: int) -> None:
        """A comma after the last attribute is an attribute gone wrong."""
        m = _COMMA_RE.match(self.text, pos)
        if m:
            self.fail(m.end(), "an attribute 'name=value'")

    def plain_attributes(self, pos: int) -> tuple[dict[str, Any], int]:
        """`, name=value` of a module or a computation, as many as there are."""
        found: dict[str, Any] = {}
        while m := ATTRIBUTE_RE.match(self.text, pos):
            key, start = m[1], m.end()
            if key in found:
                self.fail(m.start(1), f"{key!r} only once")
            if key == "entry_computation_layout":
                found[key], pos = self.entry_layout(start)
            else:
                value, pos = self.value_text(start)
                found[key] = self.convert(key, value, start)
        self.no_comma(pos)
        return found, pos
