"""What a reader of a cost.json must know beside its figures: what makes them lower bounds, what is guessed or left out.

The terminal and the page say it in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjax.cost.values import NEGLIGIBLE
from llmjax.report.units import percent, short

Json = Mapping[str, Any]
_NAMED = 8  # so many ops or loops are named in a sentence


@dataclass(frozen=True, slots=True)
class Warning:
    """A sentence of alarm, and its details, a line each."""

    sentence: str
    details: tuple[str, ...] = ()


def warnings(cost: Json) -> list[Warning]:
    """What makes figures lower bounds or leaves them out. Empty where nothing does."""
    found: list[Warning] = []
    loops = [loop["name"] for loop in cost["loops"] if loop["trip_count"] is None and loop["count"]]
    if loops:
        what = f"the trip count of {listed(loops)} is unknown; one iteration is counted"
        mend = f"Give it with --config.trip_counts.{loops[0]}=N (trip_counts={{{loops[0]!r}: N}} in Python)."
        found.append(Warning(f"LOWER BOUND: {what}. {mend}"))
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
    if cost["lower_bound"] and not found:
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
        told = [f"{loop['name']} x{loop['trip_count']:,} ({loop['from'].replace('_', ' ')})" for loop in known]
        found.append(f"Loops: {listed(told)}.")
    guessed = [c["name"] for c in cost["conditionals"] if not c["stated"]]
    if guessed:
        found.append(f"Of {listed(guessed)} the most expensive branch is counted: the program does not say which runs.")
    hidden = sum(op["dense_flops"] - op["flops"] for op in ops if op.get("dense_flops") is not None)
    if hidden:
        dense = short(cost["totals"]["flops"] + hidden, "FLOP")
        found.append(f"What masks hide is left out: with it {dense}.")
    libraries: dict[str, float] = {}
    for op in ops:
        if op["library"]:
            libraries[op["library"]] = libraries.get(op["library"], 0) + op["flops"]
    if libraries:
        share = percent(sum(libraries.values()), cost["totals"]["flops"]) or "0%"
        found.append(f"In library calls ({', '.join(sorted(libraries))}): {share} of FLOPs.")
    return found


def listed(names: Sequence[str]) -> str:
    """Returns names with commas; of many the first, and how many more there are."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"
