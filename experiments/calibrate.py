"""This machine -> a device card: card.json in the workdir, and what it holds on the terminal."""

import json
import shlex
import sys
import time
from pathlib import Path

from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments._command import launch_command
from experiments._settings import values_of
from llmjax.cycles.calibration import calibrate
from llmjax.cycles.device import Device, Figure, to_json
from llmjax.cycles.noise import warning
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.report.units import short


def run(config: ConfigDict, workdir: str) -> None:
    """Calibrates the default device, prints the card and writes it."""
    values = values_of(config)
    runs, programs, target = values["runs"], values["programs"], values["target"]
    began = time.perf_counter()
    device = _fit(target) if target else _calibrate(runs, programs)
    path = Path(workdir) / "card.json"
    try:
        atomic_write(path, json.dumps(to_json(device), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    console = Console()
    console.print(numbers(device))
    console.print(terms(device))
    if told := warning(device):
        print(f"warning: {told}")
    seconds = time.perf_counter() - began
    how = f"by {target}'s compiler, not measured," if target else "measured"
    print(f"{device.fit['samples']} ops of {device.fit['programs']} programs {how} in {seconds:.0f} s: {path}")
    also = f"--config.target={target}" if target else "--config.measure"
    print(f"use it: {launch_command('cost.py', f'--config.card={shlex.quote(str(path))}', also)}")


def _calibrate(runs: int, programs: int) -> Device:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("calibrating", total=1.0)
        return calibrate(lambda what, share: progress.update(task, completed=share, description=what), runs, programs)


def _fit(target: str) -> Device:
    from llmjax.cycles.compiler_fit import fit_to_compiler

    print(f"compiling small programs for {target}", file=sys.stderr)
    return fit_to_compiler(target)


def numbers(device: Device) -> Table:
    """The card's numbers, their spread and source."""
    table = Table(title=f"{device.title} ({device.kind})", title_justify="left")
    for column in ("number", "value", "spread", "source"):
        table.add_column(column, justify="right" if column in ("value", "spread") else "left")

    def add(name: str, figure: Figure, unit: str) -> None:
        spread = "" if figure.spread is None else f"{figure.spread:.0%}"
        table.add_row(name, short(figure.value, unit), spread, f"{figure.provenance}: {figure.source}")

    add("clock", device.clock_hz, "Hz")
    add("cores", device.cores, "")
    if device.simd_bits:
        add("vectors", device.simd_bits, "bit")
    for dtype, figure in device.matmul.items():
        add(f"matrix products, {dtype}", figure, "FLOP/s")
    for dtype, figure in device.vector.items():
        add(f"vector, {dtype}", figure, "FLOP/s")
    add("exponentials", device.transcendental, "/s")
    for memory in device.memory:
        add(f"{memory.name} capacity", memory.capacity, "B")
        add(f"{memory.name} bandwidth", memory.bandwidth, "B/s")
    add("launch", device.launch, "s")
    return table


def terms(device: Device) -> Table:
    """The fitted terms by kind of work: how each departs from the peaks, and how well the fit holds."""
    title = "cycle model: kinds of work, overhead in us (sizes of half rate: card.json)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    names = ("overhead", "compute", "near", "far", "strided", "spread")
    table.add_column("kind", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for kind, values in device.fit["terms"].items():
        scaled = {**values, "overhead": values["overhead"] * 1e6}
        table.add_row(kind.replace(":", " "), *(f"{scaled[name]:.2g}" for name in names))
    return table
