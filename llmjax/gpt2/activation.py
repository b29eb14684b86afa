"""The activation functions that configs of the GPT-2 family name."""

import jax
import jax.numpy as jnp


def activation(name: str, x: jax.Array) -> jax.Array:
    """Applies the activation that transformers calls `name` (its `ACT2FN` table) elementwise."""
    match name:
        case "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast":
            return jax.nn.gelu(x, approximate=True)
        case "gelu":
            return jax.nn.gelu(x, approximate=False)
        case "quick_gelu":
            return x * jax.nn.sigmoid(1.702 * x)
        case "relu":
            return jax.nn.relu(x)
        case "silu" | "swish":
            return jax.nn.silu(x)
        case "tanh":
            return jnp.tanh(x)
    raise ValueError(name)
