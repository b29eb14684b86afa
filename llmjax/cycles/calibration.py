"""Calibrating the cycle model: how each kind of work departs from the peaks and bandwidths of a machine (probe.py).

`calibrate` writes what it finds into a device card: a `Device` whose numbers are measured, with their spread, and whose
`fit` holds the cycle model's terms, fitted to the ops of programs.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.optimize import least_squares

from llmjax.cost import cost_module
from llmjax.cost.values import ModuleCost
from llmjax.cycles.device import Device
from llmjax.cycles.features import Features, features
from llmjax.cycles.fitted import DEFAULTS, Row, Terms, coordinates, interpolate, key_of, parts
from llmjax.cycles.measured import Profile
from llmjax.cycles.model import BETWEEN, between
from llmjax.cycles.probe import probe
from llmjax.cycles.profile import Runnable, interleave, runnable
from llmjax.cycles.programs import Program, products, programs
from llmjax.cycles.times import combine
from llmjax.hlo import parse

Say = Callable[[str, float], None]
Sample = tuple[Features, float]


def calibrate(say: Say = lambda what, share: None, runs: int = 5, most: int = 0) -> Device:
    """Measures the default device and fits the model's terms to it.

    Args:
        say: told what is being measured and the share that is done, 0 to 1.
        runs: repetitions of each program.
        most: so many programs only, spread over all; 0 = all.

    Returns:
        A device card; every number in it is measured, or says that it is the system's own.
    """
    say("clock, peaks and bandwidths", 0.0)
    device = probe(runs)
    chosen = chosen_programs(most)
    known: dict[Any, Any] = {}
    found = []
    for n, program in enumerate(chosen):
        say(f"compiling {program.name}", 0.05 + 0.35 * n / len(chosen))
        found.append(prepare(program, known))
    times = interleave(
        [each.runnable for each in found], ROUNDS, runs, lambda what, share: say(what, 0.4 + 0.55 * share)
    )
    say("fitting", 0.96)
    return fit(device, [(each.cost, time) for each, time in zip(found, times, strict=True)])


ROUNDS = 3  # all programs are measured in turn, so often


class Prepared(NamedTuple):
    """A calibration program that is compiled: what it costs, and what runs it."""

    cost: ModuleCost
    runnable: Runnable


def chosen_programs(most: int = 0) -> list[Program]:
    """The calibration's programs; of many only `most`, spread over all."""
    chosen = [*products(), *programs()]
    return chosen[:: max(1, len(chosen) // most)][:most] if most else chosen


def prepare(program: Program, known: dict[Any, Any]) -> Prepared:
    """Compiles a program; `known` is where programs share the values made for abstract arguments."""
    compiled = program.compile()
    return Prepared(cost_module(parse(compiled.as_text())), runnable(compiled, *program.args, known=known))


def fit(device: Device, found: Sequence[tuple[ModuleCost, Profile]]) -> Device:
    """The device with the model's terms and tables, fitted to what programs cost and took."""
    pairs = [(features(cost, device), times) for cost, times in found]
    between = fit_between([(cost, times) for (cost, _), (_, times) in zip(found, pairs, strict=True)])
    return replace(device, fit={**between, "programs": len(pairs), **fit_samples(samples_of(pairs), device)})


def fit_samples(samples: Sequence[Sample], device: Device) -> dict[str, Any]:
    """Terms and table of each kind of work, fitted to ops' seconds, and how many ops there were."""
    bare = replace(device, fit={})
    groups = by_kind(samples)
    fitted = {key: fit_terms(mine, bare) for key, mine in sorted(groups.items())}
    terms = {key: asdict(replace(t, spread=spread_of(groups[key], bare, t))) for key, t in fitted.items()}
    tables = {key: table(groups[key], bare, t) for key, t in fitted.items()}
    return {"terms": terms, "table": tables, "samples": len(samples)}


def by_kind(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples by the name under which the model keeps their terms."""
    groups: dict[str, list[Sample]] = {}
    for f, seconds in samples:
        groups.setdefault(key_of(f), []).append((f, seconds))
    return groups


def samples_of(pairs: Sequence[tuple[Sequence[Features], Profile]]) -> list[Sample]:
    """Features of ops with the seconds that one execution of each took; without what ran beside others unexpectedly."""
    samples = []
    for found, times in pairs:
        for f in found:
            op = times.ops.get(f.name)
            if op is not None and op.time.median > 0 and f.count and (f.wide or op.beside < ALONE):
                samples.append((f, op.time.median / f.count))
    return samples


ALONE = 0.3  # of an op's time at most may have passed beside others, for it to be fitted, where ops run in a chain


def fit_between(found: Sequence[tuple[ModuleCost, Profile]]) -> dict[str, float]:
    """Seconds that pass outside of any op: a run's, an argument's and an op's, by what the profiler saw no op in."""
    counts = np.array([[between(cost)[name] for name in BETWEEN] for cost, _ in found])
    gaps = np.array([(1 - times.covered) * times.traced.median for _, times in found])
    whole = np.array([times.traced.median for _, times in found])

    def residuals(logs: np.ndarray) -> np.ndarray:
        return (counts @ np.exp(logs) - gaps) / (whole + 1e-4)

    solution = least_squares(residuals, np.log([5e-5, 5e-6, 5e-7]), loss="soft_l1", f_scale=0.02)
    return dict(zip(BETWEEN, np.exp(solution.x).tolist(), strict=True))


def table(samples: Sequence[Sample], device: Device, terms: Terms) -> list[Row]:
    """Coordinates, what ops there do, and by what factor they took longer than the terms say: their median."""
    rows: dict[tuple[tuple[float, ...], str], list[float]] = {}
    for f, seconds in samples:
        rows.setdefault((coordinates(f), f.does), []).append(seconds / combine_all(f, device, terms))
    return [[list(place), does, round(float(np.median(found)), 4)] for (place, does), found in sorted(rows.items())]


def spread_of(samples: Sequence[Sample], device: Device, terms: Terms) -> float:
    """The typical error, as a factor, of ops that are left out of the table in turn."""
    rows = table(samples, device, terms)
    errors = []
    for f, seconds in samples:
        place = list(coordinates(f))
        factor = interpolate([row for row in rows if row[0] != place], place, f.does)
        errors.append(abs(math.log(combine_all(f, device, terms) * factor / seconds)))
    return float(np.exp(np.median(errors)))


def fit_terms(samples: Sequence[Sample], device: Device) -> Terms:
    """Terms of one kind of work that bring the model's times nearest to measured ones, by their ratio.

    The logarithm of each term is fitted, with soft loss so that single disturbed measurements do not lead, and a weak
    pull towards the default, which keeps what the samples say nothing of.
    """
    start = _start(samples[0][0])
    names = [f.name for f in fields(Terms) if f.name != "spread"]
    first = np.log([max(getattr(start, name), _LEAST[name]) for name in names])
    # An op matters by its time; tiny ones are many, so they count for less.
    weights = np.array([min(1.0, (seconds / 2e-5) ** 0.25) for _, seconds in samples])

    def residuals(logs: np.ndarray) -> np.ndarray:
        terms = replace(start, **dict(zip(names, np.exp(logs).tolist(), strict=True)))
        ratios = [np.log(combine_all(f, device, terms) / seconds) for f, seconds in samples]
        return np.concatenate([np.array(ratios) * weights, 0.03 * (logs - first)])

    bounds = (np.log([_LEAST[n] for n in names]) - 1e-9, np.log([_MOST[n] for n in names]))
    solution = least_squares(residuals, np.clip(first, *bounds), bounds=bounds, loss="soft_l1", f_scale=0.2)
    terms = replace(start, **dict(zip(names, np.exp(solution.x).tolist(), strict=True)))
    errors = np.abs([np.log(combine_all(f, device, terms) / seconds) for f, seconds in samples])
    return replace(terms, spread=float(np.exp(np.median(errors))))


_LEAST = {"overhead": 1e-8, "compute": 0.1, "near": 0.1, "far": 0.2, "m0": 0.01, "n0": 0.01, "k0": 0.01, "strided": 0.3}
_MOST = {"overhead": 1e-3, "compute": 300, "near": 8, "far": 3, "m0": 300, "n0": 300, "k0": 300, "strided": 8}


def _start(f: Features) -> Terms:
    return replace(DEFAULTS[f.term], overhead=5e-7, m0=max(DEFAULTS[f.term].m0 / 8, 0.01))


def combine_all(f: Features, device: Device, terms: Terms) -> float:
    """Seconds of one execution."""
    compute, memory, overhead, link = parts(f, device, terms)
    return combine(compute, sum(memory), overhead, link)


def check_card(device: Device) -> str:
    """A warning where a card was made for another backend or jaxlib than is here; "" where it fits."""
    made: Mapping[str, str] = device.made_with
    here = {"jaxlib": version("jaxlib"), "backend": jax.default_backend()}
    other = [f"{name} {made[name]} (here {here[name]})" for name in here if name in made and made[name] != here[name]]
    return f"the card {device.title!r} was made with {', '.join(other)}: its terms may not hold here." if other else ""
