"""The values of a GGUF tensor: floats, or blocks of 32 quantised values with a scale (and a minimum) each.

Source of the block layouts: ggml's ggml-common.h (block_q4_0, block_q4_1, block_q8_0).
"""

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
from jaxtyping import Float16, Float32, Int8, UInt8

from llmjax.errors import UserError
from llmjax.gguf.reader import RawTensor

GROUP = 32
_HEADS = {"Q8_0": 1, "Q4_0": 1, "Q4_1": 2}  # float16s before a block's quants
_FLOATS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class Blocks:
    """Quantised values in groups of 32 along the last axis: value = scale * quant (+ minimum), rounded to float32.

    type: "Q8_0" (quants -128 to 127), "Q4_0" (-8 to 7) or "Q4_1" (0 to 15, and a minimum).
    packed: a group's quants as the file has them. Q8_0: 32 signed bytes. Else 16 bytes, whose low halves are the first
        16 quants and whose high halves are the others; Q4_0 stores quant + 8.
    scales, minima: one a group; `minima` of Q4_1 only.
    """

    type: str
    packed: UInt8[np.ndarray, "*rows groups bytes"]
    scales: Float16[np.ndarray, "*rows groups"]
    minima: Float16[np.ndarray, "*rows groups"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values: (*rows, width)."""
        return (*self.scales.shape[:-1], self.scales.shape[-1] * GROUP)

    @property
    def quants(self) -> Int8[np.ndarray, "*rows width"]:
        """The quants, one a byte."""
        if self.type == "Q8_0":
            return np.ascontiguousarray(self.packed).view(np.int8).reshape(self.shape)
        halves = np.concatenate([self.packed & 15, self.packed >> 4], axis=-1).view(np.int8).reshape(self.shape)
        return halves - np.int8(8) if self.type == "Q4_0" else halves

    def dequantize(self) -> Float32[np.ndarray, "*rows width"]:
        """Returns the values, bit for bit those of the package gguf and of ggml's reference code."""
        grouped = self.quants.reshape(*self.scales.shape, GROUP).astype(np.float32)
        grouped *= self.scales[..., None].astype(np.float32)
        if self.minima is not None:
            grouped += self.minima[..., None].astype(np.float32)
        return grouped.reshape(self.shape)

    def take(self, rows: np.ndarray) -> "Blocks":
        """Returns the blocks with the first axis reordered by `rows`."""
        minima = None if self.minima is None else self.minima[rows]
        return replace(self, packed=self.packed[rows], scales=self.scales[rows], minima=minima)


def decode(tensor: RawTensor) -> np.ndarray | Blocks:
    """Returns the values of a tensor: a float array (F32, F16, BF16), blocks (Q8_0, Q4_0, Q4_1), else float32.

    Float arrays and the quants of blocks are views of the mapped file. Other types go through the dequantisation of the
    package gguf. Raises UserError, naming the tensor, for a type that it cannot dequantise.
    """
    if tensor.type in _FLOATS:
        return tensor.data.view(_FLOATS[tensor.type])
    if tensor.type in _HEADS:
        heads = _HEADS[tensor.type]
        width = 2 * heads + (GROUP if tensor.type == "Q8_0" else GROUP // 2)
        blocks: UInt8[np.ndarray, "*rows groups bytes"] = tensor.data.reshape(*tensor.shape[:-1], -1, width)
        floats = np.ascontiguousarray(blocks[..., : 2 * heads]).view("<f2")
        minima = floats[..., 1] if heads == 2 else None
        return Blocks(tensor.type, blocks[..., 2 * heads :], floats[..., 0], minima)
    from gguf import GGMLQuantizationType, dequantize

    try:
        return dequantize(tensor.data, GGMLQuantizationType[tensor.type]).astype(np.float32).reshape(tensor.shape)
    except NotImplementedError:
        raise UserError(f"tensor {tensor.name!r} is of type {tensor.type}, which cannot be dequantised here.") from None
