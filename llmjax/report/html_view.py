"""What the HTML report says in words and figures: headlines with their provenance, warnings, notes, the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmjax.cost.values import NEGLIGIBLE
from llmjax.report.html_ops import Json
from llmjax.report.units import percent, seconds, short

# What a figure is, and what the page's key says of it.
PROVENANCE = {
    "counted": "counted here in the program that XLA compiled",
    "modelled": "predicted by the cycle model",
    "measured": "measured on the machine",
    "compiler": "the compiler's own estimate or count",
    "datasheet": "from the chip's datasheet",
    "estimate": "estimated where no datasheet says",
    "user": "given on the command line",
}
_NAMED = 8  # so many ops or loops are named in a warning


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure of the page's head: `kind` is a key of PROVENANCE."""

    label: str
    value: str
    kind: str
    note: str = ""


def headlines(cost: Json) -> list[Headline]:
    """The figures of a program, the times first where there are any."""
    totals, xla = cost["totals"], cost.get("compiler") or {}
    bound = "≥ " if cost["lower_bound"] else ""
    moved = totals["bytes_read"] + totals["bytes_written"]
    found = list(_times(cost))

    def beside(name: str, unit: str) -> str:
        return f"XLA's own count: {short(xla[name], unit)}" if name in xla else ""

    products = percent(totals["matmul_flops"], totals["flops"])
    notes = [f"{products} in matrix products" if products else "", beside("flops", "FLOP")]
    found.append(Headline("FLOPs", bound + short(totals["flops"], "FLOP"), "counted", _join(notes)))
    halves = f"{short(totals['bytes_read'], 'B')} read, {short(totals['bytes_written'], 'B')} written"
    elsewhere = {"on the chip": totals["on_chip_bytes"], "of the host's memory": totals["host_bytes"]}
    theirs = "" if any(elsewhere.values()) else beside("bytes", "B")  # XLA's count is of all memories
    found.append(Headline("bytes moved", bound + short(moved, "B"), "counted", _join([halves, theirs])))
    for where, value in elsewhere.items():
        if value:
            found.append(Headline(f"bytes {where}", bound + short(value, "B"), "counted"))
    if moved:
        value = f"{totals['flops'] / moved:.2f} FLOP/B"
        found.append(Headline("arithmetic intensity", value, "counted", "FLOPs a byte of main memory"))
    if totals["transcendentals"]:
        note = _join(["exp, log, sqrt, …, apart from FLOPs", beside("transcendentals", "")])
        found.append(Headline("transcendentals", bound + short(totals["transcendentals"]), "counted", note))
    if totals["collective_bytes"]:
        value = bound + short(totals["collective_bytes"], "B")
        found.append(Headline("sent to other devices", value, "counted"))
    return found


def _times(cost: Json) -> Iterator[Headline]:
    time, ops = cost.get("time") or {}, cost["ops"]
    kinds = cost.get("provenance") or {}
    bound = "≥ " if cost["lower_bound"] else ""
    predicted = _first(time, "overlapped", "sequential") or _sum(ops, "seconds")
    if predicted is not None:
        low, high = time.get("low"), time.get("high")
        span = (
            f"as likely as not between {seconds(low)} and {seconds(high)}"
            if low is not None and high is not None
            else ""
        )
        how = "asynchronous copies beside the rest" if time.get("overlapped") is not None else "one op after the other"
        kind = kinds.get("seconds", "modelled")
        yield Headline("predicted time", bound + seconds(predicted), kind, _join([how, span]))
    measured = _first(time, "measured")
    if measured is None:
        measured = _sum(ops, "measured_seconds")
    if measured is not None:
        off = ""
        if predicted and measured:
            off = f"the prediction is {percent_change(predicted / measured - 1)}"
        yield Headline("measured time", seconds(measured), kinds.get("measured_seconds", "measured"), off)
    for field, label, kind, note in (
        ("cycles", "predicted cycles", "modelled", "sum over ops"),
        ("measured_cycles", "measured cycles", "measured", "sum over ops"),
        ("compiler_cycles", "compiler's cycles", "compiler", ""),
    ):
        value = _sum(ops, field)
        if value is None:
            continue
        having = [op for op in ops if op.get(field) is not None]
        note = note if len(having) == len(ops) else f"of {len(having):,} of {len(ops):,} ops"
        rate = sum(op["flops"] for op in having) / value if value else 0
        told = f"{rate:.3g} FLOPs a cycle" if rate else ""
        least = bound if kind == "modelled" else ""
        yield Headline(label, least + short(value), kinds.get(field, kind), _join([note, told]))


def warnings(cost: Json) -> list[tuple[str, list[str]]]:
    """What makes figures lower bounds or leaves them out: (sentence, details). Empty where nothing does."""
    found: list[tuple[str, list[str]]] = []
    loops = [loop["name"] for loop in cost["loops"] if loop["trip_count"] is None and loop["count"]]
    if loops:
        what = f"the trip count of {_list(loops)} is unknown, and one iteration is counted"
        mend = f"Give it: --config.trip_counts.{loops[0]}=N."
        found.append((f"LOWER BOUND: {what}. {mend}", []))
    missed = cost["unmodelled"]
    if missed:
        moved = cost["totals"]["bytes_read"] + cost["totals"]["bytes_written"]
        share = percent(sum(op["bytes"] for op in missed), moved) or "0%"
        count = "1 op is" if len(missed) == 1 else f"{len(missed):,} ops are"
        reasons = list(dict.fromkeys(f"{op['name']}: {op['reason']}" for op in missed))
        more = [f"and {len(reasons) - _NAMED:,} more: filter the table of ops for “unmodelled”"]
        bound = "LOWER BOUND: " if cost["coverage"] <= 1 - NEGLIGIBLE else ""
        head = f"{bound}{count} unmodelled ({share} of all bytes); their FLOPs are not counted."
        found.append((head, reasons[:_NAMED] + (more if len(reasons) > _NAMED else [])))
    if cost["lower_bound"] and not found:
        found.append(("LOWER BOUND: the totals of this program may be larger than the figures below.", []))
    untimed = sum(op.get("seconds") is None and op.get("cycles") is None for op in cost["ops"])
    if 0 < untimed < len(cost["ops"]):
        found.append(
            (f"{untimed:,} of {len(cost['ops']):,} ops have no predicted time; sums of times leave them out.", [])
        )
    return found


def notes(cost: Json) -> list[str]:
    """What a reader should know that is no cause for alarm."""
    ops = cost["ops"]
    modelled = len(ops) - len(cost["unmodelled"])
    found = [f"{modelled:,} of {len(ops):,} ops modelled, {100 * cost['coverage']:.1f}% of all bytes."]
    known = [loop for loop in cost["loops"] if loop["trip_count"] is not None]
    if known:
        told = [f"{loop['name']} × {loop['trip_count']:,} ({loop['from'].replace('_', ' ')})" for loop in known]
        found.append(f"Loops: {_list(told)}.")
    guessed = [c["name"] for c in cost["conditionals"] if not c["stated"]]
    if guessed:
        found.append(f"Of {_list(guessed)} the most expensive branch is counted: the program does not say which runs.")
    libraries: dict[str, float] = {}
    for op in ops:
        if op["library"]:
            libraries[op["library"]] = libraries.get(op["library"], 0) + op["flops"]
    if libraries:
        share = percent(sum(libraries.values()), cost["totals"]["flops"]) or "0%"
        found.append(f"In library calls ({', '.join(sorted(libraries))}): {share} of FLOPs.")
    return found


def device_rows(device: Json | None) -> list[tuple[str, str, str, str]]:
    """The numbers of a device that the roofs and times rest on: (what, value, kind, source)."""
    if not device:
        return []
    found: list[tuple[str, str, str, str]] = []

    def add(label: str, figure: Any, unit: str) -> None:
        if isinstance(figure, Mapping) and "value" in figure:
            kind = str(figure.get("provenance", "datasheet"))
            found.append((label, short(figure["value"], unit), kind, str(figure.get("source", ""))))

    add("clock", device.get("clock_hz"), "Hz")
    add("cores", device.get("cores"), "")
    for name in ("matmul", "vector"):
        for dtype, figure in (device.get(name) or {}).items():
            add(f"{name} peak, {dtype}", figure, "FLOP/s")
    add("transcendentals", device.get("transcendental"), "/s")
    for level in device.get("memory") or []:
        add(f"{level['name']} bandwidth", level.get("bandwidth"), "B/s")
        add(f"{level['name']} capacity", level.get("capacity"), "B")
    add("link to other chips", device.get("link"), "B/s")
    launch = device.get("launch")
    if isinstance(launch, Mapping):
        kind, source = str(launch.get("provenance", "datasheet")), str(launch.get("source", ""))
        found.append(("time between two ops", seconds(launch["value"]), kind, source))
    return found


def percent_change(share: float) -> str:
    """Returns 0.12 as "12.0% high", -0.03 as "3.0% low"."""
    return f"{abs(100 * share):.1f}% {'high' if share >= 0 else 'low'}"


def _first(values: Json, *names: str) -> float | None:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _sum(ops: Any, field: str) -> float | None:
    found = [op[field] for op in ops if op.get(field) is not None]
    return sum(found) if found else None


def _join(notes: list[str]) -> str:
    return "; ".join(note for note in notes if note)


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"
