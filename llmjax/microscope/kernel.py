"""The code of one kernel, loop by loop: how often each runs, and what llmjax.microscope.objects says it costs. Pure.

How often a loop runs is read from its code where it counts from a constant to a constant. Where one loop of a nest does
not, its count follows from the op's work: FLOPs of a matrix product, or bytes of the result, that the hottest loop
inside it does in an iteration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmjax.microscope.mix import Mix, mix
from llmjax.microscope.objects import Simulation
from llmjax.microscope.registers import trip_count, workgroups
from llmjax.microscope.x86 import Function, Instruction, Loop, loops, own_instructions

FROM_CODE, FROM_WORK, UNKNOWN = "code", "work", "unknown"


@dataclass(frozen=True, slots=True)
class Work:
    """What one execution of the op does: FLOPs of its matrix products, bytes of its results, bytes it reads."""

    matmul_flops: float
    written: float
    read: float


@dataclass(frozen=True)
class Region:
    """A loop without its inner loops; or, where `loop` is None, the function's code outside of all loops.

    `trips` is how often it runs each time it is entered, `source` where that is known from ("code", "work" or
    "unknown"), `runs` how many iterations one execution of the op makes in all, None where nobody knows.
    `simulation` is None until it has been simulated.
    """

    loop: Loop | None
    instructions: tuple[Instruction, ...]
    mix: Mix
    trips: int | None
    source: str
    runs: int | None
    simulation: Simulation | None = None

    @property
    def address(self) -> int:
        return self.instructions[0].address if self.instructions else 0

    @property
    def cycles(self) -> float | None:
        """Cycles of all iterations, on one core."""
        if self.runs is None or self.simulation is None or self.simulation.unsupported:
            return None
        return self.runs * self.simulation.cycles

    @property
    def floor(self) -> float | None:
        """Cycles of all iterations if nothing ever waits for a result: what the units need at least."""
        if self.cycles is None or self.runs is None or self.simulation is None:
            return None
        return self.runs * min(self.simulation.throughput, self.simulation.cycles)


@dataclass(frozen=True)
class Kernel:
    """A function's regions: the code outside of loops first, then each loop, outer ones before those in them.

    `parts` is how many pieces XLA cuts it into for several threads.
    """

    name: str
    function: Function
    parts: int
    regions: tuple[Region, ...]

    @property
    def hottest(self) -> Region:
        """The region with the most cycles; where they are not known, the innermost with the most vector work."""
        known = all(region.cycles is not None for region in self.regions)
        if known:
            return max(self.regions, key=lambda region: region.cycles or 0.0)
        return max(self.regions, key=_heat)

    @property
    def cycles(self) -> float | None:
        """Cycles of one execution if one core does it all, None where a loop's count is not known."""
        found = [region.cycles for region in self.regions]
        return None if None in found else sum(cycles for cycles in found if cycles)

    @property
    def floor(self) -> float | None:
        """The same if nothing ever waits for a result."""
        found = [region.floor for region in self.regions]
        return None if None in found else sum(cycles for cycles in found if cycles)

    @property
    def code_bytes(self) -> int:
        """From the first to the last instruction."""
        return self.function.instructions[-1].address - self.function.instructions[0].address

    def around(self, region: Region) -> tuple[Region, ...]:
        """The loops around a loop, outermost first."""
        by_loop = {id(each.loop): each for each in self.regions if each.loop}
        of = [each.loop for each in self.regions if each.loop]
        found: list[Region] = []
        parent = region.loop.parent if region.loop else None
        while parent is not None:
            found.insert(0, by_loop[id(of[parent])])
            parent = of[parent].parent
        return tuple(found)


def kernel(function: Function, work: Work) -> Kernel:
    """Takes a function apart. `simulated` adds the cycles."""
    of, parts = loops(function), workgroups(function)
    trips = [trip_count(function, loop, of) for loop in of]
    sources = [FROM_CODE if n is not None else UNKNOWN for n in trips]
    bodies = [own_instructions(function, loop, of) for loop in of]
    mixes = [mix(body) for body in bodies]
    hottest = max(range(len(of)), key=lambda k: _work_heat(of[k], mixes[k]), default=None)
    missing = [] if hottest is None else [place for place in _nest(of, hottest) if trips[place] is None]
    total = 0.0 if hottest is None else _iterations(mixes[hottest], work)
    if hottest is not None and len(missing) == 1 and total:
        known = math.prod(trips[place] or 1 for place in _nest(of, hottest))
        trips[missing[0]], sources[missing[0]] = max(1, round(total / known / parts)), FROM_WORK
    outside = own_instructions(function, None, of)
    regions = [Region(None, outside, mix(outside), 1, FROM_CODE, parts)]
    for k, loop in enumerate(of):
        runs: int | None = parts
        for place in _nest(of, k):
            count = trips[place]
            runs = None if runs is None or count is None else runs * count
        regions.append(Region(loop, bodies[k], mixes[k], trips[k], sources[k], runs))
    return Kernel(function.name, function, parts, tuple(regions))


def simulated(kernel: Kernel, results: Sequence[Simulation]) -> Kernel:
    """The kernel with a simulation for each of its regions."""
    pairs = zip(kernel.regions, results, strict=True)
    return replace(kernel, regions=tuple(replace(region, simulation=result) for region, result in pairs))


def _nest(of: Sequence[Loop], k: int) -> list[int]:
    found = [k]
    while (parent := of[found[-1]].parent) is not None:
        found.append(parent)
    return found


def _iterations(found: Mix, work: Work) -> float:
    """How many iterations of a loop do the op's work: 0 where that is not known."""
    if work.matmul_flops and found.flops:
        return work.matmul_flops / found.flops
    if work.written and found.stored:
        return work.written / found.stored
    return work.read / found.loaded if work.read and found.loaded else 0.0


def _work_heat(loop: Loop, found: Mix) -> tuple[int, int]:
    return loop.depth, found.flops + found.stored + found.loaded


def _heat(region: Region) -> tuple[int, int]:
    return (0, 0) if region.loop is None else _work_heat(region.loop, region.mix)
