"""Where LLM inference is used: three mixes of requests, their cost here and on other chips, and the wait for each."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.clock_parts.cases import Case, Timing, attempt_cases
from experiments.clock_parts.phases import say
from experiments.clock_parts.predictions import Forecast, predict_cases
from experiments.clock_parts.settings import Machine, Settings
from experiments.clock_parts.words import ratio_of
from llmjax.cycles.device import load_device
from llmjax.models.families import from_size
from llmjax.report.page import Cell, Column, Section, Table
from llmjax.report.units import seconds, short

RATE = 1000 / 60  # requests a second that arrive: 1,000 a minute
BUSY = 0.7  # share of the time that a machine is let work
HERE = "this CPU"


class Mix(NamedTuple):
    """A kind of request: `items` rows of `length` tokens, and `new_tokens` after each; `formats` of weights to try."""

    name: str
    what: str
    phase: str
    items: int
    length: int
    new_tokens: int
    formats: tuple[str, ...]

    def case(self, model: str, dtype: str, requests: int) -> Case:
        """So many requests at once."""
        return Case(model, self.phase, self.items * requests, self.length, dtype, new_tokens=self.new_tokens)


class Service(NamedTuple):
    """Seconds and clock cycles that a machine takes for `requests` at once, in the format that takes least."""

    mix: Mix
    where: str
    requests: int
    dtype: str
    seconds: float
    cycles: float

    @property
    def machine_seconds(self) -> float:
        """Of one machine, for 1,000 requests."""
        return 1000 * self.seconds / self.requests

    @property
    def machines(self) -> int:
        """How many keep up with RATE while no more than BUSY of their time is taken."""
        return max(1, math.ceil(RATE * self.seconds / self.requests / BUSY))

    @property
    def latency(self) -> float:
        """Seconds from arrival to answer on average: filling the batch, waiting, and the work.

        Requests go evenly to the machines; a machine takes its own in order, each lasts equally long, and they arrive
        at random: the mean wait is busy / (2 (1 - busy)) of the work (Pollaczek-Khinchine for M/D/1), for batches as
        for lone requests. A request waits half the time that a batch takes to fill.
        """
        busy = RATE * self.seconds / self.requests / self.machines
        filling = (self.requests - 1) / 2 * self.machines / RATE
        return filling + self.seconds * (1 + busy / (2 * (1 - busy)))


def section(settings: Settings, machine: Machine) -> Section:
    """Measures the mixes here and predicts them for the configured targets."""
    mixes = mixes_of(settings)
    groups = batches_of(settings)
    cases = [mix.case(settings.model, dtype, n) for mix in mixes for dtype in mix.formats for n in sizes(mix, groups)]
    found, failed = attempt_cases(cases, max(1, settings.runs // 2), say)
    short = [case for case in cases if case.dtype != "float32"]
    forecast = predict_cases(short, settings.targets, say)
    return make_section(settings, machine, mixes, groups, found, failed, forecast)


def mixes_of(settings: Settings) -> tuple[Mix, ...]:
    """The three mixes, shortened where the model cannot read so many tokens."""
    room = from_size(settings.model).context
    scale = min(1.0, room / 300)
    prompt, answer = int(200 * scale), int(100 * scale)
    both = ("float32", "bfloat16")
    return (
        Mix(
            "customer-service reply",
            f"{prompt} tokens read, {answer} written",
            "generate",
            1,
            prompt,
            answer,
            (*both, "int8"),
        ),
        Mix("financial-news monitor", "a text of 64 tokens classified", "classify", 1, 64, 0, both),
        Mix("recommender", "256 items of 32 tokens embedded", "embed", 256, 32, 0, both),
    )


def batches_of(settings: Settings) -> tuple[int, ...]:
    """Requests at once: one, and as many as the job's largest batch, at most 8."""
    return tuple(dict.fromkeys((1, min(8, max(settings.batches)))))


def sizes(mix: Mix, groups: Sequence[int]) -> tuple[int, ...]:
    """Requests at once of a mix: one that is a batch by itself is not batched further."""
    return tuple(groups) if mix.items == 1 else (1,)


def make_section(
    settings: Settings,
    machine: Machine,
    mixes: Sequence[Mix],
    groups: Sequence[int],
    found: Mapping[Case, Timing],
    failed: Mapping[Case, str],
    forecast: Forecast,
) -> Section:
    """The section of what was measured and predicted; pure."""
    services = []
    for mix in mixes:
        for requests in sizes(mix, groups):
            services += [_here(settings, machine, mix, requests, found)]
            services += [_there(settings, mix, requests, target, forecast) for target in settings.targets]
    known = [service for service in services if service is not None]
    notes = [f"Not measured: {case.name}: {why}" for case, why in failed.items()] + list(forecast.notes)
    notes += [
        f"Assumed: 1,000 requests a minute arrive at random and go evenly to machines that are busy at most {BUSY:.0%}"
        " of the time; every request is of the same size. Latency is the mean: filling a batch, waiting for the machine"
        " (an M/D/1 queue: one at a time, equally long), and the work itself; no network, no tokenizer.",
        "Weights are random numbers of the model's size; a model of this size is no match for today's assistants: the"
        " figures are those of its arithmetic. Each chip uses the format of weights that takes least time among those"
        " tried (other chips: bfloat16, and int8 to generate).",
    ]
    if not settings.targets:
        notes.append("No other chip was named: --config.targets=gpu:h100,tpu:v5e:2x2.")
    return Section(
        "workloads",
        "Where each is used",
        tuple(findings(mixes, known)),
        tuple(_table(mix, [service for service in known if service.mix == mix]) for mix in mixes),
        notes=tuple(notes),
    )


def _here(
    settings: Settings, machine: Machine, mix: Mix, requests: int, found: Mapping[Case, Timing]
) -> Service | None:
    cases = [mix.case(settings.model, dtype, requests) for dtype in mix.formats]
    timed = [(found[case].seconds.median, case.dtype) for case in cases if case in found]
    if not timed:
        return None
    took, dtype = min(timed)
    return Service(mix, HERE, requests, dtype, took, took * machine.device.clock_hz.value)


def _there(settings: Settings, mix: Mix, requests: int, target: str, forecast: Forecast) -> Service | None:
    cases = [mix.case(settings.model, dtype, requests) for dtype in mix.formats]
    guessed = [(forecast.found[case, target].seconds, case.dtype) for case in cases if (case, target) in forecast.found]
    if not guessed:
        return None
    took, dtype = min(guessed)
    return Service(mix, target, requests, dtype, took, took * load_device(target).clock_hz.value)


def findings(mixes: Sequence[Mix], services: Sequence[Service]) -> list[str]:
    """A sentence or two a mix, with its figures."""
    told = []
    for mix in mixes:
        here = [s for s in services if s.mix == mix and s.where == HERE]
        if not here:
            continue
        single = here[0]
        many = f"{single.machines} machine{'s' if single.machines > 1 else ''}"
        sentence = (
            f"{mix.name} ({mix.what}): 1,000 requests one at a time are {seconds(single.machine_seconds)} of this CPU"
            f" and {short(single.cycles)} cycles a request ({single.dtype}); 1,000 a"
            f" minute need {many} and are answered in {seconds(single.latency)} on average"
        )
        if len(here) > 1:
            best = here[-1]
            sentence += f"; {best.requests} at once need {best.machines} and are answered in {seconds(best.latency)}"
        told.append(f"{sentence}.")
        chips = [s for s in services if s.mix == mix and s.where != HERE and s.requests == 1]
        if chips:
            fastest = min(chips, key=lambda s: s.seconds)
            told.append(
                f"{mix.name}: {fastest.where} is predicted to do one in {seconds(fastest.seconds)} where this CPU takes"
                f" {seconds(single.seconds)}, {ratio_of(single.seconds / fastest.seconds)} times as long."
            )
    return told


def _table(mix: Mix, services: Sequence[Service]) -> Table:
    columns = (
        Column("on"),
        Column("requests at once"),
        Column("weights"),
        Column("time", "s"),
        Column("cycles a request", "cycles"),
        Column("time for 1,000 requests", "s"),
        Column("machines for 1,000 a minute"),
        Column("mean latency", "s"),
    )
    rows = []
    for s in services:
        kind = "measured" if s.where == HERE else "modelled"
        rows.append(
            (
                s.where,
                s.requests,
                s.dtype,
                Cell(s.seconds, kind),
                Cell(s.cycles / s.requests, kind),
                Cell(s.machine_seconds, kind),
                Cell(s.machines, "modelled"),
                Cell(s.latency, "modelled"),
            )
        )
    return Table(f"{mix.name}: {mix.what}", columns, tuple(rows))
