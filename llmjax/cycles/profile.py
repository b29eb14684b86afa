"""Measured time of every HLO op of a compiled program: XLA's own trace, made exclusive and reconciled with the clock.

XLA's profiler marks when each op starts and ends on each thread; events.py says what stands between that and an op's
own time.
"""

from __future__ import annotations

import gc
import glob
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from llmjax.cycles.events import END, TASK, Event, Share, by_device, control_names, exclusive
from llmjax.cycles.measured import MeasuredOp, Profile, measured
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.memory import available, held_bytes, require, sharing
from llmjax.targets.local import arguments_of, devices_of, memory_use

_RUN = "llmjax run"
_KEYS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
_LONG = 0.2  # seconds: longer programs run once a trace, and shorter ones no longer than this


class Runnable(NamedTuple):
    """A compiled program that can be run: its module's name, its control ops, and a function that times one run."""

    module: str
    control: frozenset[str]
    call: Callable[[], float]


class _Round(NamedTuple):
    """What one round measured of a program: seconds without the profiler, and of each traced run, on each device,
    those of the whole and by op.
    """

    plain: list[float]
    walls: list[float]
    shares: list[dict[str, Share]]
    events: list[Event]


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
    subject = runnable(program, *args, **kwargs)
    subject.call()
    gc.collect()
    at_once = _at_once(subject, runs)
    rounds = [_round(subject, min(at_once, runs - done)) for done in range(0, runs, at_once)]
    return _summary(subject, rounds)


def interleave(
    subjects: Sequence[Runnable],
    rounds: int,
    runs: int,
    say: Callable[[str, float], None] = lambda what, share: None,
    between: Callable[[], None] = lambda: None,
) -> list[Profile]:
    """Profiles several programs in turn, round after round, so that all see the same moods of the machine.

    Each round takes them in another order, by chance with a fixed seed, since moods last for seconds. It warms a
    program up and runs it `runs` times with and without the profiler, long ones less often. `between` is called before
    each round. Raises UserError like `profile`.
    """
    found: list[list[_Round]] = [[] for _ in subjects]
    orders = np.random.default_rng(0)
    for number in range(rounds):
        between()
        gc.collect()
        for n, chosen in enumerate(orders.permutation(len(subjects))):
            subject = subjects[chosen]
            say(f"round {number + 1} of {rounds}: {subject.module}", (number + n / len(subjects)) / rounds)
            found[chosen].append(_round(subject, _at_once(subject, runs)))
    return [_summary(subject, mine) for subject, mine in zip(subjects, found, strict=True)]


def _at_once(subject: Runnable, runs: int) -> int:
    """Runs the program and returns how many of `runs` one trace may hold: a long program's, only one.

    What the profiler keeps of a run lies in the room that the run's temporary values had, so that the next run of the
    same trace gets other pages, and takes them for the first time: a third of a training step of GPT-2.
    """
    return max(1, min(runs, round(_LONG / subject.call())))


def _round(subject: Runnable, runs: int) -> _Round:
    """Measures a program that has just been run, so that its data and code are where a step finds them."""
    plain = [subject.call() for _ in range(runs)]
    windows, events, modules = _trace(subject.call, runs)
    mine = [event for event, owner in zip(events, modules, strict=True) if owner in (None, subject.module)]
    walls, shares = [], []
    for start, end in windows:
        for events in by_device([e for e in mine if start <= e.start < end]) or [[]]:
            walls.append(end - start)
            shares.append(exclusive(events, subject.control))
    return _Round(plain, walls, shares, mine)


def _summary(subject: Runnable, rounds: Sequence[_Round]) -> Profile:
    shares = [share for each in rounds for share in each.shares]
    if not any(shares):
        raise UserError(f"the profiler saw no op of {subject.module or 'the program'}: nothing was measured.")
    walls, runs = [wall for each in rounds for wall in each.walls], sum(len(each.plain) for each in rounds)
    covered = [sum(s.seconds for s in found.values()) / wall for found, wall in zip(shares, walls, strict=True)]
    calls: dict[str, int] = defaultdict(int)
    threads: dict[str, set[str]] = defaultdict(set)
    for event in (event for each in rounds for event in each.events):
        calls[event.name] += 1
        threads[event.name].add(event.thread.partition("/")[0])
    none = Share(0.0, 0.0)

    def op(name: str) -> MeasuredOp:
        found = [share.get(name, none) for share in shares]
        medians = tuple(float(np.median([s.get(name, none).seconds for s in each.shares])) for each in rounds)
        whole = sum(share.seconds for share in found)
        beside = sum(share.beside for share in found) / whole if whole else 0.0
        time = measured([share.seconds for share in found])
        return MeasuredOp(name, time, calls[name] / len(shares), tuple(sorted(threads[name])), beside, medians)

    return Profile(
        subject.module,
        measured([seconds for each in rounds for seconds in each.plain]),
        measured(walls),
        {name: op(name) for name in dict.fromkeys(name for share in shares for name in share)},
        float(np.median(covered)),
        runs,
        tuple(float(np.median(each.plain)) for each in rounds),
        devices=len(shares) // runs,
    )


def runnable(program: Any, *args: Any, known: dict[Any, Any] | None = None, **kwargs: Any) -> Runnable:
    """A program with arguments to run it with; `known` is where programs share the values made for abstract ones."""
    check_arguments(*args, **kwargs)
    free = available()
    compiled = compile_for_running(program, *args, **kwargs)
    if use := memory_use(compiled):
        needed = {"arguments": use.arguments, "results": use.outputs - use.aliased, "temporaries": use.temporaries}
        here = sharing(devices_of(compiled))
        require({what: count * here for what, count in needed.items()}, _SMALLER, free)
    taken = arguments_of(compiled)
    if len(jax.tree.leaves(taken)) != len(jax.tree.leaves((args, kwargs))):
        args, kwargs = (
            taken  # none were given of what was compiled before, or some are static: those are in the program
        )
    text = compiled.as_text()
    module = text.partition(",")[0].split()[1] if text.startswith("HloModule ") else ""
    return Runnable(module, control_names(parse(text)), caller(compiled, *args, known=known, **kwargs))


def check_arguments(*args: Any, **kwargs: Any) -> None:
    """Raises `UserError` where a program's arguments are more than is free."""
    require({"arguments": held_bytes((args, kwargs))}, _SMALLER, available())


def compile_for_running(program: Callable[..., Any] | Any, *args: Any, **kwargs: Any) -> Any:
    """Compiles a function for the default device; what is compiled already is returned as it is."""
    if hasattr(program, "as_text") and not hasattr(program, "compile"):
        return program
    if hasattr(program, "compile"):
        return program.compile()
    if not callable(program):
        raise UserError(f"profile({program!r}): expected a function, or one that is jitted or compiled.")
    return (program if hasattr(program, "lower") else jax.jit(program)).lower(*args, **kwargs).compile()


def caller(compiled: Any, *args: Any, known: dict[Any, Any] | None = None, **kwargs: Any) -> Callable[[], float]:
    """Returns a function that runs a compiled program once and returns how many seconds that took.

    Abstract arguments get plausible values; donated ones are copied before the clock starts.
    """
    infos = jax.tree.leaves(compiled.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    leaves, structure = jax.tree.flatten((args, kwargs))
    known = {} if known is None else known
    seen: dict[Any, int] = defaultdict(int)
    for n, leaf in enumerate(leaves):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            kind = (leaf.shape, leaf.dtype, leaf.sharding)
            key = (*kind, seen[kind])
            seen[kind] += 1
            leaves[n] = known[key] = known[key] if key in known else example(leaf)
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


_SMALLER = "measure a smaller program: fewer rows, tokens or layers"
_NORMAL = np.random.default_rng(0).standard_normal(2**20, np.float32) * 0.02


def example(leaf: jax.ShapeDtypeStruct) -> Any:
    """An array for an abstract value, where its sharding says: small normal numbers, ones, True."""
    return _example(leaf) if leaf.sharding is None else jax.device_put(_example(leaf), leaf.sharding)


def _example(leaf: jax.ShapeDtypeStruct) -> Any:
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
        return jax.numpy.asarray(np.resize(_NORMAL, leaf.shape), leaf.dtype)
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        key = jax.random.key(0, impl=_KEYS[str(leaf.dtype)])
        return jax.random.split(key, leaf.shape) if leaf.shape else key
    return jax.numpy.ones(leaf.shape, leaf.dtype)


def _trace(call: Callable[[], float], runs: int) -> tuple[list[tuple[float, float]], list[Event], list[str | None]]:
    """Windows of the runs; events of ops, their ends and tasks; and the module of each op, None of others; seconds."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # else every Python call is an event, and slower
    options.enable_hlo_proto = False  # of every program that is loaded, which takes seconds
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
            for event in line.events:
                start = event.start_ns * 1e-9
                end = start + event.duration_ns * 1e-9
                if event.name == _RUN:
                    windows.append((start, end))
                    continue
                if event.name.startswith((END, TASK)):
                    link = int(dict(event.stats).get("_c", 0)) if event.name != TASK else 0
                    events.append(Event(start, end, event.name, line.name, link))
                    modules.append(None)
                    continue
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    name, module = str(stats["hlo_op"]), stats.get("hlo_module")
                    link, device = int(stats.get("_p", 0)), int(stats.get("device_ordinal", 0))
                    events.append(Event(start, end, name, line.name, link, device))
                    modules.append(None if module is None else str(module))
    return sorted(windows), events, modules
