"""What the clock job times: one step of a GPT-2 in one way of running it, in a process where threads and flags are so.

No JAX import: a child limits its processors and sets XLA's flags before JAX is there.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from llmjax.cycles.measured import Measured
from llmjax.errors import UserError
from llmjax.files import cache_folder
from llmjax.processes import child

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("decode", "prefill", "generate", "classify", "embed")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time, with random weights.

    model: a size of `llmjax.models.SIZES`. phase: "decode" (one more token a row), "prefill", "generate" (a prompt
    and `new_tokens` after it), "classify", "embed" (a vector a text: the mean of the last layer's tokens).
    batch, length: rows, and tokens a row: of the prompt, the text, or the cache that a decode step reads.
    dtype: of weights and products: float32, bfloat16, and int8 where `prepared`.
    prepared: weights as `infer.prepare` arranges them; else as the model stores them, in plain products. Of phases that
        generate: classify and embed have one arrangement only.
    written_out: products of decode as multiplications and sums, which XLA compiles itself; else as a library does them.
    jit: one compiled program; else each JAX primitive is compiled and run by itself.
    cached: decode reads a KV cache; else the model runs over all `length` tokens for the next one.
    threads: processors that the process may use; 0 = all.
    flags: XLA_FLAGS, after those that are set already.
    kv_cache: "int8" keeps keys and values in 8 bits. pruned: what the model has lost, "mlp-50" half of its MLPs'
        channels; "heads-" and "layers-" too.
    fresh: compiled anew, though XLA's cache on disk may have it, so that `compile_seconds` is the compiler's time.
    """

    model: str
    phase: str
    batch: int
    length: int
    dtype: str = "float32"
    prepared: bool = True
    written_out: bool = False
    jit: bool = True
    cached: bool = True
    threads: int = 0
    flags: str = ""
    new_tokens: int = 0
    fresh: bool = False
    kv_cache: str = ""
    pruned: str = ""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"phase {self.phase!r} is none of {', '.join(PHASES)}")
        if (self.phase == "generate") != (self.new_tokens > 0):
            raise ValueError(f"phase {self.phase!r} with new_tokens={self.new_tokens}")

    @property
    def tokens(self) -> int:
        """Tokens of all rows that one execution works on: the new ones of decode and generate, else all."""
        return self.batch * {"decode": 1, "generate": self.new_tokens}.get(self.phase, self.length)

    @property
    def name(self) -> str:
        """The case in words."""
        words = [self.model, self.phase, f"batch {self.batch}", f"length {self.length}", self.dtype]
        words += [f"{self.kv_cache} keys and values"] if self.kv_cache else []
        words += [f"{self.pruned}% pruned"] if self.pruned else []
        ways = ((self.prepared, "weights as stored"), (self.jit, "op by op"), (self.cached, "no cache"))
        words += [what for is_so, what in ways if not is_so]
        words += ["products written out"] if self.written_out else []
        words += [f"{self.threads} thread{'s' if self.threads > 1 else ''}"] if self.threads else []
        # Where XLA leaves its files changes nothing of what it does.
        flags = " ".join(flag for flag in self.flags.split() if not flag.startswith("--xla_dump"))
        return ", ".join([*words, *([flags] if flags else [])])


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one execution of a case took and costs.

    seconds: of one execution, median and quartiles. compile_seconds: tracing and compiling, or reading from XLA's cache
    on disk; of a case that is not jitted, its first execution. flops, bytes, ops: of the very program, counted by
    llmjax; ops are executions of HLO ops, of a case that is not jitted of JAX primitives. peak_bytes: memory that the
    process came to hold with the case (weights, cache, temporaries), None where the system does not say.
    """

    seconds: Measured
    compile_seconds: float
    flops: float
    bytes: float
    ops: float
    peak_bytes: float | None


def measure_cases(cases: Iterable[Case], runs: int, say: Say = lambda line: None) -> dict[Case, Timing]:
    """Times cases, each in a process where its threads and flags hold: one process for all cases that share them.

    Args:
        cases: what to time; each once, in this order within a process.
        runs: repetitions; fewer of what takes many seconds.
        say: told which case is being timed.

    Raises:
        UserError: a case failed; the line says which and why.
    """
    found, failed = attempt_cases(cases, runs, say)
    for case, reason in failed.items():
        raise UserError(f"timing {case.name} failed: {reason}")
    return found


def attempt_cases(
    cases: Iterable[Case], runs: int, say: Say = lambda line: None
) -> tuple[dict[Case, Timing], dict[Case, str]]:
    """`measure_cases` that goes on: returns the timings, and of cases that failed a line that says why."""
    groups: dict[tuple[int, str, bool], list[Case]] = {}
    for case in dict.fromkeys(cases):
        groups.setdefault((case.threads, case.flags, case.fresh), []).append(case)
    found: dict[Case, Timing] = {}
    failed: dict[Case, str] = {}
    for group in groups.values():
        _serve(group, runs, say, found, failed)
    return found, failed


def _serve(cases: Sequence[Case], runs: int, say: Say, found: dict[Case, Timing], failed: dict[Case, str]) -> None:
    """Times cases of one environment in one child."""
    command = [sys.executable, "-m", "experiments.clock_parts.worker"]
    request = {"runs": runs, "threads": cases[0].threads, "cases": [dataclasses.asdict(case) for case in cases]}
    with tempfile.TemporaryFile("w+") as complaints:
        # `communicate` would read both pipes to the end; the answers are to be told as they come.
        with child(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=ROOT,
            env=environment(cases[0]),
        ) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            try:
                worker.stdin.write(json.dumps(request))
                worker.stdin.close()
            except BrokenPipeError:
                pass
            waiting = list(cases)
            while waiting:
                say(f"timing {waiting[0].name}")
                line = worker.stdout.readline()
                if not line:
                    break
                case, answer = waiting.pop(0), json.loads(line)
                if "error" in answer:
                    failed[case] = answer["error"]
                else:
                    found[case] = Timing(**(answer | {"seconds": Measured(**answer["seconds"])}))
        complaints.seek(0)
        for case in waiting:
            failed[case] = _death(worker.returncode, complaints.read().strip().splitlines())


def _death(status: int, said: list[str]) -> str:
    """One line on a child that ended without an answer."""
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    telling = [line for line in said if "rror" in line or "nknown flag" in line or "Check failed" in line]
    last = (telling or said)[-1] if said else "it printed nothing"
    return f"its process ended ({how}): {last.strip()[:300]}"


def environment(case: Case) -> dict[str, str]:
    """Environment variables of the process that times a case.

    XLA's cache on disk does not tell programs for one thread from those for all: each number has a folder of its own.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_folder() / "xla")
    cache = f"{folder}-{case.threads}" if case.threads else folder
    flags = f"{os.environ.get('XLA_FLAGS', '')} {case.flags}".strip()
    settings: dict[str, Any] = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache, "XLA_FLAGS": flags}
    if case.fresh:
        settings["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return {**os.environ, **settings}
