"""GPT-2: its config and names. Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

As released in openai/gpt-2 and ported to transformers. `gpt2_model` has the assembly, apart because it needs Flax.
"""

import dataclasses
import re
from typing import Any, ClassVar

from llmjax.errors import UserError
from llmjax.models.config import ONLY, ModelConfig
from llmjax.models.spec import LayerSpec, Names, Norm


@dataclasses.dataclass(frozen=True)
class GPT2Config(ModelConfig):
    """Architecture of one GPT-2, under the field names that transformers' `config.json` uses."""

    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    head_dim: int | None = None  # ours: of a model with fewer heads than its width would have
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    bos_token_id: int | None = 50256
    eos_token_id: int | None = 50256

    family: ClassVar[str] = "gpt2"
    layers_field: ClassVar[str] = "n_layer"
    size_fields: ClassVar[Any] = {"heads": "n_head", "head_width": "head_dim", "inner": "n_inner"}
    only: ClassVar[dict[str, tuple[Any, ...]]] = ONLY | {"model_type": ("gpt2",)}
    aliases: ClassVar[Any] = {
        "n_ctx": "n_positions", "hidden_size": "n_embd", "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head", "max_position_embeddings": "n_positions",
    }  # fmt: skip
    counts: ClassVar[tuple[str, ...]] = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    rates: ClassVar[tuple[str, ...]] = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    attention_rate: ClassVar[str] = "attn_pdrop"
    activations: ClassVar[tuple[str, ...]] = ("activation_function",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_dim is None and self.n_embd % self.n_head:
            raise UserError(f"GPT2Config: n_embd={self.n_embd} is not a multiple of n_head={self.n_head}.")

    @property
    def context(self) -> int:
        return self.n_positions

    @property
    def layer(self) -> LayerSpec:
        head_width = self.head_dim or self.n_embd // self.n_head
        return LayerSpec(
            names=Names("h", "attn", ("c_attn",), "c_proj", "mlp", ("c_fc",), "c_proj", ("ln_1", "ln_2")),
            width=self.n_embd,
            heads=self.n_head,
            kv_heads=self.n_head,
            head_width=head_width,
            inner=self.n_inner or 4 * self.n_embd,
            activation=self.activation_function,
            norm=Norm("layer", self.layer_norm_epsilon),
            scale=head_width**-0.5 if self.scale_attn_weights else 1.0,
            by_layer=self.scale_attn_by_inverse_layer_idx,
            upcast=self.reorder_and_upcast_attn,
            attention_dropout=self.attn_pdrop,
            dropout=self.resid_pdrop,
            std=self.initializer_range,
            # Projections into the residual stream start smaller, by 1 / sqrt(2 N).
            out_std=self.initializer_range / (2 * self.n_layer) ** 0.5,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "small": {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "distilgpt2": {"n_embd": 768, "n_layer": 6, "n_head": 12},
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}
"""The released sizes (widths from their config.json files), and two small ones of ours for laptops and tests."""


def tensor_name(at: tuple[str, ...]) -> str:
    """Turns a parameter's path (h_3, attn, c_attn, kernel) into transformers' name (h.3.attn.c_attn.weight)."""
    module = [re.sub(r"^h_(\d+)$", r"h.\1", part) for part in at[:-1]]
    return ".".join([*module, "bias" if at[-1] == "bias" else "weight"])


def transposed(at: tuple[str, ...]) -> bool:
    """Whether a parameter is stored the other way round: transformers' Conv1D is (in, out) as ours, its heads not."""
    return at in (("score", "kernel"), ("lm_head", "kernel"))


# Causal-mask buffers that transformers before 4.32 stored among the weights.
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
