"""Measured time of every HLO op of a compiled program: XLA's own trace, made exclusive and reconciled with the clock.

XLA's profiler marks when each op starts and ends on each thread. Three things stand between that and "how long did the
op take": an op that hands its work to other threads ends with a separate `end:` event; `while`, `call` and
`conditional` contain other ops; and ops may run side by side. Here every instant of a run belongs to the innermost op
that is running, in equal parts if there are several, so that the sum over ops is the part of the wall time they cover.
An op that waits for threads which another holds counts as running: the trace does not tell.
"""

from __future__ import annotations

import gc
import glob
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from llmjax.cycles.measured import MeasuredOp, Profile, measured
from llmjax.errors import UserError
from llmjax.hlo import parse

_RUN = "llmjax run"
_KEYS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
_CONTROL = ("while", "call", "conditional")


class Event(NamedTuple):
    """A stretch of time of an op on a thread; seconds or any other unit."""

    start: float
    end: float
    name: str
    thread: str = ""


def profile(program: Callable[..., Any] | Any, *args: Any, runs: int = 10, **kwargs: Any) -> Profile:
    """Runs a program and measures how long each of its HLO ops takes.

    Args:
        program: a function, a jitted one, or its `.lower(...).compile()`.
        args, kwargs: its arguments: arrays, or `jax.ShapeDtypeStruct`s, for which plausible values are made. Donated
            arguments are copied before each run.
        runs: how often it runs, with and without the profiler each.

    Raises:
        UserError: the program runs no op that the profiler sees, or `runs` is below 1.
    """
    if runs < 1:
        raise UserError(f"profile(runs={runs}): at least one run is needed.")
    compiled = compile_for_running(program, *args, **kwargs)
    call = caller(compiled, *args, **kwargs)
    for _ in range(2):
        call()
    plain = [call() for _ in range(runs)]
    windows, events, modules = _trace(call, runs)
    text = compiled.as_text()
    module = text.partition(",")[0].split()[1] if text.startswith("HloModule ") else ""
    mine = [event for event, owner in zip(events, modules, strict=True) if owner in (None, module)]
    control = control_names(text)
    per_run = [exclusive([e for e in mine if start <= e.start < end], control) for start, end in windows]
    if not any(per_run):
        raise UserError(f"the profiler saw no op of {module or 'the program'}: nothing was measured.")
    walls = [end - start for start, end in windows]
    covered = [sum(found.values()) / wall for found, wall in zip(per_run, walls, strict=True)]
    names = dict.fromkeys(name for found in per_run for name in found)
    calls = {name: 0 for name in names}
    threads: dict[str, dict[str, None]] = {name: {} for name in names}
    for event in mine:
        if event.name in calls:
            calls[event.name] += 1
            threads[event.name][event.thread] = None
    ops = {
        name: MeasuredOp(
            name,
            measured([found.get(name, 0.0) for found in per_run]),
            calls[name] / len(windows),
            tuple(sorted(threads[name])),
        )
        for name in names
    }
    return Profile(module, measured(plain), measured(walls), ops, float(np.median(covered)), runs)


def compile_for_running(program: Callable[..., Any] | Any, *args: Any, **kwargs: Any) -> Any:
    """Compiles a function for the default device; what is compiled already is returned as it is."""
    if hasattr(program, "as_text") and not hasattr(program, "compile"):
        return program
    if hasattr(program, "compile"):
        return program.compile()
    if not callable(program):
        raise UserError(f"profile({program!r}): expected a function, or one that is jitted or compiled.")
    return (program if hasattr(program, "lower") else jax.jit(program)).lower(*args, **kwargs).compile()


def caller(compiled: Any, *args: Any, **kwargs: Any) -> Callable[[], float]:
    """Returns a function that runs a compiled program once and returns how many seconds that took.

    Abstract arguments get plausible values; donated ones are copied before the clock starts.
    """
    infos = jax.tree.leaves(compiled.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    leaves, structure = jax.tree.flatten((args, kwargs))
    leaves = [example(leaf) for leaf in leaves]
    donated = [info.donated for info in infos] if len(infos) == len(leaves) else [True] * len(leaves)

    def call() -> float:
        mine = [jax.numpy.copy(a) if d else a for a, d in zip(leaves, donated, strict=True)]
        jax.block_until_ready(mine)
        a, k = structure.unflatten(mine)
        start = time.perf_counter()
        with jax.profiler.TraceAnnotation(_RUN):
            jax.block_until_ready(compiled(*a, **k))
        return time.perf_counter() - start

    return call


def example(leaf: Any) -> Any:
    """An array for an abstract value: small normal numbers, ones, True; what is an array already stays as it is."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
        values = np.random.default_rng(0).standard_normal(leaf.shape, np.float32) * 0.02
        return jax.numpy.asarray(values, leaf.dtype)
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        key = jax.random.key(0, impl=_KEYS[str(leaf.dtype)])
        return jax.random.split(key, leaf.shape) if leaf.shape else key
    return jax.numpy.ones(leaf.shape, leaf.dtype)


def control_names(text: str) -> frozenset[str]:
    """Names of the instructions of HLO text that only contain others: `while`, `call`, `conditional`."""
    module = parse(text)
    return frozenset(i.name for c in module.computations.values() for i in c if i.opcode in _CONTROL)


def exclusive(events: Sequence[Event], control: frozenset[str] = frozenset()) -> dict[str, float]:
    """Time by name: each instant goes to the ops that run then, in equal parts, to `control` ones if no other does.

    An op's time ends with the event `end: NAME` where there is one later than its own end.
    """
    ends: dict[str, list[float]] = {}
    for event in events:
        if event.name.startswith("end: "):
            ends.setdefault(event.name[5:], []).append(event.start)
    found = sorted(e for e in events if not e.name.startswith("end: "))
    for moments in ends.values():
        moments.sort(reverse=True)
    edges: list[tuple[float, int, str]] = []
    for event in found:
        later, last = ends.get(event.name, []), event.end
        if later:
            last = max(last, later.pop())
        edges += [(event.start, 1, event.name), (last, -1, event.name)]
    edges.sort()
    times: dict[str, float] = {event.name: 0.0 for event in found}
    active: dict[str, int] = {}
    before = 0.0
    for at, step, name in edges:
        if active and at > before:
            running = [n for n in active if n not in control] or list(active)
            for n in running:
                times[n] += (at - before) / len(running)
        before = at
        active[name] = active.get(name, 0) + step
        if not active[name]:
            del active[name]
    return times


def _trace(call: Callable[[], float], runs: int) -> tuple[list[tuple[float, float]], list[Event], list[str | None]]:
    """Windows of the runs, events of ops and their ends, and the module of each (None of ends), in seconds."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # else every Python call is an event, and slower
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(runs):
                call()
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the bindings' own making
            return _read(jax.profiler.ProfileData.from_file(file))


def _read(data: Any) -> tuple[list[tuple[float, float]], list[Event], list[str | None]]:
    windows: list[tuple[float, float]] = []
    events: list[Event] = []
    modules: list[str | None] = []
    for plane in data.planes:
        for line in plane.lines:
            thread = line.name.partition("/")[0]
            for event in line.events:
                start = event.start_ns * 1e-9
                end = start + event.duration_ns * 1e-9
                if event.name == _RUN:
                    windows.append((start, end))
                elif event.name.startswith("end: "):
                    events.append(Event(start, end, event.name, thread))
                    modules.append(None)
                else:
                    stats = dict(event.stats)
                    if "hlo_op" in stats:
                        events.append(Event(start, end, str(stats["hlo_op"]), thread))
                        modules.append(str(stats["hlo_module"]) if "hlo_module" in stats else None)
    return sorted(windows), events, modules
