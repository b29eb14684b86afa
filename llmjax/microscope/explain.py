"""Why an op takes the time it takes, in sentences whose every number comes from this run. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmjax.microscope.kernel import UNKNOWN, Kernel, Region
from llmjax.microscope.objects import Simulation
from llmjax.report.units import short

CLOSE = 0.25  # what is nearer than this counts as explained: published errors of llvm-mca on basic blocks are 9 to 36%
HALF = 0.5
LINE = 64  # bytes of a cache line of every x86
SLOWEST_LINE = (
    1000  # cycles that one line from the main memory may take: some 100 ns of latency, at up to 6 GHz, and more
)
# What units of LLVM's models of x86 do, by the beginning of their names; the first that fits counts.
UNITS = (
    ("FP45", "vector loads and stores"),
    ("FPSt", "vector stores"),
    ("FP", "vector arithmetic"),
    ("ALU", "integers"),
    ("AGU", "addresses"),
    ("BRU", "branches"),
    ("LSU", "the queue of loads and stores"),
    ("Load", "loads"),
    ("Store", "stores"),
    ("Divider", "division"),
)


@dataclass(frozen=True, slots=True)
class Time:
    """Cycles of one execution of the op, and of what may make them up; None where it is not known.

    `loop` are the code's cycles on the cores that share it, `workers` of them, `floor` the same if no instruction
    waited for another. `start` is what starting an op takes at most (`start_source` says by what), `memory` what its
    bytes take at the bandwidth of `level`, which is `bandwidth` in bytes a cycle (`memory_source`). `bytes` and `flops`
    are of one execution; `far` are those of its data that come from the main memory, `far_level`, and `far_code` of
    its code.
    """

    loop: float | None
    floor: float | None
    workers: int
    bytes: float
    flops: float
    measured: float | None = None
    start: float | None = None
    start_source: str = ""
    memory: float | None = None
    level: str = ""
    bandwidth: float | None = None
    memory_source: str = ""
    far_level: str = ""
    far: float = 0.0
    far_code: float = 0.0


def iteration(region: Region) -> str:
    """What bounds an iteration of a loop."""
    found = region.simulation
    if found is None or found.unsupported:
        return f"llvm-mca cannot simulate this code: {found.unsupported if found else 'it was not run'}."
    name, busy = busiest(found)
    unit = f"{name} ({purpose})" if (purpose := unit_purpose(name)) else name
    if found.cycles > found.throughput * (1 + CLOSE):
        share = found.throughput / found.cycles
        return (
            f"An iteration is bound by latency: it takes {found.cycles:.1f} cycles, and its units could do it in"
            f" {found.throughput:.1f} ({share:.0%}); for the rest they wait for results of earlier instructions."
        )
    if busy >= found.throughput * 0.95:
        return f"An iteration is bound by {unit}, busy for {busy:.1f} of its {found.cycles:.1f} cycles."
    return (
        f"An iteration is bound by the front end: {found.micro_ops:.0f} micro-operations in {found.cycles:.1f} cycles;"
        f" the busiest unit, {unit}, works for {busy:.1f}."
    )


def busiest(found: Simulation) -> tuple[str, float]:
    """The unit that an iteration keeps busy the longest, and for how many cycles."""
    return max(found.pressure.items(), key=lambda item: item[1], default=("no unit", 0.0))


def unit_purpose(name: str) -> str:
    """What a unit of the processor does, "" where only its name is known."""
    return next((purpose for beginning, purpose in UNITS if name.startswith(beginning)), "")


def difference(time: Time, kernel: Kernel | None) -> str:
    """Why measured and predicted cycles differ, or that they do not."""
    if kernel is not None and time.loop is None:
        unknown = [region for region in kernel.regions if region.source == UNKNOWN]
        return f"How often {len(unknown)} of its loops run is not known from the code: no cycles are predicted."
    if time.measured is None or time.loop is None:
        return ""
    gap, whole = time.measured - time.loop, time.measured
    said = f"{_cycles(whole)} cycles were measured, {_cycles(time.loop)} predicted from the code"
    if abs(gap) <= CLOSE * whole:
        return f"{said}: the code explains the time, to {abs(gap) / whole:.0%}."
    if gap < 0:
        if time.floor is not None and time.floor <= whole * (1 + CLOSE):
            return (
                f"{said}: it lies between that and the {_cycles(time.floor)} that its units need at least, so the"
                " processor seems to run more iterations side by side than llvm-mca thinks."
            )
        return (
            f"{said}, and its units need {_cycles(time.floor or time.loop)} at least: llvm-mca's tables are too slow"
            " here, or the op ran beside others, of whose time it was given a share only."
        )
    start, memory = time.start or 0.0, time.memory or 0.0
    if memory > time.loop and memory >= HALF * whole:
        return f"{said}: memory-bound, {_memory(time)}."
    if time.workers > 1 and start < HALF * gap:
        start_of = f", and starting an op {_cycles(start)} at most ({time.start_source})" if start else ""
        return (
            f"{said} for {time.workers} threads: the rest is in handing its {kernel.parts if kernel else time.workers}"
            f" parts to threads and waiting for the last, or in waiting for memory ({_memory(time)}){start_of}."
        )
    if start >= HALF * gap:
        sum_ = start + max(time.loop, memory)
        what = "the rest is" if abs(sum_ - whole) <= CLOSE * whole else "much of the rest is"
        return f"{said}: {what} call overhead, {_cycles(start)} cycles at most ({time.start_source})."
    lines = math.ceil(time.far / LINE) + math.ceil(time.far_code / LINE)
    if lines and gap / lines <= SLOWEST_LINE:
        of_code = f" and {short(time.far_code, 'B')} of code" if time.far_code else ""
        return (
            f"{said}, which takes for granted that data and code are in the caches. By what else moves in between,"
            f" {short(time.far, 'B')} of data{of_code} come from {time.far_level}. The {_cycles(gap)} cycles left are"
            f" {gap / lines:,.0f} for each of these {lines:,} lines of {LINE} B."
        )
    also = f"; {_memory(time)}" if time.memory is not None else ""
    return (
        f"{said}: {gap / whole:.0%} of the time is neither the code's, if caches always hit, nor that of starting an op"
        f"{f', {_cycles(start)} cycles at most' if start else ''}{also}."
    )


def remainder(kernel: Kernel) -> str:
    """What share of the cycles is outside of the hottest loop, "" where that is little."""
    whole, hot = kernel.cycles, kernel.hottest.cycles
    if not whole or hot is None or hot >= (1 - CLOSE) * whole:
        return ""
    beside = [r for r in kernel.regions if r is not kernel.hottest and r.loop is not None]
    where = "in the code before and after its loops" if not beside else "in its other loops and around them"
    return f"{1 - hot / whole:.0%} of the code's cycles pass outside of the loop above, {where}."


def calls(kernel: Kernel) -> str:
    """A warning where the hottest loop calls functions, "" otherwise."""
    count = kernel.hottest.mix.kinds.get("call", 0)
    if not count:
        return ""
    return f"The loop above calls {count} function{'s' if count > 1 else ''}, whose cycles are not in the prediction."


def coverage(kernel: Kernel, written: float) -> str:
    """A warning where the loops, run as often as is thought, store less than the result or twice as much."""
    if any(region.runs is None for region in kernel.regions) or not written:
        return ""
    stored = sum(region.mix.stored * (region.runs or 0) for region in kernel.regions)
    said = f"The code as counted here stores {short(stored, 'B')}, and the result has {short(written, 'B')}:"
    if stored < 0.9 * written:
        return f"{said} some loop runs more often than is shown, or a function that it calls stores the rest."
    if stored > 1.9 * written and len(kernel.regions) > 2:
        return f"{said} of its loops some may be alternatives, of which one runs."
    return ""


def library(time: Time, name: str, peak: float | None, what: str) -> str:
    """How near a library's op comes to the peaks. `peak` is in FLOP a cycle, `what` says of what."""
    if time.measured is None:
        return f"{name} does it: there is no loop of XLA's to look at."
    flops, rate = time.flops / time.measured, time.bytes / time.measured
    parts = []
    if time.flops:
        of = f", {flops / peak:.0%} of {peak:.1f}, {what}" if peak else ""
        parts.append(f"{flops:.2f} FLOP a cycle{of}")
    if time.bandwidth:
        parts.append(f"{rate:.2f} B a cycle, {rate / time.bandwidth:.0%} of {time.bandwidth:.2f}, {time.memory_source}")
    else:
        parts.append(f"{rate:.2f} B a cycle")
    return f"{name} reaches {'; '.join(parts)}."


def _memory(time: Time) -> str:
    if time.measured is None or not time.bandwidth:
        return f"{short(time.bytes, 'B')} moved"
    rate = time.bytes / time.measured
    return (
        f"{short(time.bytes, 'B')} at {rate:.1f} B a cycle, {rate / time.bandwidth:.0%} of {time.bandwidth:.1f},"
        f" {time.memory_source}"
    )


def _cycles(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else short(value)
