"""What a reader of a cost.json must know beside its figures: what makes them bounds, what is guessed or left out.

The terminal and the page say it in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjax.cost.values import NEGLIGIBLE
from llmjax.report.units import percent, short

Json = Mapping[str, Any]
_SOURCES = {"known_trip_count": "known trip count", "bounded": "at most"}  # of a loop's trip count
_NAMED = 8  # so many ops or loops are named in a sentence


@dataclass(frozen=True, slots=True)
class Warning:
    """A sentence of alarm, and its details, a line each."""

    sentence: str
    details: tuple[str, ...] = ()


def warnings(cost: Json) -> list[Warning]:
    """What makes figures bounds or a whole program's, or leaves them out. Empty where nothing does."""
    found: list[Warning] = []
    stage = cost.get("stage") or {}
    if stage.get("name") == "whole":
        found.append(Warning(_whole_program(stage["devices"], stage["manual"])))
    if elsewhere := _another_chip(cost):
        found.append(Warning(elsewhere))
    loops = [loop["name"] for loop in cost["loops"] if loop["trip_count"] is None and loop["count"]]
    if loops:
        what = f"the trip count of {listed(loops)} is unknown; one iteration is counted"
        mend = f"Give it with --config.trip_counts.{loops[0]}=N (trip_counts={{{loops[0]!r}: N}} in Python)."
        found.append(Warning(f"LOWER BOUND: {what}. {mend}"))
    bounded = [loop["name"] for loop in cost["loops"] if loop["from"] == "bounded" and loop["count"]]
    if bounded:
        what = f"{listed(bounded)} may end before the last iteration that its counter allows; all are counted"
        mend = f"Give the count with --config.trip_counts.{bounded[0]}=N (trip_counts={{{bounded[0]!r}: N}} in Python)."
        found.append(Warning(f"UPPER BOUND: {what}. {mend}"))
    missed = cost["unmodelled"]
    if missed:
        moved = sum(cost["totals"][name] for name in ("bytes_read", "bytes_written", "on_chip_bytes", "host_bytes"))
        share = percent(sum(op["bytes"] for op in missed), moved) or "0%"
        count = "1 op is" if len(missed) == 1 else f"{len(missed):,} ops are"
        reasons = list(dict.fromkeys(f"{op['name']}: {op['reason']}" for op in missed))
        more = [f"and {len(reasons) - _NAMED:,} more"] if len(reasons) > _NAMED else []
        bound = "LOWER BOUND: " if cost["coverage"] <= 1 - NEGLIGIBLE else ""
        head = f"{bound}{count} unmodelled ({share} of all bytes; their FLOPs are not counted)."
        found.append(Warning(head, (*reasons[:_NAMED], *more)))
    if cost["lower_bound"] and not (loops or missed):
        found.append(Warning("LOWER BOUND: the totals of this program may be larger than the figures here."))
    untimed = sum(op.get("seconds") is None and op.get("cycles") is None for op in cost["ops"])
    if 0 < untimed < len(cost["ops"]):
        sentence = f"{untimed:,} of {len(cost['ops']):,} ops have no predicted time; sums of times leave them out."
        found.append(Warning(sentence))
    return found


def notes(cost: Json) -> list[str]:
    """What a reader should know that is no cause for alarm."""
    ops = cost["ops"]
    modelled = len(ops) - len(cost["unmodelled"])
    found = [f"{modelled:,} of {len(ops):,} ops modelled, {100 * cost['coverage']:.1f}% of all bytes."]
    known = [loop for loop in cost["loops"] if loop["trip_count"] is not None]
    if known:
        told = [
            f"{loop['name']} x{loop['trip_count']:,} ({_SOURCES.get(loop['from'], loop['from'])})" for loop in known
        ]
        found.append(f"Loops: {listed(told)}.")
    if (cost.get("stage") or {}).get("name") in ("partitioned", "unscheduled"):
        found.append("Neither scheduled nor fused: of text from before optimisation bytes are each op's alone.")
    guessed = [c["name"] for c in cost["conditionals"] if not c["stated"]]
    if guessed:
        found.append(f"Of {listed(guessed)} the most expensive branch is counted: the program does not say which runs.")
    hidden = sum(op["dense_flops"] - op["flops"] for op in ops if op.get("dense_flops") is not None)
    if hidden:
        dense = short(cost["totals"]["flops"] + hidden, "FLOP")
        found.append(f"What masks hide is left out: with it {dense}.")
    given = sorted({op["name"] for op in ops if op.get("provenance") == "user"})
    if given:
        found.append(f"By figures that the user gave: {listed(given)}.")
    libraries: dict[str, float] = {}
    for op in ops:
        if op["library"]:
            libraries[op["library"]] = libraries.get(op["library"], 0) + op["flops"]
    if libraries:
        share = percent(sum(libraries.values()), cost["totals"]["flops"]) or "0%"
        found.append(f"In library calls ({', '.join(sorted(libraries))}): {share} of FLOPs.")
    return found


def bound_of(cost: Json) -> str:
    """Returns what stands before the figures of a cost.json that are bounds."""
    return bound_mark(cost["lower_bound"], cost.get("upper_bound", False))


def bound_mark(lower: bool, upper: bool) -> str:
    """Returns what stands before a figure that is a bound: "≥ ", "≤ ", "~ " where it may be off either way, or ""."""
    return {(True, False): "≥ ", (False, True): "≤ ", (True, True): "~ "}.get((bool(lower), bool(upper)), "")


def _whole_program(devices: int, manual: bool) -> str:
    inside = " What stands inside shard_map is one device's already." if manual else ""
    return (
        f"WHOLE PROGRAM: this text is from before partitioning, and counts what all {devices:,} devices do. One device"
        f" does 1/{devices:,} of it at least, more where work is not shared evenly, and sends what the text does not"
        f" say yet.{inside} For one device's own count give the text after optimisation, compiled.as_text()."
    )


def _another_chip(cost: Json) -> str:
    """Says of HLO that was compiled for one kind of chip that it is timed as it stands on another; "" where not."""
    device, backend = cost.get("device"), cost["backend"]
    if not device or not backend or device["kind"] == backend:
        return ""
    return (
        f"ANOTHER CHIP: this HLO was compiled for a {backend.upper()} and is timed as it stands on {device['title']},"
        f" whose own compiler would fuse, lay out and choose kernels otherwise. Compile it for that chip where its"
        f" program is at hand (target=..., --config.target=...)."
    )


def listed(names: Sequence[str]) -> str:
    """Returns names with commas; of many the first, and how many more there are."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"
