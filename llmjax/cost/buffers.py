"""Memory over time: the buffer assignment that XLA dumps beside a module, and when its values live. No JAX import.

With --xla_dump_to, `X.BACKEND_after_optimizations.txt` has beside it `...-buffer-assignment.txt` (what memory the
compiler reserves, and for which values) and mostly `...-live-range.txt` (from which instruction to which each is held).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from llmjax.errors import UserError

KINDS = ("arguments", "results", "constants", "temporaries", "thread-local")
_ALLOCATION = re.compile(r"allocation (\d+): (?:0x[0-9a-f]+, )?size (\d+)((?:, |:).*)?$")
_VALUE = re.compile(r"\s*value: <\d+ (\S+?) @\d+> \(size=(\d+),offset=(\d+)\)")
_STEP = re.compile(r"\s+(\d+):(\S+)$")
_RANGE = re.compile(r"\s+(\S+?)(\{[\d,]*\}):(\d+)-(\d+)$")
_LARGEST = 1 << 28  # bytes of a file that is read


@dataclass(frozen=True, slots=True)
class Value:
    """A value in an allocation: `name` is the instruction's with the place in its result behind it, where that is a
    tuple (`tuple.1{0}`); sizes in bytes."""

    name: str
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """Memory that the compiler reserves: `kind` is one of KINDS; what shares it is held one after another."""

    number: int
    size: int
    kind: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Buffers:
    """What a module reserves on one device, and what of it is held from step to step.

    `steps` are the instructions in the order in which they run, those of loops' bodies where they stand, and `held`
    the bytes of values that are live at each; both are empty where no live ranges are known. `at_peak` has the values
    that are live at the first step that holds most, the largest first.
    """

    allocations: tuple[Allocation, ...]
    steps: tuple[str, ...] = ()
    held: tuple[int, ...] = ()
    at_peak: tuple[tuple[str, int], ...] = ()

    @property
    def reserved(self) -> int:
        """Bytes of all allocations but those of threads, which live inside one op."""
        return sum(allocation.size for allocation in self.allocations if allocation.kind != "thread-local")

    @property
    def peak_step(self) -> int | None:
        """The first step that holds most, None where steps are not known."""
        return max(range(len(self.held)), key=lambda step: self.held[step], default=None)

    def of(self, kind: str) -> int:
        """Bytes of the allocations of a kind."""
        return sum(allocation.size for allocation in self.allocations if allocation.kind == kind)


def find_buffers(hlo: Path) -> Buffers | None:
    """Reads what a dump has beside a file of HLO text; None where it has no buffer assignment.

    Raises:
        UserError: a file of it cannot be read, or is no buffer assignment.
    """
    stem = hlo.name.removesuffix(".gz").removesuffix(".txt")
    assignment = hlo.with_name(f"{stem}-buffer-assignment.txt")
    if not assignment.is_file():
        return None
    ranges = hlo.with_name(f"{stem}-live-range.txt")
    found = parse_buffers(_text(assignment), _text(ranges) if ranges.is_file() else "", str(assignment))
    return found if found.allocations else None


def parse_buffers(assignment: str, ranges: str = "", source: str = "buffer assignment") -> Buffers:
    """Parses the texts of a buffer assignment and of live ranges.

    Raises:
        UserError: there is no allocation in the text.
    """
    allocations: list[tuple[int, int, str, list[Value]]] = []
    for line in assignment.splitlines():
        if m := _ALLOCATION.match(line):
            allocations.append((int(m[1]), int(m[2]), _kind(m[3] or ""), []))
        elif allocations and (m := _VALUE.match(line)):
            allocations[-1][3].append(Value(m[1], int(m[2]), int(m[3])))
    if not allocations and not assignment.lstrip().startswith("BufferAssignment:"):
        raise UserError(f"{source} is no buffer assignment: it begins otherwise, and lists no allocation.")
    found = tuple(Allocation(number, size, kind, tuple(values)) for number, size, kind, values in allocations)
    sizes = {value.name: value.size for allocation in found for value in allocation.values}
    return Buffers(found, *_over_time(ranges, sizes))


def _over_time(
    text: str, sizes: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[tuple[str, int], ...]]:
    """Steps, bytes held at each, and what is held where that is most; of a text without steps nothing."""
    steps: dict[int, str] = {}
    ranges: list[tuple[str, int, int]] = []
    part = ""
    for line in text.splitlines():
        if line.strip() in ("InstructionSequence:", "BufferLiveRange:"):
            part = line.strip()
        elif line.startswith("  Live ranges at"):
            part = ""
        elif part == "InstructionSequence:" and (m := _STEP.match(line)):
            steps[int(m[1])] = m[2]
        elif part == "BufferLiveRange:" and (m := _RANGE.match(line)):
            # A value that is no part of a tuple has no braces in the assignment.
            ranges.append((m[1] if m[2] == "{}" and m[1] in sizes else m[1] + m[2], int(m[3]), int(m[4])))
    if not steps or len(steps) != max(steps) + 1:
        return (), (), ()
    changes = [0] * (len(steps) + 1)
    for name, first, last in ranges:
        if first <= last and first < len(steps):
            changes[first] += sizes.get(name, 0)
            changes[min(last + 1, len(steps))] -= sizes.get(name, 0)
    held = tuple(accumulate(changes[:-1]))
    peak = max(range(len(held)), key=lambda step: held[step])
    live = [(name, sizes[name]) for name, first, last in ranges if first <= peak <= last and sizes.get(name)]
    names = tuple(steps[k] for k in range(len(steps)))
    return names, held, tuple(sorted(live, key=lambda row: (-row[1], row[0])))


def _kind(words: str) -> str:
    if "parameter" in words:
        return "arguments"
    if "constant" in words:
        return "constants"
    if "thread-local" in words:
        return "thread-local"
    return "results" if "live-out" in words or "output shape" in words else "temporaries"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    if len(data) > _LARGEST:
        raise UserError(f"{str(path)!r} is larger than {_LARGEST >> 20} MiB.")
    return data.decode("utf-8", "replace")
