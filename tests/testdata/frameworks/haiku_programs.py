"""A small transformer in Haiku, as its own example names things."""

import haiku as hk
import jax
import jax.numpy as jnp

B, L, D, V, N = 2, 16, 32, 128, 2


class Transformer(hk.Module):
    def __call__(self, x_BLD):
        mask = jnp.tril(jnp.ones((1, 1, L, L)))
        for _ in range(N):
            attention = hk.MultiHeadAttention(4, 8, w_init=hk.initializers.VarianceScaling(), model_size=D)
            normed = hk.LayerNorm(-1, True, True)(x_BLD)
            x_BLD = x_BLD + attention(normed, normed, normed, mask=mask)
            block = hk.Sequential([hk.Linear(4 * D), jax.nn.gelu, hk.Linear(D)])
            x_BLD = x_BLD + block(hk.LayerNorm(-1, True, True)(x_BLD))
        return hk.LayerNorm(-1, True, True)(x_BLD)


class LanguageModel(hk.Module):
    def __call__(self, tokens_BL):
        x_BLD = hk.Embed(V, D)(tokens_BL)
        return hk.Linear(V)(Transformer()(x_BLD))


def programs():
    model = hk.without_apply_rng(hk.transform(lambda tokens: LanguageModel()(tokens)))
    tokens = jax.ShapeDtypeStruct((B, L), jnp.int32)
    yield "haiku_lm", model.apply, (jax.eval_shape(model.init, jax.random.key(0), tokens), tokens)
