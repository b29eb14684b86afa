"""What `llmjax.analyze` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmjax.cost import ModuleCost, cost_module
from llmjax.cost.attribution import KEYS, AttributedOp, Key, Row, attribute, breakdown
from llmjax.cost.names import RoleTable
from llmjax.cost.values import Cost
from llmjax.cycles.device import Device, device_names, load_device
from llmjax.cycles.measured import Profile
from llmjax.cycles.model import ProgramTime, predict
from llmjax.errors import UserError, did_you_mean
from llmjax.hlo import Module
from llmjax.report import export, table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class CostReport:
    """The cost of one execution of a program on one device, op by op and by whose it is.

    `ops` are in the order of the program; each has `name`, `opcode`, `count` (executions), `total` (cost of them all),
    `op.cost` (of one), `place` and `parts`. `compiler` has XLA's own totals (`flops`, `transcendentals`, `bytes`) where
    the program was compiled here, for comparison: XLA counts a loop's body once and most library calls as nothing.
    `text` is the HLO, `target` the chip it was compiled for where one was named, `device` the numbers of that chip;
    with it `time` has the predicted seconds, op by op. `measured` has measured ones where the program was run. Printed,
    it is one screen; in a notebook, a table.
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

    @property
    def name(self) -> str:
        """The module's name."""
        return self.cost.module.name

    @property
    def totals(self) -> Cost:
        """The sum over ops and their executions."""
        return self.cost.totals

    def by(self, key: Key) -> tuple[Row, ...]:
        """Sums by "role", "layer", "module_path", "source", "pass", "opcode" or "function".

        Rows have `key`, `ops` and `cost`; costs add up to `totals` exactly. What has no name is the row "unattributed".
        """
        if key not in KEYS:
            raise UserError(f"by({key!r}): the keys are {', '.join(KEYS)}.{did_you_mean(str(key), KEYS)}")
        return breakdown(self.ops, key)

    def to_json(self) -> str:
        """The whole report as JSON; docs/cost-json.md has its schema."""
        return export.to_json(self)

    def to_csv(self) -> str:
        """One line an op."""
        return export.to_csv(self)

    def to_pandas(self) -> pandas.DataFrame:
        """One row an op, with the columns of `to_csv`. Raises UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise UserError("to_pandas() needs pandas, which is not installed: pip install pandas.") from error
        return pandas.DataFrame.from_records(export.records(self))

    def __repr__(self) -> str:
        return table.to_text(self)

    def _repr_html_(self) -> str:
        return table.to_html(self)


def cost_report(
    module: Module,
    trip_counts: Mapping[str, int] | None = None,
    roles: RoleTable | None = None,
    branch_probabilities: Mapping[str, Sequence[float]] | None = None,
    backend: str | None = None,
    compiler: Any = None,
    text: str = "",
    target: str | None = None,
    device: Device | None = None,
    measured: Profile | None = None,
) -> CostReport:
    """Returns the report of a parsed module. `backend` is guessed from the module where it is not given.

    `device` is that of `target` where it is not given and comes with llmjax.
    """
    cost = cost_module(module, trip_counts, branch_probabilities)
    figures = export.compiler_figures(compiler)
    device = device or _device_of(target)
    time = predict(cost, device) if device else None
    backend = backend or guess_backend(module)
    return CostReport(cost, attribute(cost, roles), backend, figures, text, target, device, time, measured)


def _device_of(target: str | None) -> Device | None:
    """The device that comes with llmjax for a target (`tpu:v5e:2x2`), None where there is none."""
    known = target is not None and ":".join(target.split(":")[:2]) in device_names()
    return load_device(target) if target is not None and known else None


def guess_backend(module: Module) -> str | None:
    """Returns "tpu", "gpu" or "cpu" where something in the module is only written for that one, else None."""
    votes = {"tpu": 0, "gpu": 0, "cpu": 0}
    for computation in module.computations.values():
        for i in computation:
            config = i.backend_config if isinstance(i.backend_config, dict) else {}
            target = i.custom_call_target
            layout = i.shape.layout
            if (layout is not None and layout.tiles) or "window_config" in config:
                votes["tpu"] += 1
            if {"operation_queue_id", "fusion_backend_config", "gemm_backend_config"} & config.keys():
                votes["gpu"] += 1
            if {"outer_dimension_partitions", "fusion_config"} & config.keys() or target.startswith("lapack_"):
                votes["cpu"] += 1
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] else None
