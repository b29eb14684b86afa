"""Models as a table of published figures names them -> their sizes. No JAX import."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """A transformer by its sizes: layers, width, heads and those of keys, their width, the MLP's, the vocabulary's.

    `family` is whose blocks it has: "gpt2", "bert" or "llama" (gated MLP, rotary positions).
    """

    family: str
    layers: int
    width: int
    heads: int
    groups: int
    head_width: int
    inner: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's matrices."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.groups)
        return attention + (3 if self.family == "llama" else 2) * self.width * self.inner

    def shared(self, devices: int) -> Model:
        """What each of some devices has of every layer where heads, the MLP and the vocabulary are split over them."""
        parts = (self.heads, self.groups, self.inner, self.vocabulary)
        heads, groups, inner, vocabulary = (max(1, -(-part // devices)) for part in parts)
        return Model(self.family, self.layers, self.width, heads, groups, self.head_width, inner, vocabulary)


def _plain(family: str, layers: int, width: int, heads: int, vocabulary: int) -> Model:
    return Model(family, layers, width, heads, heads, width // heads, 4 * width, vocabulary)


def _llama(layers: int, width: int, heads: int, groups: int, inner: int, vocabulary: int) -> Model:
    return Model("llama", layers, width, heads, groups, 128, inner, vocabulary)


# Names that say no sizes; sizes of the papers that brought the models, of llm-foundry's configurations for MPT.
_NAMED: tuple[tuple[str, Model], ...] = (
    (r"llama-?2-70b", _llama(80, 8192, 64, 8, 28672, 32000)),
    (r"llama-?3(\.1)?-70b", _llama(80, 8192, 64, 8, 28672, 128256)),
    (r"llama-?3(\.1)?-405b", _llama(126, 16384, 128, 8, 53248, 128256)),
    (r"llama-?2-7b", _llama(32, 4096, 32, 32, 11008, 32000)),
    (r"llama-?3(\.1)?-8b", _llama(32, 4096, 32, 8, 14336, 128256)),
    (r"gpt-?3-?175b|gpt-175b", _plain("gpt2", 96, 12288, 96, 51200)),
    (r"gpt-126m", _plain("gpt2", 12, 768, 12, 50304)),
    (r"gpt-5b", _plain("gpt2", 24, 4096, 32, 51200)),
    (r"gpt-?2 (124m|117m)", _plain("gpt2", 12, 768, 12, 50257)),
    (r"gpt-?2 (345m|350m|355m)", _plain("gpt2", 24, 1024, 16, 50257)),
    (r"gpt-?2 (774m|large)", _plain("gpt2", 36, 1280, 20, 50257)),
    (r"gpt-?2 (1558m|1\.5b|xl)", _plain("gpt2", 48, 1600, 25, 50257)),
    (r"bert-?base", _plain("bert", 12, 768, 12, 30522)),
    (r"bert-?large", _plain("bert", 24, 1024, 16, 30522)),
    (r"phi-2", _plain("gpt2", 32, 2560, 32, 51200)),
    (r"mpt-125m", _plain("gpt2", 12, 768, 12, 50368)),
    (r"mpt-350m", _plain("gpt2", 24, 1024, 16, 50368)),
    (r"mpt-760m", _plain("gpt2", 24, 1536, 12, 50368)),
    (r"mpt-1b", _plain("gpt2", 24, 2048, 16, 50368)),
    (r"mpt-3b", _plain("gpt2", 32, 2560, 20, 50368)),
    (r"mpt-7b", _plain("gpt2", 32, 4096, 32, 50368)),
    (r"mpt-13b", _plain("gpt2", 40, 5120, 40, 50368)),
    (r"mpt-30b", _plain("gpt2", 48, 7168, 56, 50368)),
    (r"mpt-70b", _plain("gpt2", 80, 8192, 64, 50368)),
)
_SIZES = re.compile(r"(\d+)L/(\d+)/(\d+)H")
_SCALED = re.compile(r"emb (\d+), heads (\d+) x(\d+), mlp (\d+) \(gated\), layers (\d+), vocab (\d+)")
_VOCABULARY = re.compile(r"(?:vocab|LM head) (\d{4,6})")
_UNKNOWN = re.compile(r"switch|MoE|deepseek|gemma|gpt-oss|qwen3-235b|a22b|maverick|scout|wan2|GPT-J", re.IGNORECASE)


def model_of(name: str) -> Model | None:
    """The sizes of a named model, None where they are not known or its blocks are none of llmjax's.

    Sizes in the name count first: "12L/768/12H", with "vocab 51200" or "LM head 50257" where there is one, or
    "emb 4096, heads 64 x128, mlp 28672 (gated), layers 32, vocab 32000".
    """
    if _UNKNOWN.search(name):
        return None
    scaled = _SCALED.search(name)
    if scaled:
        width, heads, head_width, inner, layers, vocabulary = map(int, scaled.groups())
        return Model("llama", layers, width, heads, heads, head_width, inner, vocabulary)
    sizes = _SIZES.search(name)
    if sizes:
        layers, width, heads = map(int, sizes.groups())
        family = "bert" if re.search("bert", name, re.IGNORECASE) else "gpt2"
        known = _VOCABULARY.search(name)
        vocabulary = int(known[1]) if known else {"bert": 30522}.get(family, 50257)
        return None if width % heads else _plain(family, layers, width, heads, vocabulary)
    return next((model for pattern, model in _NAMED if re.search(pattern, name, re.IGNORECASE)), None)


def step_flops(model: Model, batch: int, length: int) -> float:
    """Model FLOPs of a training step as MaxText counts them: 6 a weight and token, attention in full.

    Source: MaxText, `calculate_tflops_training_per_device`: products of the layers and the vocabulary three times (one
    forward, two backward), attention's 4 B L^2 H K a layer likewise, no mask taken off.
    """
    weights = model.layers * model.layer_parameters + model.width * model.vocabulary
    attention = 4 * batch * length**2 * model.heads * model.head_width * model.layers
    return 6.0 * weights * batch * length + 3.0 * attention
