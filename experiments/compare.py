"""One program on many chips: a row a chip on the terminal, and compare.json in the workdir."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments._phases import Phase, Shape, build
from experiments._settings import values_of
from llmjax.analysis import Analysis, analysis_of
from llmjax.cycles.compiler_clock import OpClock, agreement, compiler_clock, models, total_cycles
from llmjax.cycles.device import Device, load_device, peak
from llmjax.cycles.model import predict
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.hlo import parse
from llmjax.report.units import short
from llmjax.targets.aot import Lowered, compile_for, compile_lowered, lower_for
from llmjax.targets.local import Program
from llmjax.targets.names import parse_target

SCHEMA = "llmjax.compare/1"
FEWEST_COLUMNS, WIDE, WIDEST = 80, 110, 120
_HLO_DTYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "s8"}


class _Settings(NamedTuple):
    """The settings of configs/compare.py, which says what each is."""

    targets: tuple[str, ...]
    card: str
    model: str
    phase: str
    batch: int
    length: int
    new_tokens: int
    dtype: str


def run(config: ConfigDict, workdir: str) -> None:
    """Compiles the phase for each target, prints the rows and writes compare.json."""
    settings = _Settings(**values_of(config))
    names = list(dict.fromkeys(settings.targets))
    card = load_device(settings.card) if settings.card else None
    phase = build(Shape(*(getattr(settings, name) for name in Shape._fields)))
    print(f"compiling {phase.summary} for {len(names)} chip{'s' if len(names) > 1 else ''}", file=sys.stderr)
    rows = [_row(name, made, settings, phase, card) for name, made in _compile_all(names, phase)]
    document = {"schema": SCHEMA, "program": phase.summary, "tokens": _tokens(settings), "chips": rows}
    try:
        atomic_write(Path(workdir) / "compare.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    console = Console()
    if console.width < FEWEST_COLUMNS and not console.is_terminal:
        console = Console(width=FEWEST_COLUMNS)
    console.print(Text(phase.summary, style="bold"), soft_wrap=True)
    console.print(table(rows, console.width))
    for row in rows:
        if "error" in row:
            console.print(Text(row["error"], style="red"), soft_wrap=True)
    for line in footer(rows, console.width):
        console.print(Text(line, style="dim"))
    print(f"compare.json: {workdir}")
    if all("error" in row for row in rows):
        raise UserError("no target could be compiled: the lines above say why.")


def _compile_all(names: list[str], phase: Phase) -> list[tuple[str, Program | UserError]]:
    """Compiles for every chip, as many at a time as there are cores: a chip that fails is its error."""
    lowered: dict[str, Lowered | UserError] = {}
    jobs: list[Callable[[], Program]] = []
    for name in names:
        jobs.append(_job(name, phase, lowered))
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        made = list(pool.map(_attempt, jobs))
    return list(zip(names, made, strict=True))


def _job(name: str, phase: Phase, lowered: dict[str, Any]) -> Callable[[], Program]:
    """What compiles the phase for one chip. It is lowered once a platform, here: tracing is not for threads."""
    try:
        target = parse_target(name)
        if target.attached:
            return lambda: compile_for(name, phase.function, *phase.args)
        if target.platform not in lowered:
            lowered[target.platform] = lower_for(target.platform, phase.function, *phase.args)
    except UserError as error:
        return _raiser(error)
    program = lowered[target.platform]
    return lambda: compile_lowered(target, program)


def _raiser(error: UserError) -> Callable[[], Program]:
    def fail() -> Program:
        raise error

    return fail


def _attempt(job: Callable[[], Program]) -> Program | UserError:
    try:
        return job()
    except UserError as error:
        return error


def _row(
    name: str, made: Program | UserError, settings: _Settings, phase: Phase, card: Device | None
) -> dict[str, Any]:
    """One chip's figures, null where they are not known; or `error`."""
    if isinstance(made, UserError):
        return {"target": name, "error": str(made)}
    try:
        report = _report(made, phase)
    except UserError as error:
        return {"target": name, "error": f"target {name!r}: {error}"}
    device = card if name == "cpu" else report.device
    clock = compiler_clock(report.cost)
    needed = made.memory.needed if made.memory else None
    capacity = device.main_memory.capacity.value if device else None
    row = {
        "target": made.target or name,
        "device": device.title if device else None,
        "compile_seconds": made.compile_seconds,
        "seconds": None,
        "cycles": None,
        "seconds_per_token": None,
        "tokens_per_second": None,
        "bound": None,
        "utilisation": None,
        "memory_needed": needed,
        "memory_capacity": capacity,
        "memory_too_much": max(0, needed - capacity) if needed is not None and capacity else None,
        "fits": needed <= capacity if needed is not None and capacity else None,
        "compiler_cycles": total_cycles(clock),
        "compiler_models": list(models(clock)),
    }
    if device is None:
        return row
    return row | predicted(report, device, _HLO_DTYPES[settings.dtype], _tokens(settings), clock)


def _report(program: Program, phase: Phase) -> Analysis:
    return analysis_of(
        parse(program.text),
        trips=phase.trips,
        backend=program.backend,
        compiler=program.cost_analysis,
        target=program.target,
    )


def predicted(
    report: Analysis, device: Device, dtype: str, tokens: int, clock: Mapping[str, OpClock]
) -> dict[str, Any]:
    """The predicted time of one execution, what binds most of it, and how it agrees with the compiler's own clock.

    `utilisation` is FLOPs a second over the device's peak for matrix products of `dtype`.
    """
    time = predict(report.cost, device)
    bounds: dict[str, float] = {}
    for op in time.ops:
        bounds[op.bound] = bounds.get(op.bound, 0.0) + op.seconds
    hertz = device.clock_hz.value
    agreed = agreement(clock, {op.name: op.seconds * hertz for op in time.ops}, 5)
    return {
        "seconds": time.overlapped,
        "seconds_low": time.low,
        "seconds_high": time.high,
        "cycles": time.cycles,
        "seconds_per_token": time.overlapped / tokens,
        "cycles_per_token": time.cycles / tokens,
        "tokens_per_second": tokens / time.overlapped if time.overlapped else None,
        "bound": max(bounds, key=lambda name: bounds[name]) if bounds else None,
        "utilisation": report.totals.flops / peak(device.matmul, dtype).value / time.overlapped,
        "agreement": dataclasses.asdict(agreed) if clock else None,
    }


def _tokens(settings: _Settings) -> int:
    """Tokens that one execution works on or makes."""
    each = {"decode": 1, "generate": settings.new_tokens}.get(settings.phase, settings.length)
    return settings.batch * each


def table(rows: list[dict[str, Any]], width: int) -> Table:
    """One line a chip; from 110 columns on also tokens/s, utilisation and whether it fits, from 120 on also how the
    prediction agrees with the compiler's own clock."""
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    found.add_column("chip", no_wrap=True)
    heads = ["compile", "time", "cycles", "bound", "needs", "of", "compiler"]
    if width >= WIDE:
        heads = [*heads[:3], "tokens/s", "bound", "FLOP%", "needs", "of", "fits", "compiler"]
    if width >= WIDEST:
        heads += ["ours/its", "rank"]
    for head in heads:
        found.add_column(head, justify="right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        if "error" in row:
            found.add_row(row["target"], Text("failed", style="red"))
            continue
        cells = _cells(row)
        found.add_row(row["target"], *(cells[head] for head in heads))
    return found


def footer(rows: list[dict[str, Any]], width: int) -> list[str]:
    """What the figures are, and what the table has no room for, in sentences."""
    made = [row for row in rows if "error" not in row]
    lines = []
    if any(row["seconds"] is not None for row in made):
        lines.append("Times and cycles are predicted, not measured.")
    if any(row["compiler_cycles"] is not None for row in made):
        lines.append("Column compiler: the cycles that the compiler itself estimates.")
    agreed = [row for row in made if (row.get("agreement") or {}).get("median_ratio") is not None]
    if agreed and width >= WIDEST:
        lines.append("ours/its: predicted over the compiler's cycles, the median op. rank: of the ops, Kendall's tau.")
    elif agreed:
        told = (f"{row['target']} {' '.join(_agreement(row['agreement']))}" for row in agreed)
        lines.append(f"Predicted over the compiler's, the median op, and Kendall's tau: {', '.join(told)}.")
    if any(row["target"] == "cpu" and row["device"] is None for row in made):
        lines.append(
            "The time on cpu needs a card of this machine: configs/calibrate.py writes one, --config.card=FILE."
        )
    over = [
        f"{row['target']} ({short(row['memory_too_much'], 'B')} too much)" for row in made if row["memory_too_much"]
    ]
    if over:
        lines.append(f"Does not fit: {', '.join(over)}.")
    return lines


def _agreement(agreed: dict[str, Any] | None) -> tuple[str, str]:
    """The median ratio, and the rank correlation."""
    if not agreed or agreed["median_ratio"] is None:
        return "-", "-"
    return f"{agreed['median_ratio']:.2g}x", "-" if agreed["kendall"] is None else f"{agreed['kendall']:.2f}"


def _cells(row: dict[str, Any]) -> dict[str, Text | str]:
    over = row["memory_too_much"]
    needs = Text(_size(row["memory_needed"], "B"), style="bold red" if over else "")
    seconds = row["seconds"]
    ratio, rank = _agreement(row.get("agreement"))
    fits = {None: "-", True: "yes", False: "no"}[row["fits"]]
    return {
        "compile": "-" if row["compile_seconds"] is None else f"{row['compile_seconds']:.1f} s",
        "time": "-" if seconds is None else f"{seconds * 1e3:,.3f} ms",
        "cycles": _size(row["cycles"]),
        "tokens/s": _size(row["tokens_per_second"]),
        "bound": (row["bound"] or "-").removeprefix("memory:"),
        "FLOP%": "-" if row["utilisation"] is None else f"{100 * row['utilisation']:.1f}",
        "needs": needs,
        "of": _size(row["memory_capacity"], "B"),
        "fits": Text(fits, style="bold red" if over else ""),
        "compiler": _size(row["compiler_cycles"]),
        "ours/its": ratio,
        "rank": rank,
    }


def _size(value: float | None, unit: str = "") -> str:
    return "-" if value is None else short(value, unit)
