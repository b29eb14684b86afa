"""The pipeline: a parsed module -> what it costs -> whose cost it is -> how long it takes. No JAX import."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmjax.cost import ModuleCost, cost_module
from llmjax.cost.attribution import KEYS, AttributedOp, Key, Row, attribute, breakdown, share_of
from llmjax.cost.buffers import Buffers
from llmjax.cost.given import Table
from llmjax.cost.roles import RoleTable
from llmjax.cost.values import Cost, Number, total
from llmjax.cycles.compiler_clock import OpClock, compiler_clock
from llmjax.cycles.device import Device, device_names, load_device
from llmjax.cycles.measured import Profile
from llmjax.cycles.model import ProgramTime, predict
from llmjax.errors import UserError, did_you_mean
from llmjax.hlo import Module
from llmjax.hlo.backend import guess_backend
from llmjax.hlo.stage import Stage, stage
from llmjax.verdict import Verdict, verdict


@dataclass(frozen=True, slots=True)
class TimedRow(Row):
    """A row of a breakdown with the seconds of the ops that are mostly its own, and the compiler's cycles of them.

    None where it is known of no op.
    """

    predicted: float | None = None
    measured: float | None = None
    compiler_cycles: float | None = None


@dataclass(frozen=True, slots=True)
class Alike:
    """Ops that differ in nothing but the layer they stand in, and their sums.

    `where` is their module path with * for the layer's number, else their line, else their role; times are in seconds,
    None where none of them has one.
    """

    ops: tuple[AttributedOp, ...]
    where: str
    cost: Cost
    predicted: float | None
    measured: float | None

    @property
    def name(self) -> str:
        """The first op's name, and how many more there are."""
        return self.ops[0].name + (f" +{len(self.ops) - 1}" if len(self.ops) > 1 else "")

    @property
    def count(self) -> Number:
        """Executions of them all."""
        return sum(op.count for op in self.ops)


@dataclass(frozen=True)
class Analysis:
    """The cost of one execution of a program on one device, op by op and by whose it is, and its time where known.

    `ops` are in the order of the program; each has `name`, `opcode`, `count` (executions), `total` (cost of them all),
    `op.cost` (of one), `place` and `parts`. `compiler` has XLA's own totals (`flops`, `transcendentals`, `bytes`) where
    the program was compiled here, for comparison: XLA counts a loop's body once and most library calls as nothing.
    `text` is the HLO, `target` the chip it was compiled for where one was named, `device` the numbers of that chip;
    with it `time` has the predicted seconds, op by op. `measured` has measured ones where the program was run.
    `mesh` has the sizes of the axes over which the program is divided, by name, where they are known, `buffers` the
    memory that the compiler reserves, where its dump says.
    """

    cost: ModuleCost
    ops: tuple[AttributedOp, ...]
    backend: str | None = None
    compiler: Mapping[str, float] | None = None
    text: str = field(default="", repr=False)
    target: str | None = None
    device: Device | None = None
    time: ProgramTime | None = field(default=None, repr=False)
    measured: Profile | None = field(default=None, repr=False)
    mesh: Mapping[str, int] = field(default_factory=dict)
    buffers: Buffers | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The module's name."""
        return self.cost.module.name

    @property
    def stage(self) -> Stage:
        """How far the text was compiled: whether its figures are one device's, and what runs."""
        return stage(self.cost.module)

    @property
    def totals(self) -> Cost:
        """The sum over ops and their executions."""
        return self.cost.totals

    @property
    def hertz(self) -> float | None:
        """The device's clock, in Hz: cycles of anything are its seconds times this."""
        return self.device.clock_hz.value if self.device else None

    @cached_property
    def clock(self) -> Mapping[str, OpClock]:
        """What the compiler itself estimates, by the name of the op; empty where it says nothing."""
        return compiler_clock(self.cost)

    @cached_property
    def verdict(self) -> Verdict:
        """What bounds the program, the ops that matter, and what would change it, by the model's own runs."""
        return verdict(self)

    @property
    def is_timed(self) -> bool:
        """Whether ops have times, predicted or measured."""
        return self.time is not None or self.measured is not None

    def predicted_of(self, op: AttributedOp) -> float | None:
        """Predicted seconds of all executions of an op."""
        found = self.time.by_name.get(op.name) if self.time else None
        return found.seconds if found else None

    def measured_of(self, op: AttributedOp) -> float | None:
        """Measured seconds of all executions of an op."""
        found = self.measured.ops.get(op.name) if self.measured else None
        return found.time.median if found else None

    def by(self, key: Key) -> tuple[TimedRow, ...]:
        """Sums by "role", "layer", "module_path", "source", "pass", "opcode" or "function".

        Rows have `key`, `ops`, `cost`, `predicted` and `measured`; they add up to the sums over ops exactly. A fused
        op's cost is split over its parts; its time stands whole where its largest part does. What has no name is the
        row "unattributed". Layers are in order, all else has the longest time first, or the largest cost without times.
        """
        if key not in KEYS:
            raise UserError(f"by({key!r}): the keys are {', '.join(KEYS)}.{did_you_mean(str(key), KEYS)}")
        homes: dict[str | int, list[AttributedOp]] = {}
        for op in self.ops:
            homes.setdefault(op.largest.key(key), []).append(op)
        rows = []
        for row in breakdown(self.ops, key):
            mine = homes.get(row.key, [])
            cycles = _sum(self.clock[op.name].total_cycles for op in mine if op.name in self.clock)
            rows.append(TimedRow(row.key, row.ops, row.cost, self._predicted(mine), self._measured(mine), cycles))
        if self.is_timed and key != "layer":
            rows.sort(key=_seconds, reverse=True)
        return tuple(rows)

    def alike(self) -> tuple[Alike, ...]:
        """Ops that differ in nothing but their layer as one, the longest time first, or the largest cost."""
        found: dict[object, list[AttributedOp]] = {}
        for op in self.ops:
            found.setdefault((where(op), op.opcode, op.op.cost, op.op.unmodelled), []).append(op)
        groups = []
        for ops in found.values():
            cost = total(op.total for op in ops)
            groups.append(Alike(tuple(ops), where(ops[0]), cost, self._predicted(ops), self._measured(ops)))
        size = share_of(self.totals)
        largest = sorted(groups, key=lambda group: size(group.cost), reverse=True)
        return tuple(sorted(largest, key=_seconds, reverse=True) if self.is_timed else largest)

    def _predicted(self, ops: Iterable[AttributedOp]) -> float | None:
        return _sum(map(self.predicted_of, ops)) if self.time else None

    def _measured(self, ops: Iterable[AttributedOp]) -> float | None:
        return _sum(map(self.measured_of, ops)) if self.measured else None


def analysis_of(
    module: Module,
    *,
    trip_counts: Mapping[str, int] | None = None,
    trips: int | None = None,
    roles: RoleTable | None = None,
    branch_probabilities: Mapping[str, Sequence[float]] | None = None,
    custom_calls: Table | None = None,
    backend: str | None = None,
    compiler: Any = None,
    text: str = "",
    target: str | None = None,
    device: Device | None = None,
    measured: Profile | None = None,
    mesh: Mapping[str, int] | None = None,
    buffers: Buffers | None = None,
) -> Analysis:
    """Returns the analysis of a parsed module.

    Args:
        module: of any backend, optimised or not.
        trip_counts: iterations of loops by name; they go before what the text says.
        trips: iterations of every loop whose length neither these nor the text say.
        roles, branch_probabilities, custom_calls: as of `llmjax.analyze`.
        backend: guessed from the module where it is not given.
        compiler: what XLA's own `cost_analysis()` returned.
        device: that of `target` where it is not given and comes with llmjax.
        measured: the times of the program where it was run.
        mesh: sizes of the axes over which the program is divided, by name, the last one's devices side by side.
        buffers: the memory that the compiler reserves (cost/buffers.py).

    Raises:
        UserError: a name that is no loop or conditional of the module, a negative count, probabilities that do not fit.
    """
    cost = cost_module(module, trip_counts, branch_probabilities, custom_calls)
    if trips is not None and cost.unknown_trip_counts:
        known = {**(trip_counts or {}), **dict.fromkeys(cost.unknown_trip_counts, trips)}
        cost = cost_module(module, known, branch_probabilities, custom_calls)
    device = device or _device_of(target)
    return Analysis(
        cost,
        attribute(cost, roles),
        backend or guess_backend(module),
        compiler_totals(compiler),
        text,
        target,
        device,
        predict(cost, device) if device else None,
        measured,
        mesh or {},
        buffers,
    )


def where(op: AttributedOp) -> str:
    """The module path, with * for the layer's number; the source line where there is none; else the role."""
    path = op.place.module_path or op.place.source.rpartition("/")[2] or op.place.role
    if op.place.layer is not None:
        path = re.sub(rf"(?<=[_/.]){op.place.layer}(?=/|$)", "*", path, count=1)
    return path + (" (bwd)" if op.place.direction == "backward" else "")


def compiler_totals(raw: Any) -> Mapping[str, float] | None:
    """What XLA's own `cost_analysis()` says, under the schema's names; None where it says nothing usable."""
    raw = raw[0] if isinstance(raw, list) and raw else raw
    if not isinstance(raw, Mapping):
        return None
    names = {"flops": "flops", "transcendentals": "transcendentals", "bytes accessed": "bytes"}
    found = {ours: float(raw[theirs]) for theirs, ours in names.items() if theirs in raw}
    return {name: value for name, value in found.items() if 0 <= value < float("inf")} or None


def _device_of(target: str | None) -> Device | None:
    """The device that comes with llmjax for a target (`tpu:v5e:2x2`), None where there is none."""
    known = target is not None and ":".join(target.split(":")[:2]) in device_names()
    return load_device(target) if target is not None and known else None


def _sum(seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None


def _seconds(row: TimedRow | Alike) -> float:
    """What rows with times are ordered by: the measured time where it is known, else the predicted one."""
    return row.measured if row.measured is not None else row.predicted or 0.0
