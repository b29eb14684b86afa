"""The head of every report: what bounds a program, the ops to look at, and what would change it, a sentence each.

All figures are of the `verdict` in its cost.json, which the analysis made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from llmjax.report.remarks import Json
from llmjax.report.units import percent, seconds, short
from llmjax.verdict import OpVerdict

_WORTH = 1.05  # a speed-up below it changes nothing that a measurement would show
_NAMED = 6
_BINDS = {
    "compute": "Arithmetic bounds",
    "link": "The links between devices bound",
    "overhead": "The start and latency of ops bound",
    "between ops": "The time between ops bounds",
}
_OPS_BOUND = {"compute": "by arithmetic", "link": "by its links", "overhead": "by its start and latency"}
_NO_CHIP = "Name a chip to see what would change it: --target gpu:h100, or card= in Python."


def answers(cost: Json) -> list[str]:
    """Returns the sentences of a cost.json; none where nothing runs or an older llmjax wrote it."""
    verdict = cost.get("verdict")
    if not verdict or not verdict["heavy"]:
        return []
    return [_bound(cost, verdict), _ops(verdict), " ".join(_changes(verdict))]


def explain(verdict: OpVerdict) -> list[str]:
    """Returns what an op is, what bounds it and what would change it, a sentence each."""
    op = verdict.op
    of = "FLOPs or bytes" if verdict.by == "counts" else f"the {verdict.by} time of ops"
    work = f"{short(verdict.flops, 'FLOP')}, {short(verdict.bytes, 'B')}"
    found = [f"{op.name} ({op.where}, {op.role}) is {percent(op.share, 1) or '0%'} of {of}: {work}."]
    if op.seconds is None or verdict.peak_share is None or verdict.bandwidth_share is None:
        return [*found, _NO_CHIP]
    peak, moved = (percent(share, 1) or "0%" for share in (verdict.peak_share, verdict.bandwidth_share))
    bound = _OPS_BOUND.get(op.bound or "", f"by {(op.bound or '').removeprefix('memory:')}")
    found.append(
        f"It is bound {bound}: in {seconds(op.seconds)}, {verdict.by}, it reaches {peak} of the chip's {verdict.dtype}"
        f" peak and {moved} of its memory bandwidth."
    )
    return [*found, " ".join(_gains([asdict(answer) for answer in verdict.what_ifs]))]


def _bound(cost: Json, verdict: Json) -> str:
    if not verdict["bounds"]:
        return _counted(cost, verdict)
    name, share = next(iter(verdict["bounds"].items()))
    memory = "Main memory" if _is_main(cost, name) else "Memory on the chip"
    binds = _BINDS.get(name) or f"{memory} ({name.removeprefix('memory:')}) bounds"
    return f"{binds} {percent(share, 1)} of the predicted time; {told_rates(verdict)}."


def _counted(cost: Json, verdict: Json) -> str:
    """What counts alone say of a program without a device."""
    flops, intensity = short(cost["totals"]["flops"], "FLOP"), verdict["intensity"]
    took = f" in {seconds(verdict['seconds'])}, measured" if verdict["seconds"] else ""
    if intensity is None:
        return f"It computes {flops}{took}, and moves no bytes of main memory."
    return (
        f"It computes {flops}{took}: {intensity:.3g} FLOPs a byte of main memory. Memory bounds it on every chip that"
        " could do more in the time of a byte."
    )


def told_rates(verdict: Json) -> str:
    """Returns the share of peak and of bandwidth, with whose time they are of: "in 13.2 ms, measured, ..."."""
    rates = verdict["rates"]
    time = f"in {seconds(verdict['seconds'])}, {verdict['by']}"
    peak, moved = (percent(rates[name], 1) or "0%" for name in ("peak_share", "bandwidth_share"))
    return f"{time}, it reaches {peak} of the chip's {rates['dtype']} peak and {moved} of its memory bandwidth"


def _is_main(cost: Json, name: str) -> bool:
    levels = (cost.get("device") or {}).get("memory") or []
    return not levels or levels[-1]["name"] == name.removeprefix("memory:")


def _ops(verdict: Json) -> str:
    counts = verdict["by"] == "counts"
    of = "FLOPs or bytes, whichever is more" if counts else f"the {verdict['by']} time of ops"
    named = [f"{op['name']} ({op['where']}) {percent(op['share'], 1)}" for op in verdict["heavy"]]
    kinds = f"{verdict['few']:,} of {verdict['kinds']:,} kinds of op"
    return f"Look at {_listed(named, 'and')} of {of}; {kinds} make up 80% of it."


def _changes(verdict: Json) -> Iterator[str]:
    found = verdict["what_ifs"]
    if not found:
        yield _NO_CHIP
        return
    yield from _gains(found)


def _gains(found: Sequence[Json]) -> Iterator[str]:
    gains = [w for w in found if w["speedup"] >= _WORTH]
    none = [w["says"] for w in found if w["speedup"] < _WORTH]
    if gains:
        told = [
            f"{w['says']} {'at most ' if w['at_most'] else ''}{w['speedup']:.2f}× ({seconds(w['seconds'])})"
            for w in gains[:_NAMED]
        ]
        yield f"Predicted again with one thing changed: {', '.join(told)}{_no_gain(none)}."
    else:
        yield f"Predicted again with one thing changed, nothing makes it 5% faster: not {_listed(none, 'or')}."


def _no_gain(none: list[str]) -> str:
    return f"; little comes of {_listed(none, 'or')}" if none else ""


def _listed(names: list[str], last: str) -> str:
    """Returns "a, b and c"."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))
