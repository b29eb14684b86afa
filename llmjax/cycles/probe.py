"""Measuring a machine: its clock, vectors, peaks, bandwidths and overheads, each with its spread and source."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from llmjax.cycles.device import Device, Figure, Memory
from llmjax.cycles.measured import measured
from llmjax.cycles.profile import caller
from llmjax.cycles.programs import Program

# x86: a 32-bit multiply takes 3 cycles and an xor 1, and no algebra shortens a chain of them (Agner Fog's instruction
# tables: Intel since Nehalem, AMD since Zen).
CHAIN_CYCLES = 4
CLOCK_ROUNDS = 5
_MIB = 2**20


def probe(runs: int = 5) -> Device:
    """Measures clock, peaks and bandwidths of the default device."""
    chip = jax.devices()[0]
    kind = chip.platform
    count = len(usable()) if kind == "cpu" else 1
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
        simd_bits=simd_bits() if kind == "cpu" else None,
        made_with={
            "jax": jax.__version__,
            "jaxlib": version("jaxlib"),
            "backend": kind,
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        },
    )


# Bits of the vectors that a processor has, by the flag that the kernel shows for it, the widest first.
_SIMD = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "asimd": 128}


def simd_bits() -> Figure | None:
    """The widest vectors that this processor has, in bits; None where the system does not say."""
    flags = {flag for name in ("flags", "Features") for flag in _cpuinfo(name)[:1] for flag in flag.split()}
    flag = next((flag for flag in _SIMD if flag in flags), None)
    return Figure(_SIMD[flag], "measured", f"the system's own figure: {flag}") if flag else None


def _cpuinfo(name: str) -> list[str]:
    """The values that the kernel tells of each processor under a name; none where it tells nothing."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return []
    return [value.strip() for key, _, value in lines if key.strip() == name]


def _title(chip: Any) -> str:
    if chip.platform != "cpu":
        return str(chip.device_kind)
    names = _cpuinfo("model name")
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
        told = _cpuinfo("cpu MHz") if kind == "cpu" else [getattr(jax.devices()[0], "core_clock_mhz", None)]
        found = [float(mhz) for mhz in told if mhz]
        if found:
            return Figure(max(found) * 1e6, "measured", "the system's own figure")
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
    calls = [caller(program.compile(), *program.args) for program in (chain(short), chain(long))]
    rounds = [[min(call() for _ in range(max(3, runs))) for call in calls] for _ in range(CLOCK_ROUNDS)]
    return _clock_of(rounds, turns * (long - short))


def _clock_of(rounds: Sequence[Sequence[float]], pairs: int) -> Figure:
    """The clock by the fastest seconds of the short chain and of the long one, `pairs` longer, in each round.

    The spread is that of what the rounds say one by one: a processor that others use too gives another clock each time.
    """
    less, more = (min(round_[k] for round_ in rounds) for k in (0, 1))
    if more <= less:
        return Figure(1e9, "estimate", "too noisy to measure, the longer chain was the faster: 1 GHz is a placeholder")
    apart = [long - short for short, long in rounds]
    spread = measured(apart).spread if min(apart) > 0 else 1.0
    source = f"{pairs:,} dependent pairs of xor and 32-bit multiply, {CHAIN_CYCLES} cycles each"
    return Figure(CHAIN_CYCLES * pairs / (more - less), "measured", source, round(spread, 3))


def _memory(kind: str, runs: int, how: str) -> tuple[Memory, ...]:
    """Bandwidth of each cache and of the main memory, by summing arrays that fit into it."""
    levels = caches() if kind == "cpu" else []
    largest = levels[-1][1].value if levels else 64 * _MIB
    found = []
    for name, capacity in [*levels, ("DRAM" if kind == "cpu" else "HBM", None)]:
        size = int(capacity.value * 0.5) if capacity else max(256 * _MIB, 4 * int(largest))
        seconds, spread = _read(size, runs)
        room = capacity or _main_memory(kind)
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


_CACHES = "/sys/devices/system/cpu/cpu{}/cache"
_TYPICAL = {"L2": float(_MIB), "L3": 16.0 * _MIB}


def caches() -> list[tuple[str, Figure]]:
    """L2 and L3 of the processors that this process may use, from the kernel; typical sizes where it does not say.

    A cache that several of them share counts once.
    """
    cores = usable()
    found: dict[str, dict[str, float]] = {}
    for core in cores:
        for level, shared_by, size in _caches_of(core):
            found.setdefault(level, {})[shared_by] = size
    levels = []
    for level, typical in _TYPICAL.items():
        if level in found:
            each = found[level].values()
            source = f"the system's own figure, {len(each)} of them for {len(cores)} processors"
            levels.append((level, Figure(sum(each), "measured", source)))
        else:
            size = typical * (len(cores) if level == "L2" else 1)
            levels.append((level, Figure(size, "estimate", "a typical size: the system does not say")))
    return levels


def usable() -> list[int]:
    """The processors that this process may use: those of its affinity, which a container narrows."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _caches_of(core: int) -> list[tuple[str, str, float]]:
    """A processor's caches of data: level ("L2"), the processors that share it ("0-1"), bytes."""
    found = []
    folder = _CACHES.format(core)
    units = {"K": 1024, "M": _MIB, "G": 1024 * _MIB}
    try:
        for index in sorted(name for name in os.listdir(folder) if name.startswith("index")):
            told = {}
            for name in ("level", "type", "size", "shared_cpu_list"):
                with open(f"{folder}/{index}/{name}") as file:
                    told[name] = file.read().strip()
            if told["type"] != "Instruction":
                size = float(told["size"][:-1]) * units[told["size"][-1]]
                found.append((f"L{told['level']}", told["shared_cpu_list"], size))
    except (OSError, ValueError, KeyError, IndexError):
        return found
    return found


def _main_memory(kind: str) -> Figure:
    if kind == "cpu" and hasattr(os, "sysconf"):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Figure(float(size), "measured", "the system's own figure")
    told = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if told:
        return Figure(float(told), "measured", "the driver's own figure")
    return Figure(16.0 * 2**30, "estimate", "16 GiB is a placeholder: neither the system nor the driver tells it")


def _launch(runs: int, how: str) -> Figure:
    steps = 64

    def chain(x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, steps, lambda n, x: jnp.sin(x), x)

    seconds, spread = _best(Program("launches", chain, (jax.ShapeDtypeStruct((8,), jnp.float32),)), runs)
    return Figure(seconds / steps, "measured", f"{steps} tiny kernels in a loop, {how}", round(spread, 3))
