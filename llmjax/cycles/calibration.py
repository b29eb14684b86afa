"""Measuring a machine: its clock, peaks, bandwidths and overheads, and how each kind of work departs from them.

`calibrate` writes what it finds into a device card: a `Device` whose numbers are measured, with their spread, and whose
`fit` holds the cycle model's terms, fitted to the ops of programs.py.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.optimize import least_squares

from llmjax.cost import cost_module
from llmjax.cost.values import ModuleCost
from llmjax.cycles.device import Device, Figure, Memory
from llmjax.cycles.features import Features, features
from llmjax.cycles.measured import Profile, measured
from llmjax.cycles.model import BETWEEN, DEFAULTS, Row, Terms, between, combine, coordinates, interpolate, key_of, parts
from llmjax.cycles.profile import Runnable, caller, interleave, runnable
from llmjax.cycles.programs import Program, products, programs
from llmjax.hlo import parse

Say = Callable[[str, float], None]
Sample = tuple[Features, float]

# x86: a 32-bit multiply takes 3 cycles and an xor 1, and no algebra shortens a chain of them (Agner Fog's instruction
# tables: Intel since Nehalem, AMD since Zen).
CHAIN_CYCLES = 4
_MIB = 2**20


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


def probe(runs: int = 5) -> Device:
    """Measures clock, peaks and bandwidths of the default device."""
    chip = jax.devices()[0]
    kind = chip.platform
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = here if kind == "cpu" else 1
    flops = {"f32": _matmul(jnp.float32, runs), "bf16": _matmul(jnp.bfloat16, runs), "s8": _matmul(jnp.int8, runs)}
    how = f"jaxlib {version('jaxlib')}, {runs} runs"
    vector = _vector(runs)
    return Device(
        name=kind,
        title=_title(chip),
        kind=kind,
        clock_hz=core_clock(kind, runs),
        cores=Figure(count, "measured", "processors that this process may use" if kind == "cpu" else "devices used"),
        matmul={name: _figure(seconds, work, f"square products, {how}") for name, (seconds, work) in flops.items()},
        vector={"f32": _figure(*vector, f"chain of multiply-adds on small arrays, {how}")},
        transcendental=_figure(*_exponentials(runs), f"exponentials of small arrays, {how}"),
        memory=_memory(kind, runs, how),
        launch=Figure(1e-7, "estimate", "a thunk of XLA's CPU runtime; each kind of work has its own overhead in fit")
        if kind == "cpu"
        else _launch(runs, how),
        made_with={
            "jax": jax.__version__,
            "jaxlib": version("jaxlib"),
            "backend": kind,
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        },
    )


def _title(chip: Any) -> str:
    if chip.platform != "cpu":
        return str(chip.device_kind)
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _best(program: Program, runs: int) -> tuple[float, float]:
    """Fastest and median seconds of a program; of what limits a machine the fastest run tells most."""
    call = caller(program.compile(), *program.args)
    call()
    times = [call() for _ in range(max(3, 2 * runs))]
    return min(times), measured(times).spread


def _figure(seconds: tuple[float, float], work: float, source: str) -> Figure:
    return Figure(work / seconds[0], "measured", source, round(seconds[1], 3))


def _matmul(dtype: Any, runs: int) -> tuple[tuple[float, float], float]:
    size = 1024 if jax.default_backend() == "cpu" else 8192
    x = jax.ShapeDtypeStruct((size, size), dtype)
    accumulator = jnp.int32 if dtype == jnp.int8 else jnp.float32

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=accumulator)

    return _best(Program("product", product, (x, x)), runs), 2.0 * size**3


def _vector(runs: int) -> tuple[tuple[float, float], float]:
    steps, size = 64, 2**20

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(steps):
            x = x * 0.999 + 0.001
        return x

    args = (jax.ShapeDtypeStruct((64, size // 64), jnp.float32),)
    return _best(Program("chain", chain, args), runs), 2.0 * steps * size


def _exponentials(runs: int) -> tuple[tuple[float, float], float]:
    steps, size = 8, 2**19

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(steps):
            x = jnp.exp(-jnp.abs(x))
        return x

    args = (jax.ShapeDtypeStruct((64, size // 64), jnp.float32),)
    return _best(Program("exponentials", chain, args), runs), float(steps * size)


def core_clock(kind: str, runs: int) -> Figure:
    """A CPU's core clock, by a chain of operations whose latency is known; of other chips what the driver says."""
    if kind != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        # A processor of another kind than x86 tells its clock by the system, an accelerator by its driver, if at all.
        mhz = _cpuinfo_mhz() if kind == "cpu" else getattr(jax.devices()[0], "core_clock_mhz", None)
        if mhz:
            return Figure(mhz * 1e6, "measured", "the system's own figure")
        return Figure(1e9, "estimate", "neither the system nor the driver tells it: 1 GHz is a placeholder")
    turns, short, long = 2000, 200, 1200
    start = jax.ShapeDtypeStruct((), jnp.uint32)

    def chain(links: int) -> Program:
        def turn(_: Any, x: jax.Array) -> jax.Array:
            for _ in range(links):
                x = (x ^ jnp.uint32(0x9E3779B9)) * jnp.uint32(1664525)
            return x

        return Program("chain", lambda x: lax.fori_loop(0, turns, turn, x), (start,))

    # The difference of two lengths: what a turn of the loop costs besides is in both.
    (less, _), (more, spread) = _best(chain(short), runs), _best(chain(long), runs)
    pairs = turns * (long - short)
    source = f"{pairs:,} dependent pairs of xor and 32-bit multiply, {CHAIN_CYCLES} cycles each"
    return Figure(CHAIN_CYCLES * pairs / (more - less), "measured", source, round(spread, 3))


def _cpuinfo_mhz() -> float | None:
    try:
        with open("/proc/cpuinfo") as file:
            found = [float(line.partition(":")[2]) for line in file if line.startswith("cpu MHz")]
    except (OSError, ValueError):
        return None
    return max(found) if found else None


def _memory(kind: str, runs: int, how: str) -> tuple[Memory, ...]:
    """Bandwidth of each cache and of the main memory, by summing arrays that fit into it."""
    levels = caches() if kind == "cpu" else []
    largest = levels[-1][1] if levels else 64 * _MIB
    found = []
    for name, capacity in [*levels, ("DRAM" if kind == "cpu" else "HBM", None)]:
        size = int(capacity * 0.5) if capacity else max(256 * _MIB, 4 * int(largest))
        seconds, spread = _read(size, runs)
        room = Figure(capacity, "measured", "the system's own figure") if capacity else _main_memory(kind)
        rate = Figure(size / seconds, "measured", f"read sweep over {size / _MIB:.0f} MiB, {how}", round(spread, 3))
        found.append(Memory(name, room, rate))
    return tuple(found)


def _read(size: int, runs: int) -> tuple[float, float]:
    """Seconds to read `size` bytes once, and their spread."""
    program, moved = _sweep(size)
    fastest, spread = _best(program, runs)
    return fastest * size / moved, spread


def _sweep(size: int) -> tuple[Program, int]:
    """A program that reads an array of about `size` bytes by products with a vector, and how many bytes it reads."""
    columns = 1024
    rows = max(2, size // 4 // columns)
    repeat = max(1, min(64, 64 * _MIB // size))

    def sweep(x: jax.Array, w: jax.Array) -> jax.Array:
        for _ in range(repeat):
            with jax.named_scope("dot_general"):
                w = w + 1e-9 * jnp.sum(x * w, axis=1)[0]
        return w

    args = (jax.ShapeDtypeStruct((rows, columns), jnp.float32), jax.ShapeDtypeStruct((columns,), jnp.float32))
    return Program("read", sweep, args), repeat * rows * columns * 4


def pulse() -> Callable[[], dict[str, float]]:
    """Returns a function that measures in a moment what the machine gives just now, in bytes/s and FLOP/s."""
    sweep, moved = _sweep(128 * _MIB)
    size = 1024
    x = jax.ShapeDtypeStruct((size, size), jnp.float32)
    known: dict[Any, Any] = {}
    read, product = (
        caller(program.compile(), *program.args, known=known)
        for program in (sweep, Program("product", lambda a, b: a @ b, (x, x)))
    )

    def beat() -> dict[str, float]:
        seconds = [min(call() for _ in range(4)) for call in (read, product)]
        return {"memory, B/s": moved / seconds[0], "f32 products, FLOP/s": 2.0 * size**3 / seconds[1]}

    return beat


def caches() -> list[tuple[str, float]]:
    """L2 (of all cores) and L3 of this machine, from the kernel; typical sizes where it does not say."""
    found: dict[str, float] = {}
    folder = "/sys/devices/system/cpu/cpu0/cache"
    try:
        for index in sorted(os.listdir(folder)):
            if index.startswith("index"):
                with open(f"{folder}/{index}/level") as level, open(f"{folder}/{index}/size") as size:
                    text = size.read().strip()
                    units = {"K": 1024, "M": _MIB, "G": 1024 * _MIB}
                    found[f"L{level.read().strip()}"] = float(text[:-1]) * units[text[-1]]
    except (OSError, ValueError, KeyError):
        pass
    cores = os.cpu_count() or 1
    return [("L2", found.get("L2", _MIB) * cores), ("L3", found.get("L3", 16 * _MIB))]


def _main_memory(kind: str) -> Figure:
    if kind == "cpu" and hasattr(os, "sysconf"):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Figure(float(size), "measured", "the system's own figure")
    stats = jax.devices()[0].memory_stats() or {}
    return Figure(float(stats.get("bytes_limit", 16 * 2**30)), "measured", "the driver's own figure")


def _launch(runs: int, how: str) -> Figure:
    steps = 64

    def chain(x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, steps, lambda n, x: jnp.sin(x), x)

    seconds, spread = _best(Program("launches", chain, (jax.ShapeDtypeStruct((8,), jnp.float32),)), runs)
    return Figure(seconds / steps, "measured", f"{steps} tiny kernels in a loop, {how}", round(spread, 3))


def check_card(device: Device) -> str:
    """A warning where a card was made for another backend or jaxlib than is here; "" where it fits."""
    made: Mapping[str, str] = device.made_with
    here = {"jaxlib": version("jaxlib"), "backend": jax.default_backend()}
    other = [f"{name} {made[name]} (here {here[name]})" for name in here if name in made and made[name] != here[name]]
    return f"the card {device.title!r} was made with {', '.join(other)}: its terms may not hold here." if other else ""
