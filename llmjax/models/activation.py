"""The activation functions that configs name. JAX is imported on use: configs are read without it."""

from typing import Any

ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu", "quick_gelu", "relu", "silu", "swish", "tanh")


def activation(name: str, x: Any) -> Any:
    """Applies the activation that transformers calls `name` (its `ACT2FN` table) elementwise."""
    import jax

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
            return jax.numpy.tanh(x)
    raise ValueError(name)
