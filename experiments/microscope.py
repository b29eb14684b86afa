"""One op from HLO down to the clock: microscope.json, loop.s and op.hlo in the workdir, and a screen."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments._settings import values_of
from llmjax.analyser import read_hlo
from llmjax.analysis import Analysis, analysis_of
from llmjax.cost.attribution import AttributedOp, share_of
from llmjax.cycles.device import Device, Figure, load_device
from llmjax.cycles.measured import Measured, MeasuredOp, Profile
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.hlo import parse
from llmjax.inputs.function import from_anywhere
from llmjax.microscope import choose, evidence, explain, facts, objects, view, x86
from llmjax.microscope.kernel import Kernel, Work, kernel, simulated
from llmjax.report.terminal import console

ROOT = Path(__file__).resolve().parent.parent
_SHAPE = ("model", "phase", "batch", "length", "new_tokens", "dtype", "kv_cache", "function", "args")
FLAGS = "--xla_dump_to={} --xla_dump_hlo_as_text"


class _Settings(NamedTuple):
    """The settings of configs/microscope.py, which says what each is."""

    op: str
    model: str
    phase: str
    batch: int
    length: int
    new_tokens: int
    dtype: str
    dump: str
    card: str
    measure: bool
    runs: int
    cpu: str
    kv_cache: str
    function: str
    args: str


@dataclass(frozen=True)
class _Program:
    """A compiled module, its dump, and what was measured of it."""

    title: str
    report: Analysis
    dumped: objects.Module
    symbols: Mapping[str, Path]
    clock: Figure | None
    machine: Device | None = None  # whose caches hold the program's data: the card's, or those that are here


def run(config: ConfigDict, workdir: str) -> None:
    """Looks at the configured op, prints what it finds, and writes the files."""
    settings = _Settings(**values_of(config))
    if not settings.dump and platform.machine() not in ("x86_64", "AMD64"):
        raise UserError(
            f"this machine is no x86 ({platform.machine()}): the microscope reads x86 code; --config.dump=FOLDER looks"
            " at the dump of a machine that is one."
        )
    device = load_device(settings.card) if settings.card else None
    tools = objects.find_tools()
    with tempfile.TemporaryDirectory(prefix="llmjax-microscope-") as folder:
        if settings.dump:
            program = _dumped(settings, device, tools)
        else:
            program = _compiled(settings, device, tools, Path(folder))
        ops = choose.choose(program.report.cost.module, program.report.ops, settings.op, _size(program.report))
        found, code = _look(program, ops, settings, tools)
    _write(Path(workdir), found, code)
    view.print_found(found, console())
    names = ("microscope.json", "op.hlo", *(["loop.s"] if code else []))
    print(f"{', '.join(names[:-1])} and {names[-1]}: {workdir}")


def _write(folder: Path, found: view.Found, code: str) -> None:
    try:
        atomic_write(folder / "microscope.json", view.to_json(found))
        atomic_write(folder / "op.hlo", str(found.data["hlo"]))
        if code:
            atomic_write(folder / "loop.s", code)
        else:
            (folder / "loop.s").unlink(missing_ok=True)  # of another op
    except OSError as error:
        raise UserError(f"workdir {str(folder)!r} cannot be written: {error.strerror or error}.") from error


def _compiled(settings: _Settings, device: Device | None, tools: objects.Tools, folder: Path) -> _Program:
    """Compiles the phase in a child process that dumps, and measures it there."""
    shape = {name: getattr(settings, name) for name in _SHAPE}
    if settings.function:  # the child has another working directory
        shape["function"] = from_anywhere(settings.function)
    runs = settings.runs if settings.measure else 0
    (folder / "request.json").write_text(json.dumps({"shape": shape, "runs": runs, "clock": device is None}))
    doing = "compiling and measuring" if runs else "compiling"
    print(f"{doing} {settings.function or f'{settings.model} {settings.phase}'}", file=sys.stderr)
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    flags = FLAGS.format(folder / "dump")
    env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{env.get('XLA_FLAGS', '')} {flags}".strip()}
    command = [sys.executable, "-m", "experiments._microscope", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    try:
        answer = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError) as error:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"the program could not be compiled: {last[:300]}") from error
    if "error" in answer:
        raise UserError(answer["error"])
    named = [m for m in objects.modules(folder / "dump") if m.hlo.name.split(".", 1)[1].startswith(answer["module"])]
    if not named:
        raise UserError(f"XLA dumped no object files of {answer['module']}: was it compiled for this CPU?")
    profile = _profile(answer["module"], runs, answer["profile"]) if runs else None
    clock = device.clock_hz if device else Figure(*answer["clock"]) if "clock" in answer else None
    report = _report(folder / "program.hlo", device, profile, answer["trips"])
    symbols = objects.symbols(tools, named[0].objects)
    machine = device or evidence.only_caches(answer["caches"], len(os.sched_getaffinity(0)))
    return _Program(answer["summary"], report, named[0], symbols, clock, machine)


def _dumped(settings: _Settings, device: Device | None, tools: objects.Tools) -> _Program:
    """The module of a dump that has the op; nothing of it is measured here."""
    found, errors = [], []
    for module in objects.modules(Path(settings.dump).expanduser()):
        report = _report(module.hlo, device, None, None)
        try:
            choose.choose(report.cost.module, report.ops, settings.op, _size(report))
            found.append((module, report))
        except UserError as error:
            errors.append((module, error))
    if not found:
        raise max(errors, key=lambda each: each[0].hlo.stat().st_size)[1]
    if len(found) > 1:
        names = view.named(module.hlo.name for module, _ in found)
        raise UserError(
            f"--config.op={settings.op!r} is in {len(found)} modules: name one by --config.dump=FILE: {names}"
        )
    (module, report), title = found[0], f"{found[0][1].name} · {found[0][0].hlo.name}"
    symbols = objects.symbols(tools, module.objects)
    return _Program(title, report, module, symbols, device.clock_hz if device else None, device)


def _report(hlo: Path, device: Device | None, profile: Profile | None, trips: int | None) -> Analysis:
    text = read_hlo(hlo)
    module = parse(text, str(hlo))
    return analysis_of(module, trips=trips, backend="cpu", text=text, device=device, measured=profile)


def _profile(module: str, runs: int, found: Mapping[str, Any]) -> Profile:
    ops = {
        name: MeasuredOp(name, Measured(*times), calls, tuple(threads))
        for name, (times, calls, threads) in found["ops"].items()
    }
    return Profile(module, Measured(*found["wall"]), Measured(*found["traced"]), ops, found["covered"], runs)


def _size(report: Analysis) -> Any:
    """How large an op is: by its measured time, else its predicted one, else its share of FLOPs or bytes."""
    measured, predicted = report.measured, report.time
    if measured is not None:
        return lambda op: measured.ops[op.name].time.median if op.name in measured.ops else 0.0
    if predicted is not None:
        return lambda op: predicted.by_name[op.name].seconds if op.name in predicted.by_name else 0.0
    share = share_of(report.totals)
    return lambda op: share(op.total)


def _look(
    program: _Program, ops: list[AttributedOp], settings: _Settings, tools: objects.Tools
) -> tuple[view.Found, str]:
    """All that is to be shown of the first of `ops`, and its code as text, "" where it has none."""
    op, report, clock = ops[0], program.report, program.clock
    module, cost = report.cost.module, op.op.cost
    symbol = choose.symbol_of(op, choose.alike(module, op, report.ops), program.symbols)
    code, cpu = None, ""
    notes: tuple[str, ...] = ()
    runner, told = choose.runner(op)
    if symbol is not None:
        file = program.symbols[symbol]
        function = next((f for f in x86.parse(objects.disassemble(tools, file)) if f.name == symbol), None)
        if function is None:
            raise UserError(f"llvm-objdump shows no code of {symbol} in {file.name}.")
        work = Work(float(cost.matmul_flops), float(cost.bytes_written), float(cost.bytes_read))
        cpu, code = _simulate(kernel(function, work), tools, settings.cpu)
        notes = (f"Cycles by llvm-mca, LLVM {tools.version}, for {cpu}: caches always hit, no branch is mispredicted.",)
        runner, told = "xla", f"XLA's, {symbol} in {file.name.partition('obj-file.')[2] or file.name}"
    elif told:
        told = f"none of XLA's: {told}"
    time = evidence.time_of(report, op, code, clock, program.machine)
    if report.measured is not None and time.measured is None:
        notes += ("Not measured: the op did not run. A loop around it may have ended at once, with made-up arguments.",)
    if code is not None:
        warnings = (explain.remainder(code), explain.calls(code), explain.coverage(code, float(cost.bytes_written)))
        findings = (explain.iteration(code.hottest), *warnings, explain.difference(time, code))
    else:
        findings = (explain.library(time, runner or "the runtime", *evidence.peak_of(report, op, clock)),)
    found = view.Found(
        f"{op.name} of {program.title}",
        facts.facts(report, ops, _size(report), told),
        facts.source_text(op.place.source),
        tuple(choose.short_hlo(choose.hlo_text(report.text, module, op))),
        code,
        cpu,
        facts.cycles(report, op, time, clock),
        tuple(sentence for sentence in findings if sentence),
        notes,
        facts.data(report, op, time, clock, runner, program.title),
    )
    return found, view.listing(code) if code else ""


def _simulate(code: Kernel, tools: objects.Tools, cpu: str) -> tuple[str, Kernel]:
    """Simulates loops as what repeats, and the code around them as what runs once."""
    outside, *loops = [region.instructions for region in code.regions]
    name, once = objects.simulate(tools, [outside], cpu, iterations=1)
    _, many = objects.simulate(tools, loops, cpu)
    return name, simulated(code, (*once, *many))
