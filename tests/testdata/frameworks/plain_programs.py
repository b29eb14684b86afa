"""Plain JAX, without a module or a scope: a block of a diffusion model, and a step of a recurrent network."""

import jax
import jax.numpy as jnp

B, H, W, C, L, D = 2, 8, 8, 16, 12, 24


def group_norm(x, scale, bias, groups=4):
    shape = x.shape
    x = x.reshape(*shape[:-1], groups, -1)
    mean = x.mean((1, 2, 4), keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(((x - mean) ** 2).mean((1, 2, 4), keepdims=True) + 1e-5)
    return x.reshape(shape) * scale + bias


def conv(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def linear(x, p):
    return x @ p["w"] + p["b"]


def time_embedding(t):
    waves = t[:, None] * jnp.exp(-jnp.arange(C) / C)
    return jnp.concatenate([jnp.sin(waves), jnp.cos(waves)], -1)


def resnet_block(p, x, t):
    h = conv(jax.nn.silu(group_norm(x, p["g1"], p["b1"])), p["c1"])
    h = h + linear(jax.nn.silu(t), p["time"])[:, None, None]
    h = conv(jax.nn.silu(group_norm(h, p["g2"], p["b2"])), p["c2"])
    return x + h


def cross_attention(p, x, context):
    q, k, v = linear(x, p["q"]), linear(context, p["k"]), linear(context, p["v"])
    weights = jax.nn.softmax(jnp.einsum("bnc,blc->bnl", q, k) * C**-0.5)
    return linear(jnp.einsum("bnl,blc->bnc", weights, v), p["o"])


def feed_forward(p, x):
    return linear(jax.nn.gelu(linear(x, p["up"])), p["down"])


def denoise(p, x, t, context):
    t = linear(time_embedding(t), p["embed"])
    x = resnet_block(p["res"], x, t)
    y = group_norm(x, p["g"], p["b"]).reshape(B, H * W, C)
    y = y + cross_attention(p["attn"], y, context)
    y = y + feed_forward(p["ff"], y)
    return x + y.reshape(B, H, W, C)


def _linear(n, m):
    return {"w": jnp.zeros((n, m)), "b": jnp.zeros(m)}


def _params():
    ones = jnp.ones(C)
    res = {"g1": ones, "b1": ones, "g2": ones, "b2": ones, "time": _linear(2 * C, C)}
    res |= {name: jnp.zeros((3, 3, C, C)) for name in ("c1", "c2")}
    attn = {"q": _linear(C, C), "k": _linear(D, C), "v": _linear(D, C), "o": _linear(C, C)}
    ff = {"up": _linear(C, 4 * C), "down": _linear(4 * C, C)}
    return {"embed": _linear(2 * C, 2 * C), "res": res, "attn": attn, "ff": ff, "g": ones, "b": ones}


def step(w, u, b, x):
    """A program with no name that says anything: f, g, and letters."""

    def f(h, x_t):
        return jnp.tanh(h @ w + x_t @ u + b), None

    return jax.lax.scan(f, jnp.zeros((B, D)), x)[0].sum()


def programs():
    image, times = jax.ShapeDtypeStruct((B, H, W, C), jnp.float32), jax.ShapeDtypeStruct((B,), jnp.float32)
    context = jax.ShapeDtypeStruct((B, L, D), jnp.float32)
    yield "plain_diffusion", denoise, (jax.eval_shape(_params), image, times, context)
    square, row = jax.ShapeDtypeStruct((D, D), jnp.float32), jax.ShapeDtypeStruct((D,), jnp.float32)
    yield "plain_rnn", step, (square, square, row, jax.ShapeDtypeStruct((L, B, D), jnp.float32))
