"""Shapes as HLO writes them: `bf16[8,128]{1,0:T(8,128)(2,1)S(1)}`, tuples, tokens, dynamic dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Width of one element. XLA's primitive types, by the names they have in HLO text.
DTYPE_BITS = {
    "pred": 8,
    **{f"{sign}{bits}": bits for sign in "su" for bits in (1, 2, 4, 8, 16, 32, 64)},
    "f4e2m1fn": 4,
    **{
        name: 8
        for name in ("f8e3m4", "f8e4m3", "f8e4m3b11fnuz", "f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz", "f8e8m0fnu")
    },
    "f16": 16,
    "bf16": 16,
    "f32": 32,
    "f64": 64,
    "c64": 64,
    "c128": 128,
    "token": 0,
    "opaque": 0,
}
UNBOUNDED = -1  # the size of a dimension written `?`


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array lies in memory: the braces after its dimensions.

    `minor_to_major` lists dimension numbers, fastest varying first. `tiles` are T(8,128)(2,1), outermost first, None
    for `*`. `memory_space` is S(n): 0 is the chip's main memory; on TPU 1 is on-chip vector memory; on CPU and GPU 5 is
    the host's. `element_bits` is E(n), how many bits an element takes when it is packed, else 0. `extra` holds rarer
    properties (D, L, P, M, SC, ...) as pairs of letters and text.
    """

    minor_to_major: tuple[int, ...] = ()
    tiles: tuple[tuple[int | None, ...], ...] = ()
    memory_space: int = 0
    element_bits: int = 0
    extra: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        text = ",".join(map(str, self.minor_to_major))
        notes = "".join(f"{key}({value})" for key, value in self.extra if key == "D")
        if self.tiles:
            notes += "T" + "".join("(" + ",".join("*" if d is None else str(d) for d in t) + ")" for t in self.tiles)
        notes += "".join(f"{key}({value})" for key, value in self.extra if key in ("L", "#", "*"))
        notes += f"E({self.element_bits})" if self.element_bits else ""
        notes += f"S({self.memory_space})" if self.memory_space else ""
        notes += "".join(f"{key}({value})" for key, value in self.extra if key not in ("D", "L", "#", "*"))
        return "{" + text + (f":{notes}" if notes else "") + "}"


@dataclass(frozen=True, slots=True)
class Shape:
    """The type of a value: an array, a tuple, a token, an opaque handle or a buffer around an array.

    `dtype` is XLA's name ("f32", "s4", "pred", ...), or "tuple", "token", "opaque", "buffer" (`b(f32[4])`).
    `dims` are sizes; of a dynamic dimension (`<=10`) the bound; UNBOUNDED for `?`. `dynamic` has one bool a dimension.
    `tuple_shapes` are the members of a tuple, or the one shape inside a buffer.
    """

    dtype: str
    dims: tuple[int, ...] = ()
    dynamic: tuple[bool, ...] = ()
    layout: Layout | None = None
    tuple_shapes: tuple[Shape, ...] = ()

    @property
    def is_tuple(self) -> bool:
        return self.dtype == "tuple"

    @property
    def is_array(self) -> bool:
        return self.dtype not in ("tuple", "token", "opaque", "buffer")

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def is_dynamic(self) -> bool:
        return any(self.dynamic) or any(s.is_dynamic for s in self.tuple_shapes)

    @property
    def memory_space(self) -> int:
        return self.layout.memory_space if self.layout else 0

    @property
    def elements(self) -> int:
        """Number of elements; a dynamic dimension counts its bound, an unbounded one 1; a tuple sums its members."""
        if self.tuple_shapes or self.is_tuple:
            return sum(s.elements for s in self.tuple_shapes)
        if not self.is_array:
            return 0
        return math.prod(1 if d == UNBOUNDED else d for d in self.dims)

    @property
    def element_bits(self) -> int:
        """Bits one element takes in memory.

        As XLA's ShapeUtil::ByteSizeOf: a 4-bit type is packed only where the layout says E(4), and takes a byte else.
        """
        if self.layout and self.layout.element_bits:
            return self.layout.element_bits
        return -(-DTYPE_BITS.get(self.dtype, 0) // 8) * 8

    @property
    def bytes(self) -> int:
        """Bytes of the elements, without tile padding and without a tuple's table of pointers; 0 for tokens."""
        if self.tuple_shapes or self.is_tuple:
            return sum(s.bytes for s in self.tuple_shapes)
        return -(-self.elements * self.element_bits // 8)

    @property
    def padded_bytes(self) -> int:
        """Bytes in memory with the padding that the layout's tiles ask for (what a TPU really holds and moves)."""
        if self.tuple_shapes or self.is_tuple:
            return sum(s.padded_bytes for s in self.tuple_shapes)
        if not self.layout or not self.layout.tiles or len(self.layout.minor_to_major) != len(self.dims):
            return self.bytes
        physical = [self.dims[i] if self.dims[i] != UNBOUNDED else 1 for i in reversed(self.layout.minor_to_major)]
        for tile in self.layout.tiles:
            physical = _apply_tile(physical, tile)
        return -(-math.prod(physical) * self.element_bits // 8)

    @property
    def leaves(self) -> tuple[Shape, ...]:
        """The arrays, tokens and opaque handles inside, left to right; an array is its own only leaf."""
        if not self.is_tuple and self.dtype != "buffer":
            return (self,)
        found: list[Shape] = []
        stack: list[Shape] = [self]
        while stack:
            shape = stack.pop()
            if shape.is_tuple or shape.dtype == "buffer":
                stack.extend(reversed(shape.tuple_shapes))
            else:
                found.append(shape)
        return tuple(found)

    def __str__(self) -> str:
        if self.is_tuple:
            return "(" + ", ".join(map(str, self.tuple_shapes)) + ")"
        if self.dtype == "buffer":
            return f"b({self.tuple_shapes[0]})"
        dynamic = self.dynamic or (False,) * len(self.dims)
        sizes = (
            "?" if d == UNBOUNDED else f"<={d}" if dyn else str(d) for d, dyn in zip(self.dims, dynamic, strict=True)
        )
        return f"{self.dtype}[{','.join(sizes)}]" + (str(self.layout) if self.layout else "")


def _apply_tile(dims: list[int], tile: tuple[int | None, ...]) -> list[int]:
    """Sizes after one more level of tiling: every tiled dimension becomes (number of tiles, tile)."""
    dims = [1] * (len(tile) - len(dims)) + dims
    outer, inner = dims[: len(dims) - len(tile)], dims[len(dims) - len(tile) :]
    sizes: list[int] = []
    carried = 1
    for size, width in zip(inner, tile, strict=True):
        if width is None:  # `*`: this dimension is combined with the next
            carried *= size
        else:
            sizes.append(size * carried)
            carried = 1
    widths = [w for w in tile if w is not None]
    return outer + [-(-s // w) if w else 0 for s, w in zip(sizes, widths, strict=False)] + widths
