"""Sentences about two measurements: how many times faster, and which count explains it."""

import math
from collections.abc import Mapping

from experiments.clock_parts.cases import Case, Timing
from experiments.clock_parts.predictions import Predicted
from llmjax.cycles.device import Device, peak

_SAME = 1.05  # what differs by less is called the same
_NEAR = 0.4  # a count explains a gain if their logarithms differ by no more than this share
HLO_DTYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "s8"}


def times(factor: float) -> str:
    """A ratio of times (before / after) in words: "3.1 times as fast", "as fast", "2.0 times as slow"."""
    if factor >= _SAME:
        return f"{factor:.3g} times as fast"
    return "as fast" if factor > 1 / _SAME else f"{1 / factor:.3g} times as slow"


def ratios(before: tuple[Case, Timing | Predicted], after: tuple[Case, Timing | Predicted]) -> dict[str, float]:
    """How many times more FLOPs, bytes and ops a token took before."""
    found = {}
    for name, label in (("flops", "FLOPs"), ("bytes", "bytes"), ("ops", "ops")):
        a, b = (getattr(timing, name) / case.tokens for case, timing in (before, after))
        if a and b:
            found[label] = a / b
    return found


def reason(factor: float, found: Mapping[str, float], by: str = "") -> str:
    """Why a token takes `factor` times less time, as far as the counts say; `by` is what changed where no count did."""
    changed = {name: ratio for name, ratio in found.items() if not 1 / _SAME < ratio < _SAME}
    if not changed:
        return f"the same FLOPs, bytes and ops{f': {by}' if by else ''}"
    told = ", ".join(_change(name, ratio) for name, ratio in changed.items())
    gain = math.log(factor)
    nearest = min(changed, key=lambda name: abs(math.log(changed[name]) - gain))
    if abs(math.log(changed[nearest]) - gain) <= _NEAR * abs(gain) and not 1 / _SAME < factor < _SAME:
        return f"{told}: the time follows the {nearest}"
    if factor >= _SAME:
        return f"{told}: the gain is {'more' if factor > max(changed.values()) else 'less'} than these counts promise"
    if factor > 1 / _SAME:
        return f"{told}: without effect on the time"
    worse = min(changed.values()) < 1
    return f"{told}: the loss is {'more than these counts explain' if worse else 'in spite of them'}"


def _change(name: str, ratio: float) -> str:
    return f"{ratio:.3g}x fewer {name}" if ratio > 1 else f"{1 / ratio:.3g}x more {name}"


def limits(case: Case, timing: Timing, device: Device) -> dict[str, float]:
    """The least seconds that each resource of a device allows one execution: FLOPs, bytes, and launches of ops."""
    rate = peak(device.matmul, HLO_DTYPES[case.dtype]).value
    return {
        "FLOPs": timing.flops / rate,
        "bytes": timing.bytes / device.main_memory.bandwidth.value,
        "launches": timing.ops * device.launch.value,
    }


def bound(case: Case, timing: Timing, device: Device) -> str:
    """The resource that limits an execution the most."""
    found = limits(case, timing, device)
    return max(found, key=lambda name: found[name])
