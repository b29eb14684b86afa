"""Four models in Flax Linen as people write them: experts, a Mixer, a selective state space (Mamba), a U-Net."""

import jax
import jax.numpy as jnp
from flax import linen as nn

B, L, D, F, V, E, N, S = 2, 16, 32, 64, 128, 4, 2, 8
IMAGE = jax.ShapeDtypeStruct((B, 16, 16, 4), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((B, L), jnp.int32)


class Router(nn.Module):
    @nn.compact
    def __call__(self, x_BLD):
        weights_BLE = jax.nn.softmax(nn.Dense(E, use_bias=False, name="proj")(x_BLD))
        return jax.lax.top_k(weights_BLE, 2)


class SparseFeedForward(nn.Module):
    @nn.compact
    def __call__(self, x_BLD):
        gates_BLK, chosen_BLK = Router(name="router")(x_BLD)
        up_EDF = self.param("w_in", nn.initializers.lecun_normal(), (E, D, F))
        down_EFD = self.param("w_out", nn.initializers.lecun_normal(), (E, F, D))
        mix_BLE = (jax.nn.one_hot(chosen_BLK, E) * gates_BLK[..., None]).sum(2)
        h_BLEF = jax.nn.gelu(jnp.einsum("bld,edf->blef", x_BLD, up_EDF))
        return jnp.einsum("blef,efd,ble->bld", h_BLEF, down_EFD, mix_BLE)


class MoeLayer(nn.Module):
    @nn.compact
    def __call__(self, x_BLD):
        x_BLD += nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x_BLD))
        return x_BLD + SparseFeedForward()(nn.LayerNorm()(x_BLD))


class SparseLM(nn.Module):
    @nn.compact
    def __call__(self, tokens_BL):
        embed = nn.Embed(V, D)
        x_BLD = embed(tokens_BL)
        for _ in range(N):
            x_BLD = MoeLayer()(x_BLD)
        return embed.attend(nn.LayerNorm()(x_BLD))


class MixBlock(nn.Module):
    @nn.compact
    def __call__(self, x_BLD):
        y_BDL = jnp.swapaxes(nn.LayerNorm()(x_BLD), 1, 2)
        y_BDL = nn.Dense(L)(nn.gelu(nn.Dense(F)(y_BDL)))
        x_BLD += jnp.swapaxes(y_BDL, 1, 2)
        return x_BLD + nn.Dense(D)(nn.gelu(nn.Dense(F)(nn.LayerNorm()(x_BLD))))


class Mixer(nn.Module):
    @nn.compact
    def __call__(self, image_BHWC):
        x = nn.Conv(D, (4, 4), strides=(4, 4), name="stem")(image_BHWC)
        x_BLD = x.reshape(B, -1, D)
        for _ in range(N):
            x_BLD = MixBlock()(x_BLD)
        return nn.Dense(10, name="head")(nn.LayerNorm()(x_BLD).mean(1))


class Mamba(nn.Module):
    """One selective state space: a gated branch, a causal convolution, a scan over time."""

    @nn.compact
    def __call__(self, x_BLD):
        u_BLF, z_BLF = jnp.split(nn.Dense(2 * F, name="in_proj")(x_BLD), 2, -1)
        u_BLF = nn.silu(nn.Conv(F, (4,), padding="CAUSAL", feature_group_count=F, name="conv1d")(u_BLF))
        b_BLS, c_BLS, r_BLR = jnp.split(nn.Dense(2 * S + 4, name="x_proj")(u_BLF), (S, 2 * S), -1)
        step_BLF = nn.softplus(nn.Dense(F, name="dt_proj")(r_BLR))
        a_FS = -jnp.exp(self.param("A_log", nn.initializers.zeros, (F, S)))
        decay_BLFS = jnp.exp(step_BLF[..., None] * a_FS)
        input_BLFS = step_BLF[..., None] * b_BLS[:, :, None] * u_BLF[..., None]

        def advance(h_BFS, step):
            decay_BFS, input_BFS, c_BS = step
            h_BFS = decay_BFS * h_BFS + input_BFS
            return h_BFS, jnp.einsum("bfs,bs->bf", h_BFS, c_BS)

        steps = tuple(jnp.swapaxes(t, 0, 1) for t in (decay_BLFS, input_BLFS, c_BLS))
        _, y_LBF = jax.lax.scan(advance, jnp.zeros((B, F, S)), steps)
        return nn.Dense(D, name="out_proj")(jnp.swapaxes(y_LBF, 0, 1) * nn.silu(z_BLF))


class StateSpaceLM(nn.Module):
    @nn.compact
    def __call__(self, tokens_BL):
        embed = nn.Embed(V, D, name="embedding")
        x_BLD = embed(tokens_BL)
        for k in range(N):
            x_BLD += Mamba(name=f"layers_{k}")(nn.RMSNorm()(x_BLD))
        return nn.Dense(V, use_bias=False, name="lm_head")(nn.RMSNorm(name="norm_f")(x_BLD))


class Stage(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x_BHWC, time_BT):
        h = nn.Conv(self.width, (3, 3))(nn.silu(nn.GroupNorm(4)(x_BHWC)))
        h += nn.Dense(self.width)(nn.silu(time_BT))[:, None, None]
        h = nn.Conv(self.width, (3, 3))(nn.silu(nn.GroupNorm(4)(h)))
        return h + nn.Conv(self.width, (1, 1))(x_BHWC)


class UNet(nn.Module):
    @nn.compact
    def __call__(self, image_BHWC, time_B):
        waves = time_B[:, None] * jnp.exp(jnp.linspace(0.0, -6.0, 8))
        time_BT = nn.Dense(32)(jnp.concatenate([jnp.sin(waves), jnp.cos(waves)], -1))
        x = nn.Conv(8, (3, 3))(image_BHWC)
        kept = []
        for width in (8, 16):
            x = Stage(width)(x, time_BT)
            kept.append(x)
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = Stage(16)(x, time_BT)
        for width in (16, 8):
            x = jax.image.resize(x, (B, x.shape[1] * 2, x.shape[2] * 2, x.shape[3]), "nearest")
            x = Stage(width)(jnp.concatenate([x, kept.pop()], -1), time_BT)
        return nn.Conv(4, (3, 3))(nn.silu(nn.GroupNorm(4)(x)))


def linen(model, *arguments):
    params = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    return model.apply, (params, *arguments)


def programs():
    yield "linen_moe", *linen(SparseLM(), TOKENS)
    yield "linen_mixer", *linen(Mixer(), IMAGE)
    yield "linen_mamba", *linen(StateSpaceLM(), TOKENS)
    yield "linen_unet", *linen(UNet(), IMAGE, jax.ShapeDtypeStruct((B,), jnp.float32))
