"""Numbers as people read them."""

import math

from llmjax.cost.values import Number

_SUFFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
_TIMES = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
PREFIXED = frozenset({"B", "FLOP", "Hz", "W", "J"})  # units that take a prefix and stand beside the number
_EXACT = 10_000  # whole numbers below it are told to the last digit


def short(value: Number, unit: str = "") -> str:
    """Returns three significant digits and an SI prefix: 1234567 -> "1.23 M". Units are decimal: 1 GB = 10^9 bytes."""
    scaled, place = float(value), 0
    if 0 < abs(scaled) < 0.095:
        return f"{scaled:.2g} {unit}".strip()
    while abs(scaled) >= 999.5 and place < len(_SUFFIXES) - 1:
        scaled, place = scaled / 1000, place + 1
    suffix = _SUFFIXES[place] + unit
    text = f"{scaled:.0f}" if not place and float(value).is_integer() else _three(scaled)
    return f"{text} {suffix}".strip()


def _three(value: float) -> str:
    """A number below a thousand with three significant digits: 1.23, 45.6, 789."""
    size = abs(value)
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}"


def percent(part: Number, whole: Number) -> str:
    """Returns a share as text: "12.3%"; "<0.1%" for what is little but not nothing, "" for nothing."""
    if not part or not whole:
        return ""
    share = 100 * part / whole
    return "<0.1%" if share < 0.05 else f"{share:.1f}%"


def seconds(value: float) -> str:
    """Returns a time with three digits in the unit that fits: 0.0123 -> "12.3 ms", 0.5e-3 -> "500 µs"."""
    size = abs(value)
    if not size:
        return "0 s"
    if size >= 999.5:
        return f"{value:,.0f} s" if size < 1e9 else f"{value:.3g} s"
    unit, scale = next(((unit, scale) for unit, scale in _TIMES if size >= 0.9995 * scale), _TIMES[-1])
    return f"{_three(value / scale)} {unit}" if size >= 1e-11 else f"{value / scale:.2g} {unit}"


def is_prefixed(unit: str) -> bool:
    """Whether figures of a unit bear it themselves ("518 MB"); else it stands in the head of their column."""
    return unit in ("s", "%", "x") or unit.removesuffix("/s") in PREFIXED


def quantity(value: float, unit: str = "") -> str:
    """Returns a figure in base units as people read it.

    "s" becomes "1.23 ms", "B" and "FLOP/s" and the like "518 MB"; "%" takes a share (0.5: "50.0%"), "x" a ratio
    ("2.10×"). Any other unit is left to the column's head: 2048 -> "2,048", 72.5e6 -> "72.5 M". What is not finite
    is "–".
    """
    if not math.isfinite(value):
        return "–"
    if unit == "s":
        return seconds(value)
    if unit == "%":
        return f"{100 * value:.2g}%" if 0 < abs(value) < 0.001 else f"{100 * value:.1f}%"
    sign, size = ("−" if value < 0 else ""), abs(value)
    if unit == "x":
        return f"{sign}{short(size)}×"
    if is_prefixed(unit):
        return sign + short(size, unit)
    return f"{sign}{size:,.0f}" if float(size).is_integer() and size < _EXACT else sign + short(size)


def scale_of(largest: float, unit: str) -> tuple[float, str]:
    """Returns what to divide an axis's figures by, and their unit then: (1e-3, "ms"), (1e9, "GB"), (0.01, "%").

    Args:
        largest: the largest absolute value on the axis, in base units.
    """
    if unit == "s":
        return next(((size, name) for name, size in _TIMES if largest >= size), (1.0, "s"))
    if unit == "%":
        return 0.01, "%"
    if unit == "x" or largest < 10_000:
        return 1.0, {"x": "×"}.get(unit, unit)
    place = min(int(math.log10(largest)) // 3, len(_SUFFIXES) - 1)
    # "M cycles" and "k tokens/s", but "MB".
    return 1000.0**place, _SUFFIXES[place] + ("" if is_prefixed(unit) else " ") + unit
