"""A decoder whose scopes are called as MaxText calls its own, layers scanned, trained one step."""

import jax
import jax.numpy as jnp
from flax import linen as nn

B, L, D, H, K, F, V, N = 2, 16, 32, 4, 8, 64, 128, 2


class DenseGeneral(nn.Module):
    shape: tuple

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], *self.shape))
        return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


class RMSNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale


class AttentionOp(nn.Module):
    @nn.compact
    def __call__(self, q, k, v):
        scores = jnp.einsum("bthd,bshd->bhts", q, k) + jnp.where(jnp.tril(jnp.ones((L, L), bool)), 0.0, -1e9)
        return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        q, k, v = (DenseGeneral((H, K), name=name)(x) for name in ("query", "key", "value"))
        mixed = AttentionOp(name="attention_op")(q * K**-0.5, k, v)
        return DenseGeneral((D,), name="out")(mixed.reshape(B, L, H * K))


class MlpBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        gate = nn.silu(DenseGeneral((F,), name="wi_0")(x))
        return DenseGeneral((D,), name="wo")(gate * DenseGeneral((F,), name="wi_1")(x))


class DecoderLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + Attention(name="self_attention")(RMSNorm(name="pre_self_attention_layer_norm")(x))
        return x + MlpBlock(name="mlp")(RMSNorm(name="post_self_attention_layer_norm")(x)), None


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            nn.remat(DecoderLayer), variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast,
            length=N,
        )  # fmt: skip
        x, _ = layers(name="layers")(x, None)
        return DenseGeneral((V,), name="logits_dense")(RMSNorm(name="decoder_norm")(x))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        table = self.param("token_embedder", nn.initializers.normal(), (V, D))
        return Decoder(name="decoder")(jnp.take(table, tokens, axis=0))


def programs():
    model, tokens = Transformer(), jax.ShapeDtypeStruct((B, L), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)

    def train_step(params, tokens):
        def loss_fn(params):
            logits = jax.nn.log_softmax(model.apply(params, tokens))
            return -jnp.take_along_axis(logits, tokens[..., None], -1).mean()

        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss_fn)(params))

    yield "maxtext_train", train_step, (params, tokens)
