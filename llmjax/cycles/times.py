"""What a prediction gives: the parts of an op's time, an op, a program. Frozen values; no JAX import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmjax.cycles.device import Device

POWER = 3.0


@dataclass(frozen=True, slots=True)
class Parts:
    """One execution of an op, in seconds: work, traffic by memory level, what neither explains, and links.

    `spread` is the typical relative error, as a factor: times between time/spread and time*spread are as likely as not.
    """

    compute: float
    memory: tuple[float, ...]
    overhead: float
    link: float = 0.0
    spread: float = 1.5

    @property
    def seconds(self) -> float:
        return combine(self.compute, sum(self.memory), self.overhead, self.link)


def combine(compute: float, memory: float, overhead: float, link: float) -> float:
    """Total of an op's parts, in seconds: work and traffic overlap, the rest does not."""
    larger = max(compute, memory)
    if larger:
        larger *= ((compute / larger) ** POWER + (memory / larger) ** POWER) ** (1 / POWER)
    return overhead + max(larger, link)


@dataclass(frozen=True, slots=True)
class OpTime:
    """Time of one op on a device, all its executions together, in seconds.

    `low` and `high` enclose what is as likely as not. `memory` goes by level. `bound` is the largest part: "compute",
    "memory:LEVEL", "overhead" or "link".
    """

    name: str
    term: str
    count: float
    seconds: float
    low: float
    high: float
    compute: float
    memory: Mapping[str, float]
    overhead: float
    link: float
    bound: str


@dataclass(frozen=True)
class ProgramTime:
    """Time of one execution of a program on a device, in seconds.

    `sequential` is the sum over ops and `dispatch`, what passes outside of them; `overlapped` lets asynchronous copies
    and collectives run beside the rest. `low` and `high` enclose `overlapped` like the ops' do.
    """

    device: Device
    ops: tuple[OpTime, ...]
    dispatch: float
    sequential: float
    overlapped: float
    low: float
    high: float
    by_name: Mapping[str, OpTime] = field(repr=False, default_factory=dict)

    @property
    def cycles(self) -> float:
        """`overlapped` in clock cycles of the device's compute unit."""
        return self.overlapped * self.device.clock_hz.value
