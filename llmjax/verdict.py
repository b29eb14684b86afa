"""What a program's figures come to: what bounds it, the few ops that matter, what would change it. No JAX import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmjax.cost.attribution import AttributedOp, share_of
from llmjax.cycles.device import peak
from llmjax.cycles.features import features
from llmjax.cycles.whatif import Rates, WhatIf, main_dtype, op_what_ifs, rates, what_ifs
from llmjax.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from llmjax.analysis import Alike, Analysis

MOST = 0.8  # of the time, or of the larger of FLOPs and bytes: what "the few ops" make up
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Heavy:
    """Ops that are alike, as one: `share` is that of the program's time, of its FLOPs or bytes without times."""

    name: str
    where: str
    role: str
    share: float
    seconds: float | None = None
    bound: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A program's answers.

    `by` says what shares are of: "measured" or "predicted" time, or "counts" where there are no times. `seconds` is
    that time. `bounds` has the share of predicted time that each of "compute", "memory:LEVEL", "link", "overhead" and
    "between ops" binds, the largest first; `rates` are those of `seconds`, None without a device. `intensity` is FLOPs
    a byte of main memory, None without bytes. `needed` are the bytes that arguments and results take. `heavy` are
    the first ops, `few` of `kinds` are MOST of it.
    """

    by: str
    seconds: float | None
    bounds: tuple[tuple[str, float], ...]
    rates: Rates | None
    intensity: float | None
    needed: int
    heavy: tuple[Heavy, ...]
    few: int
    kinds: int
    what_ifs: tuple[WhatIf, ...]


def verdict(report: Analysis) -> Verdict:
    """Returns the answers of an analysis; of one without a device those that counts alone can give."""
    by, seconds = _time_of(report)
    shares = _shares(report, by)
    totals = report.totals
    near = rates(report.cost, report.time.device, seconds) if report.time and seconds else None
    return Verdict(
        by,
        seconds,
        _bounds(report),
        near,
        float(totals.flops) / float(totals.bytes) if totals.bytes else None,
        _arguments_and_results(report),
        tuple(_heavy(report, group, share) for group, share in shares[:SHOWN]),
        _few([share for _, share in shares]),
        len(shares),
        what_ifs(report.cost, report.time) if report.time else (),
    )


@dataclass(frozen=True, slots=True)
class OpVerdict:
    """An op's answers, with those alike in other layers, as one.

    `flops` and `bytes` are of all executions; `peak_share` and `bandwidth_share` what they are in `seconds` of the
    device's peak for the op's type and of its main memory's bandwidth, None without a device.
    """

    op: Heavy
    by: str
    flops: float
    bytes: float
    dtype: str
    peak_share: float | None
    bandwidth_share: float | None
    what_ifs: tuple[WhatIf, ...]


def op_verdict(report: Analysis, name: str) -> OpVerdict:
    """Returns the answers of the op of that name, or of the one whose module path or role holds it and takes most.

    Raises:
        UserError: no op is called so.
    """
    by, _ = _time_of(report)
    shares = _shares(report, by) or [(group, 0.0) for group in report.alike()]
    named = [row for row in shares if any(op.name == name for op in row[0].ops)]
    held = named or [row for row in shares if name and any(name in _told(op) for op in row[0].ops)]
    if not held:
        known = [op.name for group, _ in shares for op in group.ops]
        raise UserError(f"op {name!r}: the program has none of that name, path or role.{did_you_mean(name, known)}")
    group, share = held[0]
    heavy, totals = _heavy(report, group, share), group.cost
    flops, moved = float(totals.flops), float(totals.memory_bytes)
    if not report.time or not heavy.seconds:
        return OpVerdict(heavy, by, flops, moved, "", None, None, ())
    device, names = report.time.device, {op.name for op in group.ops}
    ops = [f for f in features(report.cost, device) if f.name in names]
    dtype = main_dtype(ops) or "f32"
    far = sum(f.count * f.bytes[-1] for f in ops)
    peak_share = flops / heavy.seconds / peak(device.matmul, dtype).value
    bandwidth_share = far / heavy.seconds / device.main_memory.bandwidth.value
    answers = op_what_ifs(report.cost, report.time, names)
    return OpVerdict(heavy, by, flops, moved, dtype, peak_share, bandwidth_share, answers)


def _told(op: AttributedOp) -> str:
    return f"{op.place.module_path}\n{op.place.role}"


def _time_of(report: Analysis) -> tuple[str, float | None]:
    if report.measured:
        return "measured", report.measured.wall.median
    return ("predicted", report.time.overlapped) if report.time else ("counts", None)


def _shares(report: Analysis, by: str) -> list[tuple[Alike, float]]:
    """Groups of ops with their shares, the largest first; those of nothing are left out."""
    groups = report.alike()
    if by == "counts":
        share = share_of(report.totals)
        found = [(group, share(group.cost)) for group in groups]
    else:
        times = [(group.measured if by == "measured" else group.predicted) or 0.0 for group in groups]
        whole = sum(times)
        found = [(group, time / whole) for group, time in zip(groups, times, strict=True) if whole]
    return sorted([(group, share) for group, share in found if share], key=lambda row: row[1], reverse=True)


def _few(shares: Sequence[float]) -> int:
    """How many of the shares, the largest first, add up to MOST of them."""
    whole, done = sum(shares), 0.0
    for k, share in enumerate(shares):
        done += share
        if done >= MOST * whole:
            return k + 1
    return len(shares)


def _heavy(report: Analysis, group: Alike, share: float) -> Heavy:
    first = group.ops[0]
    time = report.time.by_name.get(first.name) if report.time else None
    seconds = group.measured if group.measured is not None else group.predicted
    return Heavy(group.name, group.where, first.place.role, share, seconds, time.bound if time else None)


def _bounds(report: Analysis) -> tuple[tuple[str, float], ...]:
    if not report.time or not report.time.sequential:
        return ()
    seconds: dict[str, float] = {}
    for op in report.time.ops:
        seconds[op.bound] = seconds.get(op.bound, 0.0) + op.seconds
    if report.time.dispatch:
        seconds["between ops"] = report.time.dispatch
    shares = {name: each / report.time.sequential for name, each in seconds.items() if each}
    return tuple(sorted(shares.items(), key=lambda row: row[1], reverse=True))


def _arguments_and_results(report: Analysis) -> int:
    """Bytes of the entry's parameters and of its result, less what the result takes over of donated ones."""
    module = report.cost.module
    arguments = sum(parameter.shape.bytes for parameter in module.entry.parameters)
    result = module.entry.root.shape
    taken = 0
    for alias in module.input_output_alias:
        leaf = result
        for index in alias.output_index:
            leaf = leaf.tuple_shapes[index] if index < len(leaf.tuple_shapes) else leaf
        taken += leaf.bytes
    return max(0, arguments + result.bytes - taken)
