"""The figures at the head of a page: of a program, its times first, and of the device that they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmjax.report.remarks import Json, bound_of
from llmjax.report.units import percent, seconds, short


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
    bound = bound_of(cost)
    moved = totals["bytes_read"] + totals["bytes_written"]
    found = list(_times(cost))

    def beside(name: str, unit: str) -> str:
        return f"XLA's own count: {short(xla[name], unit)}" if name in xla else ""

    found += _roofs(cost)
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
    predicted = _first(time, "overlapped", "sequential") or _sum(ops, "seconds")
    measured = time["measured"] if time.get("measured") is not None else _sum(ops, "measured_seconds")
    if predicted is not None:
        yield _predicted(cost, predicted)
    if measured is not None:
        off = f"the prediction is {percent_change(predicted / measured - 1)}" if predicted and measured else ""
        yield Headline("measured time", seconds(measured), kinds.get("measured_seconds", "measured"), off)
    for field, label, kind in (
        ("cycles", "predicted cycles", "modelled"),
        ("measured_cycles", "measured cycles", "measured"),
        ("compiler_cycles", "compiler's cycles", "compiler"),
    ):
        # Those of the whole program where they are known: the sum over ops leaves out what passes between them.
        value = _first(time, field) or _sum(ops, field)
        if value is not None:
            bound = bound_of(cost) if kind == "modelled" else ""
            yield Headline(label, bound + short(value), kinds.get(field, kind), _cycles_note(cost, field, value))


def _roofs(cost: Json) -> Iterator[Headline]:
    """How near the program comes to the device's roofs, what it holds in memory, and how few ops are most of it."""
    verdict = cost.get("verdict")
    if not verdict:
        return
    kind = {"measured": "measured", "predicted": "modelled"}.get(verdict["by"], "counted")
    if rates := verdict["rates"]:
        note = f"of {rates['dtype']}, by all FLOPs that run, recomputed ones too (MFU counts a model's own)"
        yield Headline("share of peak", percent(rates["peak_share"], 1) or "0%", kind, note)
        yield Headline("share of bandwidth", percent(rates["bandwidth_share"], 1) or "0%", kind, "of main memory")
    if verdict["heavy"]:
        of = "of FLOPs or bytes" if verdict["by"] == "counts" else f"of the ops' {verdict['by']} time"
        what = f"{verdict['few']:,} of {verdict['kinds']:,}"
        yield Headline("80% is in", what, kind, f"kinds of op, {of}; those alike in several layers are one")
    if memory := cost.get("memory"):
        yield Headline("memory at its peak", short(memory["peak"], "B"), "compiler", "by the compiler's own plan")
    elif verdict["needed"]:
        note = "less what donated arguments give; temporaries are not in the text"
        yield Headline("arguments and results", short(verdict["needed"], "B"), "counted", note)


def _predicted(cost: Json, predicted: float) -> Headline:
    time, bound = cost.get("time") or {}, bound_of(cost)
    low, high = time.get("low"), time.get("high")
    span = ""
    if low is not None and high is not None:
        span = f"as likely as not between {seconds(low)} and {seconds(high)}"
    how = "asynchronous copies beside the rest" if time.get("overlapped") is not None else "one op after the other"
    kind = (cost.get("provenance") or {}).get("seconds", "modelled")
    return Headline("predicted time", bound + seconds(predicted), kind, _join([how, span]))


def _cycles_note(cost: Json, field: str, value: float) -> str:
    """Whose cycles they are, and how much is done in one."""
    ops, whole = cost["ops"], (cost.get("time") or {}).get(field) is not None
    having = ops if whole else [op for op in ops if op.get(field) is not None]
    of = "time x clock" if whole else f"of {len(having):,} of {len(ops):,} ops"
    if not whole and len(having) == len(ops):
        of = "sum over ops"
    rate = sum(op["flops"] for op in having) / value if value else 0
    return _join([of, f"{short(rate)} FLOPs a cycle" if rate else ""])


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
