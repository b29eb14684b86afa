"""A small vision transformer in Equinox, of its own layers."""

import equinox as eqx
import jax
import jax.numpy as jnp

D, F, P, N, IMAGE = 32, 64, 4, 2, 16


class EncoderBlock(eqx.Module):
    norm1: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    norm2: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key):
        k1, k2 = jax.random.split(key)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(D), eqx.nn.LayerNorm(D)
        self.attention = eqx.nn.MultiheadAttention(4, D, key=k1)
        self.mlp = eqx.nn.MLP(D, D, F, 1, jax.nn.gelu, key=k2)

    def __call__(self, x_LD):
        y_LD = jax.vmap(self.norm1)(x_LD)
        x_LD = x_LD + self.attention(y_LD, y_LD, y_LD)
        return x_LD + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x_LD))


class VisionTransformer(eqx.Module):
    patch: eqx.nn.Conv2d
    blocks: list
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, N + 2)
        self.patch = eqx.nn.Conv2d(3, D, P, stride=P, key=keys[0])
        self.blocks = [EncoderBlock(k) for k in keys[1:-1]]
        self.head = eqx.nn.Linear(D, 10, key=keys[-1])

    def __call__(self, image_CHW):
        x_LD = self.patch(image_CHW).reshape(D, -1).T
        for block in self.blocks:
            x_LD = block(x_LD)
        return self.head(x_LD.mean(0))


def programs():
    model = eqx.filter_eval_shape(VisionTransformer, jax.random.key(0))
    arrays, rest = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def classify(arrays, images_BCHW):
        return jax.vmap(eqx.combine(arrays, rest))(images_BCHW)

    yield "equinox_vit", classify, (arrays, jax.ShapeDtypeStruct((2, 3, IMAGE, IMAGE), jnp.float32))
