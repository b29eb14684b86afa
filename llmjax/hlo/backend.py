"""Which compiler wrote a module, from what it alone writes."""

from __future__ import annotations

from llmjax.hlo.ir import Instruction, Module

_GPU = frozenset({"operation_queue_id", "fusion_backend_config", "gemm_backend_config", "collective_backend_config"})
_CPU = frozenset({"outer_dimension_partitions", "fusion_config"})


def guess_backend(module: Module) -> str | None:
    """Returns "tpu", "gpu" or "cpu", of which the module has most marks, else None.

    Tiled layouts and `window_config` are XLA:TPU's; queues and library configs XLA:GPU's; the parts that a loop is cut
    into and LAPACK calls XLA:CPU's.
    """
    votes = {"tpu": 0, "gpu": 0, "cpu": 0}
    for computation in module.computations.values():
        for i in computation:
            for backend in _marks(i):
                votes[backend] += 1
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] else None


def _marks(i: Instruction) -> tuple[str, ...]:
    config = i.backend_config if isinstance(i.backend_config, dict) else {}
    layout = i.shape.layout
    found = ("tpu",) if (layout is not None and layout.tiles) or "window_config" in config else ()
    if config:
        found += ("gpu",) if _GPU & config.keys() else ()
        found += ("cpu",) if _CPU & config.keys() else ()
    return (*found, "cpu") if i.custom_call_target.startswith("lapack_") and "cpu" not in found else found
