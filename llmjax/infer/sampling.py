"""Choosing the next token: greedy, or drawn from the distribution that temperature, top-k and top-p leave.

The order of the steps is transformers': repetition penalty, temperature, top-k, top-p.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from llmjax.errors import UserError
from llmjax.schema import Schema, checked, flag, number, whole

_GROUP = 256  # tokens a group in the search for the drawn one
RANGES: Schema = {
    "temperature": number(0, 1e6),
    "top_k": whole(),
    "top_p": number(0, 1, above=True),
    "repetition_penalty": number(0, 1e6, above=True),
    "seed": whole(0, 2**32 - 1),
    "logprobs": flag(),
}


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    `temperature` 0 takes the most probable token (the first of equals); `top_k` 0 and `top_p` 1 leave all tokens;
    `repetition_penalty` 1 is none, and above 1 makes tokens of the prompt and of the text so far less probable (Keskar
    et al. 2019). The draw of a row depends on `seed`, on the row's number in the input and on nothing else, so a
    text does not change with the batch it stands in. Values outside `RANGES` raise `UserError`.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    logprobs: bool = False

    def __post_init__(self) -> None:
        checked(dataclasses.asdict(self), RANGES, "")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise UserError("top_k and top_p choose among several tokens, so they need temperature above 0, e.g. 1.0.")

    @property
    def plan(self) -> "Plan":
        """What is computed: the part of the settings that a compiled program is made for."""
        return Plan(self.temperature > 0, self.top_k > 0, self.top_p < 1, self.repetition_penalty != 1, self.logprobs)

    def knobs(self) -> "Knobs":
        """The values, as arguments of a compiled program."""
        return Knobs(
            np.float32(self.temperature),
            np.int32(self.top_k),
            np.float32(self.top_p),
            np.float32(self.repetition_penalty),
            # What `jax.random.key_data(jax.random.key(seed))` gives, without a program to compile for it.
            np.array([0, self.seed], np.uint32),
        )


class Plan(NamedTuple):
    """Which steps of the choice a program contains."""

    draws: bool
    top_k: bool
    top_p: bool
    penalty: bool
    logprobs: bool


class Knobs(NamedTuple):
    """The settings that may change without compiling again."""

    temperature: Any  # float32 scalar, as are the others but
    top_k: Any  # int32
    top_p: Any
    repetition_penalty: Any
    key: Any  # uint32 [2], of a threefry key


def choose(
    logits_BV: Float[Array, "B V"],
    seen_BV: Bool[Array, "B V"] | None,
    rows_B: Int[Array, "B"],
    step: Int[Array, ""],
    knobs: Knobs,
    plan: Plan,
) -> Int32[Array, "B"]:
    """Returns one token a row.

    Args:
        logits_BV: float32, as the model gives them.
        seen_BV: tokens of the prompt and of the text so far; read where `plan.penalty`.
        rows_B: each row's number in the whole input, and
        step: the number of the token: together with the key they decide the draw.
    """
    with jax.named_scope("choose"):
        if plan.penalty and seen_BV is not None:
            penalty = knobs.repetition_penalty
            penalised_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
            logits_BV = jnp.where(seen_BV, penalised_BV, logits_BV)
        if not plan.draws:
            return most_probable(logits_BV)
        logits_BV = logits_BV / knobs.temperature
        if plan.top_k:
            logits_BV = jnp.where(largest(logits_BV, jnp.ones_like(logits_BV), knobs.top_k), logits_BV, -jnp.inf)
        probabilities_BV = jax.nn.softmax(logits_BV, axis=-1)
        if plan.top_p:
            nucleus_BV = largest(probabilities_BV, probabilities_BV, knobs.top_p)
            probabilities_BV = jnp.where(nucleus_BV, probabilities_BV, 0.0)
        key = jax.random.wrap_key_data(knobs.key)
        keys_B = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), step))(rows_B)
        return draw(probabilities_BV, jax.vmap(jax.random.uniform)(keys_B))


def most_probable(logits_BV: Float[Array, "B V"]) -> Int32[Array, "B"]:
    """Returns the first of the largest, as argmax does; XLA's CPU top-k is several times as fast as its argmax."""
    return jax.lax.top_k(logits_BV, 1)[1][:, 0].astype(jnp.int32)


def largest(
    x_BV: Float[Array, "B V"], weights_BV: Float[Array, "B V"], target: Float[Array, ""] | Int[Array, ""]
) -> Bool[Array, "B V"]:
    """Returns the smallest set of each row's largest elements whose weights sum to `target`, equals included.

    With weights 1 that is top-k, with the probabilities themselves top-p; where all weights together do not reach the
    target, the set is everything. Found without sorting, by bisection over the 32 bits of the smallest element in it,
    which takes a tenth of a sort's time at V = 50,257.
    """
    x_BV = jnp.where(x_BV == 0, 0.0, x_BV)  # -0 equals 0, but its bits do not
    bits_BV = jax.lax.bitcast_convert_type(x_BV, jnp.uint32)
    # Floats as unsigned integers in the same order: all bits turned where negative, else the sign bit.
    order_BV = jnp.where(bits_BV >> 31 == 1, ~bits_BV, bits_BV | jnp.uint32(1 << 31))

    def narrow(i: jax.Array, least_B: jax.Array) -> jax.Array:
        tried_B = least_B | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        weight_B = jnp.sum(jnp.where(order_BV >= tried_B[:, None], weights_BV, 0), axis=-1)
        return jnp.where(weight_B >= target, tried_B, least_B)

    least_B = jax.lax.fori_loop(0, 32, narrow, jnp.zeros(x_BV.shape[:1], jnp.uint32))
    return order_BV >= least_B[:, None]


def draw(weights_BV: Float[Array, "B V"], uniform_B: Float[Array, "B"]) -> Int32[Array, "B"]:
    """Returns an index a row with probability proportional to its weight, by inversion of `uniform_B` in [0, 1).

    The running sum is searched in two levels, group sums first: a pass over the weights instead of a long scan.
    """
    batch, size = weights_BV.shape
    groups = -(-size // _GROUP)
    weights_BGI = jnp.pad(weights_BV, ((0, 0), (0, groups * _GROUP - size))).reshape(batch, groups, _GROUP)
    until_BG = jnp.cumsum(jnp.sum(weights_BGI, axis=-1), axis=-1)
    target_B = uniform_B * until_BG[:, -1]
    group_B = jnp.sum(until_BG <= target_B[:, None], axis=-1).clip(max=groups - 1)
    before_BG = jnp.pad(until_BG, ((0, 0), (1, 0)))
    rest_B = target_B - jnp.take_along_axis(before_BG, group_B[:, None], axis=1)[:, 0]
    weights_BI = jnp.take_along_axis(weights_BGI, group_B[:, None, None], axis=1)[:, 0]
    inside_B = jnp.sum(jnp.cumsum(weights_BI, axis=-1) <= rest_B[:, None], axis=-1)
    index_B = (group_B * _GROUP + inside_B).clip(max=size - 1)
    # Rounding of the sums may lead past the last weight of a group; then the heaviest stands in.
    hit_B = jnp.take_along_axis(weights_BV, index_B[:, None], axis=1)[:, 0] > 0
    return jnp.where(hit_B, index_B, most_probable(weights_BV)).astype(jnp.int32)


def logprob(logits_BV: Float[Array, "B V"], token_B: Int[Array, "B"]) -> Float[Array, "B"]:
    """Returns the natural log-probability of a token under the model's own distribution, whatever the sampling."""
    with jax.named_scope("logprob"):
        return jnp.take_along_axis(jax.nn.log_softmax(logits_BV, axis=-1), token_B[:, None], axis=1)[:, 0]
