"""Folders with weights in 4-bit groups: the format "pack-quantized" of compressed-tensors, which transformers reads.

A linear module M has, in the place of M.weight [E, D],

- M.weight_packed, int32 [E, D / 8]: eight values 0..15 a word, the first in the lowest bits;
- M.weight_scale [E, P], and M.weight_zero_point, int32 [E / 8, P]: zero points 0..15 packed along E in the same way;
  absent where the config says symmetric, and the zero point is 8;
- M.weight_shape, int64 [2]: E and D.

value = (stored - zero) * scale. Source: the package compressed-tensors 0.20, `compressors/pack_quantized`. Shape
letters: E outputs, D inputs, P groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

from llmjax.errors import UserError
from llmjax.kernels.formats import Groups
from llmjax.schema import shown

_PARTS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")


@dataclass(frozen=True)
class PackedTensor:
    """A weight of such a folder, still in the file."""

    words: Int32[np.ndarray, "E W"]
    scales: Float32[np.ndarray, "E P"]
    zeros: Int32[np.ndarray, "Z P"] | None
    shape: tuple[int, ...]

    def groups(self) -> Groups:
        """Reads the weight as products take it."""
        values_ED = _unpacked(self.words, self.shape[1])
        scale_EP = np.asarray(self.scales, np.float32)
        zero_EP = 8 if self.zeros is None else _unpacked(self.zeros.T, self.shape[0]).T.astype(np.float32)
        values_EPC = values_ED.reshape(*scale_EP.shape, -1)
        half = values_EPC.shape[-1] // 2
        packed_EPH = values_EPC[..., :half] | (values_EPC[..., half:] << 4)
        return Groups(*map(jnp.asarray, (packed_EPH, scale_EP, -zero_EP * scale_EP)))

    def array(self) -> Float32[np.ndarray, "E D"]:
        """Reads the weight as float32."""
        return np.asarray(self.groups().dequantised())


def without_quantization(raw: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Returns a config.json's object less a `quantization_config` that is read here.

    Raises:
        UserError: it says something else than 4-bit weights in groups, in this format.
    """
    found = raw.get("quantization_config")
    if found is None:
        return raw
    _check(found, source)
    return {name: value for name, value in raw.items() if name != "quantization_config"}


def _check(found: Any, source: str) -> None:
    wanted = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    wrong = [name for name, value in wanted.items() if not isinstance(found, Mapping) or found.get(name) != value]
    if wrong:
        value = found.get(wrong[0]) if isinstance(found, Mapping) else found
        raise UserError(
            f"{source}: quantization_config.{wrong[0]}={shown(value)} is not supported (only {wanted[wrong[0]]!r}, of"
            " 4-bit groups)."
        )
    groups = found.get("config_groups")
    for name, group in groups.items() if isinstance(groups, Mapping) else [("", None)]:
        weights = group.get("weights") if isinstance(group, Mapping) else None
        weights = weights if isinstance(weights, Mapping) else {}
        said = {at: weights.get(at) for at in ("num_bits", "type", "strategy")}
        by_group = weights.get("actorder") not in ("group", "dynamic")
        size = weights.get("group_size")
        even = isinstance(size, int) and not isinstance(size, bool) and size > 0 and size % 2 == 0
        fits = said == {"num_bits": 4, "type": "int", "strategy": "group"} and by_group and even
        if not fits or (group or {}).get("input_activations") is not None:
            raise UserError(
                f"{source}: quantization_config.config_groups.{name} is not supported: only weights of 4 bits (int) in"
                " groups of an even size, in the order of their inputs, and activations as they are."
            )


def packed_tensors(stored: Mapping[str, Any], folder: Any) -> dict[str, PackedTensor]:
    """Returns the weights that a folder has in parts, by the name that each would have whole.

    Args:
        stored: tensors by name: objects with `array`, a NumPy array.

    Raises:
        UserError: parts are missing, or do not fit one another.
    """
    found = {}
    for name in stored:
        module, _, part = name.rpartition(".")
        if part != "weight_packed":
            continue
        parts = [stored[f"{module}.{part}"].array if f"{module}.{part}" in stored else None for part in _PARTS]
        words, scales, zeros, shape = parts
        if words is None or scales is None or shape is None or shape.shape != (2,):
            raise UserError(f"{folder}: {name} lacks {module}.weight_scale or .weight_shape beside it: copy it again.")
        outputs, inputs = (int(size) for size in shape)
        whole = scales.ndim == 2 and scales.shape[1] > 0 and inputs % (2 * scales.shape[1]) == 0
        fits = whole and words.shape == (outputs, -(-inputs // 8)) and len(scales) == outputs
        if not fits or (zeros is not None and zeros.shape != (-(-outputs // 8), scales.shape[1])):
            raise UserError(f"{folder}: the parts of {module}.weight do not fit one another: copy it again.")
        found[f"{module}.weight"] = PackedTensor(words, scales, zeros, (outputs, inputs))
    return found


def is_part(name: str) -> bool:
    """Whether a tensor's name is that of a part of a packed weight."""
    return name.rpartition(".")[2] in _PARTS


def tensors_of(name: str, weight: Groups) -> dict[str, np.ndarray]:
    """Returns the tensors in which a folder has a weight; `name` ends in ".weight".

    Raises:
        UserError: its minima are no whole steps from zero, as those of GGUF's Q4_1 are not.
    """
    packed_EPH, scale_EP, minimum_EP = map(np.asarray, (weight.packed_EPH, weight.scale_EP, weight.minimum_EP))
    zero_EP = np.round(-minimum_EP / scale_EP)
    if (zero_EP < 0).any() or (zero_EP > 15).any() or not np.allclose(-zero_EP * scale_EP, minimum_EP, rtol=1e-5):
        raise UserError(
            f"{name}: its groups have minima that are no whole number of steps from zero, which the format cannot say:"
            " round, GPTQ or AWQ the float weights first (llmjax.adapt)."
        )
    values_ED = np.concatenate([packed_EPH & 15, packed_EPH >> 4], axis=-1).reshape(len(packed_EPH), -1)
    parts = {
        "weight_packed": _words(values_ED),
        "weight_scale": scale_EP,
        "weight_zero_point": np.ascontiguousarray(_words(zero_EP.astype(np.uint8).T).T),
        "weight_shape": np.asarray(values_ED.shape, np.int64),
    }
    module = name.rpartition(".")[0]
    return {f"{module}.{part}": tensor for part, tensor in parts.items()}


def quantization_config(weights: Mapping[str, Groups], plain: list[str]) -> dict[str, Any]:
    """Returns config.json's `quantization_config` of packed weights; `plain`: modules that stay as they are.

    Raises:
        UserError: groups of several sizes.
    """
    sizes = {2 * weight.packed_EPH.shape[2] for weight in weights.values()}
    if len(sizes) > 1:
        raise UserError(f"the weights have groups of {sorted(sizes)} inputs; a folder is written with one size alone.")
    kind = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": sizes.pop()}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": kind, "format": "pack-quantized"}},
        "ignore": sorted(set(plain)),
    }


def _unpacked(words: np.ndarray, columns: int) -> np.ndarray:
    """Returns 0..15 of rows of words, the lowest bits first."""
    words = np.ascontiguousarray(words).view(np.uint32)
    values = (words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15
    return values.astype(np.uint8).reshape(len(words), -1)[:, :columns]


def _words(values: np.ndarray) -> np.ndarray:
    """The inverse of `_unpacked`; a last word is filled with zeros."""
    values = np.pad(values, ((0, 0), (0, -values.shape[1] % 8))).astype(np.uint32).reshape(len(values), -1, 8)
    return np.bitwise_or.reduce(values << np.arange(0, 32, 4, dtype=np.uint32), axis=-1).view(np.int32)
