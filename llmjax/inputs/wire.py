"""Protocol buffers as they lie on disk, read without a schema: a message is its fields, number by number.

Source: protobuf.dev/programming-guides/encoding. No JAX, no protobuf package: what profilers and compilers
write is read wherever Python is.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types; groups (3, 4) are of proto1


Field = tuple[int, int, int | bytes]
"""A field of a message: its number, its wire type, and an integer or the bytes that it holds."""


class WireError(ValueError):
    """Bytes that are no message."""


def fields(data: bytes) -> Iterator[Field]:
    """Yields the fields of a message in their order.

    Raises:
        WireError: the bytes are cut off, or no message.
    """
    at, end = 0, len(data)
    while at < end:
        # Most numbers are of one byte: those are read here, where no call costs its time.
        key, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise WireError(f"field 0 at byte {at}")
        if kind == VARINT:
            value, at = (data[at], at + 1) if at < end and data[at] < 128 else _varint(data, at)
        elif kind == LENGTH:
            size, at = (data[at], at + 1) if at < end and data[at] < 128 else _varint(data, at)
            value, at = data[at : at + size], at + size
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        else:
            raise WireError(f"wire type {kind} at byte {at}")
        if at > end:
            raise WireError("the message is cut off")
        yield number, kind, value


def message(data: bytes) -> dict[int, list[int | bytes]]:
    """Returns the values of a message by field number, in their order."""
    found: dict[int, list[int | bytes]] = defaultdict(list)
    for number, _, value in fields(data):
        found[number].append(value)
    return found


def whole(values: dict[int, list[int | bytes]], number: int) -> int:
    """Returns a field that holds a signed 64-bit integer; 0 where there is none, as proto3 leaves out zeros."""
    value = values.get(number, [0])[-1]
    if isinstance(value, bytes):
        raise WireError(f"field {number} holds bytes, not a number")
    return value - (1 << 64) if value >> 63 else value


def real(value: int | bytes) -> float:
    """Returns the number that 8 bytes of a `double` stand for."""
    return struct.unpack("<d", int(value).to_bytes(8, "little"))[0] if isinstance(value, int) else 0.0


def blob(values: dict[int, list[int | bytes]], number: int) -> bytes:
    """Returns a field that holds bytes or a message; nothing where there is none."""
    value = values.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise WireError(f"field {number} holds a number, not bytes")
    return value


def text(values: dict[int, list[int | bytes]], number: int) -> str:
    """Returns a field that holds a string; what is not UTF-8 in it is replaced."""
    return blob(values, number).decode(errors="replace")


def blobs(values: dict[int, list[int | bytes]], number: int) -> list[bytes]:
    """Returns a repeated field of messages."""
    return [value for value in values.get(number, []) if isinstance(value, bytes)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError(f"no whole number at byte {at}")
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value & (1 << 64) - 1, at
        shift += 7
