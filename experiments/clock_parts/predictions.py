"""Cases on chips that are not here: compiled for each, and timed by the cycle model."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from experiments.clock_parts.cases import Case, Say
from experiments.clock_parts.programs import Form, form_of
from llmjax.analysis import analysis_of
from llmjax.cycles.device import load_device
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.targets.aot import Lowered, compile_lowered, lower_for
from llmjax.targets.names import parse_target


@dataclasses.dataclass(frozen=True)
class Predicted:
    """One execution of a case on a chip: predicted seconds and cycles, and what was counted in the compiled program.

    compile_seconds is the compiler's time on the machine here.
    """

    seconds: float
    cycles: float
    flops: float
    bytes: float
    ops: float
    compile_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What was predicted, by case and target; `notes` say which chip was left out, a line each."""

    found: dict[tuple[Case, str], Predicted]
    notes: tuple[str, ...]


def predict_cases(cases: Iterable[Case], targets: Sequence[str], say: Say = lambda line: None) -> Forecast:
    """Compiles every case for every target and predicts its time; what a compiler refuses is a note.

    A case that is not jitted is predicted from its program before fusion: every op by itself, through main memory.
    """
    wanted = list(dict.fromkeys(cases))
    lowered: dict[tuple[Case, str], Lowered | str] = {}
    forms = {case: form_of(case) for case in wanted} if targets else {}
    jobs: list[tuple[Case, str]] = []
    for target in targets:
        platform = parse_target(target).platform
        for case in wanted:
            if (case, platform) not in lowered:
                lowered[case, platform] = _lower(case, forms[case], platform)
            jobs.append((case, target))
    if jobs:
        say(f"compiling {len(wanted)} programs for {len(targets)} chips that are not here")
    tasks = [(case, target, forms[case], lowered[case, parse_target(target).platform]) for case, target in jobs]
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        made = list(pool.map(lambda task: _one(*task), tasks))
    pairs = list(zip(jobs, made, strict=True))
    found = {job: value for job, value in pairs if isinstance(value, Predicted)}
    missing: dict[str, str] = {}
    for (case, _), value in pairs:
        if isinstance(value, str):
            # A compiler that is not there is one line a chip, not one a program.
            missing.setdefault(value, f"Not predicted: {value if 'installed' in value else f'{case.name}: {value}'}")
    return Forecast(found, tuple(missing.values()))


def _lower(case: Case, form: Form, platform: str) -> Lowered | str:
    if case.jit:
        return lower_for(platform, form.function, *form.args)
    return form.function.trace(*form.args).lower(lowering_platforms=(platform,)).as_text(dialect="hlo")


def _one(case: Case, target: str, form: Form, lowered: Lowered | str) -> Predicted | str:
    try:
        if isinstance(lowered, str):
            text, seconds = lowered, None
        else:
            program = compile_lowered(parse_target(target), lowered)
            text, seconds = program.text, program.compile_seconds
        module, device = parse(text), load_device(target)
        analysis = analysis_of(module, trips=form.trips, device=device)
    except UserError as error:
        return str(error)
    totals, time = analysis.totals, analysis.time
    assert time is not None  # of a device that was given
    moved = float(totals.bytes_read + totals.bytes_written)
    ops = float(sum(op.count for op in time.ops))
    return Predicted(time.overlapped, time.cycles, float(totals.flops), moved, ops, seconds)
