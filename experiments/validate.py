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
from rich.table import Table

from experiments._gpt2 import Shape, build
from llmjax.cost import cost_module
from llmjax.cost.attribution import attribute
from llmjax.cycles.calibration import calibrate, check_card
from llmjax.cycles.device import Device, load_device, to_json
from llmjax.cycles.measured import Profile
from llmjax.cycles.model import predict
from llmjax.cycles.profile import profile
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
    runs: int


class _Subject(NamedTuple):
    name: str
    phase: str
    function: Any
    args: tuple[Any, ...]


def run(config: ConfigDict, workdir: str) -> None:
    """Measures and predicts every program of the grid, prints the errors, writes validation.json and a picture."""
    values = config.to_dict()
    del values["experiment"]
    settings = _Settings(**values)
    if settings.runs < 1:
        raise UserError(f"runs={settings.runs} must be at least 1.")
    console = Console()
    device = _device(settings)
    subjects = list(_subjects(settings))
    cases = []
    for number, subject in enumerate(subjects, start=1):
        case = _case(subject, device, settings.runs)
        cases.append(case)
        console.print(
            f"[{number}/{len(subjects)}] {case.name}: predicted {case.predicted * 1e3:.3f} ms, measured"
            f" {case.measured * 1e3:.3f} ms, off by {case.error:.1%}",
            highlight=False,
        )
    found = summary(cases)
    print_summary(found, cases, console)
    folder = Path(workdir)
    result = {
        "schema": "llmjax.validation/1",
        "device": to_json(device),
        "held_out": True,
        "summary": found,
        "cases": [dataclasses.asdict(case) for case in cases],
    }
    atomic_write(folder / "validation.json", json.dumps(result, indent=1))
    atomic_write(folder / "validation.html", picture(cases))
    console.print(f"validation.json and validation.html: {workdir}", highlight=False)


def _device(settings: _Settings) -> Device:
    if not settings.card:
        print("no card given: calibrating first", file=sys.stderr)
        return calibrate(lambda what, share: print(f"  {share:4.0%} {what}", file=sys.stderr))
    device = load_device(settings.card)
    if warning := check_card(device):
        print(f"warning: {warning}", file=sys.stderr)
    return device


def _subjects(settings: _Settings) -> Iterator[_Subject]:
    for text in settings.programs:
        words = text.split()
        try:
            model, phase, batch, length = words[0], words[1], int(words[2]), int(words[3])
        except (IndexError, ValueError) as error:
            raise UserError(
                f"programs: {text!r} is not 'MODEL PHASE BATCH LENGTH', as in 'gpt2 decode 1 256'."
            ) from error
        built = build(Shape(model, phase, batch, length, 1, settings.dtype))
        yield _Subject(text, phase, built.function, built.args)
    if settings.others:
        yield from _others()


def _others() -> Iterator[_Subject]:
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

    yield _Subject("convnet 8x56x56x64", "convnet", jax.jit(convnet), (image, filters))
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
    yield _Subject("lstm 32 steps, 16x512", "lstm", jax.jit(lstm), (state, state, xs, kernel))


def _case(subject: _Subject, device: Device, runs: int) -> Case:
    compiled = subject.function.lower(*subject.args).compile()
    cost = cost_module(parse(compiled.as_text()))
    predicted = predict(cost, device)
    times: Profile = profile(compiled, *subject.args, runs=runs)
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
    )


def print_summary(found: dict[str, Any], cases: list[Case], console: Console) -> None:
    """Prints the errors beside the targets, the baselines, and the ops that are off by most."""
    table = Table(title=f"{found['programs']} programs, {found['ops']} ops, none of them calibrated on")
    for column in ("absolute error", "llmjax", "target", "plain roofline", "XLA's CPU model"):
        table.add_column(column, justify="left" if column == "absolute error" else "right")
    base, xla = found["baselines"]["roofline"], found["baselines"]["xla_cpu_model"]
    end = found["end_to_end"]
    table.add_row("end to end, median", f"{end['median']:.1%}", "7%", f"{base['median']:.1%}", f"{xla['median']:.1%}")
    table.add_row("end to end, mean", f"{end['mean']:.1%}", "", f"{base['mean']:.1%}", f"{xla['mean']:.1%}")
    table.add_row("per op, time-weighted mean", f"{found['per_op']['time_weighted']:.1%}", "15%", "", "")
    for role in ("softmax", "layer norm"):
        if role in found["by_role"]:
            table.add_row(f"{role} ops, mean", f"{found['by_role'][role]['mean']:.1%}", "25%", "", "")
    tau = found["kendall_tau"]["median"]
    table.add_row("Kendall's tau of ops by time, median", f"{tau:.2f}", "0.85", "", "")
    table.add_row("repeatability: quartiles, end to end", f"{found['repeatability']:.1%}", "", "", "")
    table.add_row("repeatability: quartiles, per op", f"{found['per_op']['repeatability']:.1%}", "", "", "")
    console.print(table)
    phases = Table(title="end to end, by phase")
    for column in ("phase", "programs", "median", "max"):
        phases.add_column(column, justify="left" if column == "phase" else "right")
    for phase, errors in found["by_phase"].items():
        count = sum(case.phase == phase for case in cases)
        phases.add_row(phase, str(count), f"{errors['median']:.1%}", f"{errors['max']:.1%}")
    console.print(phases)
    off = Table(title="ops off by the most time")
    for column in ("program", "op", "predicted", "measured", "why"):
        off.add_column(column, overflow="fold")
    for op in worst(cases):
        off.add_row(op.program, op.name, f"{op.predicted * 1e6:,.0f} us", f"{op.measured * 1e6:,.0f} us", reason(op))
    console.print(off)


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
