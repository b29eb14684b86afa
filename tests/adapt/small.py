"""Tiny models of every family, random texts, and inputs whose columns depend on one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from llmjax.adapt.calibrate import Inputs, calibration_texts
from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size, make_model
from llmjax.models.params import Params, init_params

SIZES = ("tiny", "tiny-bert", "tiny-llama")


@functools.cache
def small(size: str) -> tuple[ModelConfig, Params]:
    """A tiny model with every bias and norm drawn, so that none is left out of a comparison."""
    config = from_size(size, vocab_size=256)
    rng = np.random.default_rng(0)

    def draw(leaf: jax.Array) -> jax.Array:
        return leaf + jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32)

    return config, jax.tree.map(draw, init_params(config, "lm", jax.random.key(0)))


def texts() -> np.ndarray:
    """Eight texts of 16 tokens: two batches."""
    return calibration_texts(np.random.default_rng(1).integers(0, 256, 500).tolist(), 8, 16)


@functools.cache
def _apply(config: ModelConfig):
    return jax.jit(make_model(config, "lm").apply)


def logits(params: Params, config: ModelConfig) -> np.ndarray:
    """What a model says of the texts."""
    return np.asarray(_apply(config)({"params": params}, texts()))


def correlated(inputs: int = 64, outputs: int = 24) -> tuple[jax.Array, Inputs]:
    """A kernel [D, E], and inputs of which a few directions carry most."""
    rng = np.random.default_rng(2)
    x_TD = rng.standard_normal((300, 12)) @ rng.standard_normal((12, inputs)) + 0.3 * rng.standard_normal((300, inputs))
    x_TD = jnp.asarray(x_TD, jnp.float32)
    sums = Inputs(x_TD.T @ x_TD, jnp.abs(x_TD).sum(0), jnp.abs(x_TD).max(0), jnp.asarray(len(x_TD)))
    return jnp.asarray(rng.standard_normal((inputs, outputs)), jnp.float32), sums


def output_error(kernel_DE: jax.Array, wanted_DE: jax.Array, inputs: Inputs) -> float:
    """The squared error of the outputs on the inputs."""
    off_DE = np.asarray(kernel_DE - wanted_DE, np.float64)
    return float(np.sum(off_DE * (np.asarray(inputs.gram_DD, np.float64) @ off_DE)))
