"""A program -> what it computes and moves: tables on the terminal, cost.json, cost.csv and the HLO in the workdir."""

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments._reports import write_views
from experiments._settings import values_of
from llmjax.analyser import read_hlo, role_table
from llmjax.analysis import Analysis, analysis_of
from llmjax.cost.buffers import Buffers, find_buffers
from llmjax.cost.given import given_table
from llmjax.cost.roles import RoleTable
from llmjax.cycles.device import Device, device_names, load_device, override
from llmjax.cycles.measured import Profile
from llmjax.errors import UserError, did_you_mean
from llmjax.files import atomic_write
from llmjax.hlo import Module, parse, split_modules
from llmjax.report import modules_table, print_report
from llmjax.report.collectives import collectives_table
from llmjax.report.export import to_csv, to_json
from llmjax.report.terminal import console


class _Settings(NamedTuple):
    """The settings of configs/cost.py, which says what each is."""

    mesh: dict[str, int]
    hlo: str
    model: str
    phase: tuple[str, ...]
    batch: int
    length: int
    new_tokens: int
    dtype: str
    target: str
    card: str
    device: dict[str, Any]
    measure: bool
    trip_counts: dict[str, int]
    roles: str
    custom_calls: str
    top: int


class _Source(NamedTuple):
    """A module to analyse: `label` names its files, `title` its screen."""

    label: str
    title: str
    text: str
    module: Module
    backend: str | None = None
    cost_analysis: Any = None
    target: str | None = None
    trips: int | None = None  # of a loop whose length the text does not say
    measured: Profile | None = None
    mesh: dict[str, int] | None = None  # sizes of its axes
    buffers: Buffers | None = None  # memory that the compiler reserves, where the dump says


def run(config: ConfigDict, workdir: str) -> None:
    """Analyses the configured program, prints what it costs, and writes the files."""
    settings = _Settings(**values_of(config))
    if settings.measure and (settings.hlo or settings.target):
        raise UserError("measure=True runs the phase on the device that is here; leave hlo and target out.")
    if settings.measure and set(settings.mesh.values()) != {1}:
        raise UserError("measure=True measures the program of one device: leave mesh.data, fsdp and tensor at 1.")
    roles = role_table(settings.roles or None)
    if settings.measure and "generate" in settings.phase:
        raise UserError(
            "measure=True: generate stops when its rows are done, which made-up prompts are; measure decode."
        )
    _device(settings)  # a card that cannot be read is told before anything is compiled
    sources = _read(Path(settings.hlo).expanduser()) if settings.hlo else _phases(settings)
    _check_loops(sources, settings.trip_counts)
    reports = [(source, _analyse(source, settings, roles)) for source in sources]
    screen = console()
    folder = Path(workdir)
    if settings.hlo and len(reports) > 1:
        screen.print(modules_table(((source.label, report) for source, report in reports), screen.width))
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
    several = Path(settings.hlo).name or f"{settings.model}: {', '.join(source.label for source in sources)}"
    title = several if len(reports) > 1 else ""
    views = write_views(folder, [(source.label, source.title, report) for source, report in reports], title)
    written = "cost.json, cost.csv and module.hlo"
    print(f"{written}{' of each module' if len(reports) > 1 else ''}: {workdir}")
    no_trace = "" if "trace.json" in views else " (no trace.json: no times are known)"
    print(f"to look at: {', '.join(str(folder / name) for name in views)}{no_trace}")


def _analyse(source: _Source, settings: _Settings, roles: RoleTable | None) -> Analysis:
    loops = _loops(source.module)
    trip_counts = {name: count for name, count in settings.trip_counts.items() if name in loops}
    return analysis_of(
        source.module,
        trip_counts=trip_counts,
        trips=source.trips,
        roles=roles,
        custom_calls=given_table(settings.custom_calls or None),
        backend=source.backend,
        compiler=source.cost_analysis,
        text=source.text,
        target=source.target,
        device=_device(settings),
        measured=source.measured,
        mesh=source.mesh,
        buffers=source.buffers,
    )


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


def _check_loops(sources: list[_Source], trip_counts: dict[str, int]) -> None:
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


def _phases(settings: _Settings) -> list[_Source]:
    return [_compile(phase, settings) for phase in dict.fromkeys(settings.phase)]


def _compile(name: str, settings: _Settings) -> _Source:
    from experiments._mesh import mesh_for, on_devices, use_told  # JAX is not needed where HLO is given
    from experiments._phases import Shape, build
    from llmjax.backend import settle
    from llmjax.parallel.mesh import current, on_mesh
    from llmjax.targets.aot import compile_for
    from llmjax.targets.local import compile_here

    settle()
    shape = (settings.model, name, settings.batch, settings.length, settings.new_tokens, settings.dtype)
    chip = settings.target
    with on_mesh(mesh_for(chip, settings.mesh)) if chip else on_devices(settings.mesh):
        mesh = current()
        phase = build(Shape(*shape))
        print(f"compiling {phase.summary}{f' for {chip}' if chip else ''}", file=sys.stderr)
        compile_ = partial(compile_for, chip) if chip else compile_here
        program = compile_(phase.function, *phase.args)
    title = " · ".join(filter(None, (phase.summary, program.target or program.backend, use_told(chip, mesh))))
    known = (program.text, parse(program.text), program.backend, program.cost_analysis, program.target)
    times = _measure(name, program.executable, phase.args, settings) if settings.measure else None
    return _Source(name, title, *known, phase.trips, times, None if mesh is None else dict(mesh.shape))


def _measure(phase: str, executable: Any, args: tuple[Any, ...], settings: _Settings) -> Profile:
    from llmjax.cycles.calibration import check_card
    from llmjax.cycles.profile import profile

    warning = check_card(load_device(settings.card)) if settings.card else ""
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"measuring {phase}", file=sys.stderr)
    return profile(executable, *args)


def _read(path: Path) -> list[_Source]:
    if not path.exists():
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        raise UserError(f"--config.hlo={str(path)!r} does not exist.{did_you_mean(path.name, names)}")
    files = _modules(path) if path.is_dir() else [path]
    sources = []
    errors = []
    for file in files:
        try:
            texts, buffers = split_modules(read_hlo(file)), find_buffers(file)
        except UserError as error:
            errors.append(error)
            continue
        for text in texts:
            try:
                module = parse(text, str(file))
            except UserError as error:
                errors.append(error)
                continue
            label = f"{_label(file)}.{_plain(module.name)}" if len(texts) > 1 else _label(file)
            sources.append(_Source(label, f"{module.name or 'module'} · {file.name}", text, module, buffers=buffers))
    if not sources:
        raise errors[0]
    for error in errors:
        print(f"warning: left out: {error}", file=sys.stderr)
    return _numbered(sources)


def _numbered(sources: list[_Source]) -> list[_Source]:
    """The sources with labels that differ: those of modules of one name get numbers."""
    seen: dict[str, int] = {}
    found = []
    for source in sources:
        seen[source.label] = count = seen.get(source.label, 0) + 1
        found.append(source._replace(label=f"{source.label}.{count}") if count > 1 else source)
    return found


def _plain(name: str) -> str:
    """A module's name as part of a file's name."""
    return re.sub(r"[^\w.\-]", "_", name)[:100]


def _label(file: Path) -> str:
    name = file.name.removesuffix(".gz").removesuffix(".txt").removesuffix(".hlo")
    return name.removesuffix("after_optimizations").rstrip("._") or name


def _modules(folder: Path) -> list[Path]:
    """The optimised modules of a dump; of a folder without any, the files that begin like HLO text."""
    files = sorted(p for p in folder.iterdir() if p.is_file())
    found = [p for p in files if p.name.endswith(("after_optimizations.txt", "after_optimizations.txt.gz"))]
    if not found:
        texts = [p for p in files if p.suffix in (".txt", ".hlo") and _begins_like_hlo(p)]
        found = [p for p in texts if "before_optimizations" not in p.name] or texts
    if not found:
        dump = "dump one with XLA_FLAGS='--xla_dump_to=FOLDER --xla_dump_hlo_as_text'"
        binary = " (what it has is binary)" if any(p.suffix in (".pb", ".hlo_proto") for p in files) else ""
        raise UserError(f"--config.hlo={str(folder)!r}: the folder holds no HLO text{binary}; {dump}.")
    return found


def _begins_like_hlo(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"HloModule")
