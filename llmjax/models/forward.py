"""What all families' forward passes share between the embedding and the head: who sees whom, all layers, who is asked.

Shape letters: B batch, L query length, S key length, D model width, K head width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from llmjax.kernels.product import is_plain, product, unembed
from llmjax.models.cache import Cache, visible
from llmjax.models.layers import Ask, Embed, Kernel, Layer, Scene
from llmjax.models.rope import rope_angles
from llmjax.models.spec import LayerSpec
from llmjax.parallel.mesh import ROWS, axis_size, row_axes, spread


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
    if is_plain(table):
        table = _by_word(table, 0 if config.tie_word_embeddings else 1)

    def logits(x: jax.Array) -> jax.Array:
        with jax.named_scope("lm_head"):
            if config.tie_word_embeddings:
                found = unembed(x, table, config.vocab_size)
            else:
                kernel = table.astype(config.dtype) if is_plain(table) else table
                found = product(x, kernel, config.vocab_size).astype(jnp.float32)
            return spread(found, row_axes(len(found)), *[None] * (found.ndim - 2), "tensor", uneven=True)

    return next_token_scores(x_BLD, tokens_BL, logits) if head == "score" else logits(x_BLD)


def _by_word(table: jax.Array, axis: int) -> jax.Array:
    """Returns a vocabulary's weight with its words, on `axis`, divided over a mesh's `tensor` devices."""
    entries: list[Any] = [None, None]
    entries[axis] = "tensor"
    if table.shape[axis] % axis_size("tensor"):  # stored by width: parts are exchanged
        table = spread(table, *reversed(entries))
    return spread(table, *entries, uneven=True)


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
        return jnp.take_along_axis(logprobs_LV, following_L[..., None], axis=-1)[..., 0]

    groups = axis_size(*ROWS)
    if groups == 1 or len(hidden_BLD) % groups:
        scores_BL = jax.lax.map(row, (hidden_BLD, following_BL))
    else:  # a row of each device's at a time
        apart = [x.reshape(groups, -1, *x.shape[1:]).swapaxes(0, 1) for x in (hidden_BLD, following_BL)]
        scores_BL = jax.lax.map(row, (apart[0], apart[1])).swapaxes(0, 1).reshape(following_BL.shape)
    return scores_BL.at[:, -1].set(0.0)
