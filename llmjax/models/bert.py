"""BERT and RoBERTa: configs and names.

Sources: Devlin et al. 2019, "BERT"; Liu et al. 2019, "RoBERTa"; transformers' `modeling_bert` and `modeling_roberta`.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from llmjax.errors import UserError
from llmjax.models.config import ONLY, ModelConfig
from llmjax.models.spec import LayerSpec, Names, Norm


@dataclasses.dataclass(frozen=True)
class BertConfig(ModelConfig):
    """Architecture of one BERT, under the field names that transformers' `config.json` uses."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    head_dim: int | None = None  # ours: of a model with fewer heads than its width would have
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    family: ClassVar[str] = "bert"
    size_fields: ClassVar[Mapping[str, str]] = {
        "heads": "num_attention_heads", "head_width": "head_dim", "inner": "intermediate_size"
    }  # fmt: skip
    only: ClassVar[dict[str, tuple[Any, ...]]] = ONLY | {
        "model_type": ("bert",),
        "position_embedding_type": ("absolute",),
    }
    counts: ClassVar[tuple[str, ...]] = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "type_vocab_size",
    )  # fmt: skip
    rates: ClassVar[tuple[str, ...]] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    attention_rate: ClassVar[str] = "attention_probs_dropout_prob"
    activations: ClassVar[tuple[str, ...]] = ("hidden_act",)
    unread: ClassVar[frozenset[str]] = frozenset(
        (
            "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
            "pooler_size_per_head", "pooler_type",
        )
    )  # fmt: skip
    # Positions before a text's first: RoBERTa counts from its padding token's number.
    before: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"{name}: hidden_size={self.hidden_size} is not a multiple of"
                f" num_attention_heads={self.num_attention_heads}."
            )
        if self.classifier_dropout is not None and not 0 <= self.classifier_dropout < 1:
            raise UserError(f"{name}: classifier_dropout={self.classifier_dropout} must be 0 or more and below 1.")
        if self.context < 1:
            raise UserError(f"{name}: max_position_embeddings={self.max_position_embeddings} leaves no position.")

    @property
    def first_position(self) -> int:
        """The position of a text's first token."""
        return (self.pad_token_id or 0) + 1 if self.before else 0

    @property
    def context(self) -> int:
        return self.max_position_embeddings - self.first_position

    @property
    def layer(self) -> LayerSpec:
        names = Names(
            "layer", "attention", ("query", "key", "value"), "output", "mlp", ("intermediate",), "output",
            ("attention_norm", "mlp_norm"),
        )  # fmt: skip
        return LayerSpec(
            names=names,
            width=self.hidden_size,
            heads=self.num_attention_heads,
            kv_heads=self.num_attention_heads,
            head_width=self.head_dim or self.hidden_size // self.num_attention_heads,
            inner=self.intermediate_size,
            activation=self.hidden_act,
            norm=Norm("layer", self.layer_norm_eps),
            causal=False,
            norm_after=True,
            attention_dropout=self.attention_probs_dropout_prob,
            dropout=self.hidden_dropout_prob,
            std=self.initializer_range,
            out_std=self.initializer_range,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )


@dataclasses.dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """A BERT whose positions count from its padding token's number, with heads of two products."""

    vocab_size: int = 50265
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | None = 2
    layer_norm_eps: float = 1e-12
    family: ClassVar[str] = "roberta"
    only: ClassVar[dict[str, tuple[Any, ...]]] = BertConfig.only | {"model_type": ("roberta",)}
    before: ClassVar[bool] = True


SIZES: dict[str, dict[str, Any]] = {
    "tiny-bert": {
        "vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 128,
    },
    "minilm-l6": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    },
}  # fmt: skip
"""Released sizes (widths from their config.json files), and a small one of ours for tests."""

_INSIDE_LAYER = {
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("attention_norm",): "attention.output.LayerNorm",
    ("mlp", "intermediate"): "intermediate.dense",
    ("mlp", "output"): "output.dense",
    ("mlp_norm",): "output.LayerNorm",
}
_OUTSIDE = {
    "embeddings_norm": "embeddings.LayerNorm",
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "token_type_embeddings": "embeddings.token_type_embeddings",
    "pooler": "pooler.dense",
}
HEADS = {
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "lm_head": "cls.predictions.decoder",
    "lm_bias": "cls.predictions",
    "classifier": "classifier",
}
"""Parts of BERT's heads -> transformers' names."""
ROBERTA_HEADS = {
    "transform": "lm_head.dense",
    "transform_norm": "lm_head.layer_norm",
    "lm_head": "lm_head.decoder",
    "lm_bias": "lm_head",
    "classifier_dense": "classifier.dense",
    "classifier": "classifier.out_proj",
}
"""Parts of RoBERTa's heads -> transformers' names."""


def tensor_name(heads: Mapping[str, str], at: tuple[str, ...]) -> str:
    """Turns a parameter's path (layer_3, attention, query, kernel) into transformers' name, given those of heads."""
    leaf = "bias" if at[-1] == "bias" else "weight"
    layer = re.fullmatch(r"layer_(\d+)", at[0])
    if layer:
        return f"encoder.layer.{layer[1]}.{_INSIDE_LAYER[at[1:-1]]}.{leaf}"
    return f"{(_OUTSIDE | dict(heads))[at[0]]}.{leaf}"


def transposed(at: tuple[str, ...]) -> bool:
    """Whether a parameter is stored the other way round: torch's Linear stores (out, in)."""
    return at[-1] == "kernel"


BUFFERS = re.compile(
    r"(embeddings\.position_ids|cls\.predictions\.decoder\.bias|lm_head\.decoder\.bias|cls\.seq_relationship\..*)"
)
