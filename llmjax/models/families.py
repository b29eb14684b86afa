"""The table of families: one row says all that the rest of llmjax needs to know of one. Adding a family adds a row."""

import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmjax.errors import UserError, did_you_mean
from llmjax.models import bert, gpt2, llama
from llmjax.models.config import ModelConfig

if TYPE_CHECKING:
    import flax.linen as nn

    from llmjax.models.params import Head


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of models.

    config: its dataclass. model: "module:class" of its Flax module, imported on first use. sizes: named sizes.
    architectures: head -> the class of transformers that has it. prefix: what transformers puts before the names of the
    body's tensors. tensor_name: a parameter's path -> the tensor's name without that prefix. transposed: a parameter's
    path -> whether its tensor is stored the other way round. own: parts of heads, whose tensors bear no prefix.
    buffers: tensors that are no parameters. optional: parts of the body that not every head has. causal: whether the
    language head continues texts, or fills gaps. tokenizer: its own one's name here; "" where models bring theirs.
    """

    config: type[ModelConfig]
    model: str
    sizes: Mapping[str, Mapping[str, Any]]
    architectures: Mapping[str, str]
    prefix: str
    tensor_name: Callable[[tuple[str, ...]], str]
    transposed: Callable[[tuple[str, ...]], bool]
    own: tuple[str, ...]
    buffers: re.Pattern[str]
    optional: tuple[str, ...] = ()
    causal: bool = True
    tokenizer: str = ""

    def is_head(self, tensor: str) -> bool:
        """Whether a tensor's name, less the prefix, belongs to a head: files may hold heads that are not asked for."""
        names = (self.tensor_name((part, "kernel")).rpartition(".")[0] for part in (*self.own, *self.optional))
        return any(tensor.startswith(f"{name}.") for name in names)


def _llama(config: type[llama.LlamaConfig], name: str, sizes: Mapping[str, Any] | None = None) -> Family:
    heads = {"lm": "ForCausalLM", "classifier": "ForSequenceClassification", "none": "Model"}
    return Family(
        config, "llmjax.models.llama_model:Llama", sizes or {}, {head: name + end for head, end in heads.items()},
        "model.", llama.tensor_name, llama.transposed, ("score", "lm_head"), llama.BUFFERS,
    )  # fmt: skip


def _bert(config: type[bert.BertConfig], name: str, heads: Mapping[str, str], sizes: Mapping[str, Any]) -> Family:
    classes = {"lm": "ForMaskedLM", "classifier": "ForSequenceClassification", "none": "Model", "pooler": "Model"}
    return Family(
        config, "llmjax.models.bert_model:Bert", sizes, {head: name + end for head, end in classes.items()},
        f"{config.family}.", functools.partial(bert.tensor_name, heads), bert.transposed, tuple(heads), bert.BUFFERS,
        optional=("pooler",), causal=False,
    )  # fmt: skip


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        gpt2.GPT2Config, "llmjax.models.gpt2_model:GPT2", gpt2.SIZES,
        {"lm": "GPT2LMHeadModel", "classifier": "GPT2ForSequenceClassification", "none": "GPT2Model"},
        "transformer.", gpt2.tensor_name, gpt2.transposed, ("score", "lm_head"), gpt2.BUFFERS, tokenizer="gpt2",
    ),
    "bert": _bert(bert.BertConfig, "Bert", bert.HEADS, bert.SIZES),
    "roberta": _bert(bert.RobertaConfig, "Roberta", bert.ROBERTA_HEADS, {}),
    "llama": _llama(llama.LlamaConfig, "Llama", llama.SIZES),
    "mistral": _llama(llama.MistralConfig, "Mistral"),
    "qwen2": _llama(llama.Qwen2Config, "Qwen2"),
    "qwen3": _llama(llama.Qwen3Config, "Qwen3"),
}  # fmt: skip

SIZES: dict[str, tuple[str, Mapping[str, Any]]] = {
    size: (family, fields) for family, row in FAMILIES.items() for size, fields in row.sizes.items()
}
"""Named sizes -> (family, fields that differ from the config's defaults)."""


def family_of(config: ModelConfig) -> Family:
    """Returns the row of a config's family."""
    return FAMILIES[config.family]


def make_model(config: ModelConfig, head: "Head") -> "nn.Module":
    """Returns the Flax module of `config` with `head`: its `apply` is the model's pure function.

    Raises:
        UserError: the family has no such head.
    """
    row = family_of(config)
    if head != "score" and head not in row.architectures:
        raise UserError(f"a {config.family} has no {head!r} head; it has {', '.join(row.architectures)}.")
    if head == "score" and not row.causal:
        raise UserError(f"a {config.family} fills gaps and does not continue texts: it cannot score next tokens.")
    return _module(row.model)(config, head)


@functools.cache
def _module(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def from_size(size: str, **overrides: Any) -> ModelConfig:
    """Returns the config of a named size, with `overrides` on top; an unknown size raises `UserError`."""
    if size not in SIZES:
        raise UserError(f"Model size {size!r} is unknown; known: {', '.join(SIZES)}.{did_you_mean(size, SIZES)}")
    family, fields = SIZES[size]
    return FAMILIES[family].config(**{**fields, **overrides})


def from_hf(raw: Mapping[str, Any], source: str, **overrides: Any) -> ModelConfig:
    """Reads the object of a transformers `config.json` of any family; see `ModelConfig.from_hf`."""
    name = raw.get("model_type")
    if name is None:
        raise UserError(f"{source}: has no model_type; expected a transformers config of {', '.join(FAMILIES)}.")
    if name not in FAMILIES:
        near = did_you_mean(str(name), FAMILIES)
        raise UserError(f"{source}: model_type={name!r} is not supported (only {', '.join(FAMILIES)}).{near}")
    return FAMILIES[name].config.from_hf(raw, source, **overrides)
