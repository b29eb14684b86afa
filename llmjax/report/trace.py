"""cost.json -> a Chrome trace that ui.perfetto.dev opens: predicted and measured times, ops nested by module path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmjax.report.remarks import Json

TRACKS = (("predicted", "seconds"), ("measured", "measured_seconds"))
_ARGUMENTS = (
    *("opcode", "count", "role", "pass", "flops", "transcendentals", "bytes_read", "bytes_written", "bound"),
    *(
        "seconds",
        "low",
        "high",
        "measured_seconds",
        "cycles",
        "measured_cycles",
        "compiler_cycles",
        "library",
        "source",
    ),
)


def to_trace(costs: Mapping[str, Json]) -> str:
    """Returns the trace of programs by label as JSON, or "" where no op of any has a time.

    A track a program and a kind of time, the predicted above the measured. The ops of a track lie end to end in the
    order of the program, each as long as all its executions take together: what overlaps in reality does not here.
    """
    events: list[dict[str, Any]] = []
    tracks = [(label, cost, kind, field) for label, cost in costs.items() for kind, field in TRACKS]
    for pid, (label, cost, kind, field) in enumerate(tracks, 1):
        slices = _slices(cost, field, pid)
        if not slices:
            continue
        title = f"{kind}: {label}" if len(costs) > 1 else kind
        for name, arguments in (("process_name", {"name": title}), ("process_sort_index", {"sort_index": pid})):
            events.append({"ph": "M", "pid": pid, "tid": 1, "name": name, "args": arguments})
        thread = {"name": "ops by module path, end to end"}
        events.append({"ph": "M", "pid": pid, "tid": 1, "name": "thread_name", "args": thread})
        events += slices
    if not events:
        return ""
    return json.dumps({"displayTimeUnit": "ns", "traceEvents": events}, allow_nan=False) + "\n"


def _slices(cost: Json, field: str, pid: int) -> list[dict[str, Any]]:
    """The slices of a track: those of module paths around those of their ops. Edges are whole nanoseconds, so that
    rounding never puts a slice outside the one around it."""
    found: list[dict[str, Any]] = []
    around: list[tuple[str, dict[str, Any]]] = []
    clock = 0.0

    def begin(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        event = {"ph": "X", "pid": pid, "tid": 1, "name": name, "ts": round(clock * 1e9) / 1e3, "args": arguments}
        found.append(event)
        return event

    def end(event: dict[str, Any]) -> None:
        event["dur"] = round(round(clock * 1e9) - event["ts"] * 1e3) / 1e3

    for op in cost["ops"]:
        if op.get(field) is None:
            continue
        steps = (op["module_path"] or "unattributed").split("/")
        shared = 0
        while shared < min(len(steps), len(around)) and steps[shared] == around[shared][0]:
            shared += 1
        while len(around) > shared:
            end(around.pop()[1])
        for depth in range(shared, len(steps)):
            around.append((steps[depth], begin(steps[depth], {"module_path": "/".join(steps[: depth + 1])})))
        event = begin(op["name"], {name: op[name] for name in _ARGUMENTS if op.get(name) is not None})
        clock += op[field]
        end(event)
    while around:
        end(around.pop()[1])
    return found
