"""A GGUF file's header and tensors, memory-mapped.

Source of the format: docs/gguf.md of ggml-org/ggml, versions 2 and 3. The package `gguf` has a reader too, but it makes
several NumPy arrays of every string of the vocabulary: 20 times slower than this one on a file of 49,152 tokens.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from llmjax.errors import UserError

# Value types by their number in the file: those of fixed width, then string and array.
_FIXED = {0: "u1", 1: "i1", 2: "u2", 3: "i2", 4: "u4", 5: "i4", 6: "f4", 7: "?", 10: "u8", 11: "i8", 12: "f8"}
_STRING, _ARRAY = 8, 9

# Tensor types by their number in the file: name, values a block, bytes a block. Others are looked up in package gguf.
_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    8: ("Q8_0", 32, 34),
    30: ("BF16", 1, 2),
}


@dataclass(frozen=True)
class RawTensor:
    """A tensor as the file holds it.

    shape: outermost dimension first, as NumPy has it (the file has it the other way round).
    type: ggml's name, "F32", "Q4_1", ...
    data: its bytes, mapped from the file: (*shape[:-1], bytes of one row).
    """

    name: str
    shape: tuple[int, ...]
    type: str
    data: UInt8[np.ndarray, "... bytes"]


@dataclass(frozen=True)
class GGUF:
    """A GGUF file: `metadata` by key, and `tensors` by llama.cpp's names, their bytes mapped from `path`.

    A value of the metadata is an int, a float, a bool, a str, a list of str, or a NumPy array of numbers.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, RawTensor]


def read_gguf(path: str | Path) -> GGUF:
    """Reads the header of a GGUF file and maps its tensors.

    Raises:
        UserError: there is no such file, it is no GGUF file, is cut short or damaged, or holds a tensor of a type that
            nobody here knows.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        reason = error.strerror if isinstance(error, OSError) else "it is empty"
        raise UserError(f"{path}: cannot be read as a GGUF file ({reason}).") from error
    cursor = _Cursor(path, mapped)
    tensor_count, key_count = _read_start(cursor)
    metadata = {}
    for index in range(key_count):
        key = cursor.string(f"key {index + 1} of {key_count}")
        if key in metadata:
            raise cursor.damaged(f"the key {key!r} stands in it twice")
        metadata[key] = cursor.value(f"the key {key!r}")
    if metadata.get("split.count", 1) not in (0, 1):
        raise UserError(
            f"{path}: is one of {metadata['split.count']} parts; merge them with llama.cpp's llama-gguf-split --merge."
        )
    entries = [_read_entry(cursor, f"tensor {index + 1} of {tensor_count}") for index in range(tensor_count)]
    return GGUF(path, metadata, _map_tensors(cursor, entries, metadata.get("general.alignment", 32)))


class _Cursor:
    """Reads a mapped file from its start; every read that leaves the file is a UserError that names `what`."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path, self.mapped, self.size, self.at = path, mapped, len(mapped), 0

    def damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: is damaged or cut short: {what}; download or copy it again.")

    def take(self, size: int, what: str) -> int:
        """Returns where the next `size` bytes begin, and steps over them."""
        start = self.at
        if size > self.size - start:
            raise self.damaged(f"{what} ends beyond the file's {self.size:,} bytes")
        self.at = start + size
        return start

    def u32(self, what: str) -> int:
        return struct.unpack_from("<I", self.mapped, self.take(4, what))[0]

    def u64(self, what: str) -> int:
        return struct.unpack_from("<Q", self.mapped, self.take(8, what))[0]

    def string(self, what: str) -> str:
        size = self.u64(what)
        start = self.take(size, what)
        try:
            return self.mapped[start : start + size].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged(f"{what} is not UTF-8") from error

    def value(self, what: str) -> Any:
        kind = self.u32(what)
        if kind == _STRING:
            return self.string(what)
        if kind in _FIXED:
            number = self._numbers(_FIXED[kind], 1, what)[0]
            # 1e-05 was written as float32's nearest to it: say 1e-05, as the config.json did
            return float(str(number)) if number.dtype == np.float32 else number.item()
        if kind != _ARRAY:
            raise self.damaged(f"{what} is of the unknown type {kind}")
        kind, count = self.u32(what), self.u64(what)
        if kind == _STRING:
            if count > (self.size - self.at) // 8:
                raise self.damaged(f"{what} ends beyond the file's {self.size:,} bytes")
            return [self.string(what) for _ in range(count)]
        if kind not in _FIXED:
            raise self.damaged(f"{what} is an array of the unknown type {kind}")
        return self._numbers(_FIXED[kind], count, what)

    def _numbers(self, kind: str, count: int, what: str) -> np.ndarray:
        dtype = np.dtype(kind).newbyteorder("<")
        return np.frombuffer(self.mapped, dtype, count, self.take(count * dtype.itemsize, what))


def _read_start(cursor: _Cursor) -> tuple[int, int]:
    """Returns how many tensors and how many keys the file says it has."""
    if cursor.size < 4 or cursor.mapped[:4] != b"GGUF":
        raise UserError(f"{cursor.path}: is no GGUF file: it does not begin with the letters GGUF.")
    cursor.take(4, "the start")
    version = cursor.u32("the version")
    if version not in (2, 3):
        order = " (a file of a big-endian machine)" if version & 0xFFFF == 0 else ""
        raise UserError(f"{cursor.path}: is a GGUF file of version {version}{order}; 2 and 3 are supported.")
    return cursor.u64("the number of tensors"), cursor.u64("the number of keys")


def _read_entry(cursor: _Cursor, what: str) -> tuple[str, tuple[int, ...], int, int]:
    """Returns a tensor's name, shape, number of its type, and offset among the tensors' bytes."""
    name = cursor.string(what)
    what = f"the entry of tensor {name!r}"
    rank = cursor.u32(what)
    if not 1 <= rank <= 4:
        raise cursor.damaged(f"{what} says {rank} dimensions")
    shape = tuple(cursor.u64(what) for _ in range(rank))
    return name, shape[::-1], cursor.u32(what), cursor.u64(what)


def _map_tensors(cursor: _Cursor, entries: list, alignment: Any) -> dict[str, RawTensor]:
    if not isinstance(alignment, int) or alignment < 1:
        raise cursor.damaged(f"general.alignment is {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    every_byte = np.frombuffer(cursor.mapped, np.uint8)
    tensors = {}
    for name, shape, number, offset in entries:
        if name in tensors:
            raise cursor.damaged(f"tensor {name!r} stands in it twice")
        kind, values, width = _tensor_type(cursor.path, name, number)
        if 0 in shape or shape[-1] % values:
            raise cursor.damaged(f"tensor {name!r} of shape {shape} is not made of blocks of {values} ({kind})")
        row = shape[-1] // values * width
        size = math.prod(shape[:-1]) * row
        if start + offset + size > cursor.size:
            raise cursor.damaged(f"tensor {name!r} ends beyond the file's {cursor.size:,} bytes")
        data = every_byte[start + offset : start + offset + size].reshape(*shape[:-1], row)
        tensors[name] = RawTensor(name, shape, kind, data)
    return tensors


def _tensor_type(path: Path, name: str, number: int) -> tuple[str, int, int]:
    if number in _TYPES:
        return _TYPES[number]
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
        return kind.name, *GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise UserError(
            f"{path}: tensor {name!r} is of type {number}, which this version of the package gguf does not know."
        ) from None
