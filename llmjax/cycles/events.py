"""Stretches of time of ops on threads -> each op's own time. No JAX import.

`while`, `call` and `conditional` contain other ops. Ops may run side by side. And an op that hands tasks to other
threads is over when the last task is, which an `end:` event of XLA's CPU executor marks; but that executor registers
the mark before the continuation, and what waits for an op is notified last come, first served
(xla/backends/cpu/runtime: `ThunkExecutor::TracedExecute`; `AsyncValue::RunWaiters`): the thread that finished an op
first runs the ops that waited for it, and marks the end after. So an op is over here when the thread that marks its
end, having taken up a task of it, starts another op. Every instant of a run belongs to the innermost op that is
running, in equal parts if there are several, so that the sum over ops is the part of the wall time they cover. Devices
that run the same program are told apart first: what passes on one of them is no part of another's time.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from llmjax.hlo import Module

END = "end: "
TASK = "ThreadpoolListener::StartRegion"  # a thread takes up a task that another handed to it
_CONTROL = ("while", "call", "conditional")


class Event(NamedTuple):
    """A stretch of time of an op on a thread; seconds or any other unit. `link` is what its `end:` event has too.

    `device` is the ordinal of the device that it is an op of: several may share a host's threads.
    """

    start: float
    end: float
    name: str
    thread: str = ""
    link: int = 0
    device: int = 0


class Share(NamedTuple):
    """Exclusive time of an op, and how much of it passed while another op ran as well."""

    seconds: float
    beside: float


def control_names(module: Module) -> frozenset[str]:
    """Names of the instructions that only contain others: `while`, `call`, `conditional`."""
    return frozenset(i.name for c in module.computations.values() for i in c if i.opcode in _CONTROL)


def by_device(events: Sequence[Event]) -> list[list[Event]]:
    """Returns the events of each device's ops, in the order of devices, each with all marks: those find their ops."""
    marks = [event for event in events if _is_mark(event)]
    ops: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        if not _is_mark(event):
            ops[event.device].append(event)
    return [[*ops[device], *marks] for device in sorted(ops)]


def _is_mark(event: Event) -> bool:
    return event.name.startswith((END, TASK))


def ends(events: Sequence[Event]) -> list[Event]:
    """The ops' events, each with the moment when the op was really over as its end."""
    marks = {event.link: event for event in events if event.name.startswith(END)}
    ops = sorted(event for event in events if not _is_mark(event))
    starts: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for event in sorted(events):
        if not event.name.startswith(END):
            starts[event.thread, event.name == TASK].append(event.start)
    found = []
    for event in ops:
        mark = marks.get(event.link) if event.link else None
        if mark is not None and mark.start > event.end:
            over = mark.start
            # The task that finished it is the last that this thread took up before the mark.
            task = _before(starts[mark.thread, True], mark.start)
            if task is not None and task >= event.start:
                over = min(over, _after(starts[mark.thread, False], task) or over)
            event = event._replace(end=max(event.end, over))
        found.append(event)
    return found


def _before(times: list[float], moment: float) -> float | None:
    n = bisect.bisect_right(times, moment)
    return times[n - 1] if n else None


def _after(times: list[float], moment: float) -> float | None:
    n = bisect.bisect_left(times, moment)
    return times[n] if n < len(times) else None


def exclusive(events: Sequence[Event], control: frozenset[str] = frozenset()) -> dict[str, Share]:
    """Time by name: each instant goes to the ops that run then, in equal parts, to `control` ones if no other does."""
    found = ends(events)
    edges = sorted([(e.start, 1, e.name) for e in found] + [(e.end, -1, e.name) for e in found])
    times: dict[str, float] = {event.name: 0.0 for event in found}
    beside = dict(times)
    active: dict[str, int] = {}
    before = 0.0
    for at, step, name in edges:
        if active and at > before:
            running = [n for n in active if n not in control] or list(active)[-1:]
            for n in running:
                times[n] += (at - before) / len(running)
                beside[n] += (at - before) / len(running) if len(running) > 1 else 0.0
        before = at
        active[name] = active.get(name, 0) + step
        if not active[name]:
            del active[name]
    return {name: Share(seconds, beside[name]) for name, seconds in times.items()}
