"""Collectives that a TPU's compiler spreads over several fusions, so that they run beside matrix products.

One fusion starts such a collective (its root is a custom call `AsyncCollectiveStart`), others carry it on beside work
of their own, a last one ends it (`AsyncCollectiveDone`). The collective stands in the text of all of them, under one
channel and `chain_id`, and takes place once: it counts where it starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from llmjax.hlo.ir import Computation, Instruction, Module

TARGETS: Mapping[str, Literal["start", "done"]] = {"AsyncCollectiveStart": "start", "AsyncCollectiveDone": "done"}
Chain = tuple[int, str]


def stage(computation: Computation) -> Literal["", "start", "done"]:
    """Whether a fused computation starts a collective that others carry on, or ends one."""
    return TARGETS.get(computation.root.attr("custom_call_target", ""), "")


def chain(instruction: Instruction) -> Chain | None:
    """What an asynchronous collective's parts have in common; None of any other instruction."""
    number = instruction.attr("frontend_attributes", {}).get("chain_id")
    channel = instruction.attr("channel_id")
    return None if number is None or channel is None else (channel, number)


def chains(computation: Computation) -> Iterator[Chain]:
    """The asynchronous collectives of which a computation has a part."""
    for instruction in computation:
        found = chain(instruction)
        if found is not None:
            yield found


def started(module: Module) -> frozenset[Chain]:
    """The collectives that some fusion of a module starts."""
    starts = (c for c in module.computations.values() if stage(c) == "start")
    return frozenset(found for computation in starts for found in chains(computation))


def carried_on(computation: Computation, opened: frozenset[Chain]) -> frozenset[str]:
    """Names of instructions of a fused computation that only carry on, or end, what another fusion started."""
    if not opened or stage(computation) == "start":
        return frozenset()
    names = {i.name for i in computation if chain(i) in opened}
    return frozenset(names | ({computation.root.name} if stage(computation) == "done" else set()))
