"""GPT-2: its shape, its pure `apply`, and its weights."""

from llmjax.gpt2.config import SIZES, GPT2Config, from_hf_dict, from_size, to_hf_dict
from llmjax.gpt2.model import GPT2, Params, init_params, stack_layers, unstack_layers

__all__ = [
    "GPT2",
    "SIZES",
    "GPT2Config",
    "Params",
    "from_hf_dict",
    "from_size",
    "init_params",
    "stack_layers",
    "to_hf_dict",
    "unstack_layers",
]
