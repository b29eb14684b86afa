"""A program -> what it computes and moves: tables on the terminal, cost.json, cost.csv and the HLO in the workdir."""

import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments._reports import write_views
from experiments._settings import values_of
from llmjax.analyser import report_of, role_table
from llmjax.analysis import Analysis
from llmjax.cost.roles import RoleTable
from llmjax.cycles.device import Device, device_names, load_device, override
from llmjax.cycles.measured import Profile
from llmjax.errors import UserError, did_you_mean
from llmjax.files import atomic_write
from llmjax.hlo import Module, parse
from llmjax.inputs.files import joined, once, read_sources, the_one
from llmjax.inputs.source import Source
from llmjax.report import modules_table, print_report
from llmjax.report.collectives import collectives_table
from llmjax.report.export import to_csv, to_json
from llmjax.report.html import TABS
from llmjax.report.table import largest_first, module_lines
from llmjax.report.terminal import console, every_second, warn_left_out


class _Settings(NamedTuple):
    """The settings of configs/cost.py, which says what each is."""

    mesh: dict[str, int]
    hlo: str
    only: str
    trace: str
    model: str
    phase: tuple[str, ...]
    batch: int
    length: int
    new_tokens: int
    dtype: str
    kv_cache: str
    function: str
    args: str
    target: str
    card: str
    device: dict[str, Any]
    measure: bool
    trip_counts: dict[str, int]
    roles: str
    custom_calls: str
    top: int


def run(config: ConfigDict, workdir: str) -> None:
    """Analyses the configured program, prints what it costs, and writes the files."""
    settings = _Settings(**values_of(config))
    if settings.hlo and settings.function:
        raise UserError("function and hlo are two programs: give one of them.")
    if settings.trace and not settings.hlo:
        raise UserError("trace has the times of hlo's module: give --config.hlo=FILE too.")
    if settings.measure and (settings.hlo or settings.target):
        raise UserError("measure=True runs the phase on the device that is here; leave hlo and target out.")
    roles = role_table(settings.roles or None)
    if settings.measure and "generate" in settings.phase and not settings.function:
        raise UserError(
            "measure=True: generate stops when its rows are done, which made-up prompts are; measure decode."
        )
    _device(settings)  # a card that cannot be read is told before anything is compiled
    sources = _read(settings) if settings.hlo else _phases(settings)
    _check_loops(sources, settings.trip_counts)
    reports = [(source, _analyse(source, settings, roles)) for source in sources]
    if settings.hlo:
        reports.sort(key=lambda one: largest_first(one[1]))
    screen = console()
    folder = Path(workdir)
    if settings.hlo and len(reports) > 1:
        rows, told = module_lines(reports)
        screen.print(modules_table(rows, screen.width))
        if told:
            print(f"{told} --config.only='NAME*' chooses among the names")
        print(f"Each module's tables: --config.hlo={workdir.rstrip('/')}/MODULE/module.hlo")
    else:
        for k, (source, report) in enumerate(reports):
            if k:
                screen.print()
            print_report(report, screen, settings.top, source.title)
            if report.mesh:
                screen.print(collectives_table(report, screen.width))
    for source, report in reports:
        _write(report, folder / source.label if len(reports) > 1 else folder)
    several = (
        settings.function
        or Path(settings.hlo).name
        or f"{settings.model}: {', '.join(source.label for source in sources)}"
    )
    title = several if len(reports) > 1 else ""
    views = write_views(folder, [(source.label, source.title, report) for source, report in reports[:TABS]], title)
    if len(reports) > TABS:
        print(f"cost.html has the {TABS} largest modules")
    written = "cost.json, cost.csv and module.hlo"
    print(f"{written}{' of each module' if len(reports) > 1 else ''}: {workdir}")
    no_trace = "" if "trace.json" in views else " (no trace.json: no times are known)"
    print(f"to look at: {', '.join(str(folder / name) for name in views)}{no_trace}")


def _analyse(source: Source, settings: _Settings, roles: RoleTable | None) -> Analysis:
    loops = _loops(source.module)
    trip_counts = {name: count for name, count in settings.trip_counts.items() if name in loops}
    custom_calls = settings.custom_calls or None
    return report_of(source, trip_counts, roles, custom_calls=custom_calls, card=_device(settings))


def _device(settings: _Settings) -> Device | None:
    """The device whose numbers predict times: the card's, else the target's, with what the user changed of them."""
    name = settings.card or settings.target
    known = settings.card or ":".join(name.split(":")[:2]) in device_names()
    if settings.hlo and name and not known:
        raise UserError(
            f"target={name!r}: HLO is timed on a chip whose numbers are known: {', '.join(device_names())}, or"
            f" --config.card=FILE.{did_you_mean(name, device_names())}"
        )
    if not known and settings.device:
        numbers = ", ".join(sorted(settings.device))
        raise UserError(f"--config.device.{numbers}: give --config.card=FILE or --config.target=CHIP to change.")
    return override(load_device(name), settings.device) if known else None


def _write(report: Analysis, folder: Path) -> None:
    try:
        atomic_write(folder / "cost.json", to_json(report))
        atomic_write(folder / "cost.csv", to_csv(report))
        atomic_write(folder / "module.hlo", report.text)
    except OSError as error:
        raise UserError(f"workdir {str(folder)!r} cannot be written: {error.strerror or error}.") from error


def _check_loops(sources: list[Source], trip_counts: dict[str, int]) -> None:
    """Refuses a trip count of a loop that no module has."""
    loops = sorted(set().union(*(_loops(source.module) for source in sources)))
    for name in trip_counts:
        if name not in loops:
            known = f"; the loops: {', '.join(loops[:10])}" if loops else "; there is no loop"
            near = did_you_mean(name, loops)
            raise UserError(f"--config.trip_counts.{name}: there is no such loop{known}.{near}")


def _loops(module: Module) -> set[str]:
    """What a loop may be called: the name of its `while` or of its body."""
    whiles = [i for c in module.computations.values() for i in c if i.opcode == "while"]
    return {name for i in whiles for name in (i.name, i.attr("body", "")) if name}


def _phases(settings: _Settings) -> list[Source]:
    if settings.function:
        return [_compile(settings.function.rpartition(":")[2], settings)]
    return [_compile(phase, settings) for phase in dict.fromkeys(settings.phase)]


def _compile(name: str, settings: _Settings) -> Source:
    from experiments._mesh import mesh_for, on_devices, use_told  # JAX is not needed where HLO is given
    from experiments._programs import Shape, build
    from llmjax.backend import settle
    from llmjax.parallel.mesh import current, on_mesh
    from llmjax.targets.aot import compile_for
    from llmjax.targets.local import compile_here

    settle()
    shape = (settings.model, name, settings.batch, settings.length, settings.new_tokens, settings.dtype)
    shape += (settings.kv_cache, settings.function, settings.args)
    chip = settings.target
    with on_mesh(mesh_for(chip, settings.mesh)) if chip else on_devices(settings.mesh):
        mesh = current()
        phase = build(Shape(*shape))
        print(f"compiling {phase.summary}{f' for {chip}' if chip else ''}", file=sys.stderr)
        compile_ = partial(compile_for, chip) if chip else compile_here
        program = compile_(phase.function, *phase.args)
    title = " · ".join(filter(None, (phase.summary, program.target or program.backend, use_told(chip, mesh))))
    times = _measure(name, program.executable, phase.args, settings) if settings.measure else None
    return Source(
        name, title, program.text, parse(program.text), backend=program.backend, target=program.target,
        compiler=program.cost_analysis, trips=phase.trips, measured=times,
        mesh=None if mesh is None else dict(mesh.shape),
    )  # fmt: skip


def _measure(phase: str, executable: Any, args: tuple[Any, ...], settings: _Settings) -> Profile:
    from llmjax.cycles.calibration import check_card
    from llmjax.cycles.profile import profile

    warning = check_card(load_device(settings.card)) if settings.card else ""
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"measuring {phase}", file=sys.stderr)
    return profile(executable, *args)


def _read(settings: _Settings) -> list[Source]:
    """The modules of the file or folder that was named, and what a trace measured of them."""
    found = read_sources(
        Path(settings.hlo), "--config.hlo=", only=settings.only, target=settings.target, say=every_second("reading")
    )
    warn_left_out(found.left_out)
    if not settings.trace:
        return once(found.sources)
    return [joined(the_one(found.sources, settings.hlo), Path(settings.trace).expanduser())]
