"""How wrong the cycle model is: predicted against measured times, end to end and per op, beside two baselines."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmjax.cost.values import ModuleCost, OpCost
from llmjax.cycles.device import Device, peak
from llmjax.cycles.features import features


@dataclass(frozen=True, slots=True)
class OpCase:
    """An op of a validated program: predicted and measured seconds of all its executions, and what else is known.

    `spread` is the distance between the quartiles relative to the median, `beside` the share of its time in which
    another op ran too, `rounds` the median of each round of measurement.
    """

    program: str
    name: str
    term: str
    role: str
    predicted: float
    measured: float
    spread: float
    bound: str
    roofline: float
    xla: float
    beside: float = 0.0
    rounds: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        return abs(self.predicted - self.measured) / self.measured


@dataclass(frozen=True)
class Case:
    """A validated program: seconds of one run. `low` and `high` are the quartiles of the measurement."""

    name: str
    phase: str
    predicted: float
    measured: float
    low: float
    high: float
    covered: float
    roofline: float
    xla: float
    ops: tuple[OpCase, ...]
    rounds: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        return abs(self.predicted - self.measured) / self.measured


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """Figures over all cases: absolute percentage errors as fractions, rank correlations, baselines.

    `repeated` are the same figures of the machine against itself: every other round of measurement taken as if it were
    the prediction of the rest. No model can be expected to do better.
    """
    again = repeated(cases)
    return {
        "programs": len(cases),
        "ops": sum(len(case.ops) for case in cases),
        **figures(cases),
        "by_phase": {
            phase: _errors([(c.predicted, c.measured) for c in cases if c.phase == phase])
            for phase in dict.fromkeys(c.phase for c in cases)
        },
        "repeated": figures(again) if again else None,
        "spread": statistics.median((c.high - c.low) / c.measured for c in cases),
        "baselines": {
            "roofline": _errors([(c.roofline, c.measured) for c in cases]),
            "xla_cpu_model": _errors([(c.xla, c.measured) for c in cases]),
        },
    }


LARGE = 0.002  # of its program's time: what "large" ops take at least


def figures(cases: Sequence[Case]) -> dict[str, Any]:
    """Errors end to end, per op, by role and by kind of work, and rank correlations."""
    ops = [op for case in cases for op in case.ops]
    large = {id(op) for case in cases for op in case.ops if op.measured >= LARGE * case.measured}
    ranks = [kendall([op.predicted for op in case.ops], [op.measured for op in case.ops]) for case in cases]

    def of(chosen: Sequence[OpCase]) -> dict[str, float]:
        some = [op.error for op in chosen if id(op) in large]
        errors = [op.error for op in chosen]
        return {
            "ops": len(chosen),
            "time_weighted": weighted_error(chosen),
            "mean": statistics.fmean(errors),
            "median": statistics.median(errors),
            "large": len(some),
            "large_mean": statistics.fmean(some) if some else 0.0,
        }

    return {
        "end_to_end": _errors([(c.predicted, c.measured) for c in cases]),
        "per_op": of(ops),
        "by_role": {role: of([op for op in ops if op.role == role]) for role in sorted({op.role for op in ops})},
        "by_term": {term: of([op for op in ops if op.term == term]) for term in sorted({op.term for op in ops})},
        "kendall_tau": {"median": statistics.median(ranks), "lowest": min(ranks)},
    }


def repeated(cases: Sequence[Case]) -> list[Case]:
    """The cases with every other round of measurement as the prediction of the rest, where there are two rounds."""
    found = []
    for case in cases:
        ops = tuple(_halves(op) for op in case.ops if len(op.rounds) > 1 and all(op.rounds))
        if len(case.rounds) > 1 and ops:
            found.append(replace(_halves(case), ops=ops))
    return found


def _halves(case: Any) -> Any:
    first, second = (statistics.median(case.rounds[start::2]) for start in (0, 1))
    return replace(case, predicted=first, measured=second)


def worst(cases: Sequence[Case], count: int = 10) -> list[OpCase]:
    """The ops whose predictions are off by the most seconds."""
    ops = [op for case in cases for op in case.ops]
    return sorted(ops, key=lambda op: -abs(op.predicted - op.measured))[:count]


def reason(op: OpCase) -> str:
    """Why a prediction may be off, by what is known of the op."""
    ratio = op.predicted / op.measured
    if op.spread > abs(math.log(ratio)):
        return f"its own runs differ by {op.spread:.0%}"
    side = "too slow" if ratio > 1 else "too fast"
    what = {
        "gemm": "the library's choice of kernel for this size",
        "gemv": "how much of the weights stays in a cache",
        "loop": "what of its operands is still in a cache, and vector code that the rates are not of",
        "reduce": "the order of the reduction",
        "move": "how much of the copy is in a cache or in new pages",
        "gather": "where the rows lie",
    }
    return (
        f"predicted {side} by {max(ratio, 1 / ratio):.2f}x, bound {op.bound}: {what.get(op.term, 'its kind of work')}"
    )


def _errors(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    errors = [abs(predicted - measured) / measured for predicted, measured in pairs]
    return {"median": statistics.median(errors), "mean": statistics.fmean(errors), "max": max(errors)}


def weighted_error(ops: Sequence[OpCase]) -> float:
    """Mean absolute percentage error, each op weighing as much as it took, as a fraction."""
    whole = sum(op.measured for op in ops)
    return sum(abs(op.predicted - op.measured) for op in ops) / whole if whole else 0.0


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two rankings; 1.0 where there are fewer than two."""
    from scipy.stats import kendalltau

    result: Any = kendalltau(first, second) if len(first) > 1 else (1.0, 0.0)
    found = float(result[0])
    return 0.0 if math.isnan(found) else found


def roofline(cost: ModuleCost, device: Device) -> dict[str, float]:
    """The plain roofline by op: the larger of FLOPs at peak and bytes at the main memory's bandwidth."""
    found = {}
    for f in features(cost, device):
        compute = f.matmul / peak(device.matmul, f.dtype).value + f.vector / peak(device.vector, f.dtype).value
        found[f.name] = max(compute, sum(f.bytes) / device.main_memory.bandwidth.value) * f.count
    return found


# XLA's own performance model of CPUs, as its C++ source has it: 8 cores of 3 GHz with 16 units each, 100 GB/s, 1 MB of
# L2, caches four times as fast as memory, 95% overlap; operations an element by opcode.
_XLA_OPERATIONS: Mapping[str, float] = {
    "divide": 8,
    "sqrt": 10,
    "rsqrt": 10,
    **dict.fromkeys(("exponential", "tanh", "erf", "log"), 15),
    "power": 20,
}
_XLA_RATE, _XLA_DRAM, _XLA_L2, _XLA_OVERLAP = 8 * 3e9 * 16, 100e9, 2**20, 0.95


def xla_cpu_model(op: OpCost) -> float:
    """Seconds by XLA's own CPU performance model, for all executions."""
    parts = op.fused or (op,)
    work = 0.0
    for part in parts:
        cost, weight = part.cost, _XLA_OPERATIONS.get(part.instruction.opcode, 1)
        work += float(cost.matmul_flops) + (float(cost.vector_flops) + float(cost.transcendentals)) * weight
    size = float(op.cost.bytes)
    compute, memory = work / _XLA_RATE, size / (_XLA_DRAM * (4 if size <= _XLA_L2 else 1))
    return (max(compute, memory) + (1 - _XLA_OVERLAP) * min(compute, memory)) * float(op.count)
