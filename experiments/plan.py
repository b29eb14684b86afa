"""Meshes of a pod that is not here: the best few compiled, plan.json and plan.html in the workdir."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from experiments._plan import Found, Job, Pod, compile_all, pod_of, power_counts, sizes_of
from experiments._programs import Shape
from experiments._settings import values_of
from llmjax.cycles.device import peak
from llmjax.cycles.pods import Estimate, Spread, Work, candidates, estimate, memory, scaling, shares
from llmjax.cycles.published.models import step_flops
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.models.config import ModelConfig
from llmjax.models.folders import named_config
from llmjax.models.params import param_shapes
from llmjax.report.page import print_page, to_html
from llmjax.report.plan import Served, Trained, plan_page
from llmjax.report.terminal import console
from llmjax.targets.names import chip_devices

SCHEMA = "llmjax.plan/1"
TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models"
DAY = 86400.0
ROUNDS = 2  # of compiling: what the first one finds of memory corrects the estimates for the second


class _Settings(NamedTuple):
    """The settings of configs/plan.py, which says what each is."""

    model: str
    targets: tuple[str, ...]
    purpose: str
    dtype: str
    length: int
    prices: dict[str, float]
    best: int
    tokens: int
    total_tokens: float
    most_devices: int
    new_tokens: int
    batches: tuple[int, ...]
    requests: float


def run(config: ConfigDict, workdir: str) -> None:
    """Plans for every pod, prints the tables and writes the files."""
    began = time.monotonic()
    settings = _Settings(**values_of(config))
    pods = [pod_of(name) for name in dict.fromkeys(settings.targets)]
    prices = {pod.name: _price(pod, settings.prices) for pod in pods}
    if settings.purpose == "train":
        document, page = _train(settings, pods, prices)
    else:
        document, page = _serve(settings, pods, prices)
    print_page(page, console())
    folder = Path(workdir)
    try:
        atomic_write(folder / "plan.json", json.dumps({"schema": SCHEMA, **document}, indent=1, allow_nan=False) + "\n")
        atomic_write(folder / "plan.html", to_html(page))
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    print(f"plan.json, and plan.html to look at: {workdir} ({time.monotonic() - began:.0f} s)")


def _price(pod: Pod, prices: dict[str, float]) -> float | None:
    """The price of an hour of the whole pod."""
    price = prices.get(pod.device.name)
    return None if price is None else price * pod.devices / chip_devices(pod.target)


def _model(settings: _Settings, tokens: int, **options: Any) -> ModelConfig:
    config = named_config(settings.model, **options)
    if tokens > config.context:
        raise UserError(f"length={settings.length}: {tokens} tokens are more than {settings.model}'s {config.context}.")
    return dataclasses.replace(config, **dict.fromkeys(config.rates, 0.0))


def _train(settings: _Settings, pods: Sequence[Pod], prices: dict[str, float | None]) -> tuple[dict[str, Any], Any]:
    if settings.dtype == "int8":
        raise UserError("dtype='int8': training computes in float32 or bfloat16.")
    rows, rest = divmod(settings.tokens, settings.length)
    if rest or not rows:
        raise UserError(f"tokens={settings.tokens} of a step must be a multiple of length={settings.length}.")
    config = _model(settings, settings.length, dtype=settings.dtype)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(param_shapes(config, "lm")))
    work = Work(sizes_of(config), parameters, rows, settings.length, settings.dtype)
    for pod in pods:
        if not candidates(work, pod.devices, pod.device, 1):
            raise UserError(
                f"targets: {pod.name}: {rows} rows, {work.model.heads} heads and a width of {work.model.width} cannot"
                f" be divided over {pod.devices} devices: take other tokens, or another pod."
            )
    jobs, estimates, found = _searched(config, settings, work, pods)
    if all(isinstance(one, UserError) for one in found):
        raise UserError(f"no mesh could be compiled: {found[0]}")
    tokens = settings.total_tokens or TOKENS_A_PARAMETER * work.parameters
    rows_of = [_trained(job, one, work, tokens, prices[job.pod.name]) for job, one in zip(jobs, found, strict=True)]
    compiled = list(zip(jobs, found, strict=True))
    curves = {pod.name: _curve(work, pod, compiled, rows_of, settings.most_devices) for pod in pods}
    about = f"{settings.model}: {work.parameters / 1e9:.2f} G parameters, {settings.tokens:,} tokens a step"
    about += f" in rows of {settings.length}, {settings.dtype}"
    document = {
        "purpose": "train",
        "model": settings.model,
        "parameters": work.parameters,
        "tokens_a_step": settings.tokens,
        "length": settings.length,
        "total_tokens": tokens,
        "meshes": [
            {**row.document(), "estimated_seconds": made.seconds, "estimated_memory": made.memory}
            for row, made in zip(rows_of, estimates, strict=True)
        ],
        "scaling": {name: [point._asdict() for point in curve] for name, curve in curves.items()},
    }
    return document, plan_page(about, tokens, rows_of, curves)


def _searched(
    config: ModelConfig, settings: _Settings, work: Work, pods: Sequence[Pod]
) -> tuple[list[Job], list[Estimate], list[Found | UserError]]:
    """Compiles each pod's best meshes by estimate; where one does not fit, others by what it needed of memory."""
    jobs: list[Job] = []
    estimates: list[Estimate] = []
    found: list[Found | UserError] = []
    for _ in range(ROUNDS):
        asked: list[tuple[Job, Estimate]] = []
        for pod in pods:
            mine = [(job, one) for job, one in zip(jobs, found, strict=True) if job.pod == pod]
            fitting = sum(isinstance(one, Found) and one.memory <= _room(pod) for _, one in mine)
            chosen = candidates(work, pod.devices, pod.device, settings.best, seen(work, mine))
            tried = {job.spread for job, _ in mine}
            fresh = [(spread, made) for spread, made in chosen if spread not in tried]
            for spread, made in fresh[: settings.best - fitting]:
                asked.append((_training_job(config, settings, work.rows, spread, pod), made))
        if not asked:
            break
        jobs += [job for job, _ in asked]
        estimates += [made for _, made in asked]
        found += compile_all([job for job, _ in asked], _say)
    return jobs, estimates, found


def seen(work: Work, compiled: Sequence[tuple[Job, Found | UserError]]) -> dict[bool, float]:
    """What compiled programs needed of memory over what was estimated, the most of any but no less than 1, with remat
    and without.
    """
    ratios: dict[bool, float] = {}
    for job, one in compiled:
        if isinstance(one, Found):
            ratio = one.memory / memory(work, job.spread)
            ratios[job.spread.remat] = max(ratio, ratios.get(job.spread.remat, 1.0))
    return ratios


def _room(pod: Pod) -> float:
    return pod.device.main_memory.capacity.value


def _training_job(config: ModelConfig, settings: _Settings, rows: int, spread: Spread, pod: Pod) -> Job:
    shape = Shape(settings.model, "lm", rows // spread.microbatches, settings.length, 1, settings.dtype)
    return Job(dataclasses.replace(config, remat=spread.remat), shape, spread, pod)


def _trained(job: Job, found: Found | UserError, work: Work, tokens: float, price: float | None) -> Trained:
    pod, spread, room = job.pod, job.spread, _room(job.pod)
    if isinstance(found, UserError):
        return Trained(pod=pod.name, devices=pod.devices, spread=str(spread), room=room, error=str(found))
    times = spread.microbatches
    seconds = found.seconds * times
    most = peak(pod.device.matmul, "bf16" if work.dtype == "bfloat16" else "f32").value * pod.devices
    days = tokens / work.tokens * seconds / DAY
    return Trained(
        pod=pod.name,
        devices=pod.devices,
        spread=str(spread),
        room=room,
        memory=found.memory,
        seconds=seconds,
        low=found.low * times,
        high=found.high * times,
        tokens_per_second=work.tokens / seconds,
        mfu=step_flops(work.model, work.rows, work.length) / seconds / most,
        sends={axis: each * times for axis, each in found.sends.items()},
        days=days,
        cost=None if price is None else price * 24 * days,
    )


class Point(NamedTuple):
    """A number of devices on the scaling curve."""

    devices: int
    spread: str
    seconds: float
    tokens_per_second: float
    limit: str
    fits: bool


def _curve(
    work: Work, pod: Pod, compiled: Sequence[tuple[Job, Found | UserError]], rows: Sequence[Trained], most: int
) -> list[Point]:
    """The estimate for other numbers of such chips, scaled to the best that was compiled for this one."""
    mine = [(job, one, row) for (job, one), row in zip(compiled, rows, strict=True) if job.pod == pod and row.seconds]
    ratios = seen(work, [(job, one) for job, one, _ in mine])
    best = min(mine, key=lambda each: (not each[2].fits, each[2].seconds), default=None)
    scale = best[2].seconds / estimate(work, best[0].spread, pod.device).seconds if best else 1.0
    points = []
    for count, spread, made in scaling(work, pod.device, list(power_counts(most)), ratios):
        if best and count == pod.devices:
            row, limit = best[2], estimate(work, best[0].spread, pod.device).limit
            limit = limit if row.fits else "memory"
            points.append(Point(count, row.spread, row.seconds, row.tokens_per_second, limit, row.fits))
            continue
        seconds = made.seconds * scale
        fits = made.memory <= _room(pod)
        points.append(Point(count, str(spread), seconds, work.tokens / seconds, made.limit if fits else "memory", fits))
    return points


def _serve(settings: _Settings, pods: Sequence[Pod], prices: dict[str, float | None]) -> tuple[dict[str, Any], Any]:
    whole = settings.length + settings.new_tokens
    config = _model(settings, whole)
    model = sizes_of(config)
    jobs: list[Job] = []
    for pod in pods:
        sharing = [count for count in power_counts(pod.devices) if shares(model, count)]
        for tensor in _enough(sharing, model, pod, settings):
            spread = Spread(1, 1, tensor)
            jobs.append(
                Job(config, Shape(settings.model, "prefill", 1, settings.length, 1, settings.dtype), spread, pod)
            )
            for batch in settings.batches:
                jobs.append(Job(config, Shape(settings.model, "decode", batch, whole, 1, settings.dtype), spread, pod))
    found = compile_all(jobs, _say)
    if all(isinstance(one, UserError) for one in found):
        raise UserError(f"no program could be compiled: {found[0]}")
    rows = [
        _served(job, one, found[_prefill_of(job, jobs)], settings, prices[job.pod.name])
        for job, one in zip(jobs, found, strict=True)
        if job.shape.phase == "decode"
    ]
    about = f"{settings.model}: prompts of {settings.length}, {settings.new_tokens} new tokens, {settings.dtype}"
    document = {
        "purpose": "serve",
        "model": settings.model,
        "length": settings.length,
        "new_tokens": settings.new_tokens,
        "requests": settings.requests or None,
        "rows": [row.document() for row in rows],
    }
    return document, plan_page(about, 0.0, rows, {}, settings.requests)


def _enough(sharing: Sequence[int], model: Any, pod: Pod, settings: _Settings) -> list[int]:
    """Numbers of devices to share a model that can hold its weights; of those that cannot only the largest."""
    width = {"int8": 1, "bfloat16": 2}.get(settings.dtype, 4)
    weights = width * (model.layers * model.layer_parameters + model.width * model.vocabulary)
    fitting = [n for n in sharing if weights / n < _room(pod)]
    return fitting[: settings.best + 1] or list(sharing[-1:])


def _prefill_of(job: Job, jobs: Sequence[Job]) -> int:
    """Where among the jobs the prompts' program of the same devices is."""
    wanted = (job.spread, job.pod.name)
    prompts = (n for n, other in enumerate(jobs) if other.shape.phase == "prefill")
    return next(n for n in prompts if (jobs[n].spread, jobs[n].pod.name) == wanted)


def _served(
    job: Job, step: Found | UserError, prompt: Found | UserError, settings: _Settings, price: float | None
) -> Served:
    """A batch's requests: their prompts one after another, then their tokens together."""
    pod, batch, share, room = job.pod, job.shape.batch, job.spread.tensor, _room(job.pod)
    if isinstance(step, UserError) or isinstance(prompt, UserError):
        wrong = step if isinstance(step, UserError) else prompt
        return Served(pod=pod.name, share=share, batch=batch, room=room, error=str(wrong))
    seconds = batch * prompt.seconds + settings.new_tokens * step.seconds
    rate = batch / seconds
    groups = max(1, pod.devices // share)
    needed = math.ceil(settings.requests / rate) * share if settings.requests else None
    return Served(
        pod=pod.name,
        share=share,
        batch=batch,
        room=room,
        memory=max(step.memory, prompt.memory),
        first=prompt.seconds,
        token=step.seconds,
        token_low=step.low,
        token_high=step.high,
        sends=step.sends,
        requests=rate * groups,
        devices_needed=needed,
        cost=None if price is None else price / 3600 / (rate * groups) / settings.new_tokens * 1e6,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
