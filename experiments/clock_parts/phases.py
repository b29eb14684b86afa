"""The subject's programs, compiled, counted and measured once each in a job, however many sections look at them."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments._programs import Phase, Shape, build
from experiments.clock_parts.settings import Settings
from llmjax.analysis import Analysis, analysis_of
from llmjax.cycles import counters
from llmjax.cycles.measured import Measured, measured
from llmjax.cycles.profile import example, profile
from llmjax.hlo import parse
from llmjax.parallel.mesh import current
from llmjax.targets.local import Program, compile_here

LONGEST = 1.5  # seconds: a program that takes longer runs fewer times
FEWEST = 2
REST = 4e-3


class Run(NamedTuple):
    """A program that was measured: `report` has the ops' times, `core_seconds` what all cores spent on one run.

    `counts` are the hardware counters' of one run, None where there are none.
    """

    shape: Shape
    program: Program
    report: Analysis
    wall: Measured
    core_seconds: float
    counts: counters.Counts | None

    @property
    def tokens(self) -> int:
        """Tokens that one run works on: those of the prompts or texts, or the new ones."""
        return self.shape.batch * (1 if self.shape.phase == "decode" else self.shape.length)


def shape_of(settings: Settings, phase: str, **changes: Any) -> Shape:
    """The shape of a phase as the settings have it, with changes."""
    shape = Shape(settings.model, phase, settings.batch, settings.length, settings.new_tokens, settings.dtype)
    return shape._replace(**changes)


def phases_of(settings: Settings) -> tuple[str, ...]:
    """The phases that the subject's life consists of."""
    return ("prefill", "decode") if settings.generates else ("classify",)


def built(shape: Shape) -> tuple[Phase, Program]:
    """The phase and its compiled program for the mesh in use, or this machine's one device."""
    return _built(shape, current())


@functools.cache
def _built(shape: Shape, mesh: Any) -> tuple[Phase, Program]:
    phase = build(shape)
    return phase, compile_here(phase.function, *phase.args)


def counted(shape: Shape) -> Analysis:
    """What the program computes and moves on a device, op by op; nothing runs."""
    return _counted(shape, current())


@functools.cache
def _counted(shape: Shape, mesh: Any) -> Analysis:
    _, program = built(shape)
    axes = None if mesh is None else dict(mesh.shape)
    return analysis_of(parse(program.text), backend=program.backend, compiler=program.cost_analysis, mesh=axes)


def ran(shape: Shape, runs: int) -> Run:
    """The program, run on values of no meaning and measured op by op."""
    return _ran(shape, runs, current())


@functools.cache
def _ran(shape: Shape, runs: int, mesh: Any) -> Run:
    say(f"{shape.model} {shape.phase}, batch {shape.batch}, length {shape.length}")
    phase, program = built(shape)
    args = (values_of(shape), *phase.args[1:])
    call = caller(program.executable, args)
    call()
    seconds = [call() for _ in range(2)]
    few = max(min(runs, FEWEST), min(runs, int(LONGEST / seconds[0][0])))
    counts = counters.count(lambda: call())
    times = profile(program.executable, *args, runs=few)
    report = dataclasses.replace(counted(shape), measured=times)
    return Run(shape, program, report, times.wall, measured(cpu for _, cpu in seconds).median, counts)


@functools.lru_cache(maxsize=1)
def _values(model: str, dtype: str, classifies: bool, mesh: Any) -> Any:
    shape = Shape(model, "classify" if classifies else "decode", 1, 2, 1, dtype)
    return jax.tree.map(example, build(shape).args[0])


def values_of(shape: Shape) -> Any:
    """Weights of a model: those of the last one stay in memory, for the next program of it."""
    return _values(shape.model, shape.dtype, shape.phase == "classify", current())


def caller(compiled: Any, args: tuple[Any, ...]) -> Callable[[], tuple[float, float]]:
    """What runs a program once and returns the seconds by the wall clock, and those of all cores together.

    The second are read when all threads have come to rest: the kernel does not know before what a running one took.
    """
    donated = [info.donated for info in jax.tree.leaves(compiled.args_info, is_leaf=lambda x: hasattr(x, "donated"))]
    leaves, structure = jax.tree.flatten(args)
    leaves = [example(leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for leaf in leaves]

    def call() -> tuple[float, float]:
        mine = [jax.numpy.copy(a) if d else a for a, d in zip(leaves, donated, strict=True)]
        jax.block_until_ready(mine)
        values = structure.unflatten(mine)
        time.sleep(REST)
        cpu, start = time.process_time(), time.perf_counter()
        jax.block_until_ready(compiled(*values))
        wall = time.perf_counter() - start
        time.sleep(REST)
        return wall, time.process_time() - cpu

    return call


def say(what: str) -> None:
    """Tells a person who waits what is being done."""
    print(f"  {what}", file=sys.stderr, flush=True)
