"""Plots of a page -> traces and axes for plotly; assets/plots.js gives them the colours of the page's theme."""

from __future__ import annotations

import html
import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llmjax.report.units import quantity, scale_of

if TYPE_CHECKING:
    from llmjax.report.page import Column, Plot, Series

Json = dict[str, Any]
TOTAL = "in all"
_WRAP = 34  # letters of a bar's label before it breaks
_BAR, _GROUP_GAP, _AXES = 19, 9, 92  # pixels: of a bar, between groups, of axis and legend
_HEIGHT = 330
_LEGEND = 6  # lone points: of more each stands beside its own name, and there is no legend
_LARGEST = 1e300  # what is larger cannot be drawn: sums of it are not finite


def figure(plot: Plot) -> Json:
    """Returns {"traces", "layout", "height"}; a trace's "colour" is its place in the palette, "kind" its provenance."""
    return _bars(plot) if plot.style in ("bars", "waterfall") else _curves(plot)


def kinds(plot: Plot) -> list[str]:
    """The kinds of figures that a plot shows."""
    return list(dict.fromkeys(series.kind for series in plot.series if series.kind))


def _curves(plot: Plot) -> Json:
    x_of, x_axis = _x_axis(plot)
    values = [v for s in plot.series for v in (*s.y, *s.low, *s.high)]
    size, y_axis = _axis(plot.y, values, plot.log_y)
    named = plot.style == "points" and sum(len(series.x) == 1 for series in plot.series) > _LEGEND
    if named:
        y_axis.pop("rangemode", None)  # what is told apart is how far the points lie from one another
    traces: list[Json] = []
    for series, colour in _coloured(plot):
        shown = [k for k, y in enumerate(series.y) if _can_stand(y, plot.log_y) and x_of(series.x[k]) is not None]
        x = [x_of(series.x[k]) for k in shown]
        y = [_number(series.y[k]) / size for k in shown]
        is_line = plot.style == "lines" and series.kind != "measured"
        ends = _ends(series, shown, size, plot.log_y)
        trace = {
            "type": "scatter",
            "mode": "lines+markers" if is_line and len(x) < 30 else "lines" if is_line else "markers",
            "name": _name(series, plot),
            "x": x,
            "y": y,
            "text": [_told(plot, series, k) for k in shown],
            "hovertemplate": "%{text}<extra></extra>",
            "colour": colour,
            "kind": series.kind,
        }
        if named and len(series.x) == 1:
            trace |= {"mode": "markers+text", "hovertext": trace["text"], "text": [_name(series, plot)] * len(x)}
            trace |= {"hovertemplate": "%{hovertext}<extra></extra>", "textposition": "top center"}
            trace |= {"textfont": {"size": 9}, "cliponaxis": False}
        if ends and is_line:
            low, high = ends
            band = {"type": "scatter", "mode": "lines", "x": x + x[::-1], "y": high + low[::-1], "fill": "toself"}
            traces.append(band | {"hoverinfo": "skip", "showlegend": False, "colour": colour, "band": True})
        elif ends and not named:  # bars of error would cross the names
            trace["error_y"] = _error(y, *ends)
        traces.append(trace)
    if plot.equal:
        traces.append(_equal(plot, x_of, size))
    layout = {"xaxis": x_axis, "yaxis": y_axis, "showlegend": len(plot.series) > 1 and not named}
    return {"traces": traces, "layout": layout, "height": _HEIGHT + (140 if named else 0)}


def _equal(plot: Plot, x_of: Callable[[float], Any], size: float) -> Json:
    """The line on which y is as large as x, as far as the points go."""
    logarithmic = plot.log_x or plot.log_y
    values = [_number(v) for s in plot.series for v in (*s.x, *s.y) if _can_stand(v, logarithmic)]
    ends = [min(values), max(values)] if values else []
    line = {"type": "scatter", "mode": "lines", "x": [x_of(v) for v in ends], "y": [v / size for v in ends]}
    return line | {"name": "equal", "hoverinfo": "skip", "showlegend": False, "colour": 0, "kind": "", "equal": True}


def _bars(plot: Plot) -> Json:
    """Bars that lie down, so that long labels can be read."""
    flows = plot.style == "waterfall"
    labels = list(dict.fromkeys(str(x) for series in plot.series for x in series.x))
    values = [v for s in plot.series for v in (*s.y, *s.high)]
    sums = [sum(_number(y) for y in s.y if _is_known(y)) for s in plot.series]
    size, axis = _axis(plot.y, sums if flows else values, plot.log_y)
    traces = []
    for (series, colour), whole in zip(_coloured(plot), sums, strict=True):
        shown = [k for k, y in enumerate(series.y) if _can_stand(y, plot.log_y)]
        lengths = [_number(series.y[k]) / size for k in shown]
        trace: Json = {
            "type": "bar",
            "orientation": "h",
            "name": _name(series, plot),
            "y": [labels.index(str(series.x[k])) for k in shown],
            "x": lengths,
            "text": [_end_text(plot, series, k) for k in shown],
            "hovertext": [_told(plot, series, k) for k in shown],
            "hovertemplate": "%{hovertext}<extra></extra>",
            "colour": colour,
            "kind": series.kind,
        }
        if flows:
            trace["base"] = [sum(lengths[:k]) for k in range(len(lengths))] + [0.0]
            trace["x"] = [*lengths, whole / size]
            trace["y"] = [*trace["y"], len(labels)]
            trace["text"] = [*trace["text"], quantity(whole, plot.y.unit)]
            trace["hovertext"] = [*trace["hovertext"], f"{TOTAL}: {quantity(whole, plot.y.unit)}"]
            trace["total"] = True
        traces.append(trace)
    places = [*labels, TOTAL] if flows else labels
    told = ["<br>".join(textwrap.wrap(html.escape(label, quote=False), _WRAP)) or " " for label in places]
    axis |= _headroom(plot, traces)
    names = {"tickvals": list(range(len(places))), "ticktext": told, "range": [len(places) - 0.4, -0.6]}
    rows = len(places) * (len(plot.series) * _BAR + _GROUP_GAP) + 8 * sum(label.count("<br>") for label in told)
    layout = {"xaxis": axis, "yaxis": names, "showlegend": len(plot.series) > 1, "barmode": "group", "bargap": 0.25}
    return {"traces": traces, "layout": layout, "height": rows + _AXES}


def _end_text(plot: Plot, series: Series, k: int) -> str:
    """What stands at the end of a bar: the figure, and its interval."""

    def tell(value: float | None) -> str:
        return quantity(_number(value), plot.y.unit)

    text = tell(series.y[k])
    if series.low and _is_known(series.low[k]) and _is_known(series.high[k]):
        text += f" ({tell(series.low[k])} to {tell(series.high[k])})"
    return html.escape(text, quote=False)


def _headroom(plot: Plot, traces: Iterable[Json]) -> Json:
    """A range with room for the figure at the end of each bar."""
    ends: list[float] = []
    for trace in traces:
        bases = trace.get("base") or [0.0] * len(trace["x"])
        ends += [x + base for x, base in zip(trace["x"], bases, strict=True)]
    if not ends:
        return {}
    low, high = min(ends), max(ends)
    longest = max(len(text) for trace in traces for text in trace["text"])
    room = 0.14 + 0.024 * min(40, max(0, longest - 6))
    if plot.log_y:
        first = math.floor(math.log10(low) - 0.01)
        return {"range": [first, math.log10(high) + room * (math.log10(high) - first)]}
    span = max(high, 0.0) - min(low, 0.0)
    if not span or not math.isfinite(span):
        return {}
    return {"range": [min(low, 0.0) - (room * span if low < 0 else 0), max(high, 0.0) + room * span]}


def _x_axis(plot: Plot) -> tuple[Any, Json]:
    """How an x is placed, and the axis: of words where any x is one."""
    values = [x for series in plot.series for x in series.x]
    title = html.escape(plot.x.title, quote=False)
    if any(isinstance(x, str) for x in values):
        labels = list(dict.fromkeys(str(x) for x in values))
        told = ["<br>".join(textwrap.wrap(html.escape(label, quote=False), 18)) or " " for label in labels]
        axis = {"title": {"text": title}, "tickvals": list(range(len(labels))), "ticktext": told}
        return lambda x: labels.index(str(x)), axis
    size, axis = _axis(plot.x, values, plot.log_x)
    return lambda x: _number(x) / size if _can_stand(x, plot.log_x) else None, axis


def _axis(column: Column, values: Iterable[float | str | None], log: bool) -> tuple[float, Json]:
    """What figures are divided by, and the axis with its unit."""
    known = [_number(v) for v in values if _can_stand(v, log)]
    size, unit = (1.0, "") if log else scale_of(max(map(abs, known), default=0.0), column.unit)
    told = {"x": "×"}.get(column.unit, column.unit)
    named = told if log and column.unit not in ("s", "%", "x", "B") else "" if log else unit
    title = "" if column.title.lower() == column.unit.lower() else column.title
    if named.lower() in title.lower():
        named = ""
    title = f"{title} ({named})" if named and title else title or named
    axis: Json = {"title": {"text": html.escape(title, quote=False)}}
    if log:
        ticks = _ticks(known)
        axis |= {"type": "log", "tickvals": ticks, "ticktext": [_tick(tick, column.unit) for tick in ticks]}
    elif known and min(known) >= 0:
        axis["rangemode"] = "tozero"
    return size, axis


def _ticks(values: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic axis: the sizes themselves where they are few, else powers of ten, with 2s and 5s between
    where these are few."""
    sizes = sorted(set(values))
    if len(sizes) <= 9 and all(float(v).is_integer() for v in sizes) and _apart(sizes):
        return sizes
    if not sizes:
        return []
    first, last = math.floor(math.log10(sizes[0])), math.ceil(math.log10(sizes[-1]))
    first, last = max(first, -307), min(last, 307)
    steps = (1, 2, 5) if last - first <= 2 else (1, 3) if last - first <= 4 else (1,)
    every = -(-(last - first) // 6) or 1
    return [step * 10.0**power for power in range(first, last + 1, every) for step in steps]


def _apart(sizes: Sequence[float]) -> bool:
    """Whether labels at these places would not cover one another: a fifteenth of the axis lies between any two."""
    if len(sizes) < 2:
        return True
    places = [math.log(size) for size in sizes]
    return min(b - a for a, b in itertools.pairwise(places)) * 15 >= places[-1] - places[0]


def _tick(value: float, unit: str) -> str:
    text = quantity(value, unit)
    # "10 ms" for "10.0 ms": a tick is exact.
    number, _, rest = text.partition(" ")
    if "." in number and number[-1] == "0":
        number = number.rstrip("0").rstrip(".")
    return html.escape(f"{number} {rest}".strip(), quote=False).replace(".0%", "%").replace(".00×", "×")


def _coloured(plot: Plot) -> list[tuple[Series, int]]:
    """Each series with its place in the palette: one name, one colour."""
    names = list(dict.fromkeys(series.name for series in plot.series))
    return [(series, names.index(series.name)) for series in plot.series]


def _name(series: Series, plot: Plot) -> str:
    mixed = len(kinds(plot)) > 1 and series.kind
    return html.escape(f"{series.name}, {series.kind}" if mixed else series.name, quote=False)


def _told(plot: Plot, series: Series, k: int) -> str:
    """What hovering over a figure says."""
    x = series.x[k]
    where = x if isinstance(x, str) else f"{plot.x.title} {quantity(x, plot.x.unit)}"
    unit = plot.y.unit if plot.y.unit not in ("s", "%", "x") and plot.y.unit not in quantity(1.0, plot.y.unit) else ""

    def tell(value: float | None) -> str:
        return f"{quantity(_number(value), plot.y.unit)} {unit}".strip()

    lines = [f"{series.name}: {where}", f"{tell(series.y[k])} {series.kind}".strip()]
    if series.low and _is_known(series.low[k]) and _is_known(series.high[k]):
        lines.append(f"{tell(series.low[k])} to {tell(series.high[k])}")
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def _ends(series: Series, shown: Sequence[int], size: float, log: bool) -> tuple[list[float], list[float]] | None:
    """The lower and upper ends of what is shown; where one is not known, the figure itself."""
    if not series.low or not shown:
        return None

    def end(values: Sequence[float | None], k: int) -> float:
        return _number(values[k] if _can_stand(values[k], log) else series.y[k]) / size

    return [end(series.low, k) for k in shown], [end(series.high, k) for k in shown]


def _error(y: Sequence[float], low: Sequence[float], high: Sequence[float]) -> Json:
    above = [max(0.0, h - v) for v, h in zip(y, high, strict=True)]
    below = [max(0.0, v - b) for v, b in zip(y, low, strict=True)]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2, "width": 3}


def _is_known(value: Any) -> bool:
    return value is not None and not isinstance(value, str) and math.isfinite(value) and abs(value) < _LARGEST


def _can_stand(value: Any, log: bool) -> bool:
    return _is_known(value) and (not log or value > 0)


def _number(value: Any) -> float:
    return float(value)
