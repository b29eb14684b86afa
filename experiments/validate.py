"""Predicted against measured times on this machine, over programs that the calibration never saw."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from experiments._programs import Shape, build
from experiments._settings import values_of
from llmjax.cost import cost_module
from llmjax.cost.attribution import attribute
from llmjax.cost.values import ModuleCost
from llmjax.cycles.calibration import Prepared, check_card, chosen_programs, fit
from llmjax.cycles.device import Device, load_device, to_json
from llmjax.cycles.measured import Profile
from llmjax.cycles.model import predict
from llmjax.cycles.probe import probe, pulse
from llmjax.cycles.profile import interleave, runnable
from llmjax.cycles.programs import Program
from llmjax.cycles.validation import Case, OpCase, reason, roofline, summary, worst, xla_cpu_model
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.hlo import parse


class _Settings(NamedTuple):
    """The settings of configs/validate.py, which says what each is."""

    card: str
    programs: tuple[str, ...]
    others: bool
    dtype: str
    calibration: int
    rounds: int
    runs: int


class Subject(NamedTuple):
    """A program of the grid: its name, phase, jitted function and abstract arguments."""

    name: str
    phase: str
    function: Any
    args: tuple[Any, ...]

    def compile(self) -> Any:
        return self.function.lower(*self.args).compile()


def run(config: ConfigDict, workdir: str) -> None:
    """Measures and predicts every program of the grid, prints the errors, writes validation.json and a picture."""
    settings = _Settings(**values_of(config))
    console = Console()
    device, drift, cases = _measure(settings)
    for number, case in enumerate(cases, start=1):
        console.print(
            f"[{number}/{len(cases)}] {case.name}: predicted {case.predicted * 1e3:.3f} ms, measured"
            f" {case.measured * 1e3:.3f} ms, off by {case.error:.1%}",
            markup=False,
            highlight=False,
        )
    found = summary(cases)
    print_summary(found, cases, console)
    for name, rates in drift.items():
        print(f"the machine meanwhile: {name} {min(rates):.3g} to {max(rates):.3g} in {len(rates)} rounds")
    folder = Path(workdir)
    result = {
        "schema": "llmjax.validation/2",
        "device": to_json(device),
        "held_out": True,
        "interleaved": not settings.card,
        "drift": drift,
        "summary": found,
        "cases": [dataclasses.asdict(case) for case in cases],
    }
    atomic_write(folder / "validation.json", json.dumps(result, indent=1))
    atomic_write(folder / "validation.html", picture(cases))
    console.print(f"validation.json and validation.html: {workdir}", markup=False, highlight=False)


def _measure(settings: _Settings) -> tuple[Device, dict[str, list[float]], list[Case]]:
    """Runs the grid, in turn with the calibration's programs where no card is given."""
    subjects = list(_subjects(settings))
    programs = [] if settings.card else chosen_programs(settings.calibration)
    known: dict[Any, Any] = {}
    prepared = []
    every: list[Subject | Program] = [*subjects, *programs]
    for number, subject in enumerate(every, start=1):
        _say(f"compiling {number} of {len(every)}: {subject.name}")
        compiled = subject.compile()
        prepared.append(
            Prepared(cost_module(parse(compiled.as_text())), runnable(compiled, *subject.args, known=known))
        )
    device = _card(settings.card) if settings.card else probe(settings.runs)
    beat = pulse()
    drift: list[dict[str, float]] = []
    times = interleave(
        [each.runnable for each in prepared],
        settings.rounds,
        settings.runs,
        lambda what, share: _say(f"{share:4.0%} {what}"),
        lambda: drift.append(beat()),
    )
    count = len(subjects)
    if not settings.card:
        device = fit(device, [(each.cost, time) for each, time in zip(prepared[count:], times[count:], strict=True)])
    cases = [
        _case(subject, each.cost, time, device)
        for subject, each, time in zip(subjects, prepared[:count], times[:count], strict=True)
    ]
    return device, {name: [beat[name] for beat in drift] for name in drift[0]}, cases


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def _card(path: str) -> Device:
    device = load_device(path)
    if warning := check_card(device):
        print(f"warning: {warning}", file=sys.stderr)
    return device


def _subjects(settings: _Settings) -> Iterator[Subject]:
    for text in settings.programs:
        words = text.split()
        try:
            model, phase, batch, length = words[0], words[1], int(words[2]), int(words[3])
        except (IndexError, ValueError) as error:
            raise UserError(
                f"programs: {text!r} is not 'MODEL PHASE BATCH LENGTH', as in 'gpt2 decode 1 256'."
            ) from error
        built = build(Shape(model, phase, batch, length, 1, settings.dtype))
        yield Subject(text, phase, built.function, built.args)
    if settings.others:
        yield from _others()


def _others() -> Iterator[Subject]:
    """Two programs that are no language model: a convolutional net's layers and an LSTM."""
    image, filters = (
        jax.ShapeDtypeStruct((8, 56, 56, 64), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32),
    )

    def convnet(x: jax.Array, w: jax.Array) -> jax.Array:
        for _ in range(3):
            dims = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dims) + x)
        return x.mean((1, 2))

    yield Subject("convnet 8x56x56x64", "convnet", jax.jit(convnet), (image, filters))
    state, kernel = jax.ShapeDtypeStruct((16, 512), jnp.float32), jax.ShapeDtypeStruct((1024, 2048), jnp.float32)

    def lstm(h: jax.Array, c: jax.Array, xs: jax.Array, w: jax.Array) -> jax.Array:
        def step(carry: Any, x: jax.Array) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(jnp.concatenate([x, h], -1) @ w, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), None

        return jax.lax.scan(step, (h, c), xs)[0][0]

    xs = jax.ShapeDtypeStruct((32, 16, 512), jnp.float32)
    yield Subject("lstm 32 steps, 16x512", "lstm", jax.jit(lstm), (state, state, xs, kernel))


def _case(subject: Subject, cost: ModuleCost, times: Profile, device: Device) -> Case:
    predicted = predict(cost, device)
    roles = {op.name: op.place.role for op in attribute(cost)}
    roof = roofline(cost, device)
    by_op = {op.name: op for op in cost.ops}
    ops = tuple(
        OpCase(
            subject.name,
            time.name,
            time.term,
            str(roles.get(time.name, "other")),
            time.seconds,
            times.ops[time.name].time.median,
            times.ops[time.name].time.spread,
            time.bound,
            roof[time.name],
            xla_cpu_model(by_op[time.name]),
            times.ops[time.name].beside,
            times.ops[time.name].rounds,
        )
        for time in predicted.ops
        if time.name in times.ops and times.ops[time.name].time.median > 0
    )
    return Case(
        subject.name,
        subject.phase,
        predicted.overlapped,
        times.wall.median,
        times.wall.low,
        times.wall.high,
        times.covered,
        sum(roof.values()),
        sum(xla_cpu_model(op) for op in cost.ops),
        ops,
        times.rounds,
    )


def print_summary(found: dict[str, Any], cases: list[Case], console: Console) -> None:
    """Prints the errors beside the targets, the machine's own, the baselines, and the ops that are off by most."""
    table = Table(title=f"{found['programs']} programs, {found['ops']} ops, none of them calibrated on")
    for column in ("absolute error", "llmjax", "target", "the machine", "roofline", "XLA's model"):
        table.add_column(column, justify="left" if column == "absolute error" else "right")
    base, xla = found["baselines"]["roofline"], found["baselines"]["xla_cpu_model"]

    def row(title: str, target: str, form: str, *path: str, others: tuple[Any, ...] = ()) -> None:
        own = _at(found["repeated"], path)
        values = (f"{_at(found, path):{form}}", target, "-" if own is None else f"{own:{form}}")
        table.add_row(title, *values, *(f"{other:{form}}" for other in others))

    for kind, target in (("median", "7%"), ("mean", "")):
        row(f"end to end, {kind}", target, ".1%", "end_to_end", kind, others=(base[kind], xla[kind]))
    row("ops, by time", "15%", ".1%", "per_op", "time_weighted")
    row("ops, median", "", ".1%", "per_op", "median")
    for role in ("softmax", "layer norm"):
        if role in found["by_role"]:
            row(f"{role}, mean", "25%", ".1%", "by_role", role, "mean")
            row("  median", "", ".1%", "by_role", role, "median")
            row("  by time", "", ".1%", "by_role", role, "time_weighted")
    row("Kendall's tau", "0.85", ".2f", "kendall_tau", "median")
    console.print(table)
    console.print(
        "By time: a mean in which an op weighs what it takes. Kendall's tau: how alike ops are ordered by predicted and"
        " by measured time, the median program.\n"
        "The machine: every other round of measurement taken as the prediction of the rest. Quartiles of the programs'"
        f" times lie {found['spread']:.1%} apart (median).",
        highlight=False,
    )
    phases = Table(title="end to end, by phase")
    for column in ("phase", "programs", "median", "max"):
        phases.add_column(column, justify="left" if column == "phase" else "right")
    for phase, errors in found["by_phase"].items():
        count = sum(case.phase == phase for case in cases)
        phases.add_row(phase, str(count), f"{errors['median']:.1%}", f"{errors['max']:.1%}")
    console.print(phases)
    console.print("Ops off by the most time:", highlight=False)
    for op in worst(cases):
        times = f"predicted {op.predicted * 1e6:,.0f} us, measured {op.measured * 1e6:,.0f} us"
        console.print(f"{op.program}: {op.name}: {times}", markup=False, highlight=False, soft_wrap=True)
        console.print(Padding(Text(reason(op)), (0, 0, 0, 2)), highlight=False)


def _at(figures: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        figures = figures.get(key) if figures else None
    return figures


def picture(cases: list[Case]) -> str:
    """Predicted against measured, end to end and per op, as a page of its own."""
    import plotly.graph_objects as go

    figure = go.Figure()
    ops = [op for case in cases for op in case.ops]
    figure.add_scattergl(
        x=[op.measured for op in ops],
        y=[op.predicted for op in ops],
        mode="markers",
        marker={"size": 4, "opacity": 0.35},
        text=[f"{op.program}: {op.name}" for op in ops],
        name="ops",
    )
    figure.add_scatter(
        x=[case.measured for case in cases],
        y=[case.predicted for case in cases],
        mode="markers",
        marker={"size": 10, "symbol": "diamond"},
        text=[case.name for case in cases],
        name="programs",
    )
    ends = [min(op.measured for op in ops), max(case.measured for case in cases)]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "gray"}, name="exact")
    figure.update_xaxes(type="log", title="measured seconds")
    figure.update_yaxes(type="log", title="predicted seconds")
    figure.update_layout(title="Predicted against measured time, programs held out of calibration")
    return figure.to_html(include_plotlyjs=True, full_html=True)
