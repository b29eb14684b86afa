"""GPT-2: its shape, its pure `apply`, and its weights."""

from typing import TYPE_CHECKING, Any

from llmjax.gpt2.config import SIZES, GPT2Config, from_hf_dict, from_size, to_hf_dict
from llmjax.gpt2.params import Params, param_shapes, stack_layers, unstack_layers

if TYPE_CHECKING:
    from llmjax.gpt2.model import GPT2, init_params

__all__ = [
    "GPT2",
    "SIZES",
    "GPT2Config",
    "Params",
    "from_hf_dict",
    "from_size",
    "init_params",
    "param_shapes",
    "stack_layers",
    "to_hf_dict",
    "unstack_layers",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: generating needs no Flax, and starts sooner without it.
    if name not in ("GPT2", "init_params"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llmjax.gpt2 import model

    return getattr(model, name)
