"""Shapes: text and back, sizes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.hlo.shape import DTYPE_BITS, UNBOUNDED, Layout, Shape
from llmjax.hlo.shape_text import ShapeReader, parse_array

ARRAY_DTYPES = sorted(set(DTYPE_BITS) - {"token", "opaque"})

# A loaded machine may stop for longer than hypothesis allows an example.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(text):
    shape, end = ShapeReader(text).read(0)
    assert end == len(text)
    return shape


@st.composite
def layouts(draw, rank):
    order = tuple(draw(st.permutations(range(rank))))
    tile = st.lists(st.one_of(st.none(), st.integers(1, 999)), min_size=1, max_size=3).map(tuple)
    tiles = tuple(draw(st.lists(tile, max_size=3)))
    extra = draw(
        st.sampled_from([(), (("L", "8"),), (("#", "u32"), ("*", "u16")), (("SC", "1:2,3"),), (("M", "1024"),)])
    )
    return Layout(order, tiles, draw(st.integers(0, 9)), draw(st.sampled_from([0, 1, 4])), extra)


@st.composite
def arrays(draw):
    dims = tuple(draw(st.lists(st.integers(0, 1500), max_size=5)))
    dynamic = tuple(draw(st.booleans()) for _ in dims)
    if draw(st.booleans()) and dims:
        dims, dynamic = (UNBOUNDED, *dims[1:]), (True, *dynamic[1:])
    layout = draw(st.none() | layouts(len(dims)))
    if not dims and layout is not None and str(layout) == "{}":
        layout = None
    return Shape(draw(st.sampled_from(ARRAY_DTYPES)), dims, dynamic if any(dynamic) else (), layout)


def tuples(children):
    return st.lists(children, max_size=4).map(lambda s: Shape("tuple", tuple_shapes=tuple(s)))


shapes = st.recursive(
    arrays() | arrays().map(lambda s: Shape("buffer", tuple_shapes=(s,))) | st.just(Shape("token")),
    tuples,
    max_leaves=12,
)


@settings(CALM)
@given(shapes)
def test_text_round_trip(shape):
    assert read(str(shape)) == shape


@settings(CALM)
@given(shapes)
def test_comments_and_space_change_nothing(shape):
    text = str(shape).replace(", ", " ,\n /*index=5*/ ")
    assert read(text) == shape


@settings(CALM)
@given(shapes)
def test_leaves_carry_all_elements_and_bytes(shape):
    assert sum(s.elements for s in shape.leaves) == shape.elements
    assert sum(s.bytes for s in shape.leaves) == shape.bytes
    assert all(not s.is_tuple for s in shape.leaves)


@pytest.mark.parametrize(
    ("text", "elements", "size"),
    [
        ("f32[2,3]{1,0}", 6, 24),
        ("pred[7]", 7, 7),
        ("bf16[]", 1, 2),
        ("f32[0,5]", 0, 0),
        ("c64[3]", 3, 24),
        ("c128[3]", 3, 48),
        ("s4[5]{0:E(4)}", 5, 3),  # packed, rounded up
        ("s4[5]{0}", 5, 5),  # a byte each where the layout does not pack
        ("u2[8]{0:E(2)}", 8, 2),
        ("f4e2m1fn[8]{0:E(4)}", 8, 4),
        ("f8e4m3fn[10]", 10, 10),
        ("f8e8m0fnu[10]", 10, 10),
        ("token[]", 0, 0),
        ("opaque[]", 0, 0),
        ("f32[<=8,2]", 16, 64),
        ("(f32[2], (s32[], token[]), b(u8[3]))", 2 + 1 + 3, 8 + 4 + 3),
        ("()", 0, 0),
    ],
)
def test_sizes(text, elements, size):
    assert read(text).elements == elements
    assert read(text).bytes == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[5,100]{1,0:T(8,128)}", 8 * 128 * 4),
        ("bf16[5,100]{1,0:T(8,128)(2,1)}", 8 * 128 * 2),
        ("f32[5,100]{0,1:T(8,128)}", 104 * 128 * 4),  # the minor dimension is the first
        ("f32[100]{0:T(256)}", 1024),
        ("f32[]{:T(128)}", 512),
        ("f32[3,5,100]{2,1,0:T(8,128)}", 3 * 8 * 128 * 4),
        ("f32[5,100]{1,0}", 2000),
    ],
)
def test_padded_bytes(text, size):
    assert read(text).padded_bytes == size


def test_layout_fields():
    shape = read("bf16[<=8,?,4]{2,0,1:D(D,C+,S~)T(8,128)(2,1)L(4)E(16)S(1)P((s32[2]{0}))}")
    assert shape.dims == (8, UNBOUNDED, 4)
    assert shape.dynamic == (True, True, False)
    assert shape.is_dynamic
    assert shape.layout.minor_to_major == (2, 0, 1)
    assert shape.layout.tiles == ((8, 128), (2, 1))
    assert shape.layout.element_bits == 16
    assert shape.memory_space == 1
    assert dict(shape.layout.extra) == {"D": "D,C+,S~", "L": "4", "P": "(s32[2]{0})"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g32[2]", "element type"),
        ("f32[2,]", "sizes of dimensions"),
        ("f32[<2]", "sizes of dimensions"),
        ("f32[2]{1}", "a layout that orders 1 dimensions"),
        ("f32[2,2]{0,0}", "a layout that orders 2 dimensions"),
        ("f32[2]{0:Q}", "layout properties"),
        ("f32[2]{0:T(a)}", "tile"),
        ("f32[2]{0:S(x)}", "a number in S"),
        ("f32[99999999999999999999]", "sizes of dimensions"),
        ("f32[4294967296,4294967296]", "an array of fewer than"),
    ],
)
def test_what_is_no_shape(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse_array(text)


@pytest.mark.parametrize("text", ["(f32[2]", "(f32[2],)", "(f32[2] s32[])", "((f32[2])", "b(tuple)", "(" * 5000])
def test_what_is_no_tuple(text):
    with pytest.raises(ValueError, match=r"shape|buffer|nested|','"):
        ShapeReader(text).read(0)


def test_no_shape_at_all():
    assert ShapeReader("add(x)").read(0) is None
