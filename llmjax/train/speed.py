"""How fast training goes: model FLOPs of a batch, against the matmul peak that this machine shows."""

import time
from collections import deque

import jax
import jax.numpy as jnp

from llmjax.gpt2.config import GPT2Config


def train_flops(config: GPT2Config, head: str, rows: int, tokens: int, length: int) -> float:
    """Returns the FLOPs that one training step on `rows` rows of `tokens` real tokens in all needs, of matmuls only.

    A multiply-add is 2 FLOPs and the backward pass twice the forward one, as in Chowdhery et al. 2022 (PaLM), appendix
    B. Padding, recomputation and the optimizer do not count; the classifier's last layer mixes one token a row.
    """
    width, hidden = config.n_embd, config.inner_dim
    qkv, rest, attention = 2 * 3 * width**2, 2 * (width**2 + 2 * width * hidden), 4 * length * width
    full_layers = config.n_layer - 1 if head == "classifier" else config.n_layer
    forward = full_layers * tokens * (qkv + rest + attention)
    if head == "classifier":
        forward += tokens * qkv + rows * (rest + attention + 2 * width * config.num_labels)
    else:
        forward += tokens * 2 * width * config.vocab_size
    return 3.0 * forward


def measure_peak(dtype: str) -> float:
    """Returns the FLOP/s of the best of a few square matmuls in `dtype` on the default device, in about 0.3 s."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    best = float("inf")
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        start = time.perf_counter()
        multiply(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


class SpeedMeter:
    """Tokens/s and MFU over the last steps; a step that compiled a new shape is left out."""

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
