"""A GGUF file's model as transformers would have saved it: the object of a config.json, and tensors by name.

Source: llama.cpp's convert_hf_to_gguf.py, which this undoes: its names, its order of a Llama's rotary rows, its table
of Llama 3's rotary factors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from llmjax.errors import UserError
from llmjax.gguf.blocks import Blocks, decode
from llmjax.gguf.reader import GGUF, RawTensor


@dataclass(frozen=True)
class _Family:
    """How llama.cpp writes a family.

    keys: a key without "ARCHITECTURE." -> the config's field. plain: keys that say nothing which the computation or the
    tensors do not say. only: keys that are honoured at one value alone. fixed: fields that no key says. layer: the
    beginning of a layer's tensors in transformers. names: a tensor (of a layer where it is among `parts`) -> its name
    in transformers. rotated: whether rows of queries and keys are in llama.cpp's rotary order. transposed: tensors that
    transformers stores the other way round (GPT-2's Conv1D).
    """

    architectures: str
    keys: Mapping[str, str]
    fixed: Mapping[str, Any]
    names: Mapping[str, str]
    layer: str
    parts: Mapping[str, str]
    only: Mapping[str, tuple[Any, ...]]
    rotated: bool = False
    transposed: tuple[str, ...] = ()


_LLAMA_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
}
_BERT_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_epsilon": "layer_norm_eps",
}
_GPT2_KEYS = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "block_count": "n_layer",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_LLAMA_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_DENSE = {"expert_count": (0,), "expert_used_count": (0,)}


def _llama(name: str, rotated: bool) -> _Family:
    fixed = {"model_type": name.lower(), "hidden_act": "silu"}
    return _Family(
        f"{name}ForCausalLM", _LLAMA_KEYS, fixed, _LLAMA_NAMES, "model.layers", _LLAMA_PARTS, _DENSE, rotated=rotated
    )


_FAMILIES = {
    "llama": _llama("Llama", rotated=True),  # Mistral's and SmolLM2's files call themselves so, too
    "qwen2": _llama("Qwen2", rotated=False),
    "qwen3": _llama("Qwen3", rotated=False),
    "gpt2": _Family(
        "GPT2LMHeadModel",
        _GPT2_KEYS,
        {"model_type": "gpt2", "activation_function": "gelu_new"},
        {"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f"}
        | {"output": "lm_head"},
        "transformer.h",
        {"attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2"}
        | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        {},
        transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    ),
    "bert": _Family(
        "BertModel",
        _BERT_KEYS,
        {"model_type": "bert", "hidden_act": "gelu"},
        {"token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings"}
        | {"token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm"},
        "encoder.layer",
        {"attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value"}
        | {"attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm"}
        | {"ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm"},
        {"attention.causal": (False,)},
    ),
}

# Keys that only say what the tensors, other keys or the reader say already.
_SAID_ELSEWHERE = {"vocab_size", "attention.value_length", "rope.dimension_count", "pooling_type"}
_ROPE = re.compile(r"rope\.(scaling\..*|scale_linear)")
_ROPE_FACTORS = "rope_freqs.weight"
_TOKEN_IDS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor under transformers' `name`, in its orientation and `shape`, still in the file.

    heads: of a Llama's queries or keys, whose rows llama.cpp reorders; else None. transposed: stored the other way
    round in the file.
    """

    name: str
    raw: RawTensor
    heads: int | None = None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape[::-1] if self.transposed else self.raw.shape

    def rows(self) -> np.ndarray | Blocks:
        """Reads the tensor, a row an output: a float array or blocks, as stored; see `decode`."""
        found = decode(self.raw)
        if self.heads is None:
            return found
        rows = _rotary_rows(self.shape[0], self.heads)
        return found.take(rows) if isinstance(found, Blocks) else found[rows]

    def array(self) -> Float32[np.ndarray, "..."]:
        """Reads the tensor as float32, in transformers' orientation."""
        found = self.rows()
        floats = found.dequantize() if isinstance(found, Blocks) else found.astype(np.float32)
        return floats.T if self.transposed else floats


def hf_config(file: GGUF) -> dict[str, Any]:
    """Returns the object that transformers would have in the model's config.json.

    Raises:
        UserError: the architecture is not supported, a key that it needs is absent, or the file has a key of the
            architecture that is not honoured here: every one is honoured or refused by name.
    """
    name, family = _family(file)
    own = {key.removeprefix(f"{name}."): value for key, value in file.metadata.items() if key.startswith(f"{name}.")}
    for key, value in own.items():
        allowed = family.only.get(key)
        known = allowed is not None or key in family.keys or key in _SAID_ELSEWHERE or _ROPE.fullmatch(key)
        if not known or (allowed is not None and value not in allowed):
            raise UserError(f"{file.path}: the key {name}.{repr(key)[1:-1]}={value!r} is not supported.")
        if isinstance(value, np.ndarray) and len(set(value.tolist())) != 1:
            raise UserError(f"{file.path}: {name}.{key} differs from layer to layer, which is not supported.")
    own = {key: value[0].item() if isinstance(value, np.ndarray) else value for key, value in own.items()}
    config = {"architectures": [family.architectures], **family.fixed}
    config |= {field: own[key] for key, field in family.keys.items() if key in own}
    config["vocab_size"] = _tensor(file, "token_embd.weight").shape[0]
    if name == "bert":
        config["type_vocab_size"] = _tensor(file, "token_types.weight").shape[0]
    else:
        config["tie_word_embeddings"] = _is_tied(file)
    if family.keys is _LLAMA_KEYS:
        config |= _llama_fields(file, name, own, config)
    missing = [f"{name}.{key}" for key, field in family.keys.items() if field not in config and key not in _OPTIONAL]
    if missing:
        raise UserError(f"{file.path}: has no {', '.join(missing)}.")
    ids = {field: file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key, field in _TOKEN_IDS.items()}
    return config | {field: None if value is None else int(value) for field, value in ids.items()}


_OPTIONAL = ("attention.head_count_kv", "attention.key_length", "attention.sliding_window", "rope.freq_base")


def hf_tensors(file: GGUF) -> dict[str, StoredTensor]:
    """Returns the model's tensors by transformers' names; nothing is read yet.

    A head that repeats the embedding byte for byte is left out, as transformers leaves out a tied one.
    Raises UserError for an architecture or a tensor that is not known.
    """
    name, family = _family(file)
    heads = file.metadata.get(f"{name}.attention.head_count")
    rotated = {"attn_q": heads, "attn_k": file.metadata.get(f"{name}.attention.head_count_kv", heads)}
    found = {}
    for raw in file.tensors.values():
        if raw.name == _ROPE_FACTORS or (raw.name == "output.weight" and _is_tied(file)):
            continue
        layer, part, kind = _split(raw.name)
        known = family.names.get(part) if layer is None else family.parts.get(part)
        if known is None:
            raise UserError(f"{file.path}: tensor {raw.name!r} is none that a {name} has here.")
        place = known if layer is None else f"{family.layer}.{layer}.{known}"
        stored = StoredTensor(f"{place}.{kind}", raw)
        if family.rotated and layer is not None and part in rotated:
            stored = replace(stored, heads=_heads(file, rotated[part], raw))
        stored = replace(stored, transposed=part in family.transposed and kind == "weight")
        found[stored.name] = stored
    return found


def _family(file: GGUF) -> tuple[str, _Family]:
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise UserError(f"{file.path}: the architecture {name!r} is not supported (only {known}).")
    return name, _FAMILIES[name]


def _tensor(file: GGUF, name: str) -> RawTensor:
    if name not in file.tensors:
        raise UserError(f"{file.path}: has no tensor {name!r}.")
    return file.tensors[name]


def _split(name: str) -> tuple[str | None, str, str]:
    """Splits blk.3.attn_q.weight into "3", "attn_q", "weight"; the first is None outside the layers."""
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    return (found[1], found[2], found[3]) if found else (None, name, "weight")


def _is_tied(file: GGUF) -> bool:
    head, embedding = file.tensors.get("output.weight"), _tensor(file, "token_embd.weight")
    return head is None or (head.type == embedding.type and np.array_equal(head.data, embedding.data))


def _heads(file: GGUF, heads: Any, raw: RawTensor) -> int:
    heads = heads[0].item() if isinstance(heads, np.ndarray) and len(heads) else heads
    if not isinstance(heads, int) or heads < 1 or raw.shape[0] % (2 * heads):
        raise UserError(f"{file.path}: tensor {raw.name!r} of shape {raw.shape} is not made of {heads} heads.")
    return heads


def _rotary_rows(rows: int, heads: int) -> np.ndarray:
    """Returns which row of the file is row i of transformers' queries or keys.

    transformers turns feature i of a head with feature i + K/2, llama.cpp feature 2i with 2i + 1: the file's rows are
    (head, K/2, 2), transformers' (head, 2, K/2).
    """
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _llama_fields(file: GGUF, name: str, own: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a Llama that need more than a key: biases, the heads' width, rotary scaling."""
    width = config.get("head_dim") or config.get("hidden_size", 0) // config.get("num_attention_heads", 1)
    for key in ("attention.value_length", "rope.dimension_count"):
        if own.get(key, width) != width:
            raise UserError(f"{file.path}: {name}.{key}={own[key]} is not supported beside heads of width {width}.")
    fields: dict[str, Any] = {"rope_theta": config.get("rope_theta", 10000.0)}
    if name == "llama":
        fields["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        fields["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    return fields | {"rope_scaling": _rope_scaling(file, name, own, width, fields["rope_theta"])}


def _rope_scaling(
    file: GGUF, name: str, own: Mapping[str, Any], width: int, theta: float
) -> dict[str, str | float] | None:
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    factor = float(own.get("rope.scaling.factor", own.get("rope.scale_linear", 1.0)))
    extra = [
        key for key in own if key.startswith("rope.scaling.") and key.removeprefix("rope.scaling.") not in _SCALING
    ]
    if kind not in ("none", "linear") or extra:
        what = f"rope.scaling.type={kind!r}" if kind not in ("none", "linear") else extra[0]
        raise UserError(f"{file.path}: the key {name}.{what} is not supported.")
    scaling = None if kind == "none" or factor == 1.0 else {"rope_type": "linear", "factor": factor}
    if _ROPE_FACTORS not in file.tensors:
        return scaling
    table = decode(file.tensors[_ROPE_FACTORS])
    assert not isinstance(table, Blocks)
    if scaling is None and table.shape == (width // 2,):
        scaling = _LLAMA3 | {"factor": round(float(table.max()), 4)}
        if np.allclose(table, _llama3_factors(width, theta, scaling), rtol=1e-4):
            return scaling
    raise UserError(
        f"{file.path}: tensor {_ROPE_FACTORS!r} is not supported: it is not the table of Llama 3's rotary scaling."
    )


_SCALING = ("type", "factor", "original_context_length", "finetuned")
# Those of every Llama 3.1, 3.2 and 3.3 (their config.json files); only the factor differs.
_LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _llama3_factors(width: int, theta: float, scaling: Mapping[str, Any]) -> np.ndarray:
    """Returns by what Llama 3 divides each rotary frequency: 1 (fast) up to the factor (slow)."""
    waves = 2 * np.pi * theta ** (np.arange(0, width, 2) / width)
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    share = (scaling["original_max_position_embeddings"] / waves - low) / (high - low)
    return 1 / np.clip((1 - share) / factor + share, 1 / factor, 1.0)
