"""The process that times cases of one environment: `python -m experiments.clock_parts.worker`.

Reads {"runs", "threads", "cases"} as JSON from standard input, and answers a JSON line a case, in order, on standard
output: a Timing, or {"error"}. What libraries print goes to standard error.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from experiments.clock_parts.cases import Case, Timing
from llmjax.allocator import keep_freed_memory
from llmjax.cycles.measured import measured
from llmjax.processes import leave_with_parent

ENOUGH = 10.0  # seconds of repetitions after which there are no more


def main() -> None:
    """Serves one request."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    leave_with_parent()
    keep_freed_memory()  # as launch.py does
    request = json.load(sys.stdin)
    if request["threads"]:
        limit_threads(request["threads"])
    for values in request["cases"]:
        try:
            answer = dataclasses.asdict(time_case(Case(**values), request["runs"]))
        except Exception as error:  # whatever XLA raises is told in the parent, as one line
            lines = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {lines[0][:300]}"}
        answers.write(json.dumps(answer) + "\n")


def limit_threads(count: int) -> None:
    """Leaves this process `count` of its processors; XLA makes as many threads as it may use."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("Error: this system cannot keep a process to some of its processors")
    cpus = sorted(os.sched_getaffinity(0))
    if count > len(cpus):
        raise SystemExit(f"Error: {count} threads are more than the {len(cpus)} processors that there are")
    os.sched_setaffinity(0, cpus[:count])


def time_case(case: Case, runs: int) -> Timing:
    """Compiles a case, counts what it computes and moves, and times it, with random weights."""
    import jax

    from experiments.clock_parts.programs import build_case, op_by_op

    before = _reset_peak()
    made = build_case(case)
    began = time.perf_counter()
    lowered = made.function.lower(*jax.tree.map(_abstract, made.args))
    program, dispatches = (lowered.compile(), None) if case.jit else op_by_op(made.plain, made.args)
    compiling = time.perf_counter() - began
    seconds: list[float] = []
    least = 1 if case.jit else 2  # op by op the first run compiles, and its time would mean nothing
    args = made.args
    while len(seconds) < least or (len(seconds) < runs + 1 and sum(seconds) < ENOUGH):
        began = time.perf_counter()
        outputs = jax.block_until_ready(program(*args))
        seconds.append(time.perf_counter() - began)
        args = made.following(outputs, args)
    peak = _status("VmHWM:")
    held = None if before is None or peak is None else float(peak - before)
    # The first run touches its memory for the first time; where there is no other, it has to do.
    kept = seconds[1:] or seconds
    flops, moved, ops = count(program.as_text() if case.jit else lowered.as_text(dialect="hlo"), made.trips)
    return Timing(measured(kept), compiling if case.jit else seconds[0], flops, moved, float(dispatches or ops), held)


def count(text: str, trips: int | None) -> tuple[float, float, float]:
    """FLOPs, bytes and executed ops of one execution of HLO text; `trips` of the loops whose length it does not say.

    Text from before XLA fuses is what runs op by op: every op reads its operands from memory and writes its result.
    """
    from llmjax.analysis import analysis_of
    from llmjax.hlo import parse

    report = analysis_of(parse(text), trips=trips)
    totals = report.totals
    return (
        float(totals.flops),
        float(totals.bytes_read + totals.bytes_written),
        float(sum(op.count for op in report.ops)),
    )


def _abstract(leaf: Any) -> Any:
    import jax

    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _reset_peak() -> int | None:
    """Bytes that the process holds now; its peak is counted from here. None where the system does not say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS:")


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(field)]
    return int(found[0][1]) * 1024 if found else None


if __name__ == "__main__":
    main()
