"""Programs without loops, written to meet every opcode that jax.numpy and lax can reach on the CPU.

`PROGRAMS` maps a name to a function that returns (function, abstract arguments); nothing is built until asked for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from llmjax.models.families import from_size, make_model
from tests import codegen

Program = tuple[Callable[..., Any], tuple[Any, ...]]
PROGRAMS: dict[str, Callable[[], Program]] = {}


def array(*dims: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


ints = partial(array, dtype=jnp.int32)
MATRIX = array(64, 96)


def add(name: str, function: Callable[..., Any], *args: Any) -> None:
    assert name not in PROGRAMS
    PROGRAMS[name] = lambda: (function, args)


def each(names: str, *args: Any, prefix: str = "") -> None:
    """One program for each operation of `lax`."""
    for name in names.split():
        add(prefix + name, getattr(lax, name), *args)


# One opcode a program, or what it is expanded to.
each("abs acos acosh asin asinh atan atanh cbrt ceil cos cosh erf erfc erf_inv exp exp2 expm1 floor is_finite", MATRIX)
each("digamma lgamma log log1p logistic neg round rsqrt sign sin sinh sqrt square tan tanh", MATRIX)
each("add atan2 complex div eq lt max min mul nextafter pow rem sub", MATRIX, MATRIX)
INTEGERS = ints(64, 96)
each("bitwise_and bitwise_or bitwise_xor rem shift_left", INTEGERS, INTEGERS, prefix="int_")
each("shift_right_arithmetic shift_right_logical", INTEGERS, INTEGERS, prefix="int_")
each("bitwise_not clz population_count sign", INTEGERS, prefix="int_")
add("integer_pow", lambda x: lax.integer_pow(x, 7), MATRIX)
add("clamp", lambda x: lax.clamp(-1.0, x, 1.0), MATRIX)
add("select", lambda p, x, y: jnp.where(p, x, y), array(64, 96, dtype=jnp.bool_), MATRIX, MATRIX)
add("select_n", lambda i, x, y, z: lax.select_n(i, x, y, z), ints(64, 96), MATRIX, MATRIX, MATRIX)
add("convert", lambda x: x.astype(jnp.bfloat16), MATRIX)
add("bitcast_convert", lambda x: lax.bitcast_convert_type(x, jnp.int32) + 1, MATRIX)
add("reduce_precision", lambda x: lax.reduce_precision(x, 5, 10), MATRIX)
add("complex_parts", lambda z: (jnp.real(z), jnp.imag(z), jnp.conj(z)), array(64, 96, dtype=jnp.complex64))
add("complex_product", lambda z, w: z * w + jnp.exp(z), *[array(64, 96, dtype=jnp.complex64)] * 2)

# Data movement.
add("broadcast", lambda x: jnp.broadcast_to(x[:, None], (96, 40)), array(96))
add("concatenate", lambda x, y: jnp.concatenate([x, y, x], axis=1), MATRIX, MATRIX)
add("pad", lambda x: lax.pad(x, 0.0, [(1, 2, 0), (3, 0, 1)]), MATRIX)
add("pad_negative", lambda x: lax.pad(x, 0.0, [(-3, 2, 0), (0, -5, 0)]), MATRIX)
add("reverse", lambda x: lax.rev(x, (0, 1)), MATRIX)
add("slice", lambda x: x[3:40:2, 5:60], MATRIX)
add("slices_of_one", lambda x: x[1:] - x[:-1], MATRIX)
add("transpose", lambda x: x.T + 0.0, MATRIX)
add("transpose_3d", lambda x: jnp.transpose(x, (2, 0, 1)) * 2, array(8, 16, 24))
add("reshape", lambda x: x.reshape(32, 192) + 1, MATRIX)
add("iota", lambda: lax.iota(jnp.float32, 5000))
add("iota_2d", lambda x: x + lax.broadcasted_iota(jnp.float32, (64, 96), 1), MATRIX)
add("dynamic_slice", lambda x, i: lax.dynamic_slice(x, (i, 0), (9, 96)), MATRIX, ints())
add("dynamic_update_slice", lambda x, u, i: lax.dynamic_update_slice(x, u, (i, 0)), MATRIX, array(9, 96), ints())
add("update_of_zeros", lambda u, i: lax.dynamic_update_slice(jnp.zeros((64, 96)), u, (i, 0)), array(9, 96), ints())
add("gather_rows", lambda x, i: x[i], MATRIX, ints(50))
add("gather_elements", lambda x, i, j: x[i, j], MATRIX, ints(700), ints(700))
add("gather_along", lambda x, i: jnp.take_along_axis(x, i, axis=1), MATRIX, ints(64, 5))
add("gather_then_add", lambda x, i: x[i] + 1.0, array(5000, 64), ints(50))
add("one_hot", lambda i: jax.nn.one_hot(i, 100), ints(64))
add("tril", lambda x: jnp.tril(x), MATRIX)
add("roll", lambda x: jnp.roll(x, 3, axis=1), MATRIX)

# Reductions.
add("sum_all", lambda x: x.sum(), MATRIX)
add("sum_rows", lambda x: x.sum(axis=1), MATRIX)
add("sum_columns", lambda x: x.sum(axis=0), MATRIX)
add("max_of_exp", lambda x: jnp.exp(x).max(axis=1), MATRIX)
add("prod", lambda x: x.prod(axis=0), MATRIX)
add("any", lambda x: (x > 0).any(axis=1), MATRIX)
add("argmax", lambda x: jnp.argmax(x, axis=1), MATRIX)
add("variance", lambda x: x.var(axis=1), MATRIX)
add("logsumexp", lambda x: jax.nn.logsumexp(x, axis=1), MATRIX)
add("softmax", lambda x: jax.nn.softmax(x, axis=1), MATRIX)
add(
    "reduce_two",
    lambda x, y: lax.reduce((x, y), (0.0, 1.0), lambda a, b: (a[0] + b[0], a[1] * b[1] + a[0]), (1,)),
    MATRIX,
    MATRIX,
)
IMAGE = array(2, 17, 19, 8)
pool = partial(lax.reduce_window, init_value=-jnp.inf, computation=lax.max)
add("max_pool", lambda x: pool(x, window_dimensions=(1, 2, 2, 1), window_strides=(1, 2, 2, 1), padding="SAME"), IMAGE)
add(
    "sum_pool_dilated",
    lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 2, 1), [(0, 0), (2, 1), (0, 3), (0, 0)], (1, 2, 1, 1), (1, 1, 2, 1)
    ),
    IMAGE,
)
each("cumsum cumprod cummax cumlogsumexp", MATRIX)
add("cumsum_rows", lambda x: jnp.cumsum(x, axis=1), MATRIX)
add(
    "max_pool_gradient",
    jax.grad(lambda x: pool(x, window_dimensions=(1, 2, 2, 1), window_strides=(1, 2, 2, 1), padding="SAME").sum()),
    IMAGE,
)

# Sorting.
add("sort", lambda x: jnp.sort(x), array(3000))
add("sort_rows", lambda x: jnp.sort(x, axis=1), MATRIX)
add("sort_pairs", lambda k, v: lax.sort((k, v), num_keys=1), array(3000), ints(3000))
add("top_k", lambda x: lax.top_k(x, 5), MATRIX)

# Matrix products.
add("dot_vectors", lambda x, y: x @ y, array(3000), array(3000))
add("dot_matrix_vector", lambda x, y: x @ y, MATRIX, array(96))
add("dot", lambda x, y: x @ y, MATRIX, array(96, 128))
add("dot_transposed", lambda x, y: x.T @ y.T, array(96, 64), array(128, 96))
add("dot_batch", lambda x, y: jnp.einsum("bik,bkj->bij", x, y), array(5, 32, 48), array(5, 48, 40))
add("dot_two_contracted", lambda x, y: jnp.einsum("ijk,jkl->il", x, y), array(32, 8, 6), array(8, 6, 40))
add("dot_heads", lambda q, k: jnp.einsum("blhk,bshk->bhls", q, k), array(2, 24, 4, 16), array(2, 40, 4, 16))
add("dot_outer", lambda x, y: jnp.outer(x, y), array(300), array(40))
add("dot_bf16", lambda x, y: x @ y, *[array(128, 128, dtype=jnp.bfloat16)] * 2)
add("dot_int8", lambda x, y: lax.dot(x, y, preferred_element_type=jnp.int32), *[array(64, 64, dtype=jnp.int8)] * 2)
add("dense_gelu", lambda x, w, b: jax.nn.gelu(x @ w + b), MATRIX, array(96, 128), array(128))
add("dot_gradient", jax.grad(lambda w, x: jnp.tanh(x @ w).sum()), array(96, 128), MATRIX)
add("ragged_dot", lambda x, w, n: lax.ragged_dot(x, w, n), MATRIX, array(4, 96, 32), ints(4))


# Convolutions: every kind of padding, stride, dilation and grouping.
def conv(name: str, x: tuple[int, ...], kernel: tuple[int, ...], strides: Any, padding: Any, **options: Any) -> None:
    labels = {3: ("NWC", "WIO", "NWC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}[len(x)]
    options = {"dimension_numbers": labels, **options}
    add(
        f"conv_{name}",
        lambda a, k: lax.conv_general_dilated(a, k, strides, padding, **options),
        array(*x),
        array(*kernel),
    )


conv("valid", (2, 17, 19, 8), (3, 3, 8, 16), (1, 1), "VALID")
conv("same", (2, 17, 19, 8), (3, 3, 8, 16), (1, 1), "SAME")
conv("same_lower", (2, 17, 19, 8), (4, 2, 8, 16), (1, 1), "SAME_LOWER")
conv("explicit", (2, 17, 19, 8), (3, 3, 8, 16), (1, 1), [(2, 0), (1, 4)])
conv("negative", (2, 17, 19, 8), (3, 3, 8, 16), (1, 1), [(-2, 1), (0, -3)])
conv("strided", (2, 17, 19, 8), (3, 3, 8, 16), (2, 3), "SAME")
conv("dilated_kernel", (2, 17, 19, 8), (3, 3, 8, 16), (1, 1), "SAME", rhs_dilation=(2, 3))
conv("dilated_input", (2, 9, 7, 8), (3, 3, 8, 16), (1, 1), [(1, 2), (2, 1)], lhs_dilation=(2, 3))
conv("everything", (2, 11, 13, 8), (3, 2, 8, 16), (2, 3), [(3, 1), (0, 4)], lhs_dilation=(3, 2), rhs_dilation=(2, 1))
conv("groups", (2, 17, 19, 8), (3, 3, 2, 16), (1, 1), "SAME", feature_group_count=4)
conv("depthwise", (2, 17, 19, 8), (3, 3, 1, 16), (1, 1), "SAME", feature_group_count=8)
conv("batch_groups", (4, 17, 19, 8), (3, 3, 8, 16), (1, 1), "VALID", batch_group_count=4)
conv("pointwise", (2, 17, 19, 8), (1, 1, 8, 16), (1, 1), "VALID")
conv("whole_image", (2, 7, 7, 8), (7, 7, 8, 16), (1, 1), "VALID")
conv("one_dimension", (2, 200, 8), (5, 8, 16), (2,), "SAME")
conv("three_dimensions", (2, 7, 8, 9, 4), (3, 3, 3, 4, 8), (1, 2, 1), "SAME")
conv("channels_first", (2, 8, 17, 19), (16, 8, 3, 3), (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
add(
    "conv_transposed",
    lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
    array(2, 9, 9, 8),
    array(3, 3, 8, 16),
)
NHWC = ("NHWC", "HWIO", "NHWC")
add(
    "conv_gradients",
    jax.grad(lambda x, k: lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=NHWC).sum(), argnums=(0, 1)),
    array(2, 17, 19, 8),
    array(3, 3, 8, 16),
)

# Transforms, factorisations, random numbers, branches.
add("fft", lambda x: jnp.fft.fft(x), array(8, 256, dtype=jnp.complex64))
add("fft_2d", lambda x: jnp.fft.fft2(x), array(16, 64, dtype=jnp.complex64))
add("rfft", lambda x: jnp.fft.rfft(x), array(8, 200))
add("irfft", lambda x: jnp.fft.irfft(x), array(8, 129, dtype=jnp.complex64))
add("cholesky", lambda x: lax.linalg.cholesky(x, symmetrize_input=False), array(64, 64))
add("triangular_solve", lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True), array(64, 64), MATRIX)
add("rng_bit_generator", lambda k: lax.rng_bit_generator(k, (64, 64)), array(4, dtype=jnp.uint32))
add("rng_uniform", lambda a, b: lax.rng_uniform(a, b, (64, 64)), array(), array())
add("cond", lambda p, x: lax.cond(p, jnp.sin, lambda x: x * 2, x), array(dtype=jnp.bool_), MATRIX)
add(
    "switch",
    lambda i, x: lax.switch(i, [lambda x: x + 1, lambda x: x @ x.T @ x, lambda x: x * 2], x),
    ints(),
    MATRIX,
)
add("optimization_barrier", lambda x: lax.optimization_barrier(x * 2) * 3, MATRIX)


# Pieces of models, and models.
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    x = x - x.mean(axis=-1, keepdims=True)
    return x * lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * scale + bias


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    scores = jnp.einsum("blhk,bshk->bhls", q, k)
    scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -1e9)
    return jnp.einsum("bhls,bshk->blhk", jax.nn.softmax(scores), v)


def decode_layer(x: jax.Array, w: dict[str, jax.Array], cache: dict[str, jax.Array], at: jax.Array) -> Any:
    """One token through one layer, with its keys and values put into a cache."""
    q, k, v = jnp.split(x @ w["qkv"], 3, axis=-1)
    heads = cache["k"].shape[2:]
    cache = {
        name: lax.dynamic_update_slice(cache[name], new.reshape(-1, 1, *heads), (0, at, 0, 0))
        for name, new in (("k", k), ("v", v))
    }
    scores = jnp.einsum("bhk,bshk->bhs", q.reshape(-1, *heads), cache["k"])
    scores = jnp.where(jnp.arange(cache["k"].shape[1]) <= at, scores, -1e9)
    mixed = jnp.einsum("bhs,bshk->bhk", jax.nn.softmax(scores), cache["v"]).reshape(x.shape)
    return x + mixed @ w["out"], cache


def lstm_step(state: Any, x: jax.Array, w: jax.Array, b: jax.Array) -> Any:
    hidden, cell = state
    i, f, g, o = jnp.split(jnp.concatenate([x, hidden], axis=-1) @ w + b, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def convnet(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    same = partial(lax.conv_general_dilated, padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(same(x, w["first"], window_strides=(1, 1)))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(same(x, w["second"], window_strides=(2, 2)) + w["bias"])
    return x.mean(axis=(1, 2)) @ w["dense"]


CONVNET = {"first": array(3, 3, 3, 16), "second": array(3, 3, 16, 32), "bias": array(32), "dense": array(32, 10)}
CACHE = {"k": array(2, 64, 4, 16), "v": array(2, 64, 4, 16)}
add("layer_norm", layer_norm, MATRIX, array(96), array(96))
add(
    "layer_norm_gradients",
    jax.grad(lambda *a: (layer_norm(*a) ** 2).sum(), argnums=(0, 1, 2)),
    MATRIX,
    array(96),
    array(96),
)
add("attention", attention, *[array(2, 32, 4, 16)] * 3)
add("attention_gradients", jax.grad(lambda *a: attention(*a).sum(), argnums=(0, 1, 2)), *[array(2, 32, 4, 16)] * 3)
add("cross_entropy", lambda x, y: optax.softmax_cross_entropy_with_integer_labels(x, y).mean(), MATRIX, ints(64))
add("decode_layer", decode_layer, array(2, 64), {"qkv": array(64, 192), "out": array(64, 64)}, CACHE, ints())
add("lstm_step", lstm_step, (array(8, 32), array(8, 32)), array(8, 48), array(80, 128), array(128))
add("convnet", convnet, CONVNET, array(4, 16, 16, 3))
add("convnet_gradients", jax.grad(lambda w, x: convnet(w, x).sum()), CONVNET, array(4, 16, 16, 3))
add(
    "adamw",
    lambda p, g, s: optax.adamw(1e-3).update(g, s, p),
    MATRIX,
    MATRIX,
    jax.eval_shape(optax.adamw(1e-3).init, MATRIX),
)


def gpt2(size: str, head: str = "lm", batch: int = 2, length: int = 16, **overrides: Any) -> Any:
    """(model, abstract parameters, abstract tokens)."""
    model = make_model(from_size(size, vocab_size=500, **overrides), head)
    tokens = ints(batch, length)
    return model, jax.eval_shape(model.init, jax.random.key(0), tokens)["params"], tokens


def forward(size: str, head: str, **overrides: Any) -> Program:
    model, params, tokens = gpt2(size, head, **overrides)
    return (lambda p, t: model.apply({"params": p}, t)), (params, tokens)


def train_step(size: str) -> Program:
    model, params, tokens = gpt2(size)
    optimizer = optax.adamw(1e-3)

    def loss(p: Any, t: jax.Array) -> jax.Array:
        logits = model.apply({"params": p}, t)
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], t[:, 1:]).mean()

    def step(p: Any, state: Any, t: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(p, t)
        updates, state = optimizer.update(grads, state, p)
        return optax.apply_updates(p, updates), state, value

    return step, (params, jax.eval_shape(optimizer.init, params), tokens)


for _size in ("tiny", "small"):
    PROGRAMS[f"gpt2_{_size}_forward"] = partial(forward, _size, "lm")
    PROGRAMS[f"gpt2_{_size}_classifier"] = partial(forward, _size, "classifier")
    PROGRAMS[f"gpt2_{_size}_train"] = partial(train_step, _size)
PROGRAMS["gpt2_tiny_bf16"] = partial(forward, "tiny", "lm", dtype="bfloat16")


def compiled(name: str) -> Any:
    """The program, compiled for the CPU without running anything."""
    function, args = PROGRAMS[name]()
    return jax.jit(function).lower(*args).compile(compiler_options=codegen.OWN)


def xla_cost(executable: Any) -> dict[str, float]:
    """XLA's own totals, under our names."""
    found = executable.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    keys = {"flops": "flops", "transcendentals": "transcendentals", "bytes": "bytes accessed"}
    return {ours: float(found.get(theirs, 0.0)) for ours, theirs in keys.items()}
