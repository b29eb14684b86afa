"""The rows of a compare.json, one a chip: a table on a terminal, and a page of bars. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

from llmjax.report.page import Cell, Column, Page, Plot, Section, Series, Table
from llmjax.report.terminal import Figures, Names, table
from llmjax.report.units import seconds, short

Row = Mapping[str, Any]
WIDEST = 120  # from so many columns on the agreement with the compiler's clock stands in the table


def chips_table(rows: Sequence[Row], width: int) -> RichTable:
    """One line a chip; where the terminal is narrow the last of importance give way."""

    def figures(head: str, of: Callable[[Row], str | Text], rank: int) -> Figures:
        return Figures(head, ["" if "error" in row else of(row) for row in rows], rank)

    def time(row: Row) -> str | Text:
        return Text("failed", style="red") if "error" in row else _told(row["seconds"], seconds)

    columns = [
        figures("compile", lambda row: _told(row["compile_seconds"], seconds), 5),
        Figures("time", [time(row) for row in rows]),
        figures("cycles", lambda row: _told(row["cycles"]), 1),
        figures("tokens/s", lambda row: _told(row["tokens_per_second"]), 8),
        figures("bound", lambda row: _bound(row) or "-", 2),
        figures("FLOP%", lambda row: _told(row["utilisation"], lambda share: f"{100 * share:.1f}"), 7),
        figures("needs", lambda row: Text(_told(row["memory_needed"], _bytes), style=_alarm(row)), 3),
        figures("of", lambda row: _told(row["memory_capacity"], _bytes), 4),
        figures("fits", lambda row: Text(_fits(row), style=_alarm(row)), 9),
        figures("compiler", lambda row: _told(row["compiler_cycles"]), 6),
    ]
    if width >= WIDEST:
        columns.append(figures("ours/its", lambda row: _agreement(row)[0], 10))
        columns.append(figures("rank", lambda row: _agreement(row)[1], 10))
    return table(width, Names("chip", [row["target"] for row in rows], 11), *columns)


def footer(rows: Sequence[Row], width: int) -> list[str]:
    """What the figures are, and what the table has no room for, in sentences."""
    made = [row for row in rows if "error" not in row]
    lines = []
    if any(row["seconds"] is not None for row in made):
        lines.append("Times and cycles are predicted, not measured.")
        known = [f"{row['target']} {_error(row)}" for row in made if row.get("expected_error")]
        if known:
            lines.append(f"Off by, the median of so many published times (docs/published.md): {', '.join(known)}.")
        lines += _expected(made)
    if any(row["compiler_cycles"] is not None for row in made):
        lines.append("Column compiler: the cycles that the compiler itself estimates.")
    agreed = [row for row in made if (row.get("agreement") or {}).get("median_ratio") is not None]
    if agreed and width >= WIDEST:
        lines.append("ours/its: predicted over the compiler's cycles, the median op. rank: of the ops, Kendall's tau.")
    elif agreed:
        told = (f"{row['target']} {' '.join(_agreement(row))}" for row in agreed)
        lines.append(f"Predicted over the compiler's, the median op, and Kendall's tau: {', '.join(told)}.")
    if any(row["target"] == "cpu" and row["device"] is None for row in made):
        lines.append(
            "The time on cpu needs a card of this machine: llmjax calibrate writes one, --card FILE takes it"
            " (--config.card=FILE of configs/compare.py)."
        )
    over = [f"{row['target']} ({_bytes(row['memory_too_much'])} too much)" for row in made if row["memory_too_much"]]
    if over:
        lines.append(f"Does not fit: {', '.join(over)}.")
    return lines


def _expected(rows: Sequence[Row]) -> list[str]:
    """One line: how far off kernels of the chips were that no fit had seen, by kind, least to most of the chips."""
    timed = [row for row in rows if row["seconds"] is not None and row["target"] != "cpu"]
    checked = [row["checked"] for row in timed if row.get("checked")]
    kinds = dict.fromkeys(kind for errors in checked for kind in errors)
    parts = []
    for kind in kinds:
        found = sorted(errors[kind] for errors in checked if kind in errors)
        parts.append(f"{kind} {found[0]:.0%}" + (f" to {found[-1]:.0%}" if len(found) > 1 else ""))
    lines = []
    if parts:
        lines.append(f"Expected error, of kernels that no fit of these chips saw (medians): {', '.join(parts)}.")
    if len(checked) < len(timed):
        names = ", ".join(row["target"] for row in timed if not row.get("checked"))
        lines.append(f"No error is known of {names}: nothing published was held against them.")
    return lines


def chips_page(program: str, rows: Sequence[Row]) -> Page:
    """The page of a comparison: bars by chip, what binds each, whether it fits, every figure in a table."""
    made = [row for row in rows if "error" not in row]
    timed = [row for row in made if row["seconds"] is not None]
    plots = [plot for plot in (_times(timed), _bounds(timed), _memory(made)) if plot.series]
    failed = [f"{row['target']}: {row['error']}" for row in rows if "error" in row]
    section = Section(
        "chips", "By chip", _findings(timed), (_figures(made),), tuple(plots), (*footer(rows, 0), *failed)
    )
    return Page(program, "one execution, compiled for each chip by its own compiler", (section,))


def _findings(timed: Sequence[Row]) -> tuple[str, ...]:
    if not timed:
        return ()
    first, last = (end(timed, key=lambda row: row["seconds"]) for end in (min, max))
    said = [
        f"{first['target']} takes the least time: {seconds(first['seconds'])}, most of it bound by {_bound(first)}."
    ]
    if last is not first:
        ratio = last["seconds"] / first["seconds"]
        said.append(f"{last['target']} takes {seconds(last['seconds'])}, {ratio:.3g} times as long.")
    return tuple(said)


def _times(timed: Sequence[Row]) -> Plot:
    names = tuple(row["target"] for row in timed)
    ends = (tuple(row[end] for row in timed) for end in ("seconds_low", "seconds_high"))
    series = (Series("time", "modelled", names, tuple(row["seconds"] for row in timed), *ends),) if timed else ()
    return Plot("time of one execution", "bars", Column("chip"), Column("time", "s"), series)


def _bounds(timed: Sequence[Row]) -> Plot:
    """Seconds of the ops by what binds them."""
    names = tuple(row["target"] for row in timed)
    kinds = dict.fromkeys(bound for row in timed for bound in row["seconds_by_bound"])
    series = tuple(
        Series(
            bound.removeprefix("memory:"),
            "modelled",
            names,
            tuple(row["seconds_by_bound"].get(bound, 0.0) / sum(row["seconds_by_bound"].values()) for row in timed),
        )
        for bound in kinds
    )
    return Plot("what binds the ops' time", "bars", Column("chip"), Column("share of the ops' time", "%"), series)


def _memory(made: Sequence[Row]) -> Plot:
    known = [row for row in made if row["memory_needed"] is not None]
    names = tuple(row["target"] for row in known)
    needs = Series("needs", "compiler", names, tuple(row["memory_needed"] for row in known))
    has = Series("has", "datasheet", names, tuple(row["memory_capacity"] for row in known))
    return Plot("main memory", "bars", Column("chip"), Column("bytes", "B"), (needs, has) if known else (), log_y=True)


def _figures(made: Sequence[Row]) -> Table:
    columns = (
        Column("chip"),
        Column("device"),
        Column("time", "s", "modelled"),
        Column("off by (expected)"),
        Column("cycles", "", "modelled"),
        Column("tokens/s", "", "modelled"),
        Column("bound by"),
        Column("of peak FLOP/s", "%", "modelled"),
        Column("needs", "B", "compiler"),
        Column("has", "B", "datasheet"),
        Column("fits"),
        Column("compiler's cycles", "", "compiler"),
        Column("ours over theirs", "x", "modelled"),
        Column("compiled in", "s", "measured"),
    )
    rows = []
    for row in made:
        ratio = (row.get("agreement") or {}).get("median_ratio")
        cells = (row["target"], row["device"] or "–", row["seconds"], _error(row), row["cycles"])
        cells += (row["tokens_per_second"],)
        rows.append(
            (
                *(*cells, _bound(row) or "–", row["utilisation"], row["memory_needed"], row["memory_capacity"]),
                *(_fits(row), row["compiler_cycles"], Cell(ratio), row["compile_seconds"]),
            )
        )
    return Table("figures", columns, tuple(rows))


def _bound(row: Row) -> str:
    return (row["bound"] or "").removeprefix("memory:")


def _error(row: Row) -> str:
    """The expected error of such a program on the chip, "" where it is not known."""
    expected = row.get("expected_error")
    if not expected:
        return "–"
    own = row["target"].startswith(expected["of"]) and ":" in expected["of"]
    return f"{expected['error']:.0%} of {expected['rows']}" + ("" if own else " others")


def _fits(row: Row) -> str:
    return {None: "-", True: "yes", False: "no"}[row["fits"]]


def _alarm(row: Row) -> str:
    return "bold red" if row["memory_too_much"] else ""


def _agreement(row: Row) -> tuple[str, str]:
    """The median ratio, and the rank correlation."""
    agreed = row.get("agreement")
    if not agreed or agreed["median_ratio"] is None:
        return "-", "-"
    return f"{agreed['median_ratio']:.2g}x", "-" if agreed["kendall"] is None else f"{agreed['kendall']:.2f}"


def _bytes(value: float) -> str:
    return short(value, "B")


def _told(value: float | None, tell: Callable[[float], str] = short) -> str:
    return "-" if value is None else tell(value)
