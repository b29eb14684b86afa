"""Llama and its relatives Mistral, Qwen2, Qwen3 (SmolLM2 is a Llama): configs and names.

Sources: Touvron et al. 2023, "LLaMA"; Dubey et al. 2024, "The Llama 3 Herd of Models"; Jiang et al. 2023, "Mistral 7B";
Qwen Team 2024 and 2025; the files of transformers' `modeling_llama`, `_mistral`, `_qwen2`, `_qwen3`.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from llmjax.errors import UserError
from llmjax.models.config import ONLY, ModelConfig
from llmjax.models.spec import LayerSpec, Names, Norm, Rope


@dataclasses.dataclass(frozen=True)
class LlamaConfig(ModelConfig):
    """Architecture of one Llama, under transformers' field names; `rope_*` flattened out of `rope_parameters`."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    sliding_window: int | None = None
    rope_theta: float = 10000.0
    rope_type: str = "default"
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original: int | None = None
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2

    family: ClassVar[str] = "llama"
    size_fields: ClassVar[Mapping[str, str]] = {
        "heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "head_width": "head_dim",
        "inner": "intermediate_size",
    }  # fmt: skip
    only: ClassVar[dict[str, tuple[Any, ...]]] = {
        **ONLY, "model_type": ("llama",), "rope_scaling": (None,), "rope_parameters": (None,), "layer_types": (None,),
        "max_window_layers": (0,),
    }  # fmt: skip
    counts: ClassVar[tuple[str, ...]] = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings",
    )  # fmt: skip
    rates: ClassVar[tuple[str, ...]] = ("attention_dropout",)
    attention_rate: ClassVar[str] = "attention_dropout"
    activations: ClassVar[tuple[str, ...]] = ("hidden_act",)
    unread: ClassVar[frozenset[str]] = frozenset({"rope_interleaved"})
    # How the relatives differ in what their files do not say.
    qkv_bias: ClassVar[bool | None] = None  # None: as `attention_bias` says
    out_bias: ClassVar[bool | None] = None
    qk_norm: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_key_value_heads", "head_dim", "sliding_window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{type(self).__name__}: {name}={value} must be at least 1.")
        if self.num_attention_heads % self.kv_heads:
            raise UserError(
                f"{type(self).__name__}: num_attention_heads={self.num_attention_heads} is not a multiple of"
                f" num_key_value_heads={self.kv_heads}."
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"{type(self).__name__}: hidden_size={self.hidden_size} is not a multiple of"
                f" num_attention_heads={self.num_attention_heads}."
            )
        if self.head_width % 2:
            raise UserError(f"{type(self).__name__}: heads of width {self.head_width} cannot have rotary positions.")
        if self.rope_type not in ("default", "linear", "llama3"):
            raise UserError(
                f"{type(self).__name__}: rope_type={self.rope_type!r} is not supported (default, linear, llama3)."
            )

    @classmethod
    def renamed(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        raw = dict(raw)
        nested = raw.pop("rope_parameters", None) or raw.pop("rope_scaling", None) or {}
        raw.pop("rope_scaling", None)
        known = {"rope_theta": "rope_theta", "rope_type": "rope_type", "type": "rope_type", "factor": "rope_factor"}
        known |= {"low_freq_factor": "rope_low_freq_factor", "high_freq_factor": "rope_high_freq_factor"}
        known |= {"original_max_position_embeddings": "rope_original"}
        if not isinstance(nested, Mapping):
            return raw | {"rope_scaling": nested}
        raw |= {known.get(name, f"rope_parameters.{name}"): value for name, value in nested.items()}
        kinds = set(raw.pop("layer_types", None) or ())
        uses, first = raw.pop("use_sliding_window", None), raw.pop("max_window_layers", 0)
        if kinds == {"full_attention"} or uses is False:
            raw["sliding_window"] = None
        elif kinds - {"sliding_attention"}:
            raw["layer_types"] = sorted(kinds)
        elif uses and first and not kinds:
            raw["max_window_layers"] = first
        return raw

    def to_hf(self, head: str) -> dict[str, Any]:
        values = super().to_hf(head)
        rope = {"rope_theta": values.pop("rope_theta"), "rope_type": values.pop("rope_type")}
        factor, low, high = (values.pop(f"rope_{name}") for name in ("factor", "low_freq_factor", "high_freq_factor"))
        original = values.pop("rope_original")
        if rope["rope_type"] != "default":
            rope["factor"] = factor
        if rope["rope_type"] == "llama3":
            rope |= {"low_freq_factor": low, "high_freq_factor": high}
            rope["original_max_position_embeddings"] = original or self.max_position_embeddings
        if values["num_key_value_heads"] is None:  # some of transformers' classes take a null for a number
            del values["num_key_value_heads"]
        if self.family.startswith("qwen"):  # whose window is off unless said
            values |= {"use_sliding_window": self.sliding_window is not None, "max_window_layers": 0}
        return values | {"rope_parameters": rope}

    @property
    def kv_heads(self) -> int:
        """Heads G of keys and values, each shared by H / G heads of queries."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """Width K of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def context(self) -> int:
        return self.max_position_embeddings

    @property
    def layer(self) -> LayerSpec:
        original = self.rope_original or self.max_position_embeddings
        factors = (self.rope_factor, self.rope_low_freq_factor, self.rope_high_freq_factor)
        return LayerSpec(
            names=Names(
                "layers", "self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj", "mlp", ("gate_proj", "up_proj"),
                "down_proj", ("input_layernorm", "post_attention_layernorm"),
            ),
            width=self.hidden_size,
            heads=self.num_attention_heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            inner=self.intermediate_size,
            activation=self.hidden_act,
            norm=Norm("rms", self.rms_norm_eps),
            rope=Rope(self.rope_theta, self.rope_type, *factors, original),  # pyright: ignore[reportArgumentType]
            qkv_bias=self.attention_bias if self.qkv_bias is None else self.qkv_bias,
            out_bias=self.attention_bias if self.out_bias is None else self.out_bias,
            mlp_bias=self.mlp_bias,
            qk_norm=self.qk_norm,
            window=self.sliding_window,
            attention_dropout=self.attention_dropout,
            std=self.initializer_range,
            out_std=self.initializer_range,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class MistralConfig(LlamaConfig):
    """A Llama whose tokens see a window of the last ones."""

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    sliding_window: int | None = 4096
    family: ClassVar[str] = "mistral"
    only: ClassVar[dict[str, tuple[Any, ...]]] = LlamaConfig.only | {"model_type": ("mistral",)}


@dataclasses.dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """A Llama with biases of queries, keys and values."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 32768
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    family: ClassVar[str] = "qwen2"
    only: ClassVar[dict[str, tuple[Any, ...]]] = LlamaConfig.only | {"model_type": ("qwen2",)}
    qkv_bias: ClassVar[bool | None] = True
    out_bias: ClassVar[bool | None] = False


@dataclasses.dataclass(frozen=True)
class Qwen3Config(LlamaConfig):
    """A Llama with norms of each head's queries and keys."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    head_dim: int | None = 128
    max_position_embeddings: int = 32768
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    family: ClassVar[str] = "qwen3"
    only: ClassVar[dict[str, tuple[Any, ...]]] = LlamaConfig.only | {"model_type": ("qwen3",)}
    qk_norm: ClassVar[bool] = True


SIZES: dict[str, dict[str, Any]] = {
    "tiny-llama": {
        "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128,
    },
    "smollm2-135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rope_theta": 1e5,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
    "llama-3.2-1b": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
        "rope_theta": 5e5, "rope_type": "llama3", "rope_factor": 32.0, "rope_original": 8192, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "llama-2-7b": {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    "llama-3-8b": {
        "vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 8192,
        "rope_theta": 5e5, "rms_norm_eps": 1e-5,
    },
    "llama-2-70b": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    },
}  # fmt: skip
"""Released sizes (widths from their config.json files), and a small one of ours for tests."""


def tensor_name(at: tuple[str, ...]) -> str:
    """Turns a parameter's path (layers_3, self_attn, q_proj, kernel) into transformers' (layers.3.self_attn....)."""
    module = [re.sub(r"^layers_(\d+)$", r"layers.\1", part) for part in at[:-1]]
    return ".".join([*module, "bias" if at[-1] == "bias" else "weight"])


def transposed(at: tuple[str, ...]) -> bool:
    """Whether a parameter is stored the other way round: torch's Linear stores (out, in)."""
    return at[-1] == "kernel"


BUFFERS = re.compile(r".*rotary_emb\.inv_freq")
