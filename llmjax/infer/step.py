"""The two functions that generation is made of, pure: a prompt into a cache, and one more token.

They compute what `GPT2(config, "lm").apply` computes, under the same scope names. Shape letters: B batch, L prompt
length, S cache length, D model width, H heads, K head width, E outputs of a product, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from llmjax.gpt2.activation import activation
from llmjax.gpt2.cache import Cache, visible
from llmjax.gpt2.config import GPT2Config
from llmjax.infer.dense import dense
from llmjax.infer.prepare import Prepared

_MASKED = jnp.finfo(jnp.float32).min


def prefill(
    params: Prepared,
    tokens_BL: Int[Array, "B L"],
    lengths_B: Int[Array, "B"],
    cache: Cache,
    *,
    config: GPT2Config,
) -> tuple[Float[Array, "B V"], Cache]:
    """Reads whole prompts into a cache.

    Args:
        params: from `prepare`.
        tokens_BL: prompts, padded on the right to one length, at most the cache's.
        lengths_B: how many tokens of each row are real: 1 to L.
        cache: a cache of B rows; what is in it is overwritten. Donate it.
        config: the model's shape.

    Returns:
        float32 logits of the token after each row's last one, and the cache with the prompts in slots 0 to L, moved to
        the right so that all rows end at slot L.
    """
    hidden_B1D, cache = _prompts(params, tokens_BL, lengths_B, cache, config, last=True)
    return _logits(params, hidden_B1D[:, 0], config), cache


def decode_step(
    params: Prepared, token_B: Int[Array, "B"], cache: Cache, *, config: GPT2Config
) -> tuple[Float[Array, "B V"], Cache]:
    """Takes one token a row into the cache; returns float32 logits of the next one, and the cache. Donate the cache.

    The cache must have a free slot, and each row's position must be below `n_positions`.
    """
    k_NSK, v_NSK = list(cache.k_NSK), list(cache.v_NSK)
    with jax.named_scope("GPT2"):
        x_BD = _embed(params, token_B, cache.positions_B)
        now = cache._replace(end=cache.end + 1)
        visible_BS = visible(now)
        for layer in range(config.n_layer):
            block = params[f"h_{layer}"]
            with jax.named_scope(f"h_{layer}"):
                normed_BD = _layer_norm(x_BD, block["ln_1"], config, "ln_1")
                with jax.named_scope("attn"):
                    q_BHK, k_BHK, v_BHK = _qkv(normed_BD, block, config)
                    with jax.named_scope("cache"):
                        k_NSK[layer] = _write(k_NSK[layer], k_BHK[:, :, None], cache.end)
                        v_NSK[layer] = _write(v_NSK[layer], v_BHK[:, :, None], cache.end)
                    mixed_BD = _attend_one(q_BHK, k_NSK[layer], v_NSK[layer], visible_BS, config, layer)
                    attended_BD = _dense(mixed_BD, block["attn"], "c_proj")
                x_BD = _mlp(x_BD + attended_BD, block, config)
        x_BD = _layer_norm(x_BD, params["ln_f"], config, "ln_f")
    return _logits(params, x_BD, config), now._replace(k_NSK=tuple(k_NSK), v_NSK=tuple(v_NSK))


def score(
    params: Prepared, tokens_BL: Int[Array, "B L"], lengths_B: Int[Array, "B"], cache: Cache, *, config: GPT2Config
) -> tuple[Float[Array, "B L"], Cache]:
    """Returns the natural log-probability of every token given those before it, [B, L], and the cache.

    Arguments as `prefill`'s. Padding and each row's first token, which nothing predicts, are 0.
    """
    hidden_BLD, cache = _prompts(params, tokens_BL, lengths_B, cache, config, last=False)
    length = tokens_BL.shape[1]

    def row(hidden_LD: jax.Array, tokens_L: jax.Array) -> jax.Array:
        # A row at a time: logits of all positions of all rows may be more than the weights.
        logits_LV = _logits(params, hidden_LD, config)
        return jnp.take_along_axis(jax.nn.log_softmax(logits_LV), tokens_L[:, None], axis=-1)[:, 0]

    shifted_BL = _to_the_right(tokens_BL, lengths_B)
    following_BL = jnp.pad(shifted_BL[:, 1:], ((0, 0), (0, 1)))
    scores_BL = lax.map(lambda pair: row(*pair), (hidden_BLD, following_BL))
    at_BL = jnp.arange(length) + (length - lengths_B)[:, None] - 1
    scores_BL = jnp.take_along_axis(scores_BL, at_BL % length, axis=1)
    inside_BL = (jnp.arange(length) > 0) & (jnp.arange(length) < lengths_B[:, None])
    return jnp.where(inside_BL, scores_BL, 0.0), cache


def _prompts(
    params: Prepared, tokens_BL: jax.Array, lengths_B: jax.Array, cache: Cache, config: GPT2Config, last: bool
) -> tuple[jax.Array, Cache]:
    """Hidden states, of the last tokens alone if `last`, and the cache; then the last layer only attends from them."""
    batch, length = tokens_BL.shape
    k_NSK, v_NSK = list(cache.k_NSK), list(cache.v_NSK)
    with jax.named_scope("GPT2"):
        start_B = length - lengths_B
        positions_BL = jnp.maximum(jnp.arange(length) - start_B[:, None], 0)
        x_TD = _embed(params, _to_the_right(tokens_BL, lengths_B).reshape(-1), positions_BL.reshape(-1))
        slot_L = jnp.arange(length)
        visible_BLS = (slot_L <= slot_L[:, None]) & (slot_L >= start_B[:, None, None])
        for layer in range(config.n_layer):
            block = params[f"h_{layer}"]
            with jax.named_scope(f"h_{layer}"):
                normed_TD = _layer_norm(x_TD, block["ln_1"], config, "ln_1")
                with jax.named_scope("attn"):
                    q_BHLK, k_BHLK, v_BHLK = (
                        part_THK.reshape(batch, length, config.n_head, config.head_dim).transpose(0, 2, 1, 3)
                        for part_THK in _qkv(normed_TD, block, config)
                    )
                    with jax.named_scope("cache"):
                        k_NSK[layer] = _write(k_NSK[layer], k_BHLK, 0)
                        v_NSK[layer] = _write(v_NSK[layer], v_BHLK, 0)
                    if last and layer == config.n_layer - 1:
                        x_TD, q_BHLK, visible_BLS = x_TD[length - 1 :: length], q_BHLK[:, :, -1:], visible_BLS[:, -1:]
                    mixed_BHLK = _attend(q_BHLK, k_BHLK, v_BHLK, visible_BLS, config, layer, cache.k_NSK[0].dtype)
                    mixed_TD = mixed_BHLK.transpose(0, 2, 1, 3).reshape(x_TD.shape)
                    attended_TD = _dense(mixed_TD, block["attn"], "c_proj")
                x_TD = _mlp(x_TD + attended_TD, block, config)
        x_TD = _layer_norm(x_TD, params["ln_f"], config, "ln_f")
    end = jnp.full((), length, jnp.int32)
    cache = Cache(tuple(k_NSK), tuple(v_NSK), start_B.astype(jnp.int32), end)
    return x_TD.reshape(batch, -1, config.n_embd), cache


def _to_the_right(tokens_BL: jax.Array, lengths_B: jax.Array) -> jax.Array:
    """Moves the padding of each row from its right end to its left."""
    length = tokens_BL.shape[1]
    source_BL = jnp.arange(length) - (length - lengths_B)[:, None]
    return jnp.take_along_axis(tokens_BL, source_BL % length, axis=1)


def _embed(params: Prepared, token_T: jax.Array, position_T: jax.Array) -> jax.Array:
    with jax.named_scope("wte"):
        x_TD = params["wte"]["kernel"][token_T].astype(jnp.float32)
        if "scale" in params["wte"]:
            x_TD = x_TD * params["wte"]["scale"][token_T][:, None]
    with jax.named_scope("wpe"):
        return x_TD + params["wpe"]["embedding"][position_T]


def _layer_norm(x_TD: jax.Array, weight: Prepared, config: GPT2Config, name: str) -> jax.Array:
    with jax.named_scope(name):
        centred_TD = x_TD - jnp.mean(x_TD, axis=-1, keepdims=True)
        variance_T1 = jnp.mean(jnp.square(centred_TD), axis=-1, keepdims=True)
        normed_TD = centred_TD * lax.rsqrt(variance_T1 + config.layer_norm_epsilon)
        return normed_TD * weight["scale"] + weight["bias"]


def _dense(x_TD: jax.Array, weights: Prepared, name: str) -> jax.Array:
    with jax.named_scope(name):
        return dense(x_TD, weights[name])


def _qkv(x_TD: jax.Array, block: Prepared, config: GPT2Config) -> tuple[jax.Array, ...]:
    """Returns query, key and value of every token, [T, H, K] each, by one product."""
    qkv_TE = _dense(x_TD, block["attn"], "c_attn")
    return tuple(part.reshape(-1, config.n_head, config.head_dim) for part in jnp.split(qkv_TE, 3, axis=-1))


def _mlp(x_TD: jax.Array, block: Prepared, config: GPT2Config) -> jax.Array:
    normed_TD = _layer_norm(x_TD, block["ln_2"], config, "ln_2")
    with jax.named_scope("mlp"):
        x_TF = activation(config.activation_function, _dense(normed_TD, block["mlp"], "c_fc"))
        return x_TD + _dense(x_TF, block["mlp"], "c_proj")


def _logits(params: Prepared, x_TD: jax.Array, config: GPT2Config) -> jax.Array:
    with jax.named_scope("GPT2"), jax.named_scope("lm_head"):
        weight = params["wte"] if config.tie_word_embeddings else params["lm_head"]
        return dense(x_TD, weight)[:, : config.vocab_size]


def _write(cache_NSK: jax.Array, new_BHLK: jax.Array, slot: jax.Array | int) -> jax.Array:
    new_NLK = new_BHLK.reshape(-1, *new_BHLK.shape[2:]).astype(cache_NSK.dtype)
    return lax.dynamic_update_slice(cache_NSK, new_NLK, (0, slot, 0))


def _scale(config: GPT2Config, layer: int) -> float:
    scale = config.head_dim**-0.5 if config.scale_attn_weights else 1.0
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale


def _attend_one(
    q_BHK: Float[Array, "B H K"],
    k_NSK: Float[Array, "N S K"],
    v_NSK: Float[Array, "N S K"],
    visible_BS: Bool[Array, "B S"],
    config: GPT2Config,
    layer: int,
) -> Float[Array, "B D"]:
    """Attention of one token a row over its cache, computed in float32 whatever the cache's type.

    Written as sums of products the same would become library calls that take four to ten times as long on a CPU.
    """
    # Kept apart from the write before it: fused with it, the whole cache would be copied.
    k_NSK, v_NSK = lax.optimization_barrier((k_NSK, v_NSK))
    with jax.named_scope("scores"):
        q_NK = q_BHK.reshape(-1, q_BHK.shape[-1]) * _scale(config, layer)
        scores_BHS = jnp.einsum("nk,nsk->ns", q_NK, k_NSK.astype(jnp.float32)).reshape(*q_BHK.shape[:2], -1)
    with jax.named_scope("softmax"):
        weights_BHS = jax.nn.softmax(jnp.where(visible_BS[:, None], scores_BHS, _MASKED), axis=-1)
    with jax.named_scope("mix"):
        mixed_NK = jnp.einsum("ns,nsk->nk", weights_BHS.reshape(-1, weights_BHS.shape[-1]), v_NSK.astype(jnp.float32))
    return mixed_NK.reshape(q_BHK.shape[0], -1)


def _attend(
    q_BHLK: Float[Array, "B H L K"],
    k_BHSK: Float[Array, "B H S K"],
    v_BHSK: Float[Array, "B H S K"],
    visible_BLS: Bool[Array, "B L S"],
    config: GPT2Config,
    layer: int,
    dtype: jnp.dtype,
) -> Float[Array, "B H L K"]:
    """Attention of whole prompts; products of `dtype` operands summed in float32, the softmax in float32."""
    with jax.named_scope("scores"):
        q_BHLK, k_BHSK, v_BHSK = (
            (q_BHLK * _scale(config, layer)).astype(dtype),
            k_BHSK.astype(dtype),
            v_BHSK.astype(dtype),
        )
    return lax.platform_dependent(q_BHLK, k_BHSK, v_BHSK, visible_BLS, cpu=_mix_in_blocks, default=_mix)


def _mix(q_BHLK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, visible_BLS: jax.Array) -> jax.Array:
    with jax.named_scope("scores"):
        scores_BHLS = jnp.einsum("bhlk,bhsk->bhls", q_BHLK, k_BHSK, preferred_element_type=jnp.float32)
    with jax.named_scope("softmax"):
        weights_BHLS = jax.nn.softmax(jnp.where(visible_BLS[:, None], scores_BHLS, _MASKED), axis=-1)
    with jax.named_scope("mix"):
        weights_BHLS = weights_BHLS.astype(v_BHSK.dtype)
        return jnp.einsum("bhls,bhsk->bhlk", weights_BHLS, v_BHSK, preferred_element_type=jnp.float32)


QUERIES = 128


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
