"""Writes protocol buffers, as llmjax.inputs.wire reads them: the other direction, for tests alone."""

from typing import Any


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    return b"".join(field(number, value) for number, value in fields)


def plane(name: str, lines: dict[str, list[tuple[Any, ...]]], stats: dict[str, Any], more: dict[str, Any]) -> bytes:
    """An XPlane: lines of (name, start in ns, nanoseconds, stats), its own stats, and stats by the name of events."""
    names: dict[str, int] = {}
    stat_names: dict[str, int] = {}

    def stat(key: str, value: Any) -> bytes:
        number = stat_names.setdefault(key, len(stat_names) + 1)
        kind = 6 if isinstance(value, bytes) else 5 if isinstance(value, str) else 4
        return message((1, number), (kind, value))

    def event(name: str, start: float, length: float, told: dict[str, Any]) -> bytes:
        number = names.setdefault(name, len(names) + 1)
        parts = [(4, stat(key, value)) for key, value in told.items()]
        return message((1, number), (2, round(start * 1000)), (3, round(length * 1000)), *parts)

    found = [
        message((2, line), *((4, event(e[0], e[1], e[2], e[3] if len(e) > 3 else {})) for e in events))
        for line, events in lines.items()
    ]
    for name_ in more:
        names.setdefault(name_, len(names) + 1)
    own = [(6, stat(key, value)) for key, value in stats.items()]
    metadata = []
    for name_, number in names.items():
        told = [(5, stat(key, value)) for key, value in more.get(name_, {}).items()]
        metadata.append((4, message((1, number), (2, message((1, number), (2, name_), *told)))))
    known = [(5, message((1, n), (2, message((1, n), (2, key))))) for key, n in stat_names.items()]
    return message((2, name), *((3, line) for line in found), *metadata, *known, *own)


def space(*planes: bytes) -> bytes:
    return message(*((1, one) for one in planes))
