"""When measurements say nothing: their own repetitions lie too far apart. Pure; nothing here imports JAX."""

from __future__ import annotations

from collections.abc import Iterator

from llmjax.cycles.device import Device, Figure

# Quartiles further apart than this share of the median, or sums this far from their whole: on an idle machine the
# programs of the clock job repeat to some per cent; while others run, to a half and more.
MOST = 0.25


def noisy_figures(device: Device) -> list[str]:
    """Returns the measured numbers of a device whose spread is too large, each with it: "clock (43% apart)"."""
    return [f"{name} ({figure.spread:.0%} apart)" for name, figure in _figures(device) if (figure.spread or 0.0) > MOST]


def warning(device: Device) -> str:
    """Returns a sentence where numbers of a device are too noisy to be used, else ""."""
    found = noisy_figures(device)
    if not found:
        return ""
    return (
        f"too noisy: the quartiles of {', '.join(found)}: other programs ran meanwhile, and what rests on these numbers"
        " says little. Measure again when the machine is idle."
    )


def adds_up(parts: float, whole: float) -> bool:
    """Whether the sum of parts that were measured one by one is near enough to the whole that was measured."""
    return whole > 0 and abs(parts / whole - 1) <= MOST


def _figures(device: Device) -> Iterator[tuple[str, Figure]]:
    yield "clock", device.clock_hz
    for what, peaks in (("matrix products", device.matmul), ("vector", device.vector)):
        for dtype, figure in peaks.items():
            yield f"{what} {dtype}", figure
    yield "exponentials", device.transcendental
    for memory in device.memory:
        yield f"{memory.name} bandwidth", memory.bandwidth
    yield "launch", device.launch
