"""LLM inference against a CPU's clock: sections on the terminal, clock.json and clock.html in the workdir."""

import importlib
import sys
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments._mesh import mesh_here
from experiments._settings import values_of
from experiments.clock_parts.settings import Machine, Settings, read_settings
from llmjax.cycles import counters
from llmjax.cycles.calibration import calibrate, check_card
from llmjax.cycles.device import Device, load_device
from llmjax.cycles.noise import warning
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.report.page import Page, Section, print_page, to_html, to_json
from llmjax.report.terminal import console

_LAST = "likeness"  # it tells the other sections' numbers again


def run(config: ConfigDict, workdir: str) -> None:
    """Measures this machine, runs the chosen sections, prints what they found and writes the files."""
    settings = read_settings(values_of(config))
    mesh = mesh_here(settings.mesh)
    began = time.perf_counter()
    say("measuring this machine" if not settings.card else f"reading {settings.card}")
    device = _device(settings)
    machine = Machine(device, counters.available(), mesh)
    sections: dict[str, Section] = {}
    for number, name in enumerate(settings.sections, start=1):
        say(f"[{number}/{len(settings.sections)}, {time.perf_counter() - began:.0f} s] {name}")
        sections[name] = _section(name, settings, machine, sections)
    noise = (Section("noise", "Too noisy", (f"{told[0].upper()}{told[1:]}",)),) if (told := warning(device)) else ()
    page = Page(*_title(settings, machine), (*noise, *sections.values()))
    print_page(page, console())
    folder = Path(workdir)
    try:
        atomic_write(folder / "clock.json", to_json(page))
        atomic_write(folder / "clock.html", to_html(page))
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    seconds = time.perf_counter() - began
    print(f"clock.json, and clock.html to look at: {workdir} ({seconds:.0f} s)")


def say(what: str) -> None:
    """Tells a person who waits what is being done."""
    print(what, file=sys.stderr, flush=True)


def _section(name: str, settings: Settings, machine: Machine, before: dict[str, Section]) -> Section:
    make: Any = importlib.import_module(f"experiments.clock_parts.{name}").section
    return make(settings, machine, before) if name == _LAST else make(settings, machine)


def _device(settings: Settings) -> Device:
    if not settings.card:
        return calibrate(runs=max(2, settings.runs // 2), most=settings.programs)
    device = load_device(settings.card)
    if warning := check_card(device):
        say(f"warning: {warning}")
    return device


def _title(settings: Settings, machine: Machine) -> tuple[str, str]:
    device = machine.device
    cores = round(device.cores.value)
    what = "generating" if settings.generates else "classifying"
    title = f"{settings.model} {what} against the clock"
    rows = f"batch {settings.batch}, {settings.length} tokens a row, {settings.dtype}"
    core = f"{cores} core{'s' if cores > 1 else ''} at {device.clock_hz.value / 1e9:.2f} GHz"
    return title, f"{rows}; {device.title}, {core}; jaxlib {device.made_with.get('jaxlib', 'unknown')}"
