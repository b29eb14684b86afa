"""How a cost grows: power laws and straight lines through measured points, and where one cost overtakes another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FEW = 3  # points that a line is carried on from
FAR = 1000.0  # so many times beyond the grid nothing is said


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = factor * x^exponent, fitted for x from `low` to `high`.

    `error` is the standard error of the exponent, None where two points leave none.
    """

    factor: float
    exponent: float
    error: float | None
    low: float
    high: float

    def __call__(self, x: float) -> float:
        return self.factor * x**self.exponent


def fit_power(x: Sequence[float], y: Sequence[float]) -> PowerLaw | None:
    """Least squares of log y over log x; None where there are not two different x with y above 0."""
    pairs = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True) if a > 0 and b > 0]
    if len({a for a, _ in pairs}) < 2:
        return None
    n = len(pairs)
    mean_x, mean_y = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    spread = sum((a - mean_x) ** 2 for a, _ in pairs)
    exponent = sum((a - mean_x) * (b - mean_y) for a, b in pairs) / spread
    intercept = mean_y - exponent * mean_x
    error = None
    if n > 2:
        left = sum((b - intercept - exponent * a) ** 2 for a, b in pairs)
        error = math.sqrt(left / (n - 2) / spread)
    ends = [math.exp(a) for a, _ in pairs]
    return PowerLaw(math.exp(intercept), exponent, error, min(ends), max(ends))


@dataclass(frozen=True, slots=True)
class Line:
    """y = fixed + each * x, neither below 0."""

    fixed: float
    each: float

    @property
    def even(self) -> float | None:
        """The x at which what grows costs as much as what does not; None where nothing grows."""
        return self.fixed / self.each if self.each > 0 else None


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """Least squares of relative errors, with both terms at least 0; None where there are not two different x."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if b > 0]
    if len({a for a, _ in pairs}) < 2:
        return None
    # Weights 1 / y^2: the normal equations of sum ((fixed + each x) / y - 1)^2.
    s = [sum(a**k / b**2 for a, b in pairs) for k in range(3)]
    t = [sum(a**k / b for a, b in pairs) for k in range(2)]
    determinant = s[0] * s[2] - s[1] ** 2
    fixed = (t[0] * s[2] - t[1] * s[1]) / determinant
    each = (t[1] * s[0] - t[0] * s[1]) / determinant
    if fixed < 0:
        return Line(0.0, t[1] / s[2])
    if each < 0:
        return Line(t[0] / s[0], 0.0)
    return Line(fixed, each)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where one cost overtakes another: inside the grid, before its first point, or beyond it (extrapolated)."""

    at: float
    where: Literal["inside", "before", "beyond"]


def crossing(x: Sequence[float], rising: Sequence[float], other: Sequence[float]) -> Crossing | None:
    """The x from which on `rising` is above `other`, between points by straight lines over logarithms.

    Beyond the grid, by power laws through the last three points; None where these do not meet within 1000 times the
    grid's end, or there are not two points with both above 0.
    """
    points = sorted((a, b, c) for a, b, c in zip(x, rising, other, strict=True) if a > 0 and b > 0 and c > 0)
    if len({a for a, _, _ in points}) < 2:
        return None
    gaps = [math.log(b / c) for _, b, c in points]
    below = [n for n, gap in enumerate(gaps) if gap <= 0]
    if not below:
        return Crossing(points[0][0], "before")
    last = below[-1]
    if last + 1 < len(points):
        share = -gaps[last] / (gaps[last + 1] - gaps[last])
        start, end = math.log(points[last][0]), math.log(points[last + 1][0])
        return Crossing(math.exp(start + share * (end - start)), "inside")
    tail = points[-FEW:]
    first = fit_power([p[0] for p in tail], [p[1] for p in tail])
    second = fit_power([p[0] for p in tail], [p[2] for p in tail])
    if first is None or second is None or first.exponent <= second.exponent:
        return None
    log_at = math.log(second.factor / first.factor) / (first.exponent - second.exponent)
    if log_at > math.log(FAR * points[-1][0]):
        return None
    return Crossing(max(math.exp(log_at), points[-1][0]), "beyond")
