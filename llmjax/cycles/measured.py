"""Measured times as values. What measures is profile.py; nothing here imports JAX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import quantiles

LEAST_COVERED = 0.8


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

    `covered` is the share of the traced wall time in which some op of the program ran. `note` names what is missing
    where that is less than 80%, "" otherwise. `rounds` are the medians of `wall` in each round of measurement.
    """

    module: str
    wall: Measured
    traced: Measured
    ops: Mapping[str, MeasuredOp]
    covered: float
    runs: int
    rounds: tuple[float, ...] = ()

    @property
    def note(self) -> str:
        if self.covered >= LEAST_COVERED:
            return ""
        gap = (1 - self.covered) * self.traced.median
        return (
            f"ops cover only {self.covered:.0%} of the measured step: {gap * 1e6:,.0f} us pass outside of any op, in"
            " dispatch from Python, waiting for other programs, and the gaps between ops."
        )

    def reconciliation(self) -> str:
        """One line: how the ops' times add up to the wall time."""
        total = sum(op.time.median for op in self.ops.values())
        return (
            f"ops cover {self.covered:.0%} of the step ({total * 1e3:.3f} of {self.traced.median * 1e3:.3f} ms traced;"
            f" {self.wall.median * 1e3:.3f} ms without the profiler, quartiles {self.wall.low * 1e3:.3f} to"
            f" {self.wall.high * 1e3:.3f}, {self.runs} runs)"
        )
