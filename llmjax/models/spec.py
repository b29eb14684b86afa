"""What a layer computes, said once for all families: a value that configs make and `layers` reads. No JAX here."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al. 2021, "RoFormer"), halves rotated against each other as transformers does it.

    scaling: "default"; "linear" divides positions by `factor`; "llama3" stretches the long wavelengths only, by
    `factor`, between `low_factor` and `high_factor` turns over `original` tokens (transformers' `modeling_rope_utils`).
    """

    theta: float
    scaling: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_factor: float = 1.0
    high_factor: float = 4.0
    original: int = 8192


@dataclasses.dataclass(frozen=True)
class Norm:
    """A normalisation over the width: "layer" (mean and variance, scale and bias) or "rms" (scale alone)."""

    kind: Literal["layer", "rms"]
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Names:
    """What a layer's parts are called among the parameters, and so in the HLO's scopes.

    qkv: one name where query, key and value are one product, else three. up: (gate, up) of a gated MLP, or one name.
    norms: of attention and of the MLP.
    """

    layer: str
    attention: str
    qkv: tuple[str, ...]
    out: str
    mlp: str
    up: tuple[str, ...]
    down: str
    norms: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One transformer layer.

    width D, heads H, kv_heads G, head_width K, inner F. norm_after: norms stand after the residual sums (BERT), not
    before the branches. qk_norm: a norm of each head's query and key. window: how many tokens back a token sees, itself
    included; None for all. scale: what scores are multiplied by, K**-0.5 unless said; by_layer: divided by the number
    of the layer, from 1, too. upcast: queries and keys multiply in float32. form: of attention, a key of
    `kernels.attention.FORMS`. std, out_std: of initial weights, and of
    those of projections into the residual stream.
    """

    names: Names
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    activation: str
    norm: Norm
    causal: bool = True
    norm_after: bool = False
    rope: Rope | None = None
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    qk_norm: bool = False
    window: int | None = None
    scale: float | None = None
    by_layer: bool = False
    upcast: bool = False
    form: str = "softmax"
    attention_dropout: float = 0.0
    dropout: float = 0.0
    std: float = 0.02
    out_std: float = 0.02
    dtype: str = "float32"
    param_dtype: str = "float32"
