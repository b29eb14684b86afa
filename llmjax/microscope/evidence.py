"""What is known of an op's time, out of a report: measured and predicted cycles, and of what they may be made up. Pure.

With a device card the bounds are the card's: bandwidths, peaks. Without one they are what other ops of the same run
reach, and are called so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmjax.analysis import Analysis
from llmjax.cost.attribution import AttributedOp
from llmjax.cycles.device import Device, Figure, Memory, peak
from llmjax.cycles.features import KEEPS, features
from llmjax.microscope import choose
from llmjax.microscope.explain import Time
from llmjax.microscope.kernel import Kernel

OTHERS = "the most that another op of this run reaches which moves as much"
ANY = "the most that another op of this run reaches"


def seconds_of(report: Analysis, op: AttributedOp) -> tuple[float | None, float]:
    """Measured seconds of one execution and their relative spread; None where it was not measured."""
    found = report.measured.ops.get(op.name) if report.measured else None
    if found is None or not found.calls:
        return None, 0.0
    return found.time.median / found.calls, found.time.spread


def time_of(
    report: Analysis, op: AttributedOp, code: Kernel | None, clock: Figure | None, machine: Device | None
) -> Time:
    """The op's cycles and what may make them up.

    `clock` is None where no time is known. `machine` says how many cores may share the op's parts, and which caches
    hold its data; a card, or what `only_caches` makes.
    """
    cost = op.op.cost
    cores = machine.cores.value if machine else code.parts if code else 1
    workers = int(max(1, min(code.parts, cores))) if code else 1
    found = Time(
        loop=None if code is None or code.cycles is None else code.cycles / workers,
        floor=None if code is None or code.floor is None else code.floor / workers,
        workers=workers,
        bytes=float(cost.bytes),
        flops=float(cost.flops + cost.transcendentals),
    )
    if clock is None:
        return found
    seconds, _ = seconds_of(report, op)
    start, start_source = _start(report, clock.value)
    memory, level, bandwidth, source = _memory(report, op, clock.value)
    far_level, far, far_code = _far(report, op, code, machine) if machine else ("", 0.0, 0.0)
    return replace(
        found,
        measured=None if seconds is None else seconds * clock.value,
        start=start,
        start_source=start_source,
        memory=memory,
        level=level,
        bandwidth=bandwidth,
        memory_source=source,
        far_level=far_level,
        far=far,
        far_code=far_code,
    )


def only_caches(caches: Sequence[Sequence[Any]], cores: int) -> Device:
    """A device of which nothing is known but its caches (name, bytes) and cores."""
    none = Figure(1.0, "estimate", "unknown")
    sizes = [*((str(name), float(size)) for name, size in caches), ("DRAM", float("inf"))]
    memory = tuple(Memory(name, Figure(size, "measured", "the system's own figure"), none) for name, size in sizes)
    count = Figure(float(cores), "measured", "the system's own figure")
    return Device("here", "this machine", "cpu", none, count, {"f32": none}, {"f32": none}, none, memory, none)


def _far(report: Analysis, op: AttributedOp, code: Kernel | None, machine: Device) -> tuple[str, float, float]:
    """The main memory's name, bytes of the op's data that come from there, and of its code.

    Data are where features.py says, by how much else has moved since; of a buffer that the op before updates in place,
    what it did not write is as old as the last execution of the program. Code is far where as much moves between two
    executions of the ops that share it.
    """
    found = next((f for f in features(report.cost, machine) if f.name == op.name), None)
    makers = {o.name: o.op.cost.bytes_written for o in report.ops if o.op.computation == op.op.computation}
    reads = zip(op.op.instruction.operands, op.op.traffic.reads, strict=False)
    old = sum(float(size - makers[name]) for name, size in reads if makers.get(name, size) < size)
    twins = sum(float(twin.count) for twin in choose.alike(report.cost.module, op, report.ops))
    between = float(report.totals.bytes) / max(1.0, twins)
    last = machine.memory[-2].capacity.value * KEEPS if len(machine.memory) > 1 else 0.0
    code_bytes = float(code.code_bytes) if code and between > last else 0.0
    data = (found.bytes[-1] if found else 0.0) + (old if float(report.totals.bytes) > last else 0.0)
    return machine.main_memory.name, min(data, float(op.op.cost.bytes)), code_bytes


def peak_of(report: Analysis, op: AttributedOp, clock: Figure | None) -> tuple[float | None, str]:
    """FLOP a cycle that the card promises for such an op, else the most that another op of this run reaches."""
    if clock is None:
        return None, ""
    if report.device is not None:
        leaves = op.op.instruction.shape.leaves
        dtype = leaves[0].dtype if leaves else "f32"
        peaks = report.device.matmul if op.op.cost.matmul_flops else report.device.vector
        return peak(peaks, dtype).value / clock.value, f"the card's peak for {dtype}"
    alike = {o.name for o in choose.alike(report.cost.module, op, report.ops)}
    others = [o for o in report.ops if o.name not in alike]
    rates = [o.op.cost.flops / seconds for o in others if (seconds := seconds_of(report, o)[0])]
    return (max(rates) / clock.value, ANY) if rates else (None, "")


def _start(report: Analysis, hertz: float) -> tuple[float | None, str]:
    """What starting an op takes at most: the time of the shortest op of this run, else the card's figure."""
    times = [seconds for op in report.ops if (seconds := seconds_of(report, op)[0])]
    if times:
        return min(times) * hertz, "the shortest op of this run"
    return (report.device.launch.value * hertz, "the card") if report.device else (None, "")


def _memory(report: Analysis, op: AttributedOp, hertz: float) -> tuple[float | None, str, float | None, str]:
    """Cycles that the op's bytes take, the level that takes most of them, its bytes a cycle, and who says so."""
    model = report.time.by_name.get(op.name) if report.time else None
    if model is not None and model.memory and report.device is not None:
        level = max(model.memory, key=lambda name: model.memory[name])
        rate = next(m.bandwidth.value for m in report.device.memory if m.name == level) / hertz
        cycles = sum(model.memory.values()) / model.count * hertz
        return cycles, level, rate, f"the bandwidth of {level} on the card"
    moved = op.op.cost.bytes
    alike = {o.name for o in choose.alike(report.cost.module, op, report.ops)}
    others = [o for o in report.ops if o.name not in alike and o.op.cost.bytes >= moved / 2]
    rates = [o.op.cost.bytes / seconds for o in others if (seconds := seconds_of(report, o)[0])]
    if not rates or not moved:
        return None, "", None, ""
    best = max(rates) / hertz
    return moved / best, "", best, OTHERS
