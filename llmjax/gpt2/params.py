"""The parameters of a GPT-2 as a tree: its shapes without the model, and layers apart or stacked.

Shape letters as in `llmjax.gpt2.model`.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from llmjax.gpt2.config import GPT2Config

Params = dict[str, Any]
Head = Literal["lm", "classifier", "none"]


def param_shapes(config: GPT2Config, head: Head) -> Params:
    """Returns the tree of `GPT2(config, head)`'s parameters, layers apart, as `jax.ShapeDtypeStruct`s.

    What `jax.eval_shape` of its `init` gives, at once: tracing `init` takes a quarter of a second.
    """
    width, inner = config.n_embd, config.inner_dim

    def leaf(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.dtype(config.param_dtype))

    def dense(inputs: int, outputs: int) -> Params:
        return {"kernel": leaf(inputs, outputs), "bias": leaf(outputs)}

    def norm() -> Params:
        return {"scale": leaf(width), "bias": leaf(width)}

    def block() -> Params:
        return {
            "ln_1": norm(),
            "attn": {"c_attn": dense(width, 3 * width), "c_proj": dense(width, width)},
            "ln_2": norm(),
            "mlp": {"c_fc": dense(width, inner), "c_proj": dense(inner, width)},
        }

    params: Params = {
        "wte": {"embedding": leaf(config.vocab_size, width)},
        "wpe": {"embedding": leaf(config.n_positions, width)},
        **{f"h_{layer}": block() for layer in range(config.n_layer)},
        "ln_f": norm(),
    }
    if head == "classifier":
        params["score"] = {"kernel": leaf(width, config.num_labels)}
    if head == "lm" and not config.tie_word_embeddings:
        params["lm_head"] = {"kernel": leaf(width, config.vocab_size)}
    return params


def stack_layers(params: Params, n_layer: int) -> Params:
    """Turns per-layer parameters (`h_0`, `h_1`, ...) into those of `scan_layers` (`h/block`, stacked)."""
    layers = [params[f"h_{layer}"] for layer in range(n_layer)]
    rest = {name: value for name, value in params.items() if not name.startswith("h_")}
    return {**rest, "h": {"block": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}}


def unstack_layers(params: Params, n_layer: int) -> Params:
    """Turns the stacked parameters of `scan_layers` into per-layer ones: the inverse of `stack_layers`."""
    rest = {name: value for name, value in params.items() if name != "h"}
    per_layer = {f"h_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["h"]["block"]) for i in range(n_layer)}
    return {**rest, **per_layer}
