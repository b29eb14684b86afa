"""Published times against predicted ones: published.json and published.html in the workdir, scores on the terminal."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments._published import compiled, is_kept, taken_of
from experiments._settings import values_of
from llmjax.cycles.device import device_names
from llmjax.cycles.published.cases import LESS_WORK, Case, Program, case_of, of_less_work
from llmjax.cycles.published.chips import chip_of
from llmjax.cycles.published.kernels import kernel_seconds
from llmjax.cycles.published.pricing import Taken, assembled, layers_to_compile, once_a_step
from llmjax.cycles.published.scores import Outcome, by_tier, counted, expected, grouped, inversions, seen_by_fit, worst
from llmjax.cycles.published.table import TIERS, Row, read_table
from llmjax.errors import UserError, did_you_mean
from llmjax.files import atomic_write
from llmjax.report.page import print_page, to_html
from llmjax.report.published import published_page
from llmjax.report.terminal import console

SCHEMA = "llmjax.published/1"
LATER = "not compiled yet: run the job again"


class _Settings(NamedTuple):
    """The settings of configs/published.py, which says what each is."""

    table: str
    tiers: str
    chips: str
    minutes: float


class _Compiler:
    """Compiles programs into a folder until a time is over; what is kept there is always taken."""

    def __init__(self, folder: Path, until: float) -> None:
        self.folder, self.until = folder, until
        self.taken: dict[tuple[Program, int, str, str], Taken] = {}

    def time(self, program: Program, layers: int, case: Case) -> Taken | None:
        """What a program is predicted to take with so many layers; None where it is too late to compile it."""
        chip = case.chip
        main = f"{chip.device.name} {chip.device.main_memory.bandwidth.value}"
        key = (program, layers, chip.target, main)
        if key not in self.taken:
            kept = is_kept(program, layers, chip.target, self.folder)
            if time.monotonic() > self.until and not kept:
                return None
            if not kept:
                what = f"{program.phase} {program.batch} x {program.length} {program.dtype}, {layers} layers"
                print(f"compiling {case.row.id} for {chip.target}: {what}", file=sys.stderr)
            text = compiled(program, layers, chip.target, self.folder)
            self.taken[key] = taken_of(text, chip.target, chip.device)
        return self.taken[key]


def run(config: ConfigDict, workdir: str) -> None:
    """Predicts every row that can be, prints the scores and writes the files."""
    began = time.monotonic()
    settings = _Settings(**values_of(config))
    rows = _rows(settings)
    compiler = _Compiler(Path(workdir) / "programs", began + 60 * settings.minutes)
    outcomes: list[Outcome] = []
    left: dict[str, str] = {}
    refuted = of_less_work(rows)
    for number, row in enumerate(rows, start=1):
        found = LESS_WORK if row.id in refuted else _outcome(row, compiler)
        if isinstance(found, str):
            left[row.id] = found
            continue
        outcomes.append(found)
        told = f"{found.chip}, {found.phase}, {row.model[:40]}: {found.ratio:.2f} of the published time"
        print(f"[{number}/{len(rows)}, {time.monotonic() - began:.0f} s] {row.id} {told}", file=sys.stderr)
    if not outcomes:
        why = next(iter(left.values()), "no row is of these tiers and chips")
        raise UserError(f"no row of {settings.table!r} could be predicted: {why}.")
    page = published_page(Path(settings.table).name, outcomes, left)
    shown = tuple(section for section in page.sections if section.key != "rows")  # hundreds of them: in the files
    print_page(replace(page, sections=shown), console())
    folder = Path(workdir)
    try:
        atomic_write(folder / "published.json", json.dumps(_document(outcomes, left), indent=1, allow_nan=False) + "\n")
        atomic_write(folder / "expected.json", json.dumps(expected(outcomes), indent=1) + "\n")
        atomic_write(folder / "published.html", to_html(page))
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    waiting = sum(why == LATER for why in left.values())
    more = f"; {waiting} rows wait for their programs: run it again" if waiting else ""
    print(f"published.json, and published.html to look at: {workdir} ({time.monotonic() - began:.0f} s{more})")


def _rows(settings: _Settings) -> list[Row]:
    """Rows of the tiers and chips that are asked for, the tiers in their order; within one, each source in turn."""
    if not settings.table:
        raise UserError("--config.table=FILE.csv is needed: published figures, in the columns of docs/published.md.")
    tiers = [tier.strip() for tier in settings.tiers.split(",") if tier.strip()]
    for tier in tiers:
        if tier not in TIERS:
            raise UserError(f"--config.tiers: {tier!r} is none of {', '.join(TIERS)}.")
    chips = [chip.strip() for chip in settings.chips.split(",") if chip.strip()]
    for chip in chips:
        if chip not in device_names():
            near = did_you_mean(chip, device_names())
            raise UserError(f"--config.chips: {chip!r} is none of {', '.join(device_names())}.{near}")
    rows = read_table(Path(settings.table).expanduser())
    kept = [row for row in rows if not chips or ((chip := chip_of(row.hardware)) and chip.device.name in chips)]
    return [row for tier in tiers for row in _in_turn([row for row in kept if row.tier == tier])]


def _in_turn(rows: Sequence[Row]) -> Iterator[Row]:
    """One row of each stack, chip and phase after another, so that a short run has seen something of all."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row.stack, row.hardware, row.phase, str(row.chips), row.dtype), []).append(row)
    for n in range(max(map(len, kinds.values()), default=0)):
        yield from (same[n] for same in kinds.values() if n < len(same))


def _outcome(row: Row, compiler: _Compiler) -> Outcome | str:
    """A row's prediction, or why there is none."""
    if row.tier == "K":
        kernel = kernel_seconds(row)
        if isinstance(kernel, str):
            return kernel
        predicted, published, chip = kernel
        phase = "collective" if row.phase == "collective" else "kernel"
        return Outcome(row, chip.device.name, phase, predicted, published, seen_by_fit(row, chip.device))
    case = case_of(row)
    if isinstance(case, str):
        return case
    try:
        seconds = _seconds(case, compiler)
    except UserError as error:
        return str(error)
    if seconds is None:
        return LATER
    device = case.chip.device
    told, phase = case.told, kind_of(case)
    if any(len(layers_to_compile(program, device)) > 1 for program, _ in case.programs):
        told = (*told, "all layers from two programs of few")
    return Outcome(row, device.name, phase, seconds, case.seconds, seen_by_fit(row, device), told)


def kind_of(case: Case) -> str:
    """The kind of a case's work: "forward", "train", "decode", "prefill" or "generate"."""
    phases = [program.phase for program, _ in case.programs]
    if len(phases) > 1:
        return "generate"
    return "train" if phases[0] in ("gradients", "train") else phases[0]


def _seconds(case: Case, compiler: _Compiler) -> float | None:
    device, whole = case.chip.device, 0.0
    for program, times in case.programs:
        layers = layers_to_compile(program, device)
        seconds = [compiler.time(program, few, case) for few in layers]
        known = [each for each in seconds if each is not None]
        if len(known) < len(layers):
            return None
        whole += times * assembled(program, case.layout, device, layers, known)
    return whole + once_a_step(case.programs[0][0], case.layout, device, whole)


def _document(outcomes: Sequence[Outcome], left: dict[str, str]) -> dict[str, Any]:
    tests = counted(outcomes)
    return {
        "schema": SCHEMA,
        "scores": {
            "by tier": _scores(by_tier(outcomes)),
            "by chip and phase": _scores(grouped(tests, lambda o: f"{o.chip} {o.phase}")),
            "by source": _scores(grouped(tests, lambda o: o.row.stack)),
        },
        "worst": [o.row.id for o in worst(tests)],
        "inversions": [[a.row.id, b.row.id] for a, b in inversions(tests)],
        "rows": [_row(outcome) for outcome in outcomes],
        "left": left,
    }


def _scores(found: dict[str, Any]) -> dict[str, Any]:
    return {name: asdict(score) for name, score in found.items()}


def _row(o: Outcome) -> dict[str, Any]:
    found = {"id": o.row.id, "tier": o.row.tier, "chip": o.chip, "phase": o.phase, "seen": o.seen, "told": list(o.told)}
    return found | {"predicted": o.predicted, "published": o.published, "ratio": o.ratio}
