"""Each block of a transformer once; families assemble them.

Shape letters: B batch, L query length, S key length, D model width, H heads, G key-value heads, K head width, F MLP
width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from llmjax.kernels.attention import FORMS, attend_step
from llmjax.kernels.lowrank import over_outputs
from llmjax.kernels.product import is_plain, lookup, product
from llmjax.kernels.training import add_branch, dropout
from llmjax.models import spec as specs
from llmjax.models.activation import activation
from llmjax.models.cache import Kept, Short, as_kept, write
from llmjax.models.rope import rotate
from llmjax.models.spec import LayerSpec
from llmjax.parallel.fused import in_parts, out_of_parts
from llmjax.parallel.mesh import AXES, ROWS, P, axis_size, on_each_device, row_axes, spread

Ask = Callable[[jax.Array], jax.Array]
"""Chooses, along axis 1, the positions that a last layer is asked for: [B, L, ...] -> [B, A, ...]."""


class Scene(NamedTuple):
    """What all layers of one forward pass share.

    visible_BLS: which keys each query sees; None: all. rope_BLK: (cos, sin) of the positions. slot: where new keys and
    values go in the cache.
    """

    visible_BLS: Bool[Array, "_ _ S"] | None
    rope_BLK: tuple[jax.Array, jax.Array] | None = None
    slot: jax.Array | int = 0


def _weight(module: nn.Module, name: str, init: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A parameter: a plain array that Linen draws and checks, or a weight in another form in its place."""
    if module.has_variable("params", name):
        stored = module.get_variable("params", name)
        if not isinstance(stored, jax.Array | np.ndarray):
            return stored
    return module.param(name, init, shape, dtype)


class Dense(nn.Module):
    """The product of the last axis with a weight of any form, and a bias.

    fused: the sizes of the outputs that it has one after the other, which come `in_parts` of the mesh's devices.
    """

    features: int
    use_bias: bool = True
    std: float = 0.02
    dtype: str = "float32"
    param_dtype: str = "float32"
    fused: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        init = nn.initializers.normal(self.std)
        kernel = _weight(self, "kernel", init, (x.shape[-1], self.features), self.param_dtype)
        parts = axis_size("tensor") if self.fused and is_plain(kernel) else 1  # packed weights lie in parts already
        if is_plain(kernel):
            x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if parts > 1:
            kernel = over_outputs(kernel, lambda part: spread(in_parts(part, self.fused, parts), None, "tensor"))
        y = product(x, kernel, self.features)
        if self.use_bias:
            bias_E = self.param("bias", nn.initializers.zeros_init(), (self.features,), self.param_dtype)
            y = y + in_parts(bias_E, self.fused, parts).astype(y.dtype)
        return y


class Kernel(nn.Module):
    """A weight by itself, for those who multiply by it inside a loop, where no module may be called."""

    shape: tuple[int, int]
    std: float
    param_dtype: str

    @nn.compact
    def __call__(self) -> Any:
        return _weight(self, "kernel", nn.initializers.normal(self.std), self.shape, self.param_dtype)


class Embed(nn.Module):
    """A table of rows by number; `unembed` multiplies by it."""

    rows: int
    width: int
    std: float = 0.02
    dtype: str = "float32"
    param_dtype: str = "float32"

    def setup(self) -> None:
        init = nn.initializers.normal(self.std)
        self.embedding = _weight(self, "embedding", init, (self.rows, self.width), self.param_dtype)

    def __call__(self, numbers: Int[Array, "..."]) -> Float[Array, "... D"]:
        if numbers.ndim < 2 or axis_size(*AXES) == 1:
            return lookup(self.embedding, numbers, self.dtype)
        # Each device takes its columns of the rows that devices with other columns need too, and these then exchange.
        x_BLD = lookup(self.embedding, spread(numbers, "data"), self.dtype)
        if self.rows % axis_size("tensor"):
            x_BLD = spread(x_BLD, "data", None, ("fsdp", "tensor"))
        return spread(spread(x_BLD, "data", None, "fsdp"), row_axes(len(numbers)))


class Norm(nn.Module):
    """A normalisation over the last axis, in float32: of mean and variance, or of the root mean square."""

    spec: specs.Norm
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale_D = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],), self.param_dtype)
        x = x.astype(jnp.float32)
        if self.spec.kind == "rms":
            inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.spec.epsilon)
            return (x * inverse * scale_D).astype(self.dtype)
        bias_D = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],), self.param_dtype)
        # E[x^2] - E[x]^2 would cancel badly on the outlier channels that trained models have.
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.spec.epsilon)
        return (x * (inverse * scale_D) + bias_D).astype(self.dtype)


class Dropout(nn.Module):
    """`dropout` with the key drawn from the "dropout" stream; the identity when `deterministic`."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        if deterministic or self.rate == 0.0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))


def _dense(spec: LayerSpec, features: int, name: str, bias: bool, std: float, fused: tuple[int, ...] = ()) -> Dense:
    return Dense(features, bias, std, spec.dtype, spec.param_dtype, fused, name=name)


class Attention(nn.Module):
    """Self-attention over a text, or over a cache that it extends.

    `kv` is the layer's (keys, values) [N, S, K] in the cache. One token is written at `scene.slot` and attends to
    the cache; several are a prompt, written from slot 0, and attend to one another.
    """

    spec: LayerSpec

    @nn.compact
    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        layer: int | jax.Array,
        scene: Scene,
        kv: tuple[Kept, Kept] | None,
        deterministic: bool,
        ask: Ask | None,
    ) -> tuple[Float[Array, "B L D"], tuple[Kept, Kept] | None]:
        spec = self.spec
        q_BLHK, k_BSGK, v_BSGK = self._qkv(x_BSD, scene, ask)
        scale: float | jax.Array = spec.head_width**-0.5 if spec.scale is None else spec.scale
        if spec.by_layer:
            scale = scale / (layer + 1)
        visible_BLS = scene.visible_BLS
        if ask is not None and visible_BLS is not None and visible_BLS.shape[1] > 1:
            visible_BLS = ask(jnp.broadcast_to(visible_BLS, (len(x_BSD), *visible_BLS.shape[1:])))
        if kv is None:
            if spec.upcast:
                q_BLHK, k_BSGK = q_BLHK.astype(jnp.float32), k_BSGK.astype(jnp.float32)
            drop = Dropout(spec.attention_dropout, name="attn_dropout")
            mixed_BLHK = FORMS[spec.form].texts(
                q_BLHK, k_BSGK, v_BSGK, visible_BLS, scale, lambda weights: drop(weights, deterministic)
            )
        else:
            mixed_BLHK, kv = _attend_cached(spec, (q_BLHK, k_BSGK, v_BSGK), kv, visible_BLS, scene.slot, scale)
        mixed_BLE = mixed_BLHK.reshape(*mixed_BLHK.shape[:2], -1)
        out_BLD = _dense(spec, spec.width, spec.names.out, spec.out_bias, spec.out_std)(mixed_BLE)
        return Dropout(spec.dropout, name="resid_dropout")(out_BLD, deterministic), kv

    @nn.nowrap  # no scope of its own
    def _qkv(self, x_BSD: jax.Array, scene: Scene, ask: Ask | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns queries of the positions asked for, and keys and values of all."""
        spec, names = self.spec, self.spec.names.qkv
        sizes = [spec.heads * spec.head_width, *[spec.kv_heads * spec.head_width] * 2]
        if len(names) == 1:
            qkv_BSE = _dense(spec, sum(sizes), names[0], spec.qkv_bias, spec.std, tuple(sizes))(x_BSD)
            qkv_BSE = spread(qkv_BSE, ROWS, None, "tensor")
            q_BLE, k_BSE, v_BSE = out_of_parts(qkv_BSE, sizes, axis_size("tensor"))
            q_BLE = q_BLE if ask is None else ask(q_BLE)
        else:
            asked_BLD = x_BSD if ask is None else ask(x_BSD)
            q_BLE, k_BSE, v_BSE = (
                _dense(spec, size, name, spec.qkv_bias, spec.std)(x)
                for size, name, x in zip(sizes, names, (asked_BLD, x_BSD, x_BSD), strict=True)
            )
        q, k, v = (
            spread(part.reshape(*part.shape[:2], -1, spec.head_width), ROWS, None, "tensor")
            for part in (q_BLE, k_BSE, v_BSE)
        )
        if spec.qk_norm:
            norm: dict[str, Any] = {"spec": specs.Norm("rms", spec.norm.epsilon)}
            norm |= {"dtype": spec.dtype, "param_dtype": spec.param_dtype}
            q, k = Norm(**norm, name="q_norm")(q), Norm(**norm, name="k_norm")(k)
        if scene.rope_BLK is not None:
            with jax.named_scope("rope"):
                asked = scene.rope_BLK if ask is None else tuple(map(ask, scene.rope_BLK))
                q, k = rotate(q, asked), rotate(k, scene.rope_BLK)
        return q, k, v


def _attend_cached(
    spec: LayerSpec,
    qkv: tuple[jax.Array, jax.Array, jax.Array],
    kv: tuple[Kept, Kept],
    visible_BLS: Any,
    slot: jax.Array | int,
    scale: Any,
) -> tuple[Float[Array, "B L H K"], tuple[Kept, Kept]]:
    """Attention of new tokens over a layer's cache, and the cache with them.

    On a mesh every device does so for its rows and heads, of which its part of the cache is made, and sends nothing.
    """
    dtype = jnp.dtype(jnp.float32 if spec.upcast else kv[0].dtype)

    def attend(q_BLHK: Any, k_BSGK: Any, v_BSGK: Any, k_NSK: Any, v_NSK: Any, visible_BLS: Any, slot: Any) -> Any:
        q_BHLK, k_BGLK, v_BGLK = (part.transpose(0, 2, 1, 3) for part in (q_BLHK, k_BSGK, v_BSGK))
        with jax.named_scope("cache"):
            k_NSK, v_NSK = (
                write(kept, new_BGLK.reshape(-1, *new_BGLK.shape[2:]), slot)
                for kept, new_BGLK in ((k_NSK, k_BGLK), (v_NSK, v_BGLK))
            )
        if k_BSGK.shape[1] > 1:
            k_BGLK, v_BGLK = as_kept(k_NSK, k_BGLK), as_kept(v_NSK, v_BGLK)
            mixed_BHLK = FORMS[spec.form].prompt(q_BHLK, k_BGLK, v_BGLK, visible_BLS, scale, dtype)
        elif isinstance(k_NSK, Short):
            kept, scales = (k_NSK.values_NSK, v_NSK.values_NSK), (k_NSK.scale_NS, v_NSK.scale_NS)
            mixed_BHLK = attend_step(q_BHLK[:, :, 0], *kept, visible_BLS[:, 0], scale, scales)[:, :, None]
        else:
            mixed_BHLK = attend_step(q_BHLK[:, :, 0], k_NSK, v_NSK, visible_BLS[:, 0], scale)[:, :, None]
        return mixed_BHLK.transpose(0, 2, 1, 3), k_NSK, v_NSK

    rows = row_axes(qkv[0].shape[0])
    heads, cached = P(rows, None, "tensor"), P(AXES if rows else "tensor")
    specs = (heads, heads, heads, cached, cached, P(rows), P())
    mixed_BLHK, *kv_NSK = on_each_device(attend, specs, (heads, cached, cached))(*qkv, *kv, visible_BLS, slot)
    return mixed_BLHK, (kv_NSK[0], kv_NSK[1])


class MLP(nn.Module):
    """D -> F -> D with the activation between; gated, the activation of one product times another."""

    spec: LayerSpec

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"], deterministic: bool) -> Float[Array, "B L D"]:
        spec = self.spec
        # Tokens of all rows in one dimension: XLA fuses the activation with the rounding to 8 bits after it only then.
        x_TD = x_BLD.reshape(-1, spec.width)
        up = [_dense(spec, spec.inner, name, spec.mlp_bias, spec.std)(x_TD) for name in spec.names.up]
        up = [spread(x_TF, row_axes(len(x_BLD)), "tensor") for x_TF in up]
        x_TF = activation(spec.activation, up[0])
        if len(up) == 2:
            x_TF = x_TF * up[1]
        x_TD = _dense(spec, spec.width, spec.names.down, spec.mlp_bias, spec.out_std)(x_TF)
        return Dropout(spec.dropout, name="resid_dropout")(x_TD.reshape(x_BLD.shape), deterministic)


class Bottleneck(nn.Module):
    """An adapter, D -> M -> D with the activation between, added to what it reads. Source: Houlsby et al. 2019.

    Its width M is that of the parameters that it is given.
    """

    spec: LayerSpec

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        spec = self.spec
        width = self.variables["params"]["down"]["bias"].shape[-1]
        inner_BLM = activation(spec.activation, _dense(spec, width, "down", True, spec.std)(x_BLD))
        return x_BLD + _dense(spec, spec.width, "up", True, spec.std)(inner_BLM).astype(x_BLD.dtype)


def _adapted(layer: nn.Module, spec: LayerSpec, branch: str, x_BLD: jax.Array) -> jax.Array:
    """Returns what a branch of a layer gives, by way of its adapter where the parameters have one."""
    name = f"{branch}_adapter"
    return Bottleneck(spec, name=name)(x_BLD) if layer.has_variable("params", name) else x_BLD


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream, with norms before the branches or after the sums."""

    spec: LayerSpec
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x_BSD: Float[Array, "B S D"],
        layer: int | jax.Array,
        scene: Scene,
        kv: tuple[Kept, Kept] | None = None,
        ask: Ask | None = None,
    ) -> tuple[Float[Array, "B L D"], tuple[Kept, Kept] | None]:
        spec = self.spec
        x_BSD = spread(x_BSD, ROWS)
        norms = [Norm(spec.norm, spec.dtype, spec.param_dtype, name=name) for name in spec.names.norms]
        attention, mlp = Attention(spec, name=spec.names.attention), MLP(spec, name=spec.names.mlp)
        normed_BSD = x_BSD if spec.norm_after else norms[0](x_BSD)
        attended_BLD, kv = attention(normed_BSD, layer, scene, kv, self.deterministic, ask)
        attended_BLD = _adapted(self, spec, "attention", attended_BLD)
        x_BLD = add_branch(x_BSD if ask is None else ask(x_BSD), attended_BLD)
        x_BLD = norms[0](x_BLD) if spec.norm_after else x_BLD
        normed_BLD = x_BLD if spec.norm_after else norms[1](x_BLD)
        inner_BLD = _adapted(self, spec, "mlp", mlp(normed_BLD, self.deterministic))
        x_BLD = add_branch(x_BLD, inner_BLD)
        return (norms[1](x_BLD) if spec.norm_after else x_BLD), kv
