"""Measured times as values. What measures is profile.py; nothing here imports JAX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True, slots=True)
class Measured:
    """A median of repeated measurements and its quartiles, in seconds."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Distance between the quartiles, relative to the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def measured(seconds: Iterable[float]) -> Measured:
    """The median and the quartiles of repeated measurements."""
    times = list(seconds)
    low, median, high = quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return Measured(median, low, high)


@dataclass(frozen=True, slots=True)
class MeasuredOp:
    """Exclusive time of one op in one run of the program, all its executions together, in seconds.

    `calls` is how often it ran in a run, `threads` names the threads that started it. `beside` is the share of its time
    that it had in common with others, `rounds` are the medians of the rounds of measurement, in seconds.
    """

    name: str
    time: Measured
    calls: float
    threads: tuple[str, ...]
    beside: float = 0.0
    rounds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What `profile` measured. `wall` is a run without the profiler, `traced` one with it; `ops` go by name.

    Where several `devices` ran the program, an op's time is one device's: of all runs on all of them, one by one.
    `covered` is the share of the traced wall time in which some op of the program ran. `rounds` are the medians of
    `wall` in each round of measurement. `from_trace`: the user's own trace was read, so that `wall` is with the
    profiler.
    """

    module: str
    wall: Measured
    traced: Measured
    ops: Mapping[str, MeasuredOp]
    covered: float
    runs: int
    rounds: tuple[float, ...] = ()
    from_trace: bool = False
    devices: int = 1
