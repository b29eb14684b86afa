import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.errors import UserError
from llmjax.gguf import Blocks
from llmjax.gguf.blocks import decode
from llmjax.gguf.reader import RawTensor

BYTES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}


def blocks(kind: str, seed: int, rows: int, groups: int) -> np.ndarray:
    """Random bytes of blocks, with finite float16s where the scale and the minimum are."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (rows, groups, BYTES[kind]), dtype=np.uint8)
    heads = 2 if kind == "Q4_1" else 1
    floats = (rng.standard_normal((rows, groups, heads)) * 10.0 ** rng.integers(-6, 4)).astype(np.float16)
    raw[..., : 2 * heads] = floats.view(np.uint8)
    return raw.reshape(rows, -1)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(BYTES)), st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 7))
def test_values_are_those_of_the_package_gguf_bit_for_bit(kind, seed, rows, groups):
    raw = blocks(kind, seed, rows, groups)
    found = decode(RawTensor("w", (rows, groups * 32), kind, raw))
    assert isinstance(found, Blocks)
    assert found.shape == (*found.packed.shape[:1], found.quants.shape[1]) == (rows, groups * 32)
    assert found.scales.shape == (rows, groups) and (found.minima is not None) == (kind == "Q4_1")
    low, high = {"Q4_0": (-8, 7), "Q4_1": (0, 15), "Q8_0": (-128, 127)}[kind]
    assert low <= found.quants.min() and found.quants.max() <= high
    np.testing.assert_array_equal(found.dequantize(), gguf.dequantize(raw, Kind[kind]))
    order = np.random.default_rng(seed).permutation(rows)
    np.testing.assert_array_equal(found.take(order).dequantize(), found.dequantize()[order])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_floats_are_kept_as_stored(kind):
    array = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    raw = gguf.quantize(array, Kind[kind])
    found = decode(RawTensor("w", (3, 8), kind, raw.view(np.uint8)))
    assert isinstance(found, np.ndarray) and found.dtype.itemsize == (4 if kind == "F32" else 2)
    np.testing.assert_array_equal(found.astype(np.float32), gguf.dequantize(raw, Kind[kind]))


@pytest.mark.parametrize("kind", ["Q5_0", "Q6_K", "Q4_K"])
def test_other_types_are_dequantised_by_the_package(kind):
    values, width = gguf.GGML_QUANT_SIZES[Kind[kind]]
    raw = np.random.default_rng(0).integers(0, 40, (2, 2 * width), dtype=np.uint8)
    found = decode(RawTensor("w", (2, 2 * values), kind, raw))
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_array_equal(found, gguf.dequantize(raw, Kind[kind]))


def test_a_type_that_cannot_be_dequantised_is_named():
    with pytest.raises(UserError, match=r"tensor 'blk.0.ffn_up.weight' is of type Q8_K"):
        decode(RawTensor("blk.0.ffn_up.weight", (1, 256), "Q8_K", np.zeros((1, 292), np.uint8)))
