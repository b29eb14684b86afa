"""The shape of a GPT-2: what a transformers `config.json` of the family says, and how we compute it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmjax.errors import UserError, did_you_mean

ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu", "quick_gelu", "relu", "silu", "swish", "tanh")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Architecture of one GPT-2, under the field names that transformers' `config.json` uses.

    The fields up to `eos_token_id` are the file's own; `dtype` (compute), `param_dtype`, `scan_layers` and `remat` are
    ours and are not written to it. Source of the architecture: Radford et al. 2019, "Language Models are Unsupervised
    Multitask Learners", as released in openai/gpt-2 and ported to transformers.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    label_names: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pad_token_id: int | None = None
    bos_token_id: int | None = 50256
    eos_token_id: int | None = 50256

    dtype: str = "float32"
    param_dtype: str = "float32"
    scan_layers: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            if getattr(self, name) < 1:
                raise UserError(f"GPT-2 config: {name}={getattr(self, name)} must be at least 1.")
        if self.n_embd % self.n_head:
            raise UserError(f"GPT-2 config: n_embd={self.n_embd} is not a multiple of n_head={self.n_head}.")
        if self.activation_function not in ACTIVATIONS:
            raise UserError(
                f"GPT-2 config: activation_function={self.activation_function!r} is not supported;"
                f" known: {', '.join(ACTIVATIONS)}.{did_you_mean(self.activation_function, ACTIVATIONS)}"
            )
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in DTYPES:
                raise UserError(f"GPT-2 config: {name}={getattr(self, name)!r} must be one of {', '.join(DTYPES)}.")

    @property
    def inner_dim(self) -> int:
        """Width F of the MLP: `n_inner`, or 4 D where the file leaves it null."""
        return self.n_inner or 4 * self.n_embd

    @property
    def head_dim(self) -> int:
        """Width K of one attention head."""
        return self.n_embd // self.n_head

    @property
    def num_labels(self) -> int:
        """Classes of the classification head."""
        return len(self.label_names)


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


def from_size(size: str, **overrides: Any) -> GPT2Config:
    """Returns the config of a named size, with `overrides` on top; an unknown size raises `UserError`."""
    if size not in SIZES:
        raise UserError(f"Model size {size!r} is unknown; known: {', '.join(SIZES)}.{did_you_mean(size, SIZES)}")
    return GPT2Config(**{**SIZES[size], **overrides})


_FILE_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(GPT2Config)
    if field.name not in ("label_names", "dtype", "param_dtype", "scan_layers", "remat")
)

# Fields that change what the model computes and that we do not compute: honoured only at the value given here.
_REFUSED_UNLESS: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "problem_type": (None, "single_label_classification"),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}

# Older names of the same fields, as the 2019 releases wrote them.
_ALIASES = {"n_ctx": "n_positions", "hidden_size": "n_embd", "num_hidden_layers": "n_layer"}
_ALIASES |= {"num_attention_heads": "n_head", "max_position_embeddings": "n_positions"}


def from_hf_dict(raw: Mapping[str, Any], source: str, **overrides: Any) -> GPT2Config:
    """Reads what transformers wrote in a `config.json` of the GPT-2 family.

    Args:
        raw: the file's object. Fields that change the result and that this model does not compute are refused by
            name; fields that do not change it (summary heads, generation defaults) are passed over.
        source: where it came from, for the error line.
        overrides: fields that take precedence over the file (`dtype`, `resid_pdrop`, ...).

    Raises:
        UserError: a field holds a value that is not supported or not well-formed.
    """
    for name, allowed in _REFUSED_UNLESS.items():
        if name in raw and raw[name] not in allowed:
            raise UserError(f"{source}: {name}={raw[name]!r} is not supported (only {allowed[0]!r}).")
    if "model_type" not in raw:
        raise UserError(f"{source}: has no model_type; expected a transformers config with model_type='gpt2'.")
    values = {_ALIASES[name]: value for name, value in raw.items() if name in _ALIASES and value is not None}
    values |= {name: raw[name] for name in _FILE_FIELDS if name in raw}
    defaults = {field.name: field.default for field in dataclasses.fields(GPT2Config)}
    optional = ("n_inner", "pad_token_id", "bos_token_id", "eos_token_id")
    for name, value in list(values.items()):
        expected = int if name in optional else type(defaults[name])
        if value is None and name in optional:
            continue
        if isinstance(value, list) and name == "eos_token_id" and value:
            values[name] = value[0]
        elif expected is float and isinstance(value, int) and not isinstance(value, bool):
            values[name] = float(value)
        elif not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise UserError(f"{source}: {name}={value!r} should be of type {expected.__name__}.")
    id2label = raw.get("id2label")
    if id2label:
        try:
            values["label_names"] = tuple(str(id2label[key]) for key in sorted(id2label, key=int))
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{source}: id2label={id2label!r} should map '0', '1', ... to label names.") from error
    elif raw.get("num_labels"):
        values["label_names"] = tuple(f"LABEL_{i}" for i in range(raw["num_labels"]))
    return GPT2Config(**{**values, **overrides})


def to_hf_dict(config: GPT2Config, head: str) -> dict[str, Any]:
    """Returns the `config.json` object from which transformers builds the same model with that head."""
    architecture = {"lm": "GPT2LMHeadModel", "classifier": "GPT2ForSequenceClassification", "none": "GPT2Model"}[head]
    values = {name: getattr(config, name) for name in _FILE_FIELDS}
    return {
        "architectures": [architecture],
        "model_type": "gpt2",
        **values,
        "id2label": {str(i): name for i, name in enumerate(config.label_names)},
        "label2id": {name: i for i, name in enumerate(config.label_names)},
        "torch_dtype": config.param_dtype,
    }
