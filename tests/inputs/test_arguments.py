"""Arguments in words."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.errors import UserError
from llmjax.inputs.arguments import read_arguments


def shapes(words):
    return [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(read_arguments(words))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("f32[8,128]", [((8, 128), "float32")]),
        ("f32[8, 128], i32[8],", [((8, 128), "float32"), ((8,), "int32")]),
        ("bf16[], pred[0]", [((), "bfloat16"), ((0,), "bool")]),
        ("{'w': s8[4,4], 'b': [float32[4], u8[2]]}, (f8e4m3fn[3],)",
         [((4,), "float32"), ((2,), "uint8"), ((4, 4), "int8"), ((3,), "float8_e4m3fn")]),
    ],
)  # fmt: skip
def test_arrays_in_trees(words, expected):
    assert shapes(words) == expected


def test_other_values_stand_for_themselves():
    assert read_arguments("3, 'gelu', True, None, -1.5") == (3, "gelu", True, None, -1.5)
    assert read_arguments("  ") == ()


def test_keys_of_random_numbers():
    (one, two) = read_arguments("key[], key[2]")
    assert one.shape == () and two.shape == (2,) and jnp.issubdtype(one.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("f32[8", "is not understood"),
        ("g32[8]", "'g32' is no dtype"),
        ("float3[8]", "Did you mean 'float32'?"),
        ("f32[-1]", "a shape is whole numbers"),
        ("f32[n]", "a shape is whole numbers"),
        ("f32", "f32[] is a scalar"),
        ("x + 1", "'x + 1' is no argument"),
        ("f64[2]", "JAX_ENABLE_X64=1"),
        ("{**{}}", "is no argument"),
    ],
)
def test_what_is_not_understood_is_named(words, says):
    with pytest.raises(UserError, match=r"--args: ") as caught:
        read_arguments(words)
    assert says in str(caught.value)


@given(st.text(max_size=30))
def test_any_words_are_read_or_refused(words):
    with contextlib.suppress(UserError):
        read_arguments(words)


DTYPES = st.sampled_from(["f32", "bf16", "s8"])


@given(st.lists(st.tuples(DTYPES, st.lists(st.integers(0, 99), max_size=4)), max_size=4))
def test_what_is_said_is_read(arrays):
    words = ", ".join(f"{dtype}[{','.join(map(str, shape))}]" for dtype, shape in arrays)
    assert [leaf.shape for leaf in read_arguments(words)] == [tuple(shape) for _, shape in arrays]
