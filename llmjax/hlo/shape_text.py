"""Shapes from text."""

from __future__ import annotations

import re

from llmjax.hlo.lexer import COMMENT, SPACE, pattern, skip_space, without_comments
from llmjax.hlo.shape import DTYPE_BITS, UNBOUNDED, Layout, Shape

# An array with its layout, whose brace holds dimension numbers or starts with a colon: that tells it from the brace
# that opens a computation's body. A layout's P(...) may hold a shape with braces of its own.
_DIMS = rf"(?:[\d,<=?\s]++|{COMMENT})*+"
ARRAY = rf"[a-z]\w*+[ \t]*+\[{_DIMS}\](?:[ \t]*+\{{(?:\d[\d,\s]*+)?(?::(?:[^{{}}]++|\{{[^{{}}]*+\}})*+)?\}})?"
_ARRAY_RE = pattern(
    rf"([a-z]\w*+)[ \t]*+\[({_DIMS})\](?:[ \t]*+\{{([\d,\s]*+)(?::((?:[^{{}}]++|\{{[^{{}}]*+\}})*+))?\}})?"
)
_ARRAY_SPAN_RE = pattern(ARRAY)
_DIM_RE = pattern(r"(<=)?(\d{1,18})|\?")
_NOTE_RE = pattern(r"([A-Z]+|#|\*)((?:\((?:[^()]++|\((?:[^()]++|\([^()]*+\))*+\))*+\))+)")
_TILE_RE = pattern(r"\(([\d,*\s]*)\)")
_BETWEEN_RE = pattern(rf"{SPACE}([,)])?{SPACE}")
_BUFFER_RE = pattern(rf"b\({SPACE}({ARRAY}){SPACE}\)")
_DEEPEST = 100
_KEY = 48  # characters of a tuple's text that find it among those seen before


class ShapeReader:
    """Reads shapes at places of one text, each different shape once (a module repeats few shapes many times)."""

    def __init__(self, text: str):
        self._text = text
        self._arrays: dict[str, Shape] = {}
        self._tuples: dict[str, list[tuple[str, Shape]]] = {}

    def read(self, pos: int) -> tuple[Shape, int] | None:
        """The shape at `pos` and the place after it; None where there is no shape.

        Raises ValueError (what was expected) for what starts like a shape and is none.
        """
        text = self._text
        m = _ARRAY_SPAN_RE.match(text, pos)
        if m:
            return self.array(m[0]), m.end()
        if text.startswith("b(", pos):
            return self._buffer(pos)
        if not text.startswith("(", pos):
            return None
        known = self._tuples.setdefault(text[pos : pos + _KEY], [])
        for seen, shape in known:
            if text.startswith(seen, pos):
                return shape, pos + len(seen)
        shape, end = self._tuple(pos)
        known.append((text[pos:end], shape))
        del known[:-8]
        return shape, end

    def _buffer(self, pos: int) -> tuple[Shape, int]:
        m = _BUFFER_RE.match(self._text, pos)
        if not m:
            raise ValueError("a buffer such as b(f32[8])")
        return Shape("buffer", tuple_shapes=(self.array(m[1]),)), m.end()

    def array(self, text: str) -> Shape:
        """The array shape that `text` is; raises ValueError."""
        shape = self._arrays.get(text)
        if shape is None:
            shape = self._arrays[text] = parse_array(text)
        return shape

    def _tuple(self, pos: int) -> tuple[Shape, int]:
        """Reads a tuple without recursion, however deep it nests."""
        text = self._text
        open_tuples: list[list[Shape]] = []
        while True:
            pos = skip_space(text, pos)
            if text.startswith("(", pos):
                if len(open_tuples) == _DEEPEST:
                    raise ValueError(f"tuples nested at most {_DEEPEST} deep")
                open_tuples.append([])
                pos += 1
                continue
            m = _ARRAY_SPAN_RE.match(text, pos)
            if m:
                open_tuples[-1].append(self.array(m[0]))
                pos = m.end()
            elif text.startswith("b(", pos):
                buffer, pos = self._buffer(pos)
                open_tuples[-1].append(buffer)
            elif not (text.startswith(")", pos) and not open_tuples[-1]):
                raise ValueError("a shape")
            while True:
                m = _BETWEEN_RE.match(text, pos)
                mark = m[1] if m else None
                if m is None or mark is None:
                    raise ValueError("',' or ')' in a tuple shape")
                if mark == ",":
                    pos = m.end()
                    break
                pos = m.end(1)
                shape = Shape("tuple", tuple_shapes=tuple(open_tuples.pop()))
                if not open_tuples:
                    return shape, pos
                open_tuples[-1].append(shape)


def parse_array(text: str) -> Shape:
    """The shape that `text` writes, wholly: `bf16[8,<=128]{1,0:T(8,128)(2,1)S(1)}`.

    Raises ValueError (what was expected).
    """
    m = _ARRAY_RE.fullmatch(text)
    if not m:
        raise ValueError("a shape such as f32[2,3]{1,0}")
    dtype, dims_text, order, notes = m.groups()
    dims_text = without_comments(dims_text)
    if dtype not in DTYPE_BITS:
        raise ValueError(f"an element type such as f32 in place of {dtype!r}")
    dims: list[int] = []
    dynamic: list[bool] = []
    for item in dims_text.split(",") if dims_text.strip() else ():
        d = _DIM_RE.fullmatch(item.strip())
        if not d:
            raise ValueError("sizes of dimensions such as 8, <=8 or ?")
        dims.append(int(d[2]) if d[2] else UNBOUNDED)
        dynamic.append(not d[2] or bool(d[1]))
    layout = None
    if order is not None and (order.strip() or notes is not None or not dims):
        layout = _parse_layout(order, notes or "", len(dims))
    shape = Shape(dtype, tuple(dims), tuple(dynamic) if any(dynamic) else (), layout)
    if shape.bytes >> 63:  # XLA's own limit
        raise ValueError("an array of fewer than 2^63 bytes")
    return shape


def _parse_layout(order_text: str, notes: str, rank: int) -> Layout:
    order = tuple(map(int, order_text.split(","))) if order_text.strip() else ()
    if len(order) != rank or set(order) != set(range(rank)):
        raise ValueError(f"a layout that orders {rank} dimensions in place of {{{order_text}}}")
    tiles: tuple[tuple[int | None, ...], ...] = ()
    space = bits = 0
    extra: list[tuple[str, str]] = []
    pos = 0
    notes = without_comments(notes).strip()
    while pos < len(notes):
        m = _NOTE_RE.match(notes, pos)
        if not m:
            raise ValueError(f"layout properties such as T(8,128)S(1) in place of {notes[pos : pos + 40]!r}")
        key, value = m.groups()
        if key == "T":
            tiles = tuple(_tile(t) for t in _TILE_RE.findall(value))
            if "".join(f"({t})" for t in _TILE_RE.findall(value)) != value:
                raise ValueError("tiles such as T(8,128)(2,1)")
        elif key in ("S", "E"):
            if not re.fullmatch(r"\(\d{1,9}\)", value):
                raise ValueError(f"a number in {key}{value}")
            if key == "S":
                space = int(value[1:-1])
            else:
                bits = int(value[1:-1])
        else:
            extra.append((key, value[1:-1]))
        pos = m.end()
    return Layout(order, tiles, space, bits, tuple(extra))


def _tile(text: str) -> tuple[int | None, ...]:
    items = [item.strip() for item in text.split(",")] if text.strip() else []
    if not all(item == "*" or (item.isdigit() and len(item) < 19) for item in items):
        raise ValueError("a tile such as T(8,128)")
    return tuple(None if item == "*" else int(item) for item in items)
