"""GPT-2 in Flax Linen: a pure function of parameters and tokens.

Shape letters: B batch, L query length, S key length, D model width, H heads, K head width, F MLP width, V vocabulary,
C classes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from llmjax.gpt2.activation import activation
from llmjax.gpt2.config import GPT2Config
from llmjax.gpt2.params import Head, Params


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Zeroes each element with probability `rate` and scales the rest by 1 / (1 - rate).

    One 32-bit word of the generator serves two elements, so the rate is rounded to a multiple of 2**-16: on CPU the
    generator, not the multiply, is what dropout costs.
    """
    width, threshold = x.shape[-1], round(rate * 2**16)
    words = jax.random.bits(key, (*x.shape[:-1], -(-width // 2)), jnp.uint32)
    keep = jnp.concatenate([(words & 0xFFFF) >= threshold, (words >> 16) >= threshold], axis=-1)[..., :width]
    # Behind a barrier the backward pass reads the mask, a byte an element, and does not draw it again.
    keep = jax.lax.optimization_barrier(keep)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


class Dropout(nn.Module):
    """`dropout` with the key drawn from the "dropout" stream; the identity when `deterministic`."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        if deterministic or self.rate == 0.0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))


@jax.custom_vjp
def matmul(x: Float[Array, "... D"], kernel: Float[Array, "D E"]) -> Float[Array, "... E"]:
    """Multiplies the last axis of `x` by `kernel`.

    JAX's own derivative asks for the kernel's gradient transposed, which XLA on CPU answers with strided copies of
    every activation gradient: a third of a training step of the 124M model. This one asks for it as it is stored.
    """
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _matmul_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return matmul(x, kernel), (x, kernel)


def _matmul_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    dx = jax.lax.dot_general(dy, kernel, (((dy.ndim - 1,), (1,)), ((), ())))
    x_TD, dy_TE = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dx, jax.lax.dot_general(x_TD, dy_TE, (((0,), (0,)), ((), ())))


matmul.defvjp(_matmul_forward, _matmul_backward)


@jax.custom_vjp
def add_branch(x: Float[Array, "... D"], branch: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Adds a branch's output to the residual stream.

    The stream's gradient is a sum that grows by a term a layer. Behind a barrier it is written to memory; without one,
    XLA on CPU fuses the sum into each loop that uses it, and every layer adds up all the later layers' terms again
    (with jaxlib 0.10 it does so all the same: its XLA drops barriers before it fuses).
    """
    return x + branch


def _add_branch_forward(x: jax.Array, branch: jax.Array) -> tuple[jax.Array, None]:
    return add_branch(x, branch), None


def _add_branch_backward(_: None, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    dy = jax.lax.optimization_barrier(dy)
    return dy, dy


add_branch.defvjp(_add_branch_forward, _add_branch_backward)


def _dense_dot(x: jax.Array, kernel: jax.Array, dims: Any, **_: Any) -> jax.Array:
    """`matmul` in the form that `nn.Dense` calls; a Dense only ever contracts the last axis with the first."""
    return matmul(x, kernel)


def _dense(config: GPT2Config, features: int, name: str, stddev: float) -> nn.Dense:
    return nn.Dense(
        features,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        kernel_init=nn.initializers.normal(stddev),
        dot_general=_dense_dot,
        name=name,
    )


def _layer_norm(config: GPT2Config, name: str) -> nn.LayerNorm:
    # E[x^2] - E[x]^2 cancels badly on the outlier channels that trained GPT-2s have.
    return nn.LayerNorm(
        epsilon=config.layer_norm_epsilon,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        use_fast_variance=False,
        name=name,
    )


def _residual_stddev(config: GPT2Config) -> float:
    """GPT-2 scales the initial weights of projections into the residual stream by 1 / sqrt(2 N)."""
    return config.initializer_range / (2 * config.n_layer) ** 0.5


class Attention(nn.Module):
    """Causal self-attention; with `query_B1`, only those positions ask, and all positions answer."""

    config: GPT2Config

    @nn.compact
    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        mask_BS: Bool[Array, "B S"] | None,
        layer: int | jax.Array,
        deterministic: bool,
        query_BL: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L D"]:
        config = self.config
        batch, length, width = x_BSD.shape
        qkv_BSE = _dense(config, 3 * width, "c_attn", config.initializer_range)(x_BSD)
        q_BLD, k_BSD, v_BSD = jnp.split(qkv_BSE, 3, axis=-1)
        if query_BL is None:
            query_BL = jnp.arange(length)[None, :]
        else:
            q_BLD = jnp.take_along_axis(q_BLD, query_BL[..., None], axis=1)

        def heads(x: jax.Array) -> jax.Array:
            return x.reshape(batch, -1, config.n_head, config.head_dim)

        q_BLHK, k_BSHK, v_BSHK = heads(q_BLD), heads(k_BSD), heads(v_BSD)
        if config.reorder_and_upcast_attn:
            q_BLHK, k_BSHK = q_BLHK.astype(jnp.float32), k_BSHK.astype(jnp.float32)
        scale = config.head_dim**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale = scale / (layer + 1)
        with jax.named_scope("scores"):
            scores_BHLS = jnp.einsum("blhk,bshk->bhls", q_BLHK, k_BSHK, preferred_element_type=jnp.float32) * scale
        with jax.named_scope("softmax"):
            visible_BHLS = (jnp.arange(length) <= query_BL[..., None])[:, None]
            if mask_BS is not None:
                visible_BHLS &= mask_BS[:, None, None, :]
            scores_BHLS = jnp.where(visible_BHLS, scores_BHLS, jnp.finfo(jnp.float32).min)
            weights_BHLS = jax.nn.softmax(scores_BHLS, axis=-1).astype(v_BSHK.dtype)
            weights_BHLS = Dropout(config.attn_pdrop, name="attn_dropout")(weights_BHLS, deterministic)
        with jax.named_scope("mix"):
            mixed_BLHK = jnp.einsum("bhls,bshk->blhk", weights_BHLS, v_BSHK)
        out_BLD = _dense(config, width, "c_proj", _residual_stddev(config))(mixed_BLHK.reshape(batch, -1, width))
        return Dropout(config.resid_pdrop, name="resid_dropout")(out_BLD, deterministic)


class MLP(nn.Module):
    """Two dense layers, D -> F -> D, with the activation between."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"], deterministic: bool) -> Float[Array, "B L D"]:
        config = self.config
        x_BLF = _dense(config, config.inner_dim, "c_fc", config.initializer_range)(x_BLD)
        x_BLF = activation(config.activation_function, x_BLF)
        x_BLD = _dense(config, config.n_embd, "c_proj", _residual_stddev(config))(x_BLF)
        return Dropout(config.resid_pdrop, name="resid_dropout")(x_BLD, deterministic)


class Block(nn.Module):
    """One pre-norm transformer layer."""

    config: GPT2Config
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        mask_BS: Bool[Array, "B S"] | None,
        layer: int | jax.Array,
        query_BL: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L D"]:
        config = self.config
        normed_BSD = _layer_norm(config, "ln_1")(x_BSD)
        attended_BLD = Attention(config, name="attn")(normed_BSD, mask_BS, layer, self.deterministic, query_BL)
        x_BLD = x_BSD if query_BL is None else jnp.take_along_axis(x_BSD, query_BL[..., None], axis=1)
        x_BLD = add_branch(x_BLD, attended_BLD)
        return add_branch(x_BLD, MLP(config, name="mlp")(_layer_norm(config, "ln_2")(x_BLD), self.deterministic))


class _ScannedBlock(nn.Module):
    """`Block` in the form `nn.scan` wants: (carry, layer number) -> (carry, no output)."""

    config: GPT2Config
    deterministic: bool

    @nn.compact
    def __call__(self, x_BLD: jax.Array, layer: jax.Array, mask_BS: jax.Array | None) -> tuple[jax.Array, None]:
        return Block(self.config, self.deterministic, name="block")(x_BLD, mask_BS, layer), None


class GPT2(nn.Module):
    """GPT-2 with a language-model head, a classification head, or none.

    `GPT2(config, head).apply({"params": params}, tokens_BL, ...)` returns, always in float32,

    - head "lm": next-token logits [B, L, V], from the embedding matrix unless `tie_word_embeddings` is false;
    - head "classifier": class logits [B, C], read at each row's last real token, as transformers'
      `GPT2ForSequenceClassification` reads them;
    - head "none": hidden states after the last layer norm, [B, L, D].

    `mask_BL` is true at real tokens; padding may stand on either side. `positions_BL` defaults to 0..L-1 in every row,
    padding included, as in transformers. With `deterministic=False` pass `rngs={"dropout": key}`.
    """

    config: GPT2Config
    head: Head = "lm"

    @nn.compact
    def __call__(
        self,
        tokens_BL: Int[Array, "B L"],
        mask_BL: Bool[Array, "B L"] | None = None,
        positions_BL: Int[Array, "B L"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "..."]:
        config = self.config
        batch, length = tokens_BL.shape
        embed: dict[str, Any] = {"dtype": config.dtype, "param_dtype": config.param_dtype}
        init = nn.initializers.normal(config.initializer_range)
        wte = nn.Embed(config.vocab_size, config.n_embd, embedding_init=init, name="wte", **embed)
        wpe = nn.Embed(config.n_positions, config.n_embd, embedding_init=init, name="wpe", **embed)
        if positions_BL is None:
            positions_BL = jnp.arange(length)[None, :]
        x_BLD = wte(tokens_BL) + wpe(positions_BL)
        x_BLD = Dropout(config.embd_pdrop, name="embd_dropout")(x_BLD, deterministic)

        # The class logits read one token a row, so the last layer computes queries and MLP for that token alone.
        pooled_B1 = last_token(mask_BL, batch, length)[:, None] if self.head == "classifier" else None
        if config.scan_layers:
            x_BLD = self._scanned_layers(x_BLD, mask_BL, deterministic)
            if pooled_B1 is not None:
                x_BLD = jnp.take_along_axis(x_BLD, pooled_B1[..., None], axis=1)
        else:
            block = nn.remat(Block, static_argnums=(3,)) if config.remat else Block
            for layer in range(config.n_layer):
                query_BL = pooled_B1 if layer == config.n_layer - 1 else None
                x_BLD = block(config, deterministic, name=f"h_{layer}")(x_BLD, mask_BL, layer, query_BL)
        x_BLD = _layer_norm(config, "ln_f")(x_BLD)

        if self.head == "none":
            return x_BLD.astype(jnp.float32)
        if self.head == "classifier":
            score = nn.Dense(config.num_labels, use_bias=False, kernel_init=init, name="score", **embed)
            return score(x_BLD[:, 0]).astype(jnp.float32)
        if config.tie_word_embeddings:
            with jax.named_scope("lm_head"):
                logits_BLV = jnp.einsum(
                    "bld,vd->blv", x_BLD, wte.embedding.astype(config.dtype), preferred_element_type=jnp.float32
                )
        else:
            logits_BLV = nn.Dense(config.vocab_size, use_bias=False, kernel_init=init, name="lm_head", **embed)(x_BLD)
        return logits_BLV.astype(jnp.float32)

    def _scanned_layers(self, x_BLD: jax.Array, mask_BL: jax.Array | None, deterministic: bool) -> jax.Array:
        block = nn.remat(_ScannedBlock, prevent_cse=False) if self.config.remat else _ScannedBlock
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType] (a tuple is what Linen documents)
            length=self.config.n_layer,
        )
        return scanned(self.config, deterministic, name="h")(x_BLD, jnp.arange(self.config.n_layer), mask_BL)[0]


def last_token(mask_BL: Bool[Array, "B L"] | None, batch: int, length: int) -> Int[Array, "B"]:
    """Returns the index of each row's last real token, whichever side the padding is on; 0 in a row of padding."""
    if mask_BL is None:
        return jnp.full((batch,), length - 1)
    return jnp.max(jnp.where(mask_BL, jnp.arange(length), 0), axis=-1)


def init_params(model: GPT2, key: PRNGKeyArray | jax.Array) -> Params:
    """Returns freshly drawn parameters of `model`: normal(`initializer_range`), residual projections scaled down."""
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, 1), jnp.int32))["params"])(key)
