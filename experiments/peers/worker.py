"""A contestant's process: `python -m experiments.peers.worker NAME FOLDER FORMAT THREADS MESH`.

MESH is the devices of each axis, "2,1,4", that llmjax divides its work over.

Reads a case as a JSON line from standard input, runs it once, answers with a JSON line on standard output, until the
input ends. What libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

from experiments.peers.case import Case
from llmjax.allocator import keep_freed_memory
from llmjax.processes import leave_with_parent

MODULES = {
    "llmjax": "experiments.peers.ours",
    "transformers": "experiments.peers.torch_hf",
    "ctranslate2": "experiments.peers.ct2",
    "llama.cpp": "experiments.peers.llama",
    "machine": "experiments.peers.machine",
}


def main(name: str, folder: str, format: str, threads: int, mesh: str) -> None:
    """Serves cases until standard input ends. An exception is answered as {"error"}, and serving goes on."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    leave_with_parent()
    if name != "llmjax":
        serve(name, folder, format, threads, answers)
        return
    from llmjax.parallel.mesh import MeshConfig, make_mesh, on_mesh

    keep_freed_memory()  # as launch.py does
    with on_mesh(make_mesh(MeshConfig(*map(int, mesh.split(","))))):
        serve(name, folder, format, threads, answers)


def serve(name: str, folder: str, format: str, threads: int, answers: TextIO) -> None:
    """Runs the cases of standard input, and writes the answers."""
    began = time.perf_counter()
    contestant: Any = None
    for line in sys.stdin:
        try:
            if contestant is None:
                contestant = importlib.import_module(MODULES[name]).Contestant(folder, format, threads)
                began = time.perf_counter() - began
            timing = contestant.run(Case(*json.loads(line)))
            answer = {"seconds": timing.seconds, "once": timing.once, "load": began}
        except Exception as error:  # whatever a foreign library raises
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
