"""Sentences about two measurements: how many times faster, and which count explains it."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from experiments.clock_parts.cases import Case, Timing
from experiments.clock_parts.predictions import Predicted
from llmjax.cycles.device import Device, peak
from llmjax.cycles.noise import MOST

_SAME = 1.05  # what differs by less is called the same
_NEAR = 0.3  # a count explains a gain if their logarithms differ by no more than this share
HLO_DTYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "s8"}


def ratio_of(value: float) -> str:
    """A ratio with three digits, whole from a hundred on: 2.52, 1,980."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(factor: float) -> str:
    """A ratio of times (before / after) in words: "3.1 times as fast", "as fast", "2.0 times as slow"."""
    if factor >= _SAME:
        return f"{ratio_of(factor)} times as fast"
    return "as fast" if factor > 1 / _SAME else f"{ratio_of(1 / factor)} times as slow"


def clear(before: tuple[Case, Timing], after: tuple[Case, Timing]) -> bool:
    """Whether the quartiles of two cases, a token, lie apart and are narrow: else the difference may be chance."""
    (a, x), (b, y) = before, after
    if noisy(x, y):
        return False
    return x.seconds.low / a.tokens > y.seconds.high / b.tokens or x.seconds.high / a.tokens < y.seconds.low / b.tokens


def noisy(*timings: Timing) -> bool:
    """Whether any of the cases repeats itself too badly to be compared with another."""
    return any(timing.seconds.spread > MOST for timing in timings)


def ratios(before: tuple[Case, Timing | Predicted], after: tuple[Case, Timing | Predicted]) -> dict[str, float]:
    """How many times more FLOPs, bytes and ops a token took before."""
    found = {}
    for name, label in (("flops", "FLOPs"), ("bytes", "bytes"), ("ops", "ops")):
        a, b = (getattr(timing, name) / case.tokens for case, timing in (before, after))
        if a and b:
            found[label] = a / b
    return found


class Roof(NamedTuple):
    """What limits a token before and after ("bytes"), and how many times less it lets it take."""

    before: str
    after: str
    allows: float


def reason(factor: float, found: Mapping[str, float], by: str = "", roof: Roof | None = None) -> str:
    """Why a token takes `factor` times less time, as far as the counts (`ratios`) and the machine's limits say.

    `by` is what changes besides the counts, `roof` None where the limits of the two are not known.
    """
    changed = {name: ratio for name, ratio in found.items() if not 1 / _SAME < ratio < _SAME}
    aside = f": {by}" if by else ""
    if not changed:
        effect = aside if factor >= _SAME else f", at a loss{aside}" if factor <= 1 / _SAME else ", in the same time"
        return f"the same FLOPs, bytes and ops{effect}"
    told = ", ".join(_change(name, ratio) for name, ratio in changed.items())
    if 1 / _SAME < factor < _SAME:
        return f"{told}: without effect on the time{_same_limit(roof, changed)}"
    nearest = min(changed, key=lambda name: abs(math.log(changed[name] / factor)))
    if _agree(changed[nearest], factor):
        return f"{told}: the time follows the {nearest}"
    if roof is not None and _agree(roof.allows, factor):
        moves = "" if roof.before == roof.after else f" moves from {roof.before} to {roof.after} and"
        return f"{told}: the limit{moves or f', {roof.after},'} allows {ratio_of(roof.allows)}x"
    if factor >= _SAME and factor > max(changed.values()):
        return f"{told}: the gain is more than these counts promise{aside}"
    if factor >= _SAME:
        return f"{told}: the gain is less than these counts promise{_same_limit(roof, changed)}"
    worse = min(changed.values()) < 1
    return f"{told}: the loss is {'not explained by these counts' if worse else 'in spite of them'}{aside}"


def _agree(ratio: float, factor: float) -> bool:
    return abs(math.log(ratio / factor)) <= _NEAR * abs(math.log(factor))


def _same_limit(roof: Roof | None, changed: Mapping[str, float]) -> str:
    """Why fewer of what does not limit help little."""
    if roof is None or roof.before != roof.after or roof.before in changed:
        return ""
    return f", as {roof.before} limit both" if roof.before != "launches" else ""


def _change(name: str, ratio: float) -> str:
    return f"{ratio_of(ratio)}x fewer {name}" if ratio > 1 else f"{ratio_of(1 / ratio)}x more {name}"


Counted = tuple[Case, Timing | Predicted]


def roof_of(before: Counted, after: Counted, device: Device) -> Roof:
    """The limits of two cases on a device, all of it."""
    a, b = limits(*before, device), limits(*after, device)
    least = max(a.values()) / before[0].tokens, max(b.values()) / after[0].tokens
    return Roof(max(a, key=a.__getitem__), max(b, key=b.__getitem__), least[0] / least[1])


def limits(case: Case, timing: Timing | Predicted, device: Device) -> dict[str, float]:
    """The least seconds that each resource of a device allows one execution: FLOPs, bytes, and launches of ops."""
    rate = peak(device.matmul, HLO_DTYPES[case.dtype]).value
    return {
        "FLOPs": timing.flops / rate,
        "bytes": timing.bytes / device.main_memory.bandwidth.value,
        "launches": timing.ops * device.launch.value,
    }


def bound(case: Case, timing: Timing | Predicted, device: Device) -> str:
    """The resource that limits an execution the most."""
    found = limits(case, timing, device)
    return max(found, key=found.__getitem__)
