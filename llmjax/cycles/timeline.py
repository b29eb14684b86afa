"""Ops laid out in time: what asynchronous copies and collectives hide behind, and what is left of them. No JAX import.

An asynchronous op is one that the text starts and ends in two instructions (`all-reduce-start`, `all-reduce-done`), or
a TPU's in two fusions (cost/asynchronous.py). It runs beside what stands between them, and moves its bytes after those
that were started before it on the same way: over the links, or from one memory to another. XLA's memory space
assignment lets copies in and copies out pass one another likewise. Where an end is asked for too early, the rest waits.
Everything else takes its turn.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmjax.cost import asynchronous
from llmjax.cost.values import ModuleCost
from llmjax.hlo.ir import Computation, Instruction, Module


def elapsed(
    cost: ModuleCost,
    seconds: Mapping[tuple[str, str], float],
    starts: Mapping[tuple[str, str], float] | None = None,
    beside: float = 1.0,
) -> float:
    """Seconds of one execution of a module.

    Args:
        seconds: of one execution of an op, by (computation, name); what is not named takes none.
        starts: of these, what an asynchronous op takes before anything moves, while others of its kind still move.
        beside: how fast other ops are while a collective moves, as a share.
    """
    counts: dict[str, float] = {}
    for op in cost.ops:
        counts[op.computation] = max(counts.get(op.computation, 0.0), float(op.count))
    module, times, before = cost.module, _by_computation(seconds), _by_computation(starts or {})
    return sum(
        counts[name] * _once(module, module.computations[name], each, before.get(name, {}), beside)
        for name, each in times.items()
    )


def _by_computation(seconds: Mapping[tuple[str, str], float]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for (computation, name), time in seconds.items():
        found.setdefault(computation, {})[name] = time
    return found


def is_asynchronous(i: Instruction) -> bool:
    """Whether an op runs beside those that follow it, until its `-done`."""
    config = i.backend_config
    inner = config.get("collective_backend_config", {}) if isinstance(config, Mapping) else {}
    synchronous = isinstance(inner, Mapping) and str(inner.get("is_sync", "")).lower() == "true"
    return i.opcode.endswith("-start") and not synchronous


def _once(
    module: Module,
    computation: Computation,
    seconds: Mapping[str, float],
    starts: Mapping[str, float],
    beside: float,
) -> float:
    now = 0.0
    free: dict[object, float] = {}  # from when what moves bytes is free
    ends: dict[object, float] = {}

    def end_of(mover: object, name: str) -> float:
        waits = starts.get(name, 0.0)
        free[mover] = max(now, free.get(mover, 0.0)) + seconds.get(name, 0.0) - waits
        return free[mover] + waits

    for i in computation:
        fused = module.computations.get(i.attr("calls", "")) if i.opcode == "fusion" else None
        stage = asynchronous.stage(fused) if fused else ""
        if fused and stage == "start":
            ends |= dict.fromkeys(asynchronous.chains(fused), end_of(_LINKS, i.name))
        elif fused and stage == "done":
            end = max((ends.get(chain, 0.0) for chain in asynchronous.chains(fused)), default=0.0)
            now = max(now, end) + seconds.get(i.name, 0.0)
        elif is_asynchronous(i):
            ends[i.name] = end_of(_mover(computation, i), i.name)
        elif i.opcode.endswith(("-update", "-done")):
            end = max((ends.get(name, 0.0) for name in i.operands), default=0.0)
            if i.opcode.endswith("-done"):
                now = max(now, end) + seconds.get(i.name, 0.0)
            else:
                ends[i.name] = end
        else:
            now += slowed(seconds.get(i.name, 0.0), free.get(_LINKS, 0.0) - now, beside)
    return max([now, *ends.values()])


def slowed(seconds: float, busy: float, beside: float) -> float:
    """Seconds of what is as fast as `beside` says for the first `busy` seconds and takes `seconds` by itself."""
    return max(seconds, min(seconds / beside, seconds + (1 - beside) * busy))


_LINKS = "links"
_COPIES = ("copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start")


def _mover(computation: Computation, i: Instruction) -> object:
    """What moves an asynchronous op's bytes: the links, or what copies from one memory to another."""
    if i.opcode not in _COPIES:
        return _LINKS
    parts, place = i.shape.tuple_shapes, 0 if i.opcode == "copy-start" else 1
    sources = [part.memory_space for part in computation.operands(i)[0].shape.leaves]
    return max(sources, default=0), parts[place].memory_space if place < len(parts) else 0
