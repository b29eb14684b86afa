"""A report on a terminal: one screen of what was computed and moved, by whom, how long, and what is not known."""

from __future__ import annotations

import html
import io
import itertools
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llmjax.cost.attribution import share_of
from llmjax.cost.values import Cost, Number
from llmjax.report.answers import answers
from llmjax.report.export import to_object
from llmjax.report.remarks import bound_mark, notes, warnings
from llmjax.report.terminal import Figures, Names, table
from llmjax.report.times import headline, times_table
from llmjax.report.units import percent, seconds, short

if TYPE_CHECKING:
    from llmjax.analysis import Alike, Analysis, TimedRow
    from llmjax.inputs.source import Source

TOP = 10
# Bytes outside main memory, each a line and a column where a program has some.
_ELSEWHERE: dict[str, Callable[[Cost], Number]] = {
    "on chip": lambda cost: cost.on_chip_bytes,
    "host": lambda cost: cost.host_bytes,
}
_SENT: dict[str, Callable[[Cost], Number]] = {"sent": lambda cost: cost.collective_bytes}
_NARROWEST = 60


def print_report(report: Analysis, console: Console, top: int = TOP, title: str = "") -> None:
    """Prints totals, warnings, roles, layers and the `top` largest ops, as wide as `console`, 60 columns at least."""
    width, cost = max(_NARROWEST, console.width), to_object(report)
    console.print(Text(title or _title(report), style="bold"), soft_wrap=True)
    for answer in answers(cost):
        console.print(Text(_item(answer, width)), soft_wrap=True)
    console.print(_totals(report, width))
    for warning in warnings(cost):
        told = Text("\n".join((warning.sentence, *warning.details)))
        console.print(Panel(told, border_style="bold red", title="warning", title_align="left"))
    for note in notes(cost):
        console.print(Text(note, style="dim"))
    for line in headline(report):
        console.print(Text(line))
    console.print()
    console.print(_breakdown(report, "role", [(str(row.key), row) for row in report.by("role")], width))
    layers = report.by("layer")
    if any(isinstance(row.key, int) for row in layers):
        console.print()
        console.print(_breakdown(report, "layer", list(_each(layers)), width))
    if top > 0 and report.ops:
        console.print()
        console.print(_top(report, top, width))
        if report.is_timed:
            console.print()
            console.print(times_table(report, top, width))


def _item(sentence: str, width: int) -> str:
    return textwrap.fill(sentence, width, initial_indent="• ", subsequent_indent="  ", break_on_hyphens=False)


def to_text(report: Analysis, width: int | None = None, top: int = TOP) -> str:
    """Returns what `print_report` prints, without colours; `width` defaults to the terminal's, at most 120."""
    width = max(_NARROWEST, width or min(120, shutil.get_terminal_size((80, 24)).columns))
    text = io.StringIO()
    print_report(report, Console(file=text, width=width, color_system=None, force_jupyter=False), top)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


_MOST = 40  # modules of a folder that have a line


def module_lines(found: Sequence[tuple[Source, Analysis]]) -> tuple[list[tuple[str, Analysis]], str]:
    """Returns (label, report) of each module of a folder, of many the largest of each name; and what is left out.

    Args:
        found: the modules, the largest first.
    """
    if len(found) <= _MOST:
        return [(source.told, report) for source, report in found], ""
    groups: dict[str, list[tuple[Source, Analysis]]] = {}
    for source, report in found:
        groups.setdefault(report.name or source.label, []).append((source, report))
    lines = [(f"{name} x{sum(s.copies for s, _ in mine):,}", mine[0][1]) for name, mine in groups.items()]
    told = f"{len(found):,} modules of {len(lines):,} names; of each the largest."
    return lines[:_MOST], told + (f" {len(lines) - _MOST:,} smaller names are left out." if len(lines) > _MOST else "")


def modules_table(rows: Sequence[tuple[str, Analysis]], width: int) -> Table:
    """One line a module of a folder: (label, report); columns of times where one has any."""
    predicted, measured = (
        [of(report) for _, report in rows]
        for of in (
            lambda r: seconds(r.time.overlapped) if r.time else "",
            lambda r: seconds(r.measured.wall.median) if r.measured else "",
        )
    )

    def column(of: Callable[[Analysis], str]) -> list[str]:
        return [of(report) for _, report in rows]

    return table(
        width,
        Names("module", [label for label, _ in rows], 20),
        Figures("ops", column(lambda r: f"{len(r.ops):,}"), 1),
        Figures("FLOPs", column(lambda r: _bound(r) + short(r.totals.flops))),
        Figures("transc.", column(lambda r: short(r.totals.transcendentals)), 2),
        Figures("bytes", column(lambda r: _bound(r) + short(r.totals.bytes))),
        Figures("coverage", column(lambda r: f"{100 * r.cost.coverage:.1f}%"), 3),
        *(Figures(head, cells) for head, cells in (("predicted", predicted), ("measured", measured)) if any(cells)),
    )


def largest_first(report: Analysis) -> tuple[float, float, float]:
    """What modules are sorted by: the time of one execution, measured or predicted, then FLOPs, then bytes."""
    seconds = report.measured.wall.median if report.measured else report.time.overlapped if report.time else 0.0
    return -seconds, -float(report.totals.flops), -float(report.totals.memory_bytes)


def _title(report: Analysis) -> str:
    return f"{report.name or 'module'} · {report.backend or 'backend unknown'}"


def _bound(report: Analysis) -> str:
    return bound_mark(report.cost.lower_bound, report.cost.upper_bound)


def _totals(report: Analysis, width: int) -> Table:
    totals, compiler = report.totals, report.compiler or {}
    elsewhere = [(f"  {where}", of(totals)) for where, of in _ELSEWHERE.items() if of(totals)]
    main = "  main memory, " if elsewhere else "  "
    # Of XLA's three figures each stands beside ours of the same meaning.
    lines: list[tuple[str, Number, str, str, str]] = [
        ("FLOPs", totals.flops, "FLOP", "", "flops"),
        ("  in matrix products", totals.matmul_flops, "FLOP", percent(totals.matmul_flops, totals.flops), ""),
        ("  elementwise and reductions", totals.vector_flops, "FLOP", percent(totals.vector_flops, totals.flops), ""),
        ("transcendentals", totals.transcendentals, "", "", "transcendentals"),
        ("bytes moved", totals.memory_bytes, "B", "", "bytes"),
        (f"{main}read", totals.bytes_read, "B", percent(totals.bytes_read, totals.memory_bytes), ""),
        (f"{main}written", totals.bytes_written, "B", percent(totals.bytes_written, totals.memory_bytes), ""),
    ]
    lines += [(label, value, "B", percent(value, totals.memory_bytes), "") for label, value in elsewhere]
    if totals.collective_bytes:
        lines.append(("bytes sent to other devices", totals.collective_bytes, "B", "", ""))
    labels = [label for label, *_ in lines]
    own = [_bound(report) + short(value, unit) for _, value, unit, _, _ in lines]
    shares = [share for *_, share, _ in lines]
    theirs = [short(compiler[name], unit) if name in compiler else "" for *_, unit, _, name in lines]
    devices = report.stage.devices
    parts = ["≥ " + short(value / devices, unit) for _, value, unit, _, _ in lines]
    if totals.bytes:
        labels, own = [*labels, "FLOPs a byte"], [*own, f"{totals.flops / totals.bytes:.2f}"]
        shares, theirs, parts = [*shares, ""], [*theirs, ""], [*parts, ""]
    columns = [
        Names(f"one execution, {'one device' if devices == 1 else f'{devices:,} devices'}", labels, 28),
        Figures("counted here", own),
        Figures("share", shares, 1),
    ]
    if devices > 1 and not report.stage.manual:
        columns.append(Figures("one device", parts))
    return table(width, *columns, *([Figures("XLA's own count", theirs, 2)] if compiler else []))


def _breakdown(report: Analysis, title: str, rows: Sequence[tuple[str, TimedRow]], width: int) -> Table:
    totals, found = report.totals, [row for _, row in rows]

    def figures(head: str, of: Callable[[Cost], Number], rank: int = 0) -> Figures:
        return Figures(head, [_or_blank(of(row.cost)) for row in found], rank)

    columns = [
        Names(f"by {title}", [label for label, _ in rows], 24),
        Figures("ops", [f"{row.ops:,}" for row in found], 5),
        figures("matmul", lambda c: c.matmul_flops),
        figures("vector", lambda c: c.vector_flops, 6),
        figures("transc.", lambda c: c.transcendentals, 7),
        figures("bytes", lambda c: c.bytes),
        *(figures(head, of, 3) for head, of in (_ELSEWHERE | _SENT).items() if of(totals)),
        *_portions([row.cost for row in found], totals),
        *_times(report, found, report.by(title) if title in ("role", "layer") else found),
    ]
    return table(width, *columns)


def _portions(costs: Iterable[Cost], totals: Cost) -> tuple[Figures, Figures]:
    """The shares of all FLOPs and of all bytes, without their per cent sign."""
    shares = [(percent(c.flops, totals.flops), percent(c.bytes, totals.bytes)) for c in costs]
    flops, moved = ([both[k].rstrip("%") for both in shares] for k in (0, 1))
    return Figures("FLOP%", flops, 2), Figures("byte%", moved, 2)


def _times(report: Analysis, rows: Sequence[TimedRow], every: Sequence[TimedRow]) -> list[Figures]:
    """Predicted and measured times, and the share of the sum over all rows."""
    found = []
    if report.time:
        found.append(Figures("predicted", [_time(row.predicted) for row in rows], 4 if report.measured else 0))
    if report.measured:
        found.append(Figures("measured", [_time(row.measured) for row in rows]))
    if found:
        own, whole = (
            [(row.measured if report.measured else row.predicted) or 0.0 for row in group] for group in (rows, every)
        )
        found.append(Figures("time%", [percent(value, sum(whole)).rstrip("%") for value in own], 1))
    return found


def _time(value: float | None) -> str:
    return seconds(value) if value else ""


def _or_blank(value: Number) -> str:
    return short(value) if value else ""


def _each(layers: Sequence[TimedRow]) -> Iterable[tuple[str, TimedRow]]:
    """Neighbouring layers of equal cost as one line, with the figures of each of them: of times the mean."""
    for _, group in itertools.groupby(layers, key=lambda row: (row.cost, row.ops, isinstance(row.key, int))):
        rows = list(group)
        first = rows[0]
        if len(rows) == 1:
            yield str(first.key), first
            continue
        mean = type(first)(first.key, first.ops, first.cost, *(_mean(rows, name) for name in ("predicted", "measured")))
        yield f"{first.key}-{rows[-1].key}, each", mean


def _mean(rows: Sequence[TimedRow], name: str) -> float | None:
    known = [value for row in rows if (value := getattr(row, name)) is not None]
    return sum(known) / len(known) if known else None


def _top(report: Analysis, top: int, width: int) -> Table:
    groups = largest(report)[:top]
    names = [Text(group.name, style="red" if group.ops[0].op.unmodelled else "") for group in groups]
    return table(
        width,
        Names("top ops, +alike", names, 14),
        Names("of", [group.where for group in groups], 16, keeps_end=True),
        Figures("runs", [f"{group.count:,}" for group in groups], 3),
        Figures("FLOPs", [_or_blank(group.cost.flops) for group in groups]),
        Figures("bytes", [_or_blank(group.cost.bytes) for group in groups]),
        *_portions([group.cost for group in groups], report.totals),
    )


def largest(report: Analysis) -> list[Alike]:
    """The ops, those that are alike as one, the largest share of FLOPs or bytes first."""
    size = share_of(report.totals)
    return sorted(report.alike(), key=lambda group: size(group.cost), reverse=True)


def to_html(report: Analysis, top: int = TOP) -> str:
    """Returns the answers, totals, roles and largest ops as an HTML fragment that fits a notebook's cell."""
    cost, bound = to_object(report), html.escape(_bound(report))
    totals = report.totals
    sums = [f"{bound}{short(totals.flops, 'FLOP')}", f"{bound}{short(totals.bytes, 'B')}"]
    if report.time:
        sums.append(f"predicted {seconds(report.time.overlapped)}")
    if report.measured:
        sums.append(f"measured {seconds(report.measured.wall.median)}")
    head = f"<b>{html.escape(_title(report))}</b>: {', '.join(sums)}"
    told = ("\n".join((warning.sentence, *warning.details)) for warning in warnings(cost))
    boxes = "".join(f"<p><b style='color:#b00'>{html.escape(warning)}</b></p>" for warning in told)
    items = "".join(f"<li>{html.escape(answer)}</li>" for answer in answers(cost))
    said = f"<ul style='margin:.3em 0 .6em;padding-left:1.3em'>{items}</ul>" if items else ""
    roles = [(str(row.key), row.cost, row) for row in report.by("role")]
    groups = report.alike() if report.is_timed else largest(report)
    ops = [(f"{group.name} ({group.where})", group.cost, group) for group in groups[:top]]
    tables = _html_rows(report, "role", roles) + _html_rows(report, "op", ops)
    return f"<div style='max-width:60em;overflow-x:auto'>{head}{boxes}{said}{tables}</div>"


def _html_rows(report: Analysis, head: str, rows: Iterable[tuple[str, Cost, TimedRow | Alike]]) -> str:
    """A table whose columns of times stand only where there are times."""
    totals = report.totals
    cells = [[head, "FLOPs", "bytes", "of FLOPs", "of bytes"]]
    cells[0] += ["predicted"] * bool(report.time) + ["measured"] * bool(report.measured)
    for label, c, times in rows:
        row = [html.escape(label), _or_blank(c.flops), _or_blank(c.bytes)]
        row += [percent(c.flops, totals.flops), percent(c.bytes, totals.bytes)]
        row += [_time(times.predicted)] * bool(report.time) + [_time(times.measured)] * bool(report.measured)
        cells.append(row)
    body = "".join(
        "<tr>"
        + "".join(f"<{tag} style='text-align:{'right' if k else 'left'}'>{cell}</{tag}>" for k, cell in enumerate(row))
        + "</tr>"
        for tag, row in zip(["th"] + ["td"] * len(cells), cells, strict=False)
    )
    return f"<table style='margin:.4em 0'>{body}</table>"
