"""Programs that a calibration runs: what language models do, at sizes of its own. JAX functions and abstract arguments.

None of them is a GPT-2, and none has a width or length of GPT-2's, so that a validation on GPT-2 is held out. Few rows
come in the same numbers, since libraries cut them into tiles: 6 rows say little of 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Program(NamedTuple):
    """A function to jit, its abstract arguments, and which of them are donated."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    donate: tuple[int, ...] = ()

    def compile(self) -> Any:
        return jax.jit(self.function, donate_argnums=self.donate).lower(*self.args).compile()


BLOCK = 160  # rows of a weight that few rows are multiplied with at a time
QUERIES = 144  # of a prompt that attend at a time


def array(*dims: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def programs() -> Iterator[Program]:
    """All calibration programs, small before large."""
    for width, rows, length in (
        (160, 1, 24),
        (160, 6, 56),
        (320, 2, 96),
        (320, 3, 20),
        (320, 6, 160),
        (640, 1, 112),
        (640, 2, 320),
        (640, 5, 48),
        (960, 1, 208),
        (960, 12, 40),
    ):
        yield block(width, rows, length, _depth(width))
    for width, rows, length in ((160, 3, 72), (320, 5, 28), (640, 1, 40), (640, 6, 80), (960, 3, 96)):
        yield train(width, rows, length)
    for width, rows, slots in (
        (160, 1, 48),
        (160, 4, 200),
        (320, 1, 96),
        (640, 1, 160),
        (960, 1, 320),
        (640, 2, 112),
        (960, 4, 96),
        (640, 8, 224),
        (1280, 16, 80),
    ):
        yield decode(width, rows, slots, _depth(width))
    for rows, side, channels in ((4, 40, 48), (6, 20, 160)):
        yield convolutions(rows, side, channels)


def _depth(width: int) -> int:
    """Blocks of a program: many, since what a step runs often is found in the caches of instructions and branches."""
    return max(4, min(8, 5760 // width))


def block(width: int, rows: int, length: int, depth: int = 1) -> Program:
    """Transformer's blocks over a batch of texts, whose keys and values go to caches."""
    cache = array(rows * _heads(width), 2 * length, width // _heads(width))
    weights, caches = [_weights(width, 5 * width)] * depth, [(cache, cache)] * depth
    args = (weights, array(rows, length, width), array(rows, dtype=jnp.int32), caches)
    return Program(f"block {rows}x{length}x{width}", _prefill, args, (3,))


def train(width: int, rows: int, length: int) -> Program:
    """A training step of blocks with dropout, a loss over a vocabulary, clipping and Adam."""
    weights = [_weights(width, 4 * width)] * 3
    state = (weights, weights, weights)
    args = (state, array(rows, length, width), array(rows, length, dtype=jnp.int32), array(9000, width))
    return Program(f"train {rows}x{length}x{width}", _train, args, (0,))


def decode(width: int, rows: int, slots: int, depth: int = 4) -> Program:
    """A decode step of blocks with caches of `slots` tokens and a vocabulary."""
    weights = {name: array(*reversed(w.shape)) for name, w in _weights(width, 4 * width).items()}
    cache = array(rows * _heads(width), slots, width // _heads(width))
    args = ([weights] * depth, array(38400, width), array(rows, dtype=jnp.int32), [(cache, cache)] * depth)
    return Program(f"decode {rows}x{slots}x{width}", _decode, args, (3,))


def convolutions(rows: int, side: int, channels: int) -> Program:
    """Two convolutions of 3 x 3 over square images, with ReLU."""
    args = (array(rows, side, side, channels), array(3, 3, channels, channels))
    return Program(f"convolutions {rows}x{side}x{channels}", _convolutions, args)


def products() -> Iterator[Program]:
    """Matrix products alone: each dtype, layouts, and sizes from a lone row to large squares."""
    for m in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 96, 200, 400, 900, 1800):
        for n, k in ((640, 640), (1280, 320), (960, 3840), (3840, 960), (32000, 160), (9600, 960), (32000, 960)):
            if m * n * k < 2e9:
                yield Program(f"x@w {m}x{n}x{k}", lambda x, w: x @ w, (array(m, k), array(k, n)))
                if (n, k) in ((960, 3840), (9600, 960), (32000, 960)):
                    yield Program(f"x@w.T {m}x{n}x{k}", lambda x, w: x @ w.T, (array(m, k), array(n, k)))
                # A lone row's largest are many times the last cache, which would keep a part of less.
                long = 3 * n if m == 1 and n * k > 2e7 else n
                if m <= 24:
                    yield Program(f"blocks {m}x{long}x{k}", _blocks, (array(m, k), array(long // BLOCK, BLOCK, k)))
                if m == 1:
                    yield Program(f"written out {long}x{k}", _written_out, (array(k), array(long, k)))


def _blocks(x_TD: jax.Array, kernel_PJD: jax.Array) -> jax.Array:
    """Few rows by a matrix in blocks, weights first, as a batch of products."""
    x_PTD = jnp.broadcast_to(x_TD, (kernel_PJD.shape[0], *x_TD.shape))
    return jnp.einsum("pjd,ptd->pjt", kernel_PJD, x_PTD)


def _written_out(x_D: jax.Array, kernel_ED: jax.Array) -> jax.Array:
    with jax.named_scope("dot_general"):
        return jnp.sum(kernel_ED * x_D, axis=1)


def _convolutions(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    for _ in range(2):
        x_BHWC = jax.nn.relu(lax.conv_general_dilated(x_BHWC, kernel, (1, 1), "SAME", dimension_numbers=_IMAGES))
    return x_BHWC


_IMAGES = ("NHWC", "HWIO", "NHWC")


def _weights(width: int, inner: int) -> dict[str, Any]:
    kernels = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, inner), "down": (inner, width)}
    biases = {f"{name} bias": array(columns) for name, (_, columns) in kernels.items()}
    return (
        {name: array(*dims) for name, dims in kernels.items()} | biases | {"scale": array(width), "shift": array(width)}
    )


def _norm(x: jax.Array, w: Any) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * w["scale"] + w["shift"]


def _heads(width: int) -> int:
    return max(1, width // 64)


def _by_head(x_BLD: jax.Array) -> jax.Array:
    batch, length, width = x_BLD.shape
    return x_BLD.reshape(batch, length, _heads(width), -1).transpose(0, 2, 1, 3)


def _prefill(blocks: Any, x_BLD: jax.Array, lengths_B: jax.Array, caches: Any) -> Any:
    new = []
    for w, cache in zip(blocks, caches, strict=True):
        x_BLD, written = _block(w, x_BLD, lengths_B)
        new += [
            lax.dynamic_update_slice(old_NSK, new_BHLK.reshape(old_NSK.shape[0], -1, old_NSK.shape[2]), (0, 0, 0))
            for old_NSK, new_BHLK in zip(cache, written, strict=True)
        ]
    return x_BLD, new


def _block(w: Any, x_BLD: jax.Array, lengths_B: jax.Array) -> Any:
    """Activations after a block, and the keys and values in it. Texts are padded on their right."""
    batch, length, width = x_BLD.shape
    qkv_BLE = _norm(x_BLD, w) @ w["qkv"] + w["qkv bias"]
    q, k, v = (_by_head(part) for part in jnp.split(qkv_BLE, 3, axis=-1))
    q = q * q.shape[-1] ** -0.5
    places = jnp.arange(length)
    seen_BLS = (places[:, None] >= places) & (places < lengths_B[:, None])[:, None]
    mixed = []
    for start in range(0, length, QUERIES):
        end = min(start + QUERIES, length)
        scores = jnp.einsum("bhlk,bhsk->bhls", q[:, :, start:end], k[:, :, :end])
        weights = jax.nn.softmax(jnp.where(seen_BLS[:, None, start:end, :end], scores, -1e9))
        mixed.append(jnp.einsum("bhls,bhsk->bhlk", weights, v[:, :, :end]))
    mixed_BLD = jnp.concatenate(mixed, axis=2).transpose(0, 2, 1, 3).reshape(batch, length, width)
    x_BLD = x_BLD + mixed_BLD @ w["out"] + w["out bias"]
    inner_BLF = jax.nn.gelu(_norm(x_BLD, w) @ w["up"] + w["up bias"])
    return x_BLD + inner_BLF @ w["down"] + w["down bias"], (k, v)


def _train(state: Any, x_BLD: jax.Array, labels_BL: jax.Array, table_VD: jax.Array) -> Any:
    params, mean, square = state

    def loss(params: Any) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(0, impl="rbg"), labels_BL[0, 0])
        keep_BLD = jax.random.bernoulli(key, 0.9, x_BLD.shape)  # dropout: small ops on seeds and large ones on masks
        inputs_BLD = jnp.where(keep_BLD, x_BLD + table_VD[labels_BL], 0.0)
        lengths_B = jnp.full(x_BLD.shape[0], x_BLD.shape[1]) - labels_BL[:, 0] % 2
        for w in params:
            inputs_BLD = _block(w, inputs_BLD, lengths_B)[0]
        logits_BLV = inputs_BLD @ table_VD.T
        return -jnp.take_along_axis(jax.nn.log_softmax(logits_BLV), labels_BL[..., None], -1).mean()

    gradients = jax.grad(loss)(params)
    size = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradients)))

    def updated() -> Any:
        scaled = jax.tree.map(lambda g: g * (1.0 / jnp.maximum(1.0, size)), gradients)
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, scaled)
        squares = jax.tree.map(lambda s, g: 0.99 * s + 0.01 * g * g, square, scaled)
        # Moments are written before the update reads them, which a fusion of both would have to copy.
        means, squares = lax.optimization_barrier((means, squares))

        def step(p: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
            return p - 1e-3 * (m / (jnp.sqrt(jnp.abs(s)) + 1e-8) + 0.01 * p)

        return jax.tree.map(step, params, means, squares), means, squares

    return lax.cond(jnp.isfinite(size), updated, lambda: state)


def _decode(blocks: Any, table_VD: jax.Array, token_B: jax.Array, caches: Any) -> Any:
    """A decode step; weights lie (out, in), as they are read fastest."""
    x_BD = table_VD[token_B]
    batch, width = x_BD.shape
    new = []
    for w, (k_NSK, v_NSK) in zip(blocks, caches, strict=True):
        qkv_BE = _few(_norm(x_BD, w), w["qkv"]) + w["qkv bias"]
        q, k, v = (part.reshape(k_NSK.shape[0], 1, -1) for part in jnp.split(qkv_BE, 3, axis=-1))
        k_NSK = lax.dynamic_update_slice(k_NSK, k, (0, token_B[0], 0))
        v_NSK = lax.dynamic_update_slice(v_NSK, v, (0, token_B[0], 0))
        # Kept apart from the write before it: fused with it, the whole cache would be copied.
        k_NSK, v_NSK = lax.optimization_barrier((k_NSK, v_NSK))
        scores_NS = jnp.einsum("nk,nsk->ns", q[:, 0], k_NSK) * 0.125
        weights_NS = jax.nn.softmax(jnp.where(jnp.arange(k_NSK.shape[1]) <= token_B[0], scores_NS, -1e9))
        mixed_BD = jnp.einsum("ns,nsk->nk", weights_NS, v_NSK).reshape(batch, width)
        x_BD = x_BD + _few(mixed_BD, w["out"]) + w["out bias"]
        x_BD = x_BD + _few(jax.nn.gelu(_few(_norm(x_BD, w), w["up"]) + w["up bias"]), w["down"]) + w["down bias"]
        new.append((k_NSK, v_NSK))
    return jnp.argmax(_few(x_BD, table_VD), -1), new


def _few(x_BD: jax.Array, kernel_ED: jax.Array) -> jax.Array:
    """A product of few rows in the form that reads the weights at the speed of memory: in blocks, if it has any."""
    if kernel_ED.shape[0] % BLOCK:
        return x_BD @ kernel_ED.T
    return _blocks(x_BD, kernel_ED.reshape(-1, BLOCK, kernel_ED.shape[1])).reshape(kernel_ED.shape[0], -1).T
