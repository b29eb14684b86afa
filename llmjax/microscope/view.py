"""What the microscope found, on a terminal and as JSON. Pure but for printing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmjax.microscope.explain import busiest
from llmjax.microscope.kernel import FROM_WORK, UNKNOWN, Kernel, Region
from llmjax.report.units import short

SCHEMA = "llmjax.microscope/1"
_HLO_LINES = 16
_CODE_LINES = 36
_UNITS = 8
_NAMES = 6
_KIND_NAMES = {"arithmetic": "other vector arithmetic", "integer": "counters and addresses", "mask": "masks"}


@dataclass(frozen=True)
class Found:
    """All that is shown of one op; sizes and times are of one execution.

    `facts` are lines (name, value) about the op, `source_text` the Python line, `hlo` the lines for people. `kernel` is
    None for an op without code of XLA's. `cycles` are (what, cycles, seconds, where from), `findings` sentences and
    `notes` what the figures leave out. `data` goes into the JSON as it is.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    source_text: str
    hlo: tuple[str, ...]
    kernel: Kernel | None
    cpu: str
    cycles: tuple[tuple[str, float, float | None, str], ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    data: Mapping[str, Any]


def print_found(found: Found, console: Console) -> None:
    """Prints the op from HLO down to the clock, as wide as `console`."""
    console.print(Text(found.title, style="bold"))
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column(overflow="fold")
    for name, value in found.facts:
        facts.add_row(name, Text(value))
    console.print(facts)
    if found.source_text:
        _cut(console, f"    {found.source_text}", "italic")
    console.print()
    console.print(Text("HLO", style="bold"))
    shown = found.hlo if len(found.hlo) <= _HLO_LINES else (*found.hlo[: _HLO_LINES - 2], "  ...", found.hlo[-1])
    for line in shown:
        _cut(console, f"  {line}")
    if found.kernel is not None:
        console.print()
        _print_kernel(found.kernel, found.cpu, console)
    if found.cycles:
        console.print()
        console.print(_cycles_table(found))
    console.print()
    for sentence in found.findings:
        console.print(Text(sentence))
    for note in found.notes:
        console.print(Text(note, style="dim"))


def _print_kernel(kernel: Kernel, cpu: str, console: Console) -> None:
    count = len(kernel.regions) - 1
    what = "no loop" if not count else "1 loop" if count == 1 else f"{count} loops"
    cut = f", cut into {kernel.parts} parts for threads" if kernel.parts > 1 else ""
    console.print(Text(f"x86 code: {kernel.name}, {kernel.code_bytes:,} bytes, {what}{cut}", style="bold"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for k, head in enumerate(("loop at", "turns", "iterations", "instr.", f"cycles an it. ({cpu})", "cycles")):
        table.add_column(head, justify="left" if not k else "right", no_wrap=True)
    hottest, worked_out = kernel.hottest, False
    for region in sorted(kernel.regions, key=lambda r: (r.loop is not None, r.address)):
        loop, simulation = region.loop, region.simulation
        place = "outside of loops" if loop is None else f"{'  ' * (loop.depth - 1)}{region.address:#x}"
        worked_out = worked_out or region.source == FROM_WORK
        turns = "" if loop is None else "?" if region.trips is None else f"{region.trips:,}"
        turns += "*" if region.source == FROM_WORK else ""
        per = f"{simulation.cycles:.1f}" if simulation and not simulation.unsupported else "?"
        runs = "?" if region.runs is None else f"{region.runs:,}"
        cells = (place + (" <" if region is hottest else ""), turns, runs, f"{region.mix.instructions}", per)
        table.add_row(*cells, "?" if region.cycles is None else f"{region.cycles:,.0f}")
    console.print(table)
    if worked_out:
        console.print(Text("* not in the code: worked out from what the op computes", style="dim"))
    if any(region.source == UNKNOWN for region in kernel.regions):
        console.print(Text("? not known: the loop's length is not a constant of its code", style="dim"))
    console.print()
    lines = code(hottest)
    for line in lines if len(lines) <= _CODE_LINES else [*lines[: _CODE_LINES - 2], "    ...", lines[-1]]:
        _cut(console, line)
    console.print()
    console.print(Text(mix_sentence(hottest)))
    if hottest.simulation and hottest.simulation.pressure:
        console.print(Text(pressure_sentence(hottest)))


def code(region: Region) -> list[str]:
    """The lines of a region's code, each with its address."""
    lines, before = [], None
    for i in region.instructions:
        if before is not None and i.address - before > 16:  # longer than any instruction: code of an inner loop between
            lines.append("    ...")
        lines.append(f"  {i.address:5x}  {i.mnemonic:<14} {', '.join(i.operands)}".rstrip())
        before = i.address
    return lines


def listing(kernel: Kernel) -> str:
    """All code of a kernel as text, the beginning of each loop marked."""
    marks = {kernel.function.blocks[r.loop.header].address: r for r in kernel.regions if r.loop is not None}
    lines = [f"# {kernel.name}"]
    for i in kernel.function.instructions:
        if region := marks.get(i.address):
            hot = ", hottest" if region is kernel.hottest else ""
            turns = "turns unknown" if region.trips is None else f"{region.trips:,} turns"
            lines.append(f"# loop, depth {region.loop.depth if region.loop else 0}, {turns}{hot}")
        lines.append(f"{i.address:6x}  {i.mnemonic:<14} {', '.join(i.operands)}".rstrip())
    return "\n".join(lines) + "\n"


def mix_sentence(region: Region) -> str:
    """The instructions of an iteration in words."""
    found = region.mix
    kinds = [f"{n} {_KIND_NAMES.get(name, name)}" for name, n in found.kinds.items()]
    if not found.bits:
        width = "no arithmetic on vector registers"
    elif found.lanes == 1:
        width = f"scalar arithmetic on {found.element_bits}-bit numbers, one at a time"
    else:
        width = (
            f"{found.register} registers of {found.bits} bits, {found.lanes} numbers of {found.element_bits} bits each"
        )
    return (
        f"{found.instructions} instructions an iteration: {', '.join(kinds)}. {found.loads} of them load"
        f" ({found.loaded} B) and {found.stores} store ({found.stored} B). {width[0].upper()}{width[1:]}."
    )


def pressure_sentence(region: Region) -> str:
    """How long an iteration keeps each unit busy, the busiest first."""
    assert region.simulation is not None
    units = sorted(region.simulation.pressure.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {cycles:.1f}" for name, cycles in units[:_UNITS] if cycles >= 0.05)
    return f"Cycles an iteration keeps units busy: {shown}."


def _cycles_table(found: Found) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("one execution", no_wrap=True)
    table.add_column("cycles", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("from", overflow="fold")
    for what, cycles, seconds, source in found.cycles:
        time = "" if seconds is None else f"{seconds * 1e6:,.2f} µs"
        table.add_row(what, f"{cycles:,.0f}" if cycles < 1e8 else short(cycles), time, Text(source))
    return table


def to_json(found: Found) -> str:
    """Everything as JSON; docs name the fields."""
    kernel = found.kernel
    values = {
        "schema": SCHEMA,
        "title": found.title,
        **found.data,
        "kernel": None if kernel is None else _kernel_json(kernel, found.cpu),
        "findings": list(found.findings),
        "notes": list(found.notes),
    }
    return json.dumps(_clean(values), indent=1) + "\n"


def _kernel_json(kernel: Kernel, cpu: str) -> dict[str, Any]:
    return {
        "symbol": kernel.name,
        "bytes": kernel.code_bytes,
        "parts": kernel.parts,
        "cycles_one_core": kernel.cycles,
        "simulated_cpu": cpu,
        "regions": [_region_json(region, kernel) for region in kernel.regions],
    }


def _region_json(region: Region, kernel: Kernel) -> dict[str, Any]:
    found, simulation = region.mix, region.simulation
    values: dict[str, Any] = {
        "address": region.address,
        "depth": region.loop.depth if region.loop else 0,
        "hottest": region is kernel.hottest,
        "turns": region.trips,
        "turns_from": region.source,
        "iterations": region.runs,
        "cycles": region.cycles,
        "instructions": found.instructions,
        "kinds": found.kinds,
        "loads": found.loads,
        "stores": found.stores,
        "bytes_loaded": found.loaded,
        "bytes_stored": found.stored,
        "vector_bits": found.bits,
        "lanes": found.lanes,
        "element_bits": found.element_bits,
        "flops": found.flops,
    }
    if simulation is not None:
        values["simulation"] = {
            "cycles_an_iteration": simulation.cycles,
            "throughput_bound": simulation.throughput,
            "micro_ops": simulation.micro_ops,
            "busiest_unit": busiest(simulation)[0],
            "pressure": dict(simulation.pressure),
            "unsupported": simulation.unsupported,
        }
    return values


def _clean(value: Any) -> Any:
    """JSON has no infinities and no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def named(names: Iterable[str]) -> str:
    """The first few of several names."""
    found = list(names)
    more = f" and {len(found) - _NAMES} more" if len(found) > _NAMES else ""
    return ", ".join(found[:_NAMES]) + more


def _cut(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis", crop=True)
