"""Two cost.json -> what the second gained or lost, in all, by role and by op. XLA may have renamed the ops."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjax.report.html_ops import OTHER_BYTES, metric_of, units
from llmjax.report.remarks import Json

SCHEMA = "llmjax.diff/1"
BETWEEN = "between ops"
METRICS = ("cycles", "flops", "bytes", *OTHER_BYTES)


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after."""

    before: float
    after: float

    @property
    def change(self) -> float:
        """The difference; 0 of two sums that differ by rounding alone."""
        return 0.0 if math.isclose(self.before, self.after, rel_tol=1e-12) else self.after - self.before

    @property
    def share(self) -> float | None:
        """The change as a share of what was before; None where that was nothing and something came."""
        return self.change / self.before if self.before else 0.0 if not self.after else None


@dataclass(frozen=True)
class Line:
    """An op, or all ops of a role: `name` and `was` (its former name where that differs), where it stands, its figures.

    `status` is "same", "changed", "new" or "gone". `changes` has a Change a metric of the diff.
    """

    name: str
    was: str | None
    opcode: str
    module_path: str | None
    role: str
    layer: int | None
    status: str
    changes: Mapping[str, Change]


@dataclass(frozen=True)
class Diff:
    """What changed between two programs.

    `metrics` are those of METRICS that both have, with their units (bytes outside main memory where either moves any);
    `missing` says in words what could not be compared. `roles` and `ops` have the largest change first.
    """

    metrics: Mapping[str, str]
    totals: Mapping[str, Change]
    roles: tuple[Line, ...]
    ops: tuple[Line, ...]
    missing: tuple[str, ...]
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    def over(self, share: float) -> dict[str, Change]:
        """The metrics whose total grew by more than `share` (0.02 = 2%)."""
        grown = {m: c for m, c in self.totals.items() if c.after > c.before}
        return {m: c for m, c in grown.items() if c.share is None or c.share > share}

    def to_object(self) -> dict[str, Any]:
        """The diff as an object of the schema, docs/reports.md."""
        return {
            "schema": SCHEMA,
            "before": dict(self.before),
            "after": dict(self.after),
            "units": dict(self.metrics),
            "missing": list(self.missing),
            "totals": {metric: _object(change) for metric, change in self.totals.items()},
            "by_role": [
                {"role": line.role, "status": line.status} | {m: _object(c) for m, c in line.changes.items()}
                for line in self.roles
            ],
            "ops": [
                {"name": line.name, "was": line.was, "opcode": line.opcode, "module_path": line.module_path}
                | {"role": line.role, "layer": line.layer, "status": line.status}
                | {m: _object(c) for m, c in line.changes.items()}
                for line in self.ops
            ],
        }


def diff(before: Json, after: Json) -> Diff:
    """Compares two cost.json objects, figure by figure that both have."""
    metrics, missing = _metrics(before, after)
    pairs = match(before["ops"], after["ops"])
    lines = [_line(old, new, metrics) for old, new in pairs]
    totals = {metric: Change(_total(before, metric), _total(after, metric)) for metric in metrics if metric != "cycles"}
    if "cycles" in metrics:
        totals = {"cycles": Change(*(_cycles(cost, metrics["cycles"]) for cost in (before, after)))} | totals
    size = size_of(totals)
    return Diff(
        metrics,
        totals,
        tuple(sorted(_roles(before, after, metrics), key=lambda line: size(line.changes), reverse=True)),
        tuple(sorted(lines, key=lambda line: size(line.changes), reverse=True)),
        tuple(missing),
        _about(before),
        _about(after),
    )


def match(before: Sequence[Json], after: Sequence[Json]) -> list[tuple[Json | None, Json | None]]:
    """Pairs the ops of two programs: first by name, then, where XLA has renumbered or renamed, without it.

    Each pass pairs, in order of the program, what the ones before have left and what agrees in its key: name, opcode,
    module path and size (the bytes of an execution, which are its shapes); then the name without its number; then no
    name; then the same without the size. An op with no module path counts by its role. What is left is (op, None):
    gone, or (None, op): new. Returns the pairs in the order of `after`, the gone ones last.
    """

    def home(op: Json) -> tuple[Any, ...]:
        return op["opcode"], op["module_path"] or ("", op["role"]), op.get("pass")

    def size(op: Json) -> tuple[Any, ...]:
        times = op["count"] or 1
        return op["bytes_read"] / times, op["bytes_written"] / times

    def stem(op: Json) -> str:
        return re.sub(r"(\.\d+)+$", "", op["name"])

    passes: tuple[Callable[[Json], Any], ...] = (
        lambda op: (op["name"], home(op), size(op)),
        lambda op: (stem(op), home(op), size(op)),
        lambda op: (home(op), size(op)),
        lambda op: (op["name"], home(op)),
        lambda op: (stem(op), home(op)),
        home,
    )
    partner: dict[int, Json] = {}
    left = list(before)
    for key in passes:
        waiting: dict[Any, deque[int]] = {}
        for k, op in enumerate(after):
            if k not in partner:
                waiting.setdefault(key(op), deque()).append(k)
        unpaired = []
        for op in left:
            queue = waiting.get(key(op))
            if queue:
                partner[queue.popleft()] = op
            else:
                unpaired.append(op)
        left = unpaired
    return [*((partner.get(k), op) for k, op in enumerate(after)), *((op, None) for op in left)]


def parse_share(text: str, where: str) -> float | None:
    """Returns "2%" as 0.02, "" as None; `where` names the setting in a ValueError."""
    if not text.strip():
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not found:
        raise ValueError(f"{where}={text!r} must be a percentage such as 2% (growth of a total), or empty.")
    return float(found[1]) / 100


def _metrics(before: Json, after: Json) -> tuple[dict[str, str], list[str]]:
    old, new = units(before["ops"]), units(after["ops"])
    found: dict[str, str] = {}
    missing = []
    for metric in METRICS:
        if metric in OTHER_BYTES:
            if _total(before, metric) or _total(after, metric):
                found[metric] = "B"
            continue
        sides = old.get(metric), new.get(metric)
        if metric in ("flops", "bytes") or (sides[0] and sides[0] == sides[1]):
            found[metric] = sides[0] or {"flops": "FLOP", "bytes": "B"}[metric]
        elif not any(sides):
            missing.append("neither program has predicted cycles: no chip is named")
        elif all(sides):
            missing.append(f"predicted times are in {sides[0]} before and in {sides[1]} after")
        else:
            missing.append(f"only the program {'before' if sides[0] else 'after'} has predicted cycles")
    chips = [
        (cost.get("target") or (cost.get("device") or {}).get("name") or cost["backend"]) for cost in (before, after)
    ]
    if chips[0] != chips[1]:
        missing.append(f"the programs are of different targets: {chips[0]} before, {chips[1]} after")
    for name, cost in (("before", before), ("after", after)):
        if cost["lower_bound"]:
            missing.append(f"LOWER BOUND: the program {name} has loops of unknown length or ops without a rule")
        if cost.get("upper_bound"):
            missing.append(f"UPPER BOUND: the program {name} has loops that may end before they are counted to end")
    return found, missing


def _line(old: Json | None, new: Json | None, metrics: Iterable[str]) -> Line:
    changes = {m: Change(_figure(old, m), _figure(new, m)) for m in metrics}
    op = new or old
    assert op is not None
    changed = any(change.change for change in changes.values())
    status = "gone" if new is None else "new" if old is None else "changed" if changed else "same"
    was = old["name"] if old and new and old["name"] != new["name"] else None
    return Line(op["name"], was, op["opcode"], op["module_path"], op["role"], op["layer"], status, changes)


def _roles(before: Json, after: Json, metrics: Mapping[str, str]) -> list[Line]:
    """By role: FLOPs and bytes of the parts of fused ops, each where it belongs; cycles of whole ops.

    What passes between ops, less what they overlap, is a line of its own, so that cycles too add up to the program's.
    """
    old, new = ({row["role"]: {m: _figure(row, m) for m in metrics} for row in c["by_role"]} for c in (before, after))
    if "cycles" in metrics:
        for cost, found in ((before, old), (after, new)):
            ops = sum(_figure(op, "cycles") for op in cost["ops"])
            aside = _cycles(cost, metrics["cycles"]) - ops
            if abs(aside) > 1e-9 * ops:  # less is the sum's rounding
                found[BETWEEN] = dict.fromkeys(metrics, 0.0) | {"cycles": aside}
    lines = []
    for role in dict.fromkeys([*new, *old]):
        changes = {m: Change(old.get(role, {}).get(m, 0.0), new.get(role, {}).get(m, 0.0)) for m in metrics}
        changed = any(change.change for change in changes.values())
        status = "gone" if role not in new else "new" if role not in old else "changed" if changed else "same"
        lines.append(Line(role, None, "", None, role, None, status, changes))
    return lines


def size_of(totals: Mapping[str, Change]) -> Callable[[Mapping[str, Change]], tuple[float, float]]:
    """How large changes are beside the totals: that of cycles where they are known, then the largest share of any."""

    def size(changes: Mapping[str, Change]) -> tuple[float, float]:
        shares = {m: abs(c.change) / (max(totals[m].before, totals[m].after) or 1) for m, c in changes.items()}
        return shares.get("cycles", 0.0), max(shares.values(), default=0.0)

    return size


def _figure(row: Json | None, metric: str) -> float:
    return (metric_of(row, metric) or 0) if row else 0


def _total(cost: Json, metric: str) -> float:
    return metric_of(cost["totals"], metric) or 0


def _cycles(cost: Json, unit: str) -> float:
    """Predicted cycles of the program, or seconds: what the cost job prints; else the sum over ops."""
    whole = (cost.get("time") or {}).get("cycles" if unit == "cycles" else "overlapped")
    return sum(_figure(op, "cycles") for op in cost["ops"]) if whole is None else whole


def _object(change: Change) -> dict[str, float | None]:
    return {"before": change.before, "after": change.after, "change": change.change, "share": change.share}


def _about(cost: Json) -> dict[str, Any]:
    return {"module": cost["module"], "backend": cost["backend"], "ops": len(cost["ops"])}
