"""What is told of an op besides its code: where it comes from, what it computes, which ops are like it. Pure but for
reading the Python line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjax.analysis import Analysis
from llmjax.cost.attribution import AttributedOp
from llmjax.cycles.device import Figure
from llmjax.microscope import choose
from llmjax.microscope.evidence import seconds_of
from llmjax.microscope.explain import Time
from llmjax.microscope.view import named
from llmjax.report.units import percent, short


def facts(
    report: Analysis, ops: Sequence[AttributedOp], size: Callable[[AttributedOp], float], code: str
) -> tuple[tuple[str, str], ...]:
    """Lines (name, value) about the first of `ops`, which are those that were asked for; `code` says what runs it."""
    op = ops[0]
    module, cost, place = report.cost.module, op.op.cost, op.place
    source = relative(place.source) or "-"
    work = [short(cost.flops, "FLOP")] + ([f"{short(cost.transcendentals)} functions"] if cost.transcendentals else [])
    moved = f"reads {short(cost.bytes_read, 'B')}, writes {short(cost.bytes_written, 'B')}"
    twins = choose.alike(module, op, report.ops)
    alike = f"{len(twins)} ops of the program compute this" if len(twins) > 1 else "no other op computes this"
    times = f"; it runs {op.count:,} times" if op.count != 1 else ""
    rows = [
        ("module path", place.module_path or "-"),
        ("role", place.role),
        ("Python", f"{source} in {place.function}" if place.function else source),
        ("one execution", f"{', '.join(work)}, {moved}"),
        ("alike", f"{alike}{times}"),
        ("code", code),
    ]
    whole = sum(map(size, ops))
    if len(ops) > 1:
        found = [(of[0].name, len(of), sum(map(size, of))) for of in choose.families(module, ops)]
        shown = [f"{name}{f' x{count}' if count > 1 else ''} {percent(part, whole)}" for name, count, part in found]
        rows.append(("chosen from", named(each.strip() for each in shown)))
    return tuple(rows)


def relative(source: str) -> str:
    """A path from the working folder where it lies in it."""
    try:
        return str(Path(source).relative_to(Path.cwd()))
    except ValueError:
        return source


def source_text(source: str) -> str:
    """The line that "file:line" names, "" where there is none here."""
    file, _, line = source.rpartition(":")
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()
    except (OSError, ValueError, IndexError):
        return ""


def cycles(
    report: Analysis, op: AttributedOp, time: Time, clock: Figure | None
) -> tuple[tuple[str, float, float | None, str], ...]:
    """Rows (what, cycles, seconds, where from) of one execution: by its code, by the cycle model, by the clock."""
    rows: list[tuple[str, float, float | None, str]] = []
    if time.loop is not None:
        per = f" / {time.workers} threads" if time.workers > 1 else ""
        seconds = time.loop / clock.value if clock else None
        if time.floor is not None:
            least = time.floor / clock.value if clock else None
            rows.append(("its units at least", time.floor, least, f"llvm-mca, if no instruction waited{per}"))
        rows.append(("predicted from the code", time.loop, seconds, f"llvm-mca, iterations x cycles{per}"))
    model = report.time.by_name.get(op.name) if report.time else None
    if model is not None and report.device is not None:
        seconds, low, high = (value / model.count for value in (model.seconds, model.low, model.high))
        bound = model.bound.removeprefix("memory:")
        source = f"the card's terms: {low * 1e6:,.2f} to {high * 1e6:,.2f} us, bound by {bound}"
        rows.append(("the cycle model", seconds * report.device.clock_hz.value, seconds, source))
    measured, spread = seconds_of(report, op)
    if measured is not None and time.measured is not None and clock is not None:
        source = f"time x {clock.value / 1e9:.2f} GHz; quartiles {spread:.0%} apart"
        rows.append(("measured", time.measured, measured, source))
    return tuple(rows)


def data(
    report: Analysis, op: AttributedOp, time: Time, clock: Figure | None, runner: str, program: str
) -> Mapping[str, Any]:
    """What goes into the JSON of the op; figures are of one execution."""
    cost, place, module = op.op.cost, op.place, report.cost.module
    model = report.time.by_name.get(op.name) if report.time else None
    seconds, spread = seconds_of(report, op)
    hertz = report.device.clock_hz.value if report.device else 0.0
    return {
        "program": program,
        "op": op.name,
        "opcode": op.opcode,
        "computation": op.op.computation,
        "count": op.count,
        "alike": [twin.name for twin in choose.alike(module, op, report.ops)],
        "module_path": place.module_path,
        "role": place.role,
        "source": place.source,
        "function": place.function,
        "source_text": source_text(place.source),
        "hlo": choose.hlo_text(report.text, module, op),
        "runs_it": runner,
        "matmul_flops": cost.matmul_flops,
        "vector_flops": cost.vector_flops,
        "transcendentals": cost.transcendentals,
        "bytes_read": cost.bytes_read,
        "bytes_written": cost.bytes_written,
        "clock_hz": clock.value if clock else None,
        "clock_source": f"{clock.provenance}: {clock.source}" if clock else "",
        "workers": time.workers,
        "predicted_cycles": time.loop,
        "least_cycles": time.floor,
        "model_cycles": model.seconds / model.count * hertz if model else None,
        "model_bound": model.bound if model else "",
        "measured_cycles": time.measured,
        "measured_seconds": seconds,
        "measured_spread": spread if seconds is not None else None,
        "start_cycles": time.start,
        "start_source": time.start_source,
        "memory_cycles": time.memory,
        "memory_level": time.level,
        "bandwidth_bytes_a_cycle": time.bandwidth,
        "bandwidth_source": time.memory_source,
    }
