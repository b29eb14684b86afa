"""llama.cpp through llama-cpp-python, on a GGUF file of the same weights."""

import itertools
import time
from pathlib import Path

from llama_cpp import Llama

from experiments.peers.case import Case, Timing, prompt_tokens
from experiments.peers.gguf_file import write


class Contestant:
    """Holds one GGUF file; one row at a time, which is what its Python interface does."""

    def __init__(self, folder: str, format: str, threads: int) -> None:
        file = write(Path(folder), format)
        self.model = Llama(
            str(file), n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.seen: set[Case] = set()

    def run(self, case: Case) -> Timing:
        """Runs a case once, and once before where it is new."""
        began = time.perf_counter()
        if case not in self.seen:
            self._time(case)
            self.seen.add(case)
        once = time.perf_counter() - began
        return Timing(self._time(case), once)

    def _time(self, case: Case) -> float:
        new = case.tokens if case.kind == "decode" else 1
        (prompt,) = prompt_tokens(case, self.model.n_vocab())
        self.model.reset()
        began = time.perf_counter()
        made = list(itertools.islice(self.model.generate(prompt, temp=0.0, repeat_penalty=1.0, reset=True), new))
        seconds = time.perf_counter() - began
        if len(made) != new:
            raise RuntimeError(f"{len(made)} tokens instead of {new}")
        return seconds
