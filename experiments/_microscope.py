"""Compiles, and runs, the microscope's program: a child process, whose XLA_FLAGS are set before JAX starts.

`python -m experiments._microscope FOLDER` reads FOLDER/request.json and writes FOLDER/result.json and
FOLDER/program.hlo; XLA writes the dump where the flags say.
"""

import json
import sys
from pathlib import Path
from typing import Any

from experiments._programs import Shape, build
from llmjax.cycles import probe
from llmjax.cycles.profile import check_arguments, profile
from llmjax.errors import UserError
from llmjax.targets.local import compile_here

CLOCK_RUNS = 3


def answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Compiles the phase that `shape` of the request names, and measures it `runs` times if that is not 0.

    The HLO goes to program.hlo: in a dump, newer XLA writes tuples' elements in a short form of its own.
    """
    phase = build(Shape(**request["shape"]))
    if request["runs"]:
        check_arguments(*phase.args)
    program = compile_here(phase.function, *phase.args)
    (folder / "program.hlo").write_text(program.text)
    name = program.text.partition(",")[0].split()[1]
    found: dict[str, Any] = {"summary": phase.summary, "module": name, "trips": phase.trips}
    found["caches"] = [(name, size.value) for name, size in probe.caches()]
    if request["runs"]:
        measured = profile(program.executable, *phase.args, runs=request["runs"])
        found["profile"] = {
            "wall": _times(measured.wall),
            "traced": _times(measured.traced),
            "covered": measured.covered,
            "ops": {op.name: [_times(op.time), op.calls, list(op.threads)] for op in measured.ops.values()},
        }
        if request["clock"]:
            clock = probe.core_clock("cpu", CLOCK_RUNS)
            found["clock"] = [clock.value, clock.provenance, clock.source]
    return found


def _times(measured: Any) -> list[float]:
    return [measured.median, measured.low, measured.high]


def main(folder: Path) -> None:
    try:
        result = answer(json.loads((folder / "request.json").read_text()), folder)
    except UserError as error:
        result = {"error": str(error)}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
