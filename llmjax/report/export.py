"""A report as JSON, CSV and plain records. The schema stands in docs/cost-json.md."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmjax.cost.attribution import AttributedOp, Key, Part, Place
from llmjax.cost.buffers import KINDS, Buffers
from llmjax.cost.values import Cost, Number
from llmjax.cycles.compiler_clock import OpClock
from llmjax.cycles.device import to_json as device_json
from llmjax.report.collectives import collectives

if TYPE_CHECKING:
    from llmjax.analysis import Analysis

_POINTS = 2000  # of the line of memory over time
_LARGEST = 20  # values that are named of those held at the peak
SCHEMA = "llmjax.cost/2"
FIGURES = (
    "flops",
    "matmul_flops",
    "vector_flops",
    "transcendentals",
    "bytes_read",
    "bytes_written",
    "collective_bytes",
    "on_chip_bytes",
    "host_bytes",
)


def figures(cost: Cost, times: Number = 1) -> dict[str, Number]:
    """The figures of `cost` times `times`, under their names in the schema."""
    return {name: getattr(cost, name) * times for name in FIGURES}


def place_fields(place: Place) -> dict[str, Any]:
    """The fields of a place; null where the program does not say."""
    return {
        "module_path": place.module_path or None,
        "role": place.role,
        "layer": place.layer,
        "pass": place.direction,
        "source": place.source or None,
        "function": place.function or None,
    }


def to_object(report: Analysis) -> dict[str, Any]:
    """The whole report as an object of the schema: every figure is that of all executions."""
    cost, clock = report.cost, report.clock
    return {
        "schema": SCHEMA,
        "module": cost.module.name,
        "backend": report.backend,
        **({"target": report.target} if report.target else {}),
        **({"device": device_json(report.device)} if report.device else {}),
        "stage": asdict(report.stage),
        **({"mesh": dict(report.mesh)} if report.mesh else {}),
        **({"collectives": [asdict(row) for row in collectives(report)]} if report.mesh else {}),
        "totals": figures(report.totals),
        **({"memory": memory(report.buffers)} if report.buffers else {}),
        "verdict": asdict(report.verdict) | {"bounds": dict(report.verdict.bounds)},
        "compiler": dict(report.compiler) if report.compiler else None,
        "coverage": cost.coverage,
        "lower_bound": cost.lower_bound,
        "upper_bound": cost.upper_bound,
        "unmodelled": [
            {"name": op.name, "opcode": op.opcode, "target": op.instruction.custom_call_target or None}
            | {"reason": op.unmodelled, "count": op.count, "bytes": op.total.memory_bytes}
            for op in cost.unmodelled
        ],
        "loops": [
            {"name": loop.name, "trip_count": loop.trip_count, "from": loop.source, "count": loop.count}
            for loop in cost.loops
        ],
        "conditionals": [
            {"name": c.name, "branches": list(c.branches), "weights": list(c.weights), "stated": c.stated}
            for c in cost.conditionals
        ],
        **_time(report),
        "ops": [_op(op) | times(report, op.name) | _clock(clock.get(op.name)) for op in report.ops],
        **{f"by_{key}": _rows(report, key) for key in ("role", "layer", "module_path", "source", "pass", "opcode")},
    }


def memory(buffers: Buffers) -> dict[str, Any]:
    """What the compiler reserves, and the bytes held from step to step: of long programs the most of each stretch."""
    stretch = max(1, -(-len(buffers.held) // _POINTS))
    stretches = [buffers.held[k : k + stretch] for k in range(0, len(buffers.held), stretch)]
    step = buffers.peak_step
    return {
        "reserved": buffers.reserved,
        "peak": max(buffers.held, default=buffers.reserved),
        "peak_op": None if step is None else buffers.steps[step],
        "by_kind": {kind: buffers.of(kind) for kind in KINDS},
        "steps": len(buffers.held),
        "stretch": stretch,
        "held": [max(part) for part in stretches],
        "at_peak": [{"name": name, "bytes": size} for name, size in buffers.at_peak[:_LARGEST]],
    }


def to_json(report: Analysis) -> str:
    """`to_object` as text."""
    return json.dumps(to_object(report), indent=1, allow_nan=False) + "\n"


def records(report: Analysis) -> list[dict[str, Any]]:
    """One flat record an op, without its interior."""
    rows = [_op(op, False) | times(report, op.name) for op in report.ops]
    return [{name: value for name, value in row.items() if name not in ("fused", "breakdown")} for row in rows]


def to_csv(report: Analysis) -> str:
    """`records` as CSV with a header line.

    A text that a spreadsheet would run as a formula (it begins with = + - @, a tab or a line end) gets a ' in front:
    OWASP, "CSV Injection".
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in records(report))
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


_COLUMNS = (
    *("name", "opcode", "computation", "count", *FIGURES),
    *("module_path", "role", "layer", "pass", "source", "function", "library", "unmodelled", "dense_flops"),
    *("seconds", "low", "high", "cycles", "bound", "measured_seconds", "measured_cycles"),
)


def _op(op: AttributedOp, interior: bool = True) -> dict[str, Any]:
    return {
        "name": op.name,
        "opcode": op.opcode,
        "computation": op.op.computation,
        "count": op.count,
        **figures(op.op.cost, op.count),
        **place_fields(op.place),
        "library": op.op.library,
        "unmodelled": op.op.unmodelled or None,
        **({"provenance": "user"} if op.op.given else {}),
        "dense_flops": None if op.op.dense_flops is None else op.op.dense_flops * op.count,
        "fused": [_part(part, op.count) for part in op.parts] if interior and op.op.fused else [],
    }


def times(report: Analysis, name: str) -> dict[str, Any]:
    """Predicted and measured times of all executions of an op, each present only where it is known."""
    predicted = report.time.by_name.get(name) if report.time else None
    op = report.measured.ops.get(name) if report.measured else None
    found: dict[str, Any] = _seconds(report, predicted and predicted.seconds, op and op.time.median)
    if predicted is not None:
        found |= {"low": predicted.low, "high": predicted.high, "bound": predicted.bound}
        parts = {"compute": predicted.compute, "memory": dict(predicted.memory), "overhead": predicted.overhead}
        found["breakdown"] = parts | ({"link": predicted.link} if predicted.link else {})
    return found


def _time(report: Analysis) -> dict[str, Any]:
    """Times of the whole program, and what kind of figure each field is."""
    found: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    if report.time:
        time = report.time
        found |= {"sequential": time.sequential, "overlapped": time.overlapped, "dispatch": time.dispatch}
        found |= {"low": time.low, "high": time.high, "cycles": time.cycles}
        kinds |= dict.fromkeys(("seconds", "cycles", "low", "high", "bound", "breakdown"), "modelled")
    if report.measured:
        run = report.measured
        found |= {"measured": run.wall.median, "measured_low": run.wall.low, "measured_high": run.wall.high}
        found |= {"covered": run.covered, "runs": run.runs, "devices": run.devices}
        if report.hertz:
            found["measured_cycles"] = run.wall.median * report.hertz
        kinds |= dict.fromkeys(("measured_seconds", "measured_cycles"), "measured")
    return {"time": found, "provenance": kinds | {"compiler_cycles": "compiler"}} if found else {}


def _clock(op: OpClock | None) -> dict[str, Any]:
    """The compiler's own estimate of all executions; absent where it has none."""
    return {} if op is None else {"compiler_cycles": op.total_cycles, "compiler_model": op.model}


def _part(part: Part, count: Number) -> dict[str, Any]:
    named = {"name": part.instruction.name, "opcode": part.instruction.opcode}
    return named | figures(part.cost, count) | place_fields(part.place)


def _rows(report: Analysis, key: Key) -> list[dict[str, Any]]:
    rows = []
    for row in report.by(key):
        known = {"compiler_cycles": row.compiler_cycles} if row.compiler_cycles is not None else {}
        known |= _seconds(report, row.predicted, row.measured)
        rows.append({key: row.key, "ops": row.ops, **figures(row.cost)} | known)
    return rows


def _seconds(report: Analysis, predicted: float | None, measured: float | None) -> dict[str, float]:
    """Seconds and cycles under the names that an op has them under, each only where it is known."""
    found: dict[str, float] = {}
    for prefix, value in (("", predicted), ("measured_", measured)):
        if value is not None:
            found[f"{prefix}seconds"] = value
            if report.hertz:
                found[f"{prefix}cycles"] = value * report.hertz
    return found
