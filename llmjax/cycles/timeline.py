"""Ops laid out in time: what asynchronous copies and collectives hide behind, and what is left of them. No JAX import.

An asynchronous op is one that the text starts and ends in two instructions (`all-reduce-start`, `all-reduce-done`), or
a TPU's in two fusions (cost/asynchronous.py). It runs beside what stands between them, one after another with others of
its kind; where its end is asked for too early, the rest waits. Everything else takes its turn.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmjax.cost import asynchronous
from llmjax.cost.values import ModuleCost
from llmjax.hlo.ir import Computation, Instruction, Module


def elapsed(cost: ModuleCost, seconds: Mapping[tuple[str, str], float]) -> float:
    """Seconds of one execution of a module.

    Args:
        seconds: of one execution of an op, by (computation, name); what is not named takes none.
    """
    by_computation: dict[str, dict[str, float]] = {}
    counts: dict[str, float] = {}
    for op in cost.ops:
        counts[op.computation] = max(counts.get(op.computation, 0.0), float(op.count))
    for (computation, name), time in seconds.items():
        by_computation.setdefault(computation, {})[name] = time
    module = cost.module
    return sum(counts[name] * _once(module, module.computations[name], each) for name, each in by_computation.items())


def is_asynchronous(i: Instruction) -> bool:
    """Whether an op runs beside those that follow it, until its `-done`."""
    config = i.backend_config
    inner = config.get("collective_backend_config", {}) if isinstance(config, Mapping) else {}
    synchronous = isinstance(inner, Mapping) and str(inner.get("is_sync", "")).lower() == "true"
    return i.opcode.endswith("-start") and not synchronous


def _once(module: Module, computation: Computation, seconds: Mapping[str, float]) -> float:
    now, free = 0.0, 0.0  # what has passed, and from when the copies' engine and the links are free
    ends: dict[object, float] = {}
    for i in computation:
        fused = module.computations.get(i.attr("calls", "")) if i.opcode == "fusion" else None
        stage = asynchronous.stage(fused) if fused else ""
        if fused and stage == "start":
            free = max(now, free) + seconds.get(i.name, 0.0)
            ends |= dict.fromkeys(asynchronous.chains(fused), free)
        elif fused and stage == "done":
            end = max((ends.get(chain, 0.0) for chain in asynchronous.chains(fused)), default=0.0)
            now = max(now, end) + seconds.get(i.name, 0.0)
        elif is_asynchronous(i):
            free = ends[i.name] = max(now, free) + seconds.get(i.name, 0.0)
        elif i.opcode.endswith(("-update", "-done")):
            end = max((ends.get(name, 0.0) for name in i.operands), default=0.0)
            if i.opcode.endswith("-done"):
                now = max(now, end) + seconds.get(i.name, 0.0)
            else:
                ends[i.name] = end
        else:
            now += seconds.get(i.name, 0.0)
    return max([now, *ends.values()])
