"""Traces of `jax.profiler` -> the programs that ran, with the time of each of their ops, measured.

A trace is a file NAME.xplane.pb, an XSpace (tsl/profiler/protobuf/xplane.proto). Its plane /host:metadata has the
programs' HloProtos. Ops lie on the line "XLA Ops" of a TPU's plane, in windows of the line "XLA Modules"; on the
streams of a GPU's plane, and on the threads of the host where it computes itself, with `hlo_op`, `hlo_module` and
`program_id` beside each. No JAX import.
"""

from __future__ import annotations

import bisect
import gzip
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from llmjax.cycles.device import device_names
from llmjax.cycles.events import END, TASK, Event, control_names, exclusive
from llmjax.cycles.measured import MeasuredOp, Profile, measured
from llmjax.errors import UserError
from llmjax.hlo import Module
from llmjax.inputs.wire import LENGTH, WireError, blob, blobs, fields, message, real, text, whole

SUFFIXES = (".xplane.pb", ".xplane.pb.gz")
_OF_MODULE = re.compile(r"(.*?)\((\d+)\)$")  # jit_f(1219)
_TPU, _GPU, _HOST, _METADATA = "/device:TPU:", "/device:GPU:", "/host:CPU", "/host:metadata"
_PICOSECOND = 1e-12
# What TPUs call themselves -> the chip; the longer name stands first.
_CHIPS = {
    "tpu v2": "tpu:v2", "tpu v3": "tpu:v3", "tpu v4": "tpu:v4", "tpu v5 lite": "tpu:v5e", "tpu v5e": "tpu:v5e",
    "tpu v5": "tpu:v5p", "tpu v6": "tpu:v6e", "tpu7": "tpu:tpu7x",
}  # fmt: skip

Stats = Mapping[str, str | int | float | bytes]
Program = tuple[str, int]
"""A module's name, and the number of the program that was loaded (0: the trace does not say)."""


_Raw = tuple[float, float, int, list[bytes]]
"""Start and end of an event in seconds, the number of its name, and its stats."""


@dataclass(frozen=True)
class Run:
    """One execution of a program on a device: when, and the stretches of its ops, in seconds."""

    start: float
    end: float
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Trace:
    """What a trace holds: the kind of chip where it says, programs' HloModuleProtos, the runs by program and device."""

    chip: str
    modules: Mapping[Program, bytes]
    runs: Mapping[Program, Mapping[str, tuple[Run, ...]]]


@dataclass(frozen=True)
class _Plane:
    name: str
    stats: Stats
    lines: tuple[bytes, ...]
    names: Mapping[int, str]  # of events, by their number: what an op is called
    more: Mapping[int, Stats]  # that stands with an event's name
    stat_names: Mapping[int, str] = field(repr=False)


def find_traces(folder: Path) -> list[Path]:
    """Returns the files of the last trace in a folder of jax.profiler, one a host; [] where it holds none."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*.xplane.pb*")):
        if file.name.endswith(SUFFIXES):
            found[file.parent].append(file)
    return found[max(found)] if found else []


def read_trace(file: Path) -> Trace:
    """Reads a trace.

    Raises:
        UserError: the file cannot be read, or is no trace.
    """
    try:
        data = file.read_bytes()
        planes = [
            _plane(part) for part in blobs(message(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data), 1)
        ]
        modules: dict[Program, bytes] = {}
        runs: dict[Program, dict[str, tuple[Run, ...]]] = defaultdict(dict)
        chip = ""
        devices = [plane for plane in planes if plane.name.startswith((_TPU, _GPU))]
        for plane in planes:
            if plane.name == _METADATA:
                modules |= _modules(plane)
            elif plane.name.startswith(_TPU):
                found = {program: {0: mine} for program, mine in _tpu_runs(plane).items()}
            elif plane.name.startswith(_GPU) or (plane.name == _HOST and not devices):
                found = _other_runs(plane)
            else:
                continue
            if plane.name != _METADATA:
                chip = chip or str(plane.stats.get("device_type_string", ""))
                place = plane.name.rpartition("/")[2]
                for program, devices in found.items():
                    for device, mine in devices.items():
                        runs[program][place if len(devices) == 1 else f"{place} {device}"] = mine
    except OSError as error:
        raise UserError(f"{str(file)!r} cannot be read: {error.strerror or error}.") from error
    except (WireError, EOFError, ValueError) as error:
        raise UserError(f"{str(file)!r} is no trace of jax.profiler, or is damaged: {error}.") from error
    return Trace(chip, modules, dict(runs))


def profile_of(name: str, runs: Mapping[str, Sequence[Run]], module: Module | None) -> Profile:
    """Returns the measured times of a program's ops, from its runs on every device that the trace has.

    Args:
        module: its HLO, which tells the ops that only contain others; without it nothing does.
    """
    control = control_names(module) if module else frozenset()
    every = [run for mine in runs.values() for run in mine]
    shares = [exclusive(run.events, control) for run in every]
    calls = Counter(event.name for run in every for event in run.events if not event.name.startswith((END, TASK)))
    threads: dict[str, set[str]] = defaultdict(set)
    for run in every:
        for event in run.events:
            threads[event.name].add(event.thread.partition("/")[0])
    ops = {}
    for op in dict.fromkeys(name for share in shares for name in share):
        times = [share[op].seconds if op in share else 0.0 for share in shares]
        beside = sum(share[op].beside for share in shares if op in share)
        ops[op] = MeasuredOp(
            op, measured(times), calls[op] / len(every), tuple(sorted(threads[op])), beside / (sum(times) or 1.0)
        )
    walls = [run.end - run.start for run in every]
    covered = [
        sum(share.seconds for share in mine.values()) / wall for mine, wall in zip(shares, walls, strict=True) if wall
    ]
    wall = measured(walls)
    share = median(covered) if covered else 0.0
    return Profile(name, wall, wall, ops, share, len(every), from_trace=True, devices=len(runs))


def _plane(data: bytes) -> _Plane:
    values = message(data)
    stat_names = {key: text(message(value), 2) for key, value in _table(values, 5)}
    names, more = {}, {}
    for key, value in _table(values, 4):
        event = message(value)
        names[key] = text(event, 4) or text(event, 2)
        more[key] = _stats(blobs(event, 5), stat_names)
    stats = _stats(blobs(values, 6), stat_names)
    return _Plane(text(values, 2), stats, tuple(blobs(values, 3)), names, more, stat_names)


def _table(values: dict[int, list[int | bytes]], number: int) -> Iterable[tuple[int, bytes]]:
    for entry in blobs(values, number):
        pair = message(entry)
        yield whole(pair, 1), blob(pair, 2)


def _stats(parts: Iterable[bytes], names: Mapping[int, str]) -> dict[str, str | int | float | bytes]:
    found: dict[str, str | int | float | bytes] = {}
    for part in parts:
        name, value = "", None
        for number, kind, held in fields(part):
            if number == 1:
                name = names.get(int(held), "") if isinstance(held, int) else ""
            elif number == 2:
                value = real(held)
            elif number == 7:  # a string that stands among the names
                value = names.get(int(held), "") if isinstance(held, int) else ""
            elif kind == LENGTH and isinstance(held, bytes):
                value = held.decode(errors="replace") if number == 5 else held
            else:
                value = held
        if name and value is not None:
            found[name] = value
    return found


def _modules(plane: _Plane) -> dict[Program, bytes]:
    found = {}
    for key, stats in plane.more.items():
        proto = stats.get("Hlo Proto", stats.get("hlo_proto"))
        if isinstance(proto, bytes):
            found[_program(plane.names[key])] = blob(message(proto), 1)
    return found


def _program(name: str) -> Program:
    named = _OF_MODULE.match(name)
    return (named[1], int(named[2])) if named else (name, 0)


def _tpu_runs(plane: _Plane) -> dict[Program, tuple[Run, ...]]:
    """Runs on a TPU: the ops that lie in each window of the line of modules."""
    lines = dict(map(_opened, plane.lines))
    windows, ops = sorted(lines.get("XLA Modules", [])), sorted(lines.get("XLA Ops", []))
    runs: dict[Program, list[Run]] = defaultdict(list)
    at = 0
    for start, end, key, _ in windows:
        while at < len(ops) and ops[at][0] < start:
            at += 1
        mine = []
        while at < len(ops) and ops[at][0] < end:
            began, ended, op, _ = ops[at]
            mine.append(Event(began, min(ended, end), _op_name(plane.names.get(op, "")), "TensorCore"))
            at += 1
        if mine:
            runs[_program(plane.names.get(key, ""))].append(Run(start, end, tuple(mine)))
    return {program: tuple(mine) for program, mine in runs.items()}


def _op_name(name: str) -> str:
    """The name of an op: a TPU's events without a short name are called by the whole instruction."""
    return name.lstrip("%").partition(" = ")[0]


def _other_runs(plane: _Plane) -> dict[Program, dict[int, tuple[Run, ...]]]:
    """Runs on a GPU or the host, by device: the ops of a run where events name it, else cut where the first op comes
    again. A host may be several devices.
    """
    ops: dict[tuple[Program, int], dict[int, list[Event]]] = defaultdict(lambda: defaultdict(list))
    marks: list[Event] = []
    for line in plane.lines:
        thread, events = _opened(line)
        for start, end, key, stats in events:
            name = plane.names.get(key, "")
            if name.startswith((END, TASK)):
                link = _number(_stats(stats, plane.stat_names), "_c") if name != TASK else 0
                marks.append(Event(start, end, name, thread, link))
                continue
            told = _stats(stats, plane.stat_names)
            if "hlo_op" not in told:
                continue
            link, number, run, device = (_number(told, key) for key in ("_p", "program_id", "run_id", "device_ordinal"))
            event = Event(start, end, str(told["hlo_op"]), thread, link, device)
            ops[(str(told.get("hlo_module", "")), number), device][run].append(event)
    marks.sort()
    runs: dict[Program, dict[int, tuple[Run, ...]]] = defaultdict(dict)
    for (program, device), by_run in ops.items():
        runs[program][device] = tuple(_cut(by_run, marks))
    return runs


def _number(told: Stats, key: str) -> int:
    value = told.get(key, 0)
    return value if isinstance(value, int) else 0


def _cut(by_run: Mapping[int, Sequence[Event]], marks: Sequence[Event]) -> list[Run]:
    """The runs of a program, each with the marks of its time, and those of its ops' ends that came later."""
    ends = {mark.link: mark for mark in marks if mark.link}
    runs = []
    for number, events in by_run.items():
        ordered = sorted(events)
        for mine in [ordered] if number else _repeated(ordered):
            start, end = mine[0].start, max(event.end for event in mine)
            first, last = (bisect.bisect(marks, (moment,)) for moment in (start, math.nextafter(end, math.inf)))
            own = [ends[event.link] for event in mine if event.link in ends]
            late = [mark for mark in own if mark.start > end]
            end = max([end, *(mark.start for mark in own)])
            runs.append(Run(start, end, tuple(sorted((*mine, *marks[first:last], *late)))))
    return sorted(runs, key=lambda run: run.start)


def _repeated(events: Sequence[Event]) -> list[list[Event]]:
    """The runs of events that do not name theirs: each begins with the op that the first one began with."""
    groups: list[list[Event]] = []
    for event in events:
        if event.name == events[0].name or not groups:
            groups.append([])
        groups[-1].append(event)
    return groups


def _opened(line: bytes) -> tuple[str, list[_Raw]]:
    """The name of a line, and its events."""
    parts: list[bytes] = []
    named, origin = "", 0
    for number, _, value in fields(line):
        if isinstance(value, bytes):
            if number == 4:
                parts.append(value)
            elif number == 2:
                named = value.decode(errors="replace")
        elif number == 3:
            origin = value
    return named, [_event(part, origin * 1000) for part in parts]


def _event(part: bytes, origin: int) -> _Raw:
    key = offset = duration = 0
    stats = []
    for number, _, value in fields(part):
        if isinstance(value, bytes):
            if number == 4:
                stats.append(value)
        elif number == 1:
            key = value
        elif number == 2:
            offset = value - (1 << 64) if value >> 63 else value
        elif number == 3:
            duration = value
    start = (origin + offset) * _PICOSECOND
    return start, start + duration * _PICOSECOND, key, stats


def target_of(chip: str) -> str | None:
    """Returns llmjax's name of a chip that a trace calls "TPU v6 Lite" or "NVIDIA H100 80GB HBM3"; None: unknown."""
    words = chip.lower()
    for sign, target in _CHIPS.items():
        if sign in words:
            return target
    return next((name for name in device_names() if name.startswith("gpu:") and name[4:] in words), None)
