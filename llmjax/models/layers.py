"""Each block of a transformer once; families assemble them.

Shape letters: B batch, L query length, S key length, D model width, H heads, G key-value heads, K head width, F MLP
width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llmjax.kernels import attention as forms
from llmjax.kernels.product import is_plain, lookup, product, unembed
from llmjax.kernels.training import add_branch, dropout
from llmjax.models import spec as specs
from llmjax.models.activation import activation
from llmjax.models.cache import Cache, visible
from llmjax.models.spec import LayerSpec, Names, Rope

Ask = Callable[[jax.Array], jax.Array]
"""Chooses, along axis 1, the positions that a last layer is asked for: [B, L, ...] -> [B, A, ...]."""


class Scene(NamedTuple):
    """What all layers of one forward pass share.

    visible_BLS: which keys each query sees; None: all. rope_BLK: (cos, sin) of the positions. slot: where new keys and
    values go in the cache.
    """

    visible_BLS: Bool[Array, "_ _ S"] | None
    rope_BLK: tuple[jax.Array, jax.Array] | None = None
    slot: jax.Array | int = 0


def _weight(module: nn.Module, name: str, init: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A parameter: a plain array that Linen draws and checks, or the packed weight that stands in its place."""
    if module.has_variable("params", name):
        stored = module.get_variable("params", name)
        if not is_plain(stored):
            return stored
    return module.param(name, init, shape, dtype)


class Dense(nn.Module):
    """The product of the last axis with a weight of any form, and a bias."""

    features: int
    use_bias: bool = True
    std: float = 0.02
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        init = nn.initializers.normal(self.std)
        kernel = _weight(self, "kernel", init, (x.shape[-1], self.features), self.param_dtype)
        if is_plain(kernel):
            x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = product(x, kernel, self.features)
        if self.use_bias:
            bias_E = self.param("bias", nn.initializers.zeros_init(), (self.features,), self.param_dtype)
            y = y + bias_E.astype(y.dtype)
        return y


class Kernel(nn.Module):
    """A weight by itself, for those who multiply by it inside a loop, where no module may be called."""

    shape: tuple[int, int]
    std: float
    param_dtype: str

    @nn.compact
    def __call__(self) -> Any:
        return _weight(self, "kernel", nn.initializers.normal(self.std), self.shape, self.param_dtype)


class Embed(nn.Module):
    """A table of rows by number; `unembed` multiplies by it."""

    rows: int
    width: int
    std: float = 0.02
    dtype: str = "float32"
    param_dtype: str = "float32"

    def setup(self) -> None:
        init = nn.initializers.normal(self.std)
        self.embedding = _weight(self, "embedding", init, (self.rows, self.width), self.param_dtype)

    def __call__(self, numbers: Int[Array, "..."]) -> Float[Array, "... D"]:
        return lookup(self.embedding, numbers, self.dtype)


class Norm(nn.Module):
    """A normalisation over the last axis, in float32: of mean and variance, or of the root mean square."""

    spec: specs.Norm
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale_D = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],), self.param_dtype)
        x = x.astype(jnp.float32)
        if self.spec.kind == "rms":
            inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.spec.epsilon)
            return (x * inverse * scale_D).astype(self.dtype)
        bias_D = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],), self.param_dtype)
        # E[x^2] - E[x]^2 would cancel badly on the outlier channels that trained models have.
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.spec.epsilon)
        return (x * (inverse * scale_D) + bias_D).astype(self.dtype)


class Dropout(nn.Module):
    """`dropout` with the key drawn from the "dropout" stream; the identity when `deterministic`."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        if deterministic or self.rate == 0.0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))


def _dense(spec: LayerSpec, features: int, name: str, bias: bool, std: float) -> Dense:
    return Dense(features, bias, std, spec.dtype, spec.param_dtype, name=name)


class Attention(nn.Module):
    """Self-attention over a text, or over a cache that it extends.

    `kv` is the layer's (keys, values) [N, S, K] in the cache. One token is written at `scene.slot` and attends to
    the cache; several are a prompt, written from slot 0, and attend to one another.
    """

    spec: LayerSpec

    @nn.compact
    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        layer: int | jax.Array,
        scene: Scene,
        kv: tuple[jax.Array, jax.Array] | None,
        deterministic: bool,
        ask: Ask | None,
    ) -> tuple[Float[Array, "B L D"], tuple[jax.Array, jax.Array] | None]:
        spec = self.spec
        q_BLHK, k_BSGK, v_BSGK = self._qkv(x_BSD, scene, ask)
        scale: float | jax.Array = spec.head_width**-0.5 if spec.scale is None else spec.scale
        if spec.by_layer:
            scale = scale / (layer + 1)
        visible_BLS = scene.visible_BLS
        if ask is not None and visible_BLS is not None and visible_BLS.shape[1] > 1:
            visible_BLS = ask(jnp.broadcast_to(visible_BLS, (len(x_BSD), *visible_BLS.shape[1:])))
        if kv is None:
            if spec.upcast:
                q_BLHK, k_BSGK = q_BLHK.astype(jnp.float32), k_BSGK.astype(jnp.float32)
            drop = Dropout(spec.attention_dropout, name="attn_dropout")
            mixed_BLHK = forms.attend_texts(
                q_BLHK, k_BSGK, v_BSGK, visible_BLS, scale, lambda weights: drop(weights, deterministic)
            )
        else:
            q_BHLK, k_BGLK, v_BGLK = (part.transpose(0, 2, 1, 3) for part in (q_BLHK, k_BSGK, v_BSGK))
            dtype = jnp.dtype(jnp.float32) if spec.upcast else kv[0].dtype
            with jax.named_scope("cache"):
                kv = _write(kv[0], k_BGLK, scene.slot), _write(kv[1], v_BGLK, scene.slot)
            if x_BSD.shape[1] == 1:
                mixed_BHLK = forms.attend_step(q_BHLK[:, :, 0], *kv, visible_BLS[:, 0], scale)[:, :, None]  # pyright: ignore
            else:
                mixed_BHLK = forms.attend_prompt(q_BHLK, k_BGLK, v_BGLK, visible_BLS, scale, dtype)  # pyright: ignore
            mixed_BLHK = mixed_BHLK.transpose(0, 2, 1, 3)
        mixed_BLE = mixed_BLHK.reshape(*mixed_BLHK.shape[:2], -1)
        out_BLD = _dense(spec, spec.width, spec.names.out, spec.out_bias, spec.out_std)(mixed_BLE)
        return Dropout(spec.dropout, name="resid_dropout")(out_BLD, deterministic), kv

    @nn.nowrap  # no scope of its own
    def _qkv(self, x_BSD: jax.Array, scene: Scene, ask: Ask | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns queries of the positions asked for, and keys and values of all."""
        spec, names = self.spec, self.spec.names.qkv
        sizes = [spec.heads * spec.head_width, *[spec.kv_heads * spec.head_width] * 2]
        if len(names) == 1:
            qkv_BSE = _dense(spec, sum(sizes), names[0], spec.qkv_bias, spec.std)(x_BSD)
            q_BLE, k_BSE, v_BSE = jnp.split(qkv_BSE, [sizes[0], sizes[0] + sizes[1]], axis=-1)
            q_BLE = q_BLE if ask is None else ask(q_BLE)
        else:
            asked_BLD = x_BSD if ask is None else ask(x_BSD)
            q_BLE, k_BSE, v_BSE = (
                _dense(spec, size, name, spec.qkv_bias, spec.std)(x)
                for size, name, x in zip(sizes, names, (asked_BLD, x_BSD, x_BSD), strict=True)
            )
        q, k, v = (part.reshape(*part.shape[:2], -1, spec.head_width) for part in (q_BLE, k_BSE, v_BSE))
        if spec.qk_norm:
            norm: dict[str, Any] = {"spec": specs.Norm("rms", spec.norm.epsilon)}
            norm |= {"dtype": spec.dtype, "param_dtype": spec.param_dtype}
            q, k = Norm(**norm, name="q_norm")(q), Norm(**norm, name="k_norm")(k)
        if scene.rope_BLK is not None:
            with jax.named_scope("rope"):
                asked = scene.rope_BLK if ask is None else tuple(map(ask, scene.rope_BLK))
                q, k = rotate(q, asked), rotate(k, scene.rope_BLK)
        return q, k, v


def _write(cache_NSK: jax.Array, new_BGLK: jax.Array, slot: jax.Array | int) -> jax.Array:
    new_NLK = new_BGLK.reshape(-1, *new_BGLK.shape[2:]).astype(cache_NSK.dtype)
    return jax.lax.dynamic_update_slice(cache_NSK, new_NLK, (0, slot, 0))


class MLP(nn.Module):
    """D -> F -> D with the activation between; gated, the activation of one product times another."""

    spec: LayerSpec

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"], deterministic: bool) -> Float[Array, "B L D"]:
        spec = self.spec
        # Tokens of all rows in one dimension: XLA fuses the activation with the rounding to 8 bits after it only then.
        x_TD = x_BLD.reshape(-1, spec.width)
        up = [_dense(spec, spec.inner, name, spec.mlp_bias, spec.std)(x_TD) for name in spec.names.up]
        x_TF = activation(spec.activation, up[0])
        if len(up) == 2:
            x_TF = x_TF * up[1]
        x_TD = _dense(spec, spec.width, spec.names.down, spec.mlp_bias, spec.out_std)(x_TF)
        return Dropout(spec.dropout, name="resid_dropout")(x_TD.reshape(x_BLD.shape), deterministic)


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream, with norms before the branches or after the sums."""

    spec: LayerSpec
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        layer: int | jax.Array,
        scene: Scene,
        kv: tuple[jax.Array, jax.Array] | None = None,
        ask: Ask | None = None,
    ) -> tuple[Float[Array, "B L D"], tuple[jax.Array, jax.Array] | None]:
        spec = self.spec
        norms = [Norm(spec.norm, spec.dtype, spec.param_dtype, name=name) for name in spec.names.norms]
        attention, mlp = Attention(spec, name=spec.names.attention), MLP(spec, name=spec.names.mlp)
        normed_BSD = x_BSD if spec.norm_after else norms[0](x_BSD)
        attended_BLD, kv = attention(normed_BSD, layer, scene, kv, self.deterministic, ask)
        x_BLD = add_branch(x_BSD if ask is None else ask(x_BSD), attended_BLD)
        if spec.norm_after:
            x_BLD = norms[0](x_BLD)
            return norms[1](add_branch(x_BLD, mlp(x_BLD, self.deterministic))), kv
        return add_branch(x_BLD, mlp(norms[1](x_BLD), self.deterministic)), kv


class _Scanned(nn.Module):
    """`Layer` in the form `nn.scan` wants: (carry, layer number) -> (carry, no output)."""

    spec: LayerSpec
    deterministic: bool

    @nn.compact
    def __call__(self, x_BLD: jax.Array, layer: jax.Array, scene: Scene) -> tuple[jax.Array, None]:
        return Layer(self.spec, self.deterministic, name="block")(x_BLD, layer, scene)[0], None


def run_layers(
    config: Any,
    x_BSD: Float[Array, "B S D"],
    scene: Scene,
    deterministic: bool,
    cache: Cache | None = None,
    ask: Ask | None = None,
) -> tuple[Float[Array, "B L D"], Cache | None]:
    """Runs a model's layers inside its `__call__`: apart (`h_0`, `h_1`, ...) or scanned over stacked parameters (`h`).

    Args:
        config: a `ModelConfig`.
        ask: the positions that are wanted after the last layer; it computes queries and MLP for these alone.

    Returns:
        the residual stream, and the cache with the new keys and values.
    """
    spec: LayerSpec = config.layer
    if config.scan_layers:
        assert cache is None, "generation runs layers apart"
        layer = nn.remat(_Scanned, prevent_cse=False) if config.remat else _Scanned
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType] (a tuple is what Linen documents)
            length=config.layers,
        )
        x_BLD = scanned(spec, deterministic, name=spec.names.layer)(x_BSD, jnp.arange(config.layers), scene)[0]
        return x_BLD if ask is None else ask(x_BLD), None
    layer = nn.remat(Layer, static_argnums=(2, 5)) if config.remat else Layer
    pairs = []
    for number in range(config.layers):
        kv = None if cache is None else (cache.k_NSK[number], cache.v_NSK[number])
        last = ask if number == config.layers - 1 else None
        name = f"{spec.names.layer}_{number}"
        x_BSD, kv = layer(spec, deterministic, name=name)(x_BSD, number, scene, kv, last)
        pairs.append(kv)
    if cache is None:
        return x_BSD, None
    return x_BSD, cache._replace(k_NSK=tuple(k for k, _ in pairs), v_NSK=tuple(v for _, v in pairs))


def set_scene(
    spec: LayerSpec,
    tokens_BL: Int[Array, "B L"],
    mask_BL: Bool[Array, "B L"] | None,
    positions_BL: Int[Array, "B L"] | None,
    cache: Cache | None,
) -> tuple[Int[Array, "_ L"], Scene, Cache | None]:
    """Returns the tokens' positions, what they see, and the cache with the new tokens counted.

    Args:
        mask_BL: true at real tokens. With a cache, a prompt's padding stands on the left, and its first position is the
            first real token; without one positions count from each row's first slot, padding included.
        cache: one token goes behind what is there; a prompt overwrites the cache from slot 0.
    """
    length = tokens_BL.shape[1]
    slot_S = jnp.arange(length)
    query_BL, slot = slot_S[None, :], 0
    if cache is not None and length == 1:
        positions_BL, slot = cache.positions_B[:, None], cache.end
        query_BL = jnp.broadcast_to(cache.end, (1, 1))
        cache = cache._replace(end=cache.end + 1)
        visible_BLS, slot_S = visible(cache)[:, None], jnp.arange(cache.slots)
    elif cache is not None:
        real_BL = jnp.ones(tokens_BL.shape, bool) if mask_BL is None else mask_BL
        start_B = length - jnp.sum(real_BL, axis=1)
        positions_BL = jnp.maximum(slot_S - start_B[:, None], 0)
        visible_BLS = (slot_S <= slot_S[:, None]) & (slot_S >= start_B[:, None, None])
        cache = cache._replace(start_B=start_B.astype(jnp.int32), end=jnp.full((), length, jnp.int32))
    else:
        visible_BLS = (slot_S <= slot_S[:, None])[None] if spec.causal else None
        if mask_BL is not None:
            visible_BLS = mask_BL[:, None] if visible_BLS is None else visible_BLS & mask_BL[:, None]
    if spec.window is not None and visible_BLS is not None:
        visible_BLS &= slot_S > query_BL[..., None] - spec.window
    positions_BL = slot_S[None, :] if positions_BL is None else positions_BL
    rope_BLK = None if spec.rope is None else rope_angles(spec.rope, spec.head_width, positions_BL)
    return positions_BL, Scene(visible_BLS, rope_BLK, slot), cache


def rope_angles(rope: Rope, width: int, positions_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns cosine and sine of each position's angles, [B, L, K / 2] in float32."""
    with jax.named_scope("rope"):
        frequency_K = rope.theta ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
        if rope.scaling == "linear":
            frequency_K = frequency_K / rope.factor
        if rope.scaling == "llama3":
            turns_K = rope.original * frequency_K / (2 * jnp.pi)
            share_K = (turns_K - rope.low_factor) / (rope.high_factor - rope.low_factor)
            share_K = jnp.clip(share_K, 0.0, 1.0)
            frequency_K = share_K * frequency_K + (1.0 - share_K) * frequency_K / rope.factor
        angle_BLK = positions_BL[..., None].astype(jnp.float32) * frequency_K
        return jnp.cos(angle_BLK), jnp.sin(angle_BLK)


def rotate(x_BLHK: Float[Array, "B L H K"], rope_BLK: tuple[jax.Array, ...]) -> Float[Array, "B L H K"]:
    """Turns each pair (k, k + K / 2) of a head by its position's angle."""
    cos_BL1K, sin_BL1K = (part[:, :, None] for part in rope_BLK)
    first, second = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = (first * cos_BL1K - second * sin_BL1K, second * cos_BL1K + first * sin_BL1K)
    return jnp.concatenate(turned, axis=-1).astype(x_BLHK.dtype)


def last_token(mask_BL: Bool[Array, "B L"] | None, batch: int, length: int) -> Int[Array, "B"]:
    """Returns the index of each row's last real token, whichever side the padding is on; 0 in a row of padding."""
    if mask_BL is None:
        return jnp.full((batch,), length - 1)
    return jnp.max(jnp.where(mask_BL, jnp.arange(length), 0), axis=-1)


def ask_for(index_B: Int[Array, "B"]) -> Ask:
    """Returns the `Ask` of one position a row."""

    def ask(x: jax.Array) -> jax.Array:
        x = jnp.broadcast_to(x, (len(index_B), *x.shape[1:]))
        return jnp.take_along_axis(x, index_B.reshape(-1, *[1] * (x.ndim - 1)), axis=1)

    return ask


def ask_last(x: jax.Array) -> jax.Array:
    """The `Ask` of the last position."""
    return x[:, -1:]


def ask_of(head: str, tokens_BL: jax.Array, mask_BL: jax.Array | None, cache: Cache | None) -> Ask | None:
    """Returns the positions that a causal model's head reads; None for all.

    A classifier reads each row's last real token; a language head that extends a cache continues the last one.
    """
    if head == "classifier":
        return ask_for(last_token(mask_BL, *tokens_BL.shape))
    return ask_last if head == "lm" and cache is not None and tokens_BL.shape[1] > 1 else None


def language_head(
    head: str, config: Any, embed: Embed, x_BLD: Float[Array, "B L D"], tokens_BL: Int[Array, "B L"]
) -> Float[Array, "..."]:
    """Returns float32 logits [B, L, V] from the embedding or, untied, from "lm_head"; for "score", `next_token_scores`.

    Called inside a model's `__call__`.
    """
    if config.tie_word_embeddings:
        table = embed.embedding
    else:
        shape = (config.width, config.vocab_size)
        table = Kernel(shape, config.initializer_range, config.param_dtype, name="lm_head")()

    def logits(x: jax.Array) -> jax.Array:
        with jax.named_scope("lm_head"):
            if config.tie_word_embeddings:
                return unembed(x, table, config.vocab_size)
            kernel = table.astype(config.dtype) if is_plain(table) else table
            return product(x, kernel, config.vocab_size).astype(jnp.float32)

    return next_token_scores(x_BLD, tokens_BL, logits) if head == "score" else logits(x_BLD)


def next_token_scores(
    hidden_BLD: Float[Array, "B L D"], tokens_BL: Int[Array, "B L"], logits: Callable[[jax.Array], jax.Array]
) -> Float[Array, "B L"]:
    """Returns the natural log-probability of each position's following token; 0 at the last position.

    `logits` maps hidden states [L, D] to [L, V]. A row at a time: logits of all rows may be more than the weights.
    """
    following_BL = jnp.pad(tokens_BL[:, 1:], ((0, 0), (0, 1)))

    def row(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden_LD, following_L = pair
        logprobs_LV = jax.nn.log_softmax(logits(hidden_LD))
        return jnp.take_along_axis(logprobs_LV, following_L[:, None], axis=-1)[:, 0]

    return jax.lax.map(row, (hidden_BLD, following_BL)).at[:, -1].set(0.0)


__all__ = [
    "MLP", "Ask", "Attention", "Dense", "Dropout", "Embed", "Layer", "Names", "Norm", "Scene", "ask_for", "ask_last",
    "last_token", "next_token_scores", "rope_angles", "rotate", "run_layers", "set_scene", "unembed",
]  # fmt: skip
