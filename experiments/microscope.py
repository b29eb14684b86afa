"""One op from HLO down to the clock: microscope.json, loop.s and op.hlo in the workdir, and a screen."""

import json
import math
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
from rich.console import Console

from llmjax.analyser import read_hlo
from llmjax.cost.attribution import AttributedOp, share_of
from llmjax.cycles.device import Device, Figure, load_device, peak
from llmjax.cycles.measured import Measured, MeasuredOp, Profile
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.hlo import parse
from llmjax.microscope import choose, explain, objects, view, x86
from llmjax.microscope.kernel import Kernel, Work, kernel, simulated
from llmjax.report import CostReport, cost_report
from llmjax.report.units import short

ROOT = Path(__file__).resolve().parent.parent
FEWEST_COLUMNS = 80
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


@dataclass(frozen=True)
class _Program:
    """A compiled module, its dump, and what was measured of it."""

    title: str
    report: CostReport
    dumped: objects.Module
    symbols: Mapping[str, Path]
    clock: Figure | None


def run(config: ConfigDict, workdir: str) -> None:
    """Looks at the configured op, prints what it finds, and writes the files."""
    values = config.to_dict()
    del values["experiment"]
    settings = _Settings(**values)
    if settings.runs < 1:
        raise UserError(f"runs={settings.runs} must be at least 1; --config.measure=False runs nothing.")
    if not settings.op.strip():
        raise UserError("--config.op is empty: name an op, a role (softmax, MLP, ...) or a module path.")
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
        ops = choose.choose(program.report.ops, settings.op, _size(program.report))
        found, code = _look(program, ops, settings, tools)
    _write(Path(workdir), found, code)
    console = Console()
    if console.width < FEWEST_COLUMNS and not console.is_terminal:
        console = Console(width=FEWEST_COLUMNS)
    view.print_found(found, console)
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
    shape = {name: getattr(settings, name) for name in ("model", "phase", "batch", "length", "new_tokens", "dtype")}
    runs = settings.runs if settings.measure else 0
    (folder / "request.json").write_text(json.dumps({"shape": shape, "runs": runs, "clock": device is None}))
    doing = "compiling and measuring" if runs else "compiling"
    print(f"{doing} {settings.model} {settings.phase}", file=sys.stderr)
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
    report = _report(named[0], device, profile, answer["trips"])
    return _Program(answer["summary"], report, named[0], objects.symbols(tools, named[0].objects), clock)


def _dumped(settings: _Settings, device: Device | None, tools: objects.Tools) -> _Program:
    """The module of a dump that has the op; nothing of it is measured here."""
    found, errors = [], []
    for module in objects.modules(Path(settings.dump).expanduser()):
        report = _report(module, device, None, None)
        try:
            choose.choose(report.ops, settings.op, _size(report))
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
    return _Program(title, report, module, symbols, device.clock_hz if device else None)


def _report(module: objects.Module, device: Device | None, profile: Profile | None, trips: int | None) -> CostReport:
    text = read_hlo(module.hlo)
    parsed = parse(text, str(module.hlo))
    told: dict[str, Any] = {"backend": "cpu", "text": text, "device": device, "measured": profile}
    report = cost_report(parsed, **told)
    if trips is None or not report.cost.unknown_trip_counts:
        return report
    return cost_report(parsed, dict.fromkeys(report.cost.unknown_trip_counts, trips), **told)


def _profile(module: str, runs: int, found: Mapping[str, Any]) -> Profile:
    ops = {
        name: MeasuredOp(name, Measured(*times), calls, tuple(threads))
        for name, (times, calls, threads) in found["ops"].items()
    }
    return Profile(module, Measured(*found["wall"]), Measured(*found["traced"]), ops, found["covered"], runs)


def _size(report: CostReport) -> Any:
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
    op, report = ops[0], program.report
    module = report.cost.module
    twins = choose.alike(module, op, report.ops)
    symbol = choose.symbol_of(op, twins, program.symbols)
    code, cpu, notes = None, "", []
    if symbol is not None:
        functions = x86.parse(objects.disassemble(tools, program.symbols[symbol]))
        function = next((f for f in functions if f.name == symbol), None)
        if function is None:
            raise UserError(f"llvm-objdump shows no code of {symbol} in {program.symbols[symbol].name}.")
        cost = op.op.cost
        code = kernel(function, Work(float(cost.matmul_flops), float(cost.bytes_written), float(cost.bytes_read)))
        cpu, code = _simulate(code, tools, settings.cpu)
        notes.append(f"By llvm-mca of LLVM {tools.version} for {cpu}: caches always hit, branches are always foretold.")
    seconds, spread = _measured(program, op)
    time = _time(program, op, code, seconds)
    who, what = choose.runner(op) if code is None else ("xla", "")
    found = view.Found(
        title=f"{op.name} of {program.title}",
        facts=_facts(program, op, ops, twins, code, symbol, what),
        source_text=_source_text(op.place.source),
        hlo=tuple(choose.short_hlo(choose.hlo_text(report.text, module, op))),
        kernel=code,
        cpu=cpu,
        cycles=_cycles(program, op, code, time, seconds, spread),
        findings=_findings(program, op, code, time, who),
        notes=tuple(notes),
        data=_data(program, op, twins, time, seconds, spread, who),
    )
    return found, view.listing(code) if code else ""


def _simulate(code: Kernel, tools: objects.Tools, cpu: str) -> tuple[str, Kernel]:
    """Simulates loops as what repeats, and the code around them as what runs once."""
    outside, *loops = [region.instructions for region in code.regions]
    name, once = objects.simulate(tools, [outside], cpu, iterations=1)
    _, many = objects.simulate(tools, loops, cpu)
    return name, simulated(code, (*once, *many))


def _measured(program: _Program, op: AttributedOp) -> tuple[float | None, float]:
    """Seconds of one execution, and their relative spread."""
    found = program.report.measured.ops.get(op.name) if program.report.measured else None
    if found is None or not found.calls:
        return None, 0.0
    return found.time.median / found.calls, found.time.spread


def _time(program: _Program, op: AttributedOp, code: Kernel | None, seconds: float | None) -> explain.Time:
    report, clock, cost = program.report, program.clock, op.op.cost
    cores = report.device.cores.value if report.device else float(os.cpu_count() or 1)
    workers = int(min(code.parts, cores)) if code else 1
    loop = None if code is None or code.cycles is None else code.cycles / workers
    flops = float(cost.flops + cost.transcendentals)
    if clock is None:
        return explain.Time(None, loop, workers, float(cost.bytes), flops)
    start, start_source = _start(report, clock.value)
    memory, level, bandwidth, source = _memory(report, op, clock.value)
    cycles = None if seconds is None else seconds * clock.value
    return explain.Time(
        cycles, loop, workers, float(cost.bytes), flops, start, start_source, memory, level, bandwidth, source
    )


def _start(report: CostReport, hertz: float) -> tuple[float | None, str]:
    """What starting an op takes at most: the time of the shortest op of this run, else the card's figure."""
    if report.measured is not None:
        times = [op.time.median / op.calls for op in report.measured.ops.values() if op.calls and op.time.median]
        if times:
            return min(times) * hertz, "the shortest op of this run"
    return (report.device.launch.value * hertz, "the card") if report.device else (None, "")


def _memory(report: CostReport, op: AttributedOp, hertz: float) -> tuple[float | None, str, float | None, str]:
    """Cycles that the op's bytes take, the level they come from and its bytes a cycle: by the card, else by the run's
    other ops that move as much."""
    if report.time is not None and report.device is not None and op.name in report.time.by_name:
        found = report.time.by_name[op.name]
        if found.memory:
            level = max(found.memory, key=lambda name: found.memory[name])
            rate = next(m.bandwidth.value for m in report.device.memory if m.name == level) / hertz
            return (
                sum(found.memory.values()) / found.count * hertz,
                level,
                rate,
                f"the bandwidth of {level} on the card",
            )
    if report.measured is None:
        return None, "", None, ""
    alike = {o.name for o in choose.alike(report.cost.module, op, report.ops)}
    rates = [
        o.op.cost.bytes / (measured.time.median / measured.calls)
        for o in report.ops
        if o.name not in alike
        and o.op.cost.bytes >= op.op.cost.bytes / 2
        and (measured := report.measured.ops.get(o.name)) is not None
        and measured.time.median
    ]
    if not rates or not op.op.cost.bytes:
        return None, "", None, ""
    best = max(rates) / hertz
    return op.op.cost.bytes / best, "", best, "the most that another op of this run reaches which moves as much"


def _findings(
    program: _Program, op: AttributedOp, code: Kernel | None, time: explain.Time, who: str
) -> tuple[str, ...]:
    if code is not None:
        found = (explain.iteration(code.hottest), explain.remainder(code), explain.difference(time, code))
        return tuple(explain.sentences(*found))
    best, what = _peak(program, op)
    return (explain.library(time, who or "the runtime", best, what),)


def _peak(program: _Program, op: AttributedOp) -> tuple[float | None, str]:
    """FLOP a cycle that the card promises, else the most that an op of this run reaches."""
    report, clock = program.report, program.clock
    if clock is None:
        return None, ""
    if report.device is not None:
        dtype = op.op.instruction.shape.leaves[0].dtype if op.op.instruction.shape.leaves else "f32"
        peaks = report.device.matmul if op.op.cost.matmul_flops else report.device.vector
        return peak(peaks, dtype).value / clock.value, f"the card's peak for {dtype}"
    measured = report.measured.ops if report.measured else {}
    rates = [
        o.op.cost.flops / (measured[o.name].time.median / measured[o.name].calls)
        for o in report.ops
        if o.name in measured and measured[o.name].time.median
    ]
    return (max(rates) / clock.value, "the most that an op of this run reaches") if rates else (None, "")


def _cycles(
    program: _Program, op: AttributedOp, code: Kernel | None, time: explain.Time, seconds: float | None, spread: float
) -> tuple[tuple[str, float, float | None, str], ...]:
    rows: list[tuple[str, float, float | None, str]] = []
    hertz = program.clock.value if program.clock else None
    if code is not None and time.loop is not None:
        per = f" / {time.workers} threads" if time.workers > 1 else ""
        in_time = time.loop / hertz if hertz else None
        rows.append(("predicted from the code", time.loop, in_time, f"iterations x cycles an iteration{per}"))
    report = program.report
    if report.time is not None and report.device is not None and op.name in report.time.by_name:
        model = report.time.by_name[op.name]
        each = model.seconds / model.count
        low, high = (1e6 * x / model.count for x in (model.low, model.high))
        source = f"{report.device.name}: {low:,.2f} to {high:,.2f} us, bound by {model.bound.removeprefix('memory:')}"
        rows.append(("the cycle model", each * report.device.clock_hz.value, each, source))
    if time.measured is not None and program.clock is not None:
        clock = f"time x {program.clock.value / 1e9:.2f} GHz; repeats to {spread:.0%}"
        rows.append(("measured", time.measured, seconds, clock))
    return tuple(rows)


def _facts(
    program: _Program,
    op: AttributedOp,
    ops: list[AttributedOp],
    twins: list[AttributedOp],
    code: Kernel | None,
    symbol: str | None,
    what: str,
) -> tuple[tuple[str, str], ...]:
    cost, place = op.op.cost, op.place
    rows = [("module path", place.module_path or "-"), ("role", place.role)]
    source = _relative(place.source)
    rows.append(("Python", f"{source} in {place.function}" if place.function else source or "-"))
    works = [short(cost.flops, "FLOP")] + ([f"{short(cost.transcendentals)} functions"] if cost.transcendentals else [])
    rows.append(
        (
            "one execution",
            f"{', '.join(works)}, reads {short(cost.bytes_read, 'B')}, writes {short(cost.bytes_written, 'B')}",
        )
    )
    times = "" if op.count == 1 else f"; it runs {op.count:,} times a run of the program"
    rows.append(("alike", f"{len(twins)} ops compute this{times}" if len(twins) > 1 else f"no other op{times}"))
    if code is None:
        rows.append(("code", f"none of XLA's: {what}"))
    elif symbol is not None and len(twins) > 1:
        rows.append(("code", f"{symbol}, in {program.symbols[symbol].name.partition('obj-file.')[2]}"))
    families = [f"{key[0]}{f' x{len(of)}' if len(of) > 1 else ''}" for key, of in choose.families(ops).items()]
    if len(families) > 1:
        rows.append(
            (
                f"also {place.role}" if len({o.place.role for o in ops}) == 1 else "also there",
                view.named(name for name in families if name.split(" x")[0] != op.name.rpartition(".")[0]),
            )
        )
    return tuple(row for row in rows if row[1])


def _relative(source: str) -> str:
    try:
        return str(Path(source).relative_to(Path.cwd()))
    except ValueError:
        return source


def _source_text(source: str) -> str:
    file, _, line = source.rpartition(":")
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()
    except (OSError, ValueError, IndexError):
        return ""


def _data(
    program: _Program,
    op: AttributedOp,
    twins: list[AttributedOp],
    time: explain.Time,
    seconds: float | None,
    spread: float,
    who: str,
) -> dict[str, Any]:
    report, cost, place = program.report, op.op.cost, op.place
    model = report.time.by_name.get(op.name) if report.time else None
    clock = program.clock
    return {
        "program": program.title,
        "op": op.name,
        "opcode": op.opcode,
        "computation": op.op.computation,
        "count": op.count,
        "alike": [twin.name for twin in twins],
        "module_path": place.module_path,
        "role": place.role,
        "source": place.source,
        "function": place.function,
        "source_text": _source_text(place.source),
        "hlo": choose.hlo_text(report.text, report.cost.module, op),
        "runs_it": who,
        "matmul_flops": cost.matmul_flops,
        "vector_flops": cost.vector_flops,
        "transcendentals": cost.transcendentals,
        "bytes_read": cost.bytes_read,
        "bytes_written": cost.bytes_written,
        "clock_hz": clock.value if clock else None,
        "clock_source": f"{clock.provenance}: {clock.source}" if clock else "",
        "workers": time.workers,
        "predicted_cycles": time.loop,
        "model_cycles": model.seconds / model.count * report.device.clock_hz.value if model and report.device else None,
        "model_bound": model.bound if model else "",
        "measured_cycles": time.measured,
        "measured_seconds": seconds,
        "measured_spread": spread if seconds is not None else None,
        "start_cycles": time.start,
        "start_source": time.start_source,
        "memory_cycles": time.memory if time.memory is None or math.isfinite(time.memory) else None,
        "memory_level": time.level,
        "bandwidth_bytes_a_cycle": time.bandwidth,
        "bandwidth_source": time.memory_source,
    }
