"""What every family's config has: a frozen dataclass under the field names of transformers' `config.json`."""

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

from llmjax.errors import UserError, did_you_mean
from llmjax.models.activation import ACTIVATIONS
from llmjax.schema import MOST_WHOLE, shown

if TYPE_CHECKING:
    from llmjax.models.spec import LayerSpec

DTYPES = ("float32", "bfloat16")
CACHES = ("int8",)
MOST_LAYERS = 1000  # tracing more would take minutes, and no model has them


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The fields that all families share, and what the rest of llmjax reads of any of them.

    `dtype` (compute), `param_dtype`, `scan_layers`, `remat` and `kv_cache` are ours and are not written to
    `config.json`. `kv_cache` is how keys and values are kept: one of `CACHES`, or "" = in the type of the computation.
    A family adds its own fields under transformers' names and says by the class variables how the file is read.
    """

    vocab_size: int = 50257
    label_names: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    dtype: str = "float32"
    param_dtype: str = "float32"
    scan_layers: bool = False
    remat: bool = False
    kv_cache: str = ""

    # model_type of the files of this family, and what a file may leave out
    family: ClassVar[str] = ""
    # fields that change what the model computes and that we do not compute -> the values at which they are honoured
    only: ClassVar[dict[str, tuple[Any, ...]]] = {}
    # fields that change nothing that we compute
    unread: ClassVar[frozenset[str]] = frozenset()
    # other names of the same fields
    aliases: ClassVar[Mapping[str, str]] = {}
    # the field that says how many layers there are
    layers_field: ClassVar[str] = "num_hidden_layers"
    # a layer's sizes, as `LayerSpec` calls them -> the field that says each; `head_width` has a field that may be None
    size_fields: ClassVar[Mapping[str, str]] = {}
    # fields that must be at least 1
    counts: ClassVar[tuple[str, ...]] = ("vocab_size",)
    # probabilities of dropout, and which of them is that of attention's weights
    rates: ClassVar[tuple[str, ...]] = ()
    attention_rate: ClassVar[str] = ""
    # what it may compute in, and store weights in
    dtypes: ClassVar[tuple[str, ...]] = DTYPES
    # fields that name an activation function
    activations: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        name = type(self).__name__
        for field in self.counts:
            if not 1 <= getattr(self, field) <= MOST_WHOLE:
                raise UserError(
                    f"{name}: {field}={getattr(self, field)} must be at least 1 and at most {MOST_WHOLE:,}."
                )
        for field in self.rates:
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"{name}: {field}={getattr(self, field)} must be 0 or more and below 1.")
        for field in self.activations:
            value = getattr(self, field)
            if value not in ACTIVATIONS:
                near = did_you_mean(value, ACTIVATIONS)
                raise UserError(f"{name}: {field}={value!r} is not supported; known: {', '.join(ACTIVATIONS)}.{near}")
        for field in ("dtype", "param_dtype"):
            if getattr(self, field) not in self.dtypes:
                raise UserError(f"{name}: {field}={getattr(self, field)!r} must be one of {', '.join(self.dtypes)}.")
        if self.kv_cache not in ("", *CACHES):
            near = did_you_mean(self.kv_cache, CACHES)
            raise UserError(f"{name}: kv_cache={self.kv_cache!r} must be one of {', '.join(CACHES)}, or empty.{near}")
        if self.family and not 1 <= self.layers <= MOST_LAYERS:
            raise UserError(f"{name}: {self.layers} layers must be at least 1 and at most {MOST_LAYERS:,}.")

    @property
    def num_labels(self) -> int:
        """Classes of the classification head."""
        return len(self.label_names)

    @property
    def context(self) -> int:
        """The most tokens that a text may have."""
        raise NotImplementedError

    @property
    def layers(self) -> int:
        """Number of layers N."""
        return getattr(self, self.layers_field)

    @property
    def layer(self) -> "LayerSpec":
        """What each layer computes."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Model width D."""
        return self.layer.width

    def with_sizes(self, layers: int | None = None, **sizes: int) -> Self:
        """Returns the config with another number of layers, or sizes of a layer as `LayerSpec` names them."""
        fields = {self.size_fields[name]: size for name, size in sizes.items() if name in self.size_fields}
        return dataclasses.replace(self, **fields, **({} if layers is None else {self.layers_field: layers}))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], source: str, **overrides: Any) -> Self:
        """Reads the object of a `config.json`.

        Every field is honoured, known to change nothing, or refused by name.

        Args:
            raw: the file's object.
            source: where it came from, for the error line.
            overrides: fields that take precedence over the file (`dtype`, `label_names`, ...).

        Raises:
            UserError: a field is unknown, not supported at its value, or not well-formed.
        """
        raw = cls.renamed(raw)
        for name, allowed in cls.only.items():
            if name in raw and raw[name] not in allowed:
                raise UserError(f"{source}: {name}={raw[name]!r} is not supported (only {allowed[0]!r}).")
        values = {cls.aliases[name]: value for name, value in raw.items() if name in cls.aliases and value is not None}
        fields = {field.name: field for field in dataclasses.fields(cls)}
        own = {name: raw[name] for name in raw if name in fields and name not in _OURS}
        for name, value in (values | own).items():
            values[name] = _checked(name, value, fields[name], source)
        unknown = [name for name in raw if not cls._known(name)]
        if unknown:
            raise UserError(
                f"{source}: {unknown[0]}={raw[unknown[0]]!r} is no field of {cls.family} that is known here; if it does"
                " not change what the model computes, remove it from the file."
            )
        values |= _labels(raw, source)
        return cls(**{**values, **overrides})

    @classmethod
    def renamed(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the file's object with nested or older forms of fields in the form that the dataclass has."""
        return raw

    @classmethod
    def _known(cls, name: str) -> bool:
        fields = {field.name for field in dataclasses.fields(cls)} - _OURS
        return name in fields or name in cls.only or name in cls.aliases or name in cls.unread or name in UNREAD

    def to_hf(self, head: str) -> dict[str, Any]:
        """Returns the `config.json` object from which transformers builds the same model with that head."""
        from llmjax.models.families import FAMILIES

        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if values.get("head_dim", 0) is None:  # heads share the width, as transformers has it
            del values["head_dim"]
        return {
            "architectures": [FAMILIES[self.family].architectures[head]],
            "model_type": self.family,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
               if name not in _OURS},
            "id2label": {str(i): name for i, name in enumerate(self.label_names)},
            "label2id": {name: i for i, name in enumerate(self.label_names)},
            "torch_dtype": self.param_dtype,
        }  # fmt: skip


_OURS = {"label_names", "dtype", "param_dtype", "scan_layers", "remat", "kv_cache"}

# What transformers writes into any config and that changes nothing of the forward pass: bookkeeping, what to return,
# how torch runs it, and the generation defaults that versions before 5 kept there.
UNREAD = frozenset(
    """
    _name_or_path _attn_implementation _commit_hash architectures auto_map transformers_version torch_dtype dtype
    use_cache return_dict output_attentions output_hidden_states use_return_dict torchscript use_bfloat16
    gradient_checkpointing tf_legacy_loss tokenizer_class prefix task_specific_params finetuning_task id2label label2id
    num_labels sep_token_id cls_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
    chunk_size_feed_forward summary_type summary_use_proj summary_activation summary_proj_to_labels
    summary_first_dropout pretraining_tp max_length min_length do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens epsilon_cutoff
    eta_cutoff
    """.split()  # noqa: SIM905
)

_ONLY = {"is_encoder_decoder": (False, None), "add_cross_attention": (False, None), "quantization_config": (None,)}
_ONLY |= {
    "pruned_heads": (None, {}),
    "problem_type": (None, "single_label_classification"),
    "is_decoder": (False, None),
}
_ONLY |= {"cross_attention_hidden_size": (None,), "tie_encoder_decoder": (False, None)}
ONLY: dict[str, tuple[Any, ...]] = _ONLY
"""Fields of any config that change what a model computes -> the values at which we compute it."""


def _checked(name: str, value: Any, field: dataclasses.Field, source: str) -> Any:
    """Returns a field's value in its type, or raises `UserError`."""
    kinds = get_args(field.type) or (field.type,)
    if value is None and NoneType in kinds:
        return None
    if name == "eos_token_id" and isinstance(value, list) and value:
        value = value[0]
    kind: Any = kinds[0]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= MOST_WHOLE else value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{source}: {name}={shown(value)} should be of type {kind.__name__}.")
    if isinstance(value, int) and abs(value) > MOST_WHOLE:
        raise UserError(f"{source}: {name}={shown(value)} must be at most {MOST_WHOLE:,}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{source}: {name}={value!r} must be a finite number.")
    return value


def _labels(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    id2label, count = raw.get("id2label"), raw.get("num_labels")
    if id2label:
        try:
            return {"label_names": tuple(str(id2label[key]) for key in sorted(id2label, key=int))}
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{source}: id2label={id2label!r} should map '0', '1', ... to label names.") from error
    if count is None:
        return {}
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 10**6:
        raise UserError(f"{source}: num_labels={count!r} should be a number of classes.")
    return {"label_names": tuple(f"LABEL_{i}" for i in range(count))}
