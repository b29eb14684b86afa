"""One program on many chips: a row a chip on the terminal, compare.json and compare.html in the workdir."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.text import Text

from experiments._mesh import mesh_for, use_told
from experiments._programs import Phase, Shape, build
from experiments._settings import values_of
from llmjax.analysis import Analysis, analysis_of
from llmjax.cycles.compiler_clock import OpClock, agreement, models, total_cycles
from llmjax.cycles.device import Device, load_device, peak
from llmjax.cycles.model import predict
from llmjax.cycles.published.expected import expected_error
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.hlo import parse
from llmjax.parallel.mesh import on_mesh
from llmjax.report.chips import chips_page, chips_table, footer
from llmjax.report.page import to_html
from llmjax.report.terminal import console
from llmjax.targets.aot import Lowered, compile_for, compile_lowered, lower_for
from llmjax.targets.local import Program
from llmjax.targets.names import parse_target

SCHEMA = "llmjax.compare/1"
_HLO_DTYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "s8"}


class _Settings(NamedTuple):
    """The settings of configs/compare.py, which says what each is."""

    mesh: dict[str, int]
    targets: tuple[str, ...]
    card: str
    model: str
    phase: str
    batch: int
    length: int
    new_tokens: int
    dtype: str
    kv_cache: str
    function: str
    args: str


def run(config: ConfigDict, workdir: str) -> None:
    """Compiles the phase for each target, prints the rows and writes the files."""
    settings = _Settings(**values_of(config))
    names = list(dict.fromkeys(settings.targets))
    wrong = [said for name in names if (said := _wrong(name))]
    if len(wrong) == len(names):
        raise UserError(wrong[0])
    card = load_device(settings.card) if settings.card else None
    shape = Shape(*(getattr(settings, name) for name in Shape._fields))
    phase = build(shape)
    print(f"compiling {phase.summary} for {len(names)} chip{'s' if len(names) > 1 else ''}", file=sys.stderr)
    rows = [_row(name, made, settings, phase, card) for name, made in _compile_all(names, shape, settings.mesh)]
    document = {"schema": SCHEMA, "program": phase.summary, "tokens": _tokens(settings), "chips": rows}
    try:
        atomic_write(Path(workdir) / "compare.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
        atomic_write(Path(workdir) / "compare.html", to_html(chips_page(phase.summary, rows)))
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    screen = console()
    screen.print(Text(phase.summary, style="bold"), soft_wrap=True)
    screen.print(chips_table(rows, screen.width))
    for row in rows:
        if "error" in row:
            screen.print(Text(row["error"], style="red"), soft_wrap=True)
    for line in (*_uses(rows), *footer(rows, screen.width)):
        screen.print(Text(line, style="dim"))
    print(f"compare.json, and compare.html to look at: {workdir}")
    if all("error" in row for row in rows):
        raise UserError("no target could be compiled: the lines above say why.")


def _wrong(name: str) -> str:
    """Returns what is wrong with a target's name, or ""."""
    try:
        parse_target(name)
    except UserError as error:
        return str(error)
    return ""


def _uses(rows: list[dict[str, Any]]) -> list[str]:
    """Lines that say how many of its devices each target's program uses, where they are not one and all."""
    targets: dict[str, list[str]] = {}
    for row in rows:
        if row.get("use"):
            targets.setdefault(row["use"], []).append(row["target"])
    return [f"{use}: {', '.join(names)}" for use, names in targets.items()]


def _compile_all(names: list[str], shape: Shape, mesh: dict[str, int]) -> list[tuple[str, Program | UserError]]:
    """Compiles for every chip, as many at a time as there are cores: a chip that fails is its error."""
    lowered: dict[Any, Lowered] = {}
    jobs: list[Callable[[], Program]] = []
    for name in names:
        jobs.append(_job(name, shape, mesh, lowered))
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        made = list(pool.map(_attempt, jobs))
    return list(zip(names, made, strict=True))


def _job(name: str, shape: Shape, sizes: dict[str, int], lowered: dict[Any, Lowered]) -> Callable[[], Program]:
    """What compiles the phase for a target. It is lowered once a platform and mesh: tracing is not for threads."""
    try:
        target, mesh = parse_target(name), mesh_for(name, sizes)
        if target.attached and mesh is None:
            phase = build(shape)
            return lambda: compile_for(name, phase.function, *phase.args)
        if target.attached:
            raise UserError(f"target {name!r}: leave it out of a mesh: configs/cost.py compiles for what is attached.")
        key = (target.platform, mesh)
        if key not in lowered:
            with on_mesh(mesh):
                phase = build(shape)
                lowered[key] = lower_for(target.platform, phase.function, *phase.args)
    except UserError as error:
        return _raiser(error)
    program = lowered[key]
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
    clock = report.clock
    needed = made.memory.needed if made.memory else None
    capacity = device.main_memory.capacity.value if device else None
    row = {
        "target": made.target or name,
        "use": use_told(name, mesh_for(name, settings.mesh)),
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
    known = device is not card and not settings.function
    expected = expected_error(device.name, settings.phase) if known else None
    row["expected_error"] = expected._asdict() if expected else None
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
    report: Analysis, device: Device, dtype: str, tokens: int | None, clock: Mapping[str, OpClock]
) -> dict[str, Any]:
    """The predicted time of one execution, what binds most of it, and how it agrees with the compiler's own clock.

    `utilisation` is FLOPs a second over the device's peak for matrix products of `dtype`.
    """
    time = report.time if report.device is device and report.time else predict(report.cost, device)
    bounds: dict[str, float] = {}
    for op in time.ops:
        bounds[op.bound] = bounds.get(op.bound, 0.0) + op.seconds
    hertz = device.clock_hz.value
    most = peak(device.matmul, "tf32" if dtype == "f32" else dtype)
    agreed = agreement(clock, {op.name: op.seconds * hertz for op in time.ops}, 5)
    return {
        "seconds": time.overlapped,
        "seconds_low": time.low,
        "seconds_high": time.high,
        "cycles": time.cycles,
        "seconds_per_token": time.overlapped / tokens if tokens else None,
        "cycles_per_token": time.cycles / tokens if tokens else None,
        "tokens_per_second": tokens / time.overlapped if tokens and time.overlapped else None,
        "bound": max(bounds, key=lambda name: bounds[name]) if bounds else None,
        "seconds_by_bound": bounds,
        "utilisation": report.totals.flops / most.value / time.overlapped,
        "agreement": dataclasses.asdict(agreed) if clock else None,
        "checked": dict(device.checked),
    }


def _tokens(settings: _Settings) -> int | None:
    """Tokens that one execution works on or makes; None: of a function of the user's nobody knows."""
    if settings.function:
        return None
    each = {"decode": 1, "generate": settings.new_tokens}.get(settings.phase, settings.length)
    return settings.batch * each
