"""The compiler's own clock: what XLA wrote into the HLO text about how long each op takes. No JAX import.

TPU text has `estimated_cycles` in an op's window_config. GPU text, compiled with --xla_gpu_collect_cost_model_stats,
has `reification_cost`: one entry a model, and the models disagree with one another by far. They are models, not
measurements: of both chips some entries are absurd.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmjax.cost.values import ModuleCost, Number
from llmjax.hlo.ir import Instruction

TPU_MODEL = "estimated_cycles"
# XLA's names of its GPU models, the first that an op has counts: the one for matrix products is silent about others,
# and the general one ("" in the text: GpuPerformanceModel) counts a product in a Triton fusion as next to nothing.
GPU_MODELS = {
    "experimental-gemm-cost-model": "experimental-gemm-cost-model",
    "": "gpu-performance-model",
    "indexing-cost-model": "indexing-cost-model",
}


@dataclass(frozen=True, slots=True)
class OpClock:
    """What the compiler says of one op: cycles and seconds of one execution, by which of its models.

    `seconds` is None where the text has cycles only (TPU): divide by the clock of the chip.
    """

    name: str
    count: Number
    cycles: float
    seconds: float | None
    model: str

    @property
    def total_cycles(self) -> float:
        """Of all executions."""
        return self.cycles * self.count


@dataclass(frozen=True, slots=True)
class Agreement:
    """Predicted cycles beside the compiler's, over the ops that have both.

    `median_ratio` is predicted / compiler's; `kendall` and `spearman` are rank correlations, None where there are fewer
    than two different values. `worst` are (name, predicted, compiler's) of the ops whose ratio is furthest from 1.
    """

    ops: int
    median_ratio: float | None
    kendall: float | None
    spearman: float | None
    worst: tuple[tuple[str, float, float], ...]


def compiler_clock(cost: ModuleCost) -> dict[str, OpClock]:
    """Returns the compiler's estimate of every op that runs and has one, by name; of CPU text nothing."""
    found = {}
    for op in cost.ops:
        estimate = _estimate(op.instruction)
        if estimate is not None and op.count:
            found[op.name] = OpClock(op.name, op.count, *estimate)
    return found


def total_cycles(clock: Mapping[str, OpClock]) -> float | None:
    """Cycles of all ops one after another; None where the compiler says nothing."""
    return sum(op.total_cycles for op in clock.values()) if clock else None


def models(clock: Mapping[str, OpClock]) -> tuple[str, ...]:
    """The compiler's models that were used, the one of most ops first."""
    counts: dict[str, int] = {}
    for op in clock.values():
        counts[op.model] = counts.get(op.model, 0) + 1
    return tuple(sorted(counts, key=lambda name: -counts[name]))


def agreement(clock: Mapping[str, OpClock], predicted: Mapping[str, float], worst: int = 10) -> Agreement:
    """Compares `predicted` (cycles of all executions, by op) with the compiler's; `worst` is how many ops to name."""
    from scipy.stats import kendalltau, spearmanr

    both = [(name, predicted[name], op.total_cycles) for name, op in clock.items() if predicted.get(name, 0) > 0]
    both = [row for row in both if row[2] > 0]
    ours, theirs = [row[1] for row in both], [row[2] for row in both]
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) if both else None
    ranked = len(set(ours)) > 1 and len(set(theirs)) > 1
    tau = float(kendalltau(ours, theirs)[0]) if ranked else None  # pyright: ignore[reportArgumentType]
    rho = float(spearmanr(ours, theirs)[0]) if ranked else None  # pyright: ignore[reportArgumentType]
    both.sort(key=lambda row: abs(math.log(row[1] / row[2])), reverse=True)
    return Agreement(len(both), ratio, tau, rho, tuple(both[:worst]))


def scheduled_cycles(instruction: Instruction) -> float:
    """Cycles of one execution by a TPU's compiler; 0 where it says nothing."""
    estimate = _estimate(instruction)
    return estimate[0] if estimate and estimate[2] == TPU_MODEL else 0.0


def _estimate(instruction: Instruction) -> tuple[float, float | None, str] | None:
    """(cycles, seconds, model) of one execution."""
    config = instruction.backend_config
    if not isinstance(config, Mapping):
        return None
    window = config.get("window_config")
    if isinstance(window, Mapping):
        cycles = _number(window.get("estimated_cycles"))
        return (cycles, None, TPU_MODEL) if cycles else None
    entries = config.get("reification_cost")
    if not isinstance(entries, list):
        return None
    by_name = {str(e.get("name", "")): e for e in entries if isinstance(e, Mapping)}
    for name, model in GPU_MODELS.items():
        entry: Mapping[str, Any] = by_name.get(name, {})
        cycles = _number(entry.get("end_to_end_cycles"))
        if cycles:
            return cycles, (_number(entry.get("exec_time_us")) or 0.0) / 1e6 or None, model
    return None


def _number(value: Any) -> float | None:
    """A finite number of at least 0; protos write 64-bit integers as text. None for all else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < math.inf else None
