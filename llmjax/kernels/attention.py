"""Attention in three forms: of whole texts, of prompts into a cache, of one more token over a cache.

All three compute softmax(q k / sqrt(K)) v with the softmax in float32, under the scopes "scores", "softmax" and "mix".
Shape letters: B batch, L queries, S keys, H heads, G key-value heads, R = H / G heads that share keys, K head width,
N = B x G.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int8

_MASKED = jnp.finfo(jnp.float32).min
QUERIES = 128


def attend_texts(
    q_BLHK: Float[Array, "B L H K"],
    k_BSGK: Float[Array, "B S G K"],
    v_BSGK: Float[Array, "B S G K"],
    visible_BLS: Bool[Array, "_ _ S"] | None,
    scale: float | jax.Array,
    dropout: Callable[[jax.Array], jax.Array],
) -> Float[Array, "B L H K"]:
    """Attention without a cache, the form that training and classification run fastest; `dropout` acts on weights."""
    shape = q_BLHK.shape
    shared = shape[2] // k_BSGK.shape[2]
    if shared > 1:
        k_BSGK, v_BSGK = (jnp.repeat(part, shared, axis=2) for part in (k_BSGK, v_BSGK))
    with jax.named_scope("scores"):
        scores_BHLS = jnp.einsum("blhk,bshk->bhls", q_BLHK, k_BSGK, preferred_element_type=jnp.float32) * scale
    with jax.named_scope("softmax"):
        if visible_BLS is not None:
            scores_BHLS = jnp.where(visible_BLS[:, None], scores_BHLS, _MASKED)
        weights_BHLS = dropout(jax.nn.softmax(scores_BHLS, axis=-1).astype(v_BSGK.dtype))
    with jax.named_scope("mix"):
        return jnp.einsum("bhls,bshk->blhk", weights_BHLS, v_BSGK)


def attend_prompt(
    q_BHLK: Float[Array, "B H L K"],
    k_BGSK: Float[Array, "B G S K"],
    v_BGSK: Float[Array, "B G S K"],
    visible_BLS: Bool[Array, "B L S"],
    scale: float,
    dtype: jnp.dtype,
) -> Float[Array, "B H L K"]:
    """Causal attention of the last L of S tokens: products of `dtype` operands summed in float32."""
    with jax.named_scope("scores"):
        q_BHLK, k_BGSK, v_BGSK = (q_BHLK * scale).astype(dtype), k_BGSK.astype(dtype), v_BGSK.astype(dtype)
        shared = q_BHLK.shape[1] // k_BGSK.shape[1]
        if shared > 1:
            k_BGSK, v_BGSK = (jnp.repeat(part, shared, axis=1) for part in (k_BGSK, v_BGSK))
    return lax.platform_dependent(q_BHLK, k_BGSK, v_BGSK, visible_BLS, cpu=_mix_in_blocks, default=_mix)


def attend_step(
    q_BHK: Float[Array, "B H K"],
    k_NSK: Float[Array, "N S K"] | Int8[Array, "N S K"],
    v_NSK: Float[Array, "N S K"] | Int8[Array, "N S K"],
    visible_BS: Bool[Array, "B S"],
    scale: float,
    scales_NS: tuple[Float[Array, "N S"], Float[Array, "N S"]] | None = None,
) -> Float[Array, "B H K"]:
    """Attention of one token a row over its cache, computed in float32 whatever the cache's type.

    `scales_NS` are those of keys and values in 8 bits.

    Heads of rows are one dimension of the products: XLA on CPU copies the cache where there are two. Written as sums of
    products the same would become library calls that take four to ten times as long there.
    """
    # Kept apart from the write before it: fused with it, the whole cache would be copied.
    k_NSK, v_NSK, scales_NS = lax.optimization_barrier((k_NSK, v_NSK, scales_NS))
    pairs, slots, width = k_NSK.shape
    shared = q_BHK.shape[0] * q_BHK.shape[1] // pairs
    rows, keys = ("nk", "ns") if shared == 1 else ("nrk", "nrs")
    with jax.named_scope("scores"):
        q_NRK = (q_BHK * scale).reshape(pairs, *(() if shared == 1 else (shared,)), width)
        scores = jnp.einsum(f"{rows},nsk->{keys}", q_NRK, k_NSK.astype(jnp.float32))
        if scales_NS is not None:
            scores = scores * (scales_NS[0] if shared == 1 else scales_NS[0][:, None])
        scores_BHS = scores.reshape(*q_BHK.shape[:2], slots)
    with jax.named_scope("softmax"):
        weights_BHS = jax.nn.softmax(jnp.where(visible_BS[:, None], scores_BHS, _MASKED), axis=-1)
    with jax.named_scope("mix"):
        weights = weights_BHS.reshape(*q_NRK.shape[:-1], slots)
        if scales_NS is not None:
            weights = weights * (scales_NS[1] if shared == 1 else scales_NS[1][:, None])
        return jnp.einsum(f"{keys},nsk->{rows}", weights, v_NSK.astype(jnp.float32)).reshape(q_BHK.shape)


def _mix(q_BHLK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, visible_BLS: jax.Array) -> jax.Array:
    with jax.named_scope("scores"):
        scores_BHLS = jnp.einsum("bhlk,bhsk->bhls", q_BHLK, k_BHSK, preferred_element_type=jnp.float32)
    with jax.named_scope("softmax"):
        weights_BHLS = jax.nn.softmax(jnp.where(visible_BLS[:, None], scores_BHLS, _MASKED), axis=-1)
    with jax.named_scope("mix"):
        weights_BHLS = weights_BHLS.astype(v_BHSK.dtype)
        return jnp.einsum("bhls,bhsk->bhlk", weights_BHLS, v_BHSK, preferred_element_type=jnp.float32)


def _mix_in_blocks(q_BHLK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, visible_BLS: jax.Array) -> jax.Array:
    """`_mix`, `QUERIES` tokens at a time, each block with the tokens up to its last: five eighths of the work at 512.

    A CPU does the work that it is given, one op after another, so what it need not compute is time gained; to an
    accelerator more and smaller kernels cost more than they save.
    """
    length, before = q_BHLK.shape[2], k_BHSK.shape[2] - q_BHLK.shape[2]  # the queries are those of the last tokens
    blocks = []
    for start in range(0, length, QUERIES):
        end = min(start + QUERIES, length)
        k_BHMK, v_BHMK = k_BHSK[:, :, : before + end], v_BHSK[:, :, : before + end]
        blocks.append(_mix(q_BHLK[:, :, start:end], k_BHMK, v_BHMK, visible_BLS[:, start:end, : before + end]))
    return jnp.concatenate(blocks, axis=2)


def _sum_texts(q_BLHK: Any, k_BSGK: Any, v_BSGK: Any, *_: Any) -> jax.Array:
    return _sum(q_BLHK, k_BSGK, v_BSGK, tokens=1, heads=2)


def _sum_prompt(q_BHLK: Any, k_BGSK: Any, v_BGSK: Any, *_: Any) -> jax.Array:
    return _sum(q_BHLK, k_BGSK, v_BGSK, tokens=2, heads=1)


def _sum(q: jax.Array, k: jax.Array, v: jax.Array, tokens: int, heads: int) -> jax.Array:
    """Queries, keys and values added up: position by position, or those of all positions to fewer queries."""
    both = jnp.repeat(k + v, q.shape[heads] // k.shape[heads], axis=heads)
    return q + (both if q.shape[tokens] == k.shape[tokens] else both.sum(tokens, keepdims=True))


class Form(NamedTuple):
    """How tokens of texts and of prompts are mixed: functions that stand in for `attend_texts`, `attend_prompt`."""

    texts: Callable[..., jax.Array]
    prompt: Callable[..., jax.Array]


# "sum" reads and writes what attention does and computes none of it: what is left of a program whose attention is
# priced apart.
FORMS: Mapping[str, Form] = {"softmax": Form(attend_texts, attend_prompt), "sum": Form(_sum_texts, _sum_prompt)}
