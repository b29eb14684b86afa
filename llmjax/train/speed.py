"""How fast training goes: model FLOPs of a batch, against the matmul peak that this machine shows."""

import functools
import time
from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from llmjax.models.config import ModelConfig
from llmjax.parallel.mesh import AXES, current


def train_flops(config: ModelConfig, head: str, rows: int, tokens: int, length: int) -> float:
    """Returns the FLOPs that one training step on `rows` rows of `tokens` real tokens in all needs, of matmuls only.

    A multiply-add is 2 FLOPs and the backward pass twice the forward one, as in Chowdhery et al. 2022 (PaLM), appendix
    B. Padding, recomputation and the optimizer do not count; the classifier's last layer mixes one token a row.
    """
    spec, width = config.layer, config.width
    mixed = spec.heads * spec.head_width
    query, key_value = 2 * width * mixed, 2 * 2 * width * spec.kv_heads * spec.head_width
    rest = 2 * width * mixed + 2 * width * spec.inner * (len(spec.names.up) + 1)
    attention = 4 * length * mixed
    full_layers = config.layers - 1 if head == "classifier" else config.layers
    forward = full_layers * tokens * (query + key_value + rest + attention)
    if head == "classifier":
        asked = tokens if len(spec.names.qkv) == 1 else rows
        forward += asked * query + tokens * key_value + rows * (rest + attention + 2 * width * config.num_labels)
    else:
        forward += tokens * 2 * width * config.vocab_size
    return 3.0 * forward


def measure_peak(dtype: str) -> float:
    """Returns the FLOP/s of the best of a few square matmuls in `dtype`, in about 0.3 s; a process measures it once.

    On the default device, or on all devices of the mesh in use at the same time.
    """
    return _peak(dtype, current())


@functools.cache
def _peak(dtype: str, mesh: Any) -> float:
    size = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), dtype)
    if mesh is not None:
        each = NamedSharding(mesh, PartitionSpec(AXES))  # pyright: ignore[reportArgumentType]
        matrix = jax.jit(lambda: jnp.ones((mesh.size, size, size), dtype), out_shardings=each)()
    multiply = jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    best = float("inf")
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        start = time.perf_counter()
        multiply(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * matrix.size * size / best


class SpeedMeter:
    """Tokens/s and MFU over the last steps; a step that compiled a new shape is left out. `peak` is all devices'."""

    def __init__(self, peak: float, window: int = 20) -> None:
        self.peak = peak
        self._steps: deque[tuple[float, int, float]] = deque(maxlen=window)

    def add(self, seconds: float, tokens: int, flops: float) -> None:
        """Counts one step."""
        self._steps.append((seconds, tokens, flops))

    def tokens_per_second(self) -> float:
        """Returns real tokens trained on per second; 0 before the first step."""
        return sum(step[1] for step in self._steps) / max(sum(step[0] for step in self._steps), 1e-9)

    def mfu(self) -> float:
        """Returns model FLOPs used, as a fraction of the measured matmul peak."""
        return sum(step[2] for step in self._steps) / max(sum(step[0] for step in self._steps), 1e-9) / self.peak
