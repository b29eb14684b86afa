"""Rotary positions (Su et al. 2021, "RoFormer"). Shape letters: B batch, L length, H heads, K head width."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llmjax.models.spec import Rope


def rope_angles(rope: Rope, width: int, positions_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns cosine and sine of each position's angles, [B, L, K / 2] in float32."""
    with jax.named_scope("rope"):
        frequency_K = rope.theta ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
        if rope.scaling == "linear":
            frequency_K = frequency_K / rope.factor
        if rope.scaling == "llama3":
            turns_K = rope.original * frequency_K / (2 * jnp.pi)
            share_K = (turns_K - rope.low_factor) / (rope.high_factor - rope.low_factor)
            share_K = jnp.clip(share_K, 0.0, 1.0)
            frequency_K = share_K * frequency_K + (1.0 - share_K) * frequency_K / rope.factor
        angle_BLK = positions_BL[..., None].astype(jnp.float32) * frequency_K
        return jnp.cos(angle_BLK), jnp.sin(angle_BLK)


def rotate(x_BLHK: Float[Array, "B L H K"], rope_BLK: tuple[jax.Array, ...]) -> Float[Array, "B L H K"]:
    """Turns each pair (k, k + K / 2) of a head by its position's angle."""
    cos_BL1K, sin_BL1K = (part[:, :, None] for part in rope_BLK)
    first, second = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = (first * cos_BL1K - second * sin_BL1K, second * cos_BL1K + first * sin_BL1K)
    return jnp.concatenate(turned, axis=-1).astype(x_BLHK.dtype)
