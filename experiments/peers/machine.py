"""The machine itself as a contestant: how fast it reads memory, and how fast it multiplies matrices."""

import threading
import time

import numpy as np

from experiments.peers.case import MATRIX, Case, Timing


class Contestant:
    """`format` is "read" (a sweep over `case.tokens` bytes) or "matmul-TYPE" (a product of square matrices)."""

    def __init__(self, folder: str, format: str, threads: int) -> None:
        self.format, self.threads = format, threads
        self.data = np.zeros(0, np.float32)
        self.multiply = None

    def run(self, case: Case) -> Timing:
        """Times one sweep over `case.tokens` bytes by all threads, or one product of `MATRIX` square matrices."""
        began = time.perf_counter()
        if self.format != "read":
            return self._matmul(began)
        if self.data.nbytes != case.tokens:
            self.data = np.ones(case.tokens // 4, np.float32)
            self._sweep()
        once = time.perf_counter() - began
        return Timing(self._sweep(), once)

    def _sweep(self) -> float:
        # BLAS's dot of an array with itself reads it once, 32 bytes or more an instruction, and frees the interpreter.
        parts = np.array_split(self.data, self.threads)
        workers = [threading.Thread(target=np.dot, args=(part, part)) for part in parts]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - began

    def _matmul(self, began: float) -> Timing:
        import jax
        import jax.numpy as jnp

        if self.multiply is None:
            kind = self.format.removeprefix("matmul-")
            self.matrix = jnp.ones((MATRIX, MATRIX), kind)
            sums = jnp.int32 if kind == "int8" else jnp.float32
            self.multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=sums))
            self.multiply(self.matrix, self.matrix).block_until_ready()
        once = time.perf_counter() - began
        began = time.perf_counter()
        self.multiply(self.matrix, self.matrix).block_until_ready()
        return Timing(time.perf_counter() - began, once)
