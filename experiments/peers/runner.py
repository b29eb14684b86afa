"""Runs contestants as child processes, a case at a time, interleaved."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.peers.case import Case
from llmjax.parallel.mesh import AXES
from llmjax.processes import child

ROOT = Path(__file__).resolve().parents[2]
START_PROMPT = "The meaning of life is"


class Entry(NamedTuple):
    """A contestant: the package it needs, its format of each width, the kinds it runs and the most rows at a time."""

    name: str
    package: str
    formats: dict[str, str]
    kinds: tuple[str, ...]
    rows: int
    distribution: str = ""  # that pip knows and can build from source


_ALL = ("decode", "prefill", "classify", "train", "start")
_OURS = {"float32": "float32", "16-bit": "bfloat16", "8-bit": "int8", "4-bit": "int4"}
_LLAMA = {"float32": "f32", "16-bit": "f16", "8-bit": "q8_0", "4-bit": "q4_1"}
ENTRIES = (
    Entry("llmjax", "jax", _OURS, _ALL, 1 << 20),
    Entry("transformers", "torch", {"float32": "float32", "16-bit": "bfloat16"}, _ALL, 1 << 20),
    Entry("ctranslate2", "ctranslate2", {"float32": "float32", "8-bit": "int8"}, _ALL[:2], 1 << 20),
    Entry("llama.cpp", "llama_cpp", _LLAMA, _ALL[:2], 1, "llama-cpp-python"),
)
PEERS = tuple(entry.name for entry in ENTRIES[1:])


class Contestant(NamedTuple):
    """A contestant in one format: what one process holds."""

    name: str
    format: str


class Failed(Exception):
    """A contestant's process ended, or answered with an error; the message says which."""


class Workers:
    """The processes that are running; a context manager that ends them."""

    def __init__(self, folder: Path, log: Path, threads: int, peer_python: str, mesh: Mapping[str, int]) -> None:
        self.folder, self.threads, self.peer_python, self.mesh = folder, threads, peer_python, mesh
        self.log = log.open("w")
        self.processes: dict[Contestant, subprocess.Popen[str]] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for process in self.processes.values():
                process.kill()
        self.keep(())
        self.log.close()

    def keep(self, contestants: tuple[Contestant, ...]) -> None:
        """Ends the processes of all other contestants: their memory is for those to come."""
        for contestant in [key for key in self.processes if key not in contestants]:
            process = self.processes.pop(contestant)
            with contextlib.suppress(OSError):
                process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]

    def run(self, contestant: Contestant, case: Case) -> dict[str, float]:
        """Runs a case once and returns {"seconds", "once", "load"}; raises `Failed`."""
        if contestant not in self.processes:
            python = self.peer_python if contestant.name in PEERS else sys.executable
            sizes = ",".join(str(self.mesh[axis]) for axis in AXES)
            arguments = [contestant.name, str(self.folder), contestant.format, str(self.threads), sizes]
            self.processes[contestant] = subprocess.Popen(
                [python, "-m", "experiments.peers.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                cwd=ROOT,
                env=environment(contestant.name, self.threads),
            )
        process = self.processes[contestant]
        try:
            process.stdin.write(json.dumps(case) + "\n")  # pyright: ignore[reportOptionalMemberAccess]
            process.stdin.flush()  # pyright: ignore[reportOptionalMemberAccess]
            line = process.stdout.readline()  # pyright: ignore[reportOptionalMemberAccess]
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(ended(contestant.name, process.wait(), self.peer_python, self.log.name))
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


def ended(name: str, status: int, python: str, log: str) -> str:
    """Returns why a contestant's process is no more, and what to do where that is known."""
    if status != -signal.SIGILL:
        return f"its process ended with status {status}; {log} has its output"
    distribution = next((entry.distribution for entry in ENTRIES if entry.name == name), "")
    mend = "install a version built for this one"
    if distribution:
        command = f"{python} -m pip install --force-reinstall --no-deps --no-cache-dir --no-binary"
        mend = f"build it here, from source: {command} {distribution} {distribution}"
    return f"illegal instruction (SIGILL): it was built for another processor; {mend}"


def environment(name: str, threads: int) -> dict[str, str]:
    """Returns the environment of a contestant: the same number of threads for all, and no downloads."""
    # The machine's sweep makes its own threads, so that BLAS must not.
    own = "1" if name == "machine" else str(threads)
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(variables, own), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Returns the versions of those packages (by import name) that a Python has."""
    code = (
        "import sys, json, importlib.util as u, importlib.metadata as m\n"
        "d = m.packages_distributions()\n"
        "print(json.dumps({n: m.version(d[n][0]) for n in sys.argv[1:] if u.find_spec(n) and n in d}))"
    )
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, cwd=tempfile.gettempdir())
    return json.loads(done.stdout) if done.returncode == 0 else {}


def contestants(case: Case, present: set[str]) -> Iterator[Contestant]:
    """Yields who can run a case, of the names in `present`."""
    for entry in ENTRIES:
        able = case.kind in entry.kinds and case.batch <= entry.rows and case.width in entry.formats
        if entry.name in present and able:
            yield Contestant(entry.name, entry.formats[case.width])


def first_token(contestant: Contestant, workers: Workers) -> dict[str, float]:
    """Starts a fresh process and returns {"seconds"} until it has printed its first new token; raises `Failed`."""
    folder, threads = workers.folder, workers.threads
    if contestant.name == "llmjax":
        settings = {"checkpoint": folder, "prompt": START_PROMPT, "stream": True, "max_new_tokens": 8}
        settings |= {f"mesh.{axis}": workers.mesh[axis] for axis in AXES}
        flags = [f"--config.{key}={value}" for key, value in settings.items()]
        command = [sys.executable, "launch.py", "--config=configs/generate.py", *flags]
        given = len(START_PROMPT)
    else:
        command = [workers.peer_python, "-m", "experiments.peers.torch_first_token", str(folder), START_PROMPT]
        given = 0
    began = time.perf_counter()
    with child(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(contestant.name, threads),
    ) as process:
        # The prompt itself comes first; the byte after it belongs to the first new token.
        shown = process.stdout.read(given + 1)  # pyright: ignore[reportOptionalMemberAccess]
        seconds = time.perf_counter() - began
        process.stdout.read()  # pyright: ignore[reportOptionalMemberAccess]
    if len(shown) <= given or process.returncode:
        raise Failed(f"{contestant.name} printed no token; its status was {process.returncode}")
    return {"seconds": seconds, "once": 0.0, "load": 0.0}
