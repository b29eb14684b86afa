"""Small random models with every parameter drawn, so that no bias or norm is left out of a comparison."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size, make_model
from llmjax.models.gpt2 import SIZES
from llmjax.models.params import Params, init_params
from llmjax.models.weights import load_pretrained

# The widths and heads of every size, with fewer layers and words so that tests stay short.
LAYERS = {**dict.fromkeys(SIZES, 1), "tiny": 2, "gpt2": 2}
TESTDATA = Path(__file__).parents[1] / "testdata"


@functools.cache
def random_model(**overrides) -> tuple[ModelConfig, Params]:
    """A tiny language model whose next tokens are far from uniform."""
    config = from_size("tiny", **{"vocab_size": 300, "n_positions": 96, **overrides})
    rng = np.random.default_rng(0)
    flat = flatten_dict(init_params(config, "lm", jax.random.key(0)))
    drawn = {
        at: np.asarray(leaf) + rng.normal(0, 0.2, leaf.shape).astype(np.float32) for at, leaf in sorted(flat.items())
    }
    return config, jax.tree.map(jax.numpy.asarray, unflatten_dict(drawn))


def size_model(size: str) -> tuple[ModelConfig, Params]:
    """A model of a named size's width and heads, drawn by NumPy: the same wherever it is made."""
    config = from_size(size, n_layer=LAYERS[size], vocab_size=100, n_positions=96, bos_token_id=0, eos_token_id=None)
    rng = np.random.default_rng(0)
    shapes = flatten_dict(jax.eval_shape(lambda: init_params(config, "lm", jax.random.key(0))))
    drawn = {}
    for at, leaf in sorted(shapes.items()):
        centre, fan = float(at[-1] == "scale"), leaf.shape[-1 if at[-1] == "embedding" else 0]
        # Positions outweigh words: a tied model would go on with one token for ever.
        scale = 0.1 if leaf.ndim == 1 else 0.5 if at[0] == "wpe" else 0.5 * fan**-0.5
        drawn[at] = jax.numpy.asarray(centre + scale * rng.standard_normal(leaf.shape, np.float32))
    return config, unflatten_dict(drawn)


def size_prompts() -> list[list[int]]:
    """Prompts of tokens for `size_model`, of several lengths."""
    rng = np.random.default_rng(2)
    return [rng.integers(0, 99, length).tolist() for length in (5, 1, 17)]


@functools.cache
def _apply(config: ModelConfig):
    return jax.jit(make_model(config, "lm").apply)


def full_logits(config: ModelConfig, params: Params, ids: list[int]) -> np.ndarray:
    """Logits [L, V] of one text by the Linen model, without any cache."""
    # One compiled length: what follows a token does not change its logits.
    padded = np.zeros((1, config.context), np.int32)
    padded[0, : len(ids)] = ids
    return np.asarray(_apply(config)({"params": params}, padded))[0, : len(ids)]


def greedy(config: ModelConfig, params: Params, ids: list[int], new: int) -> list[int]:
    """The tokens that a full forward pass a token chooses."""
    ids = list(ids)
    for _ in range(new):
        ids.append(int(full_logits(config, params, ids)[-1].argmax()))
    return ids[-new:]


def golden_model(name: str, folder: Path) -> tuple[ModelConfig, Params, dict[str, np.ndarray]]:
    """A model of gpt2_golden.npz, loaded from `folder` where it is written, and what transformers generated with it."""
    golden = np.load(TESTDATA / "gpt2_golden.npz")
    prefix = f"{name}/weights/"
    tensors = {key.removeprefix(prefix): golden[key].astype(np.float32) for key in golden if key.startswith(prefix)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **json.loads(str(golden[f"{name}/config"]))}))
    generated = np.load(TESTDATA / "generate_golden.npz")
    return (
        *load_pretrained(folder, "lm"),
        {key: generated[f"{name}/{key}"] for key in ("tokens", "mask", "new", "scores")},
    )
