"""Whole generations as compiled programs: `start` reads the prompts, `advance` makes tokens in one `while_loop`."""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from llmjax.infer.kept import kept
from llmjax.infer.memory import check_batch
from llmjax.infer.sampling import Knobs, Plan, choose, logprob
from llmjax.infer.step import decode_step, prefill
from llmjax.models.cache import Cache, empty_cache
from llmjax.models.config import ModelConfig
from llmjax.models.layout import table_of
from llmjax.models.params import Params, cache_dtype
from llmjax.parallel.layout import divided, shaped
from llmjax.parallel.mesh import current

ENDS = 4  # tokens that may end a row: programs are compiled for so many
NO_TOKEN = -1  # stands where the logits were no numbers


class State(NamedTuple):
    """A batch of generations under way: everything the next token depends on. Donated from call to call."""

    cache: Cache
    token_B: Int[Array, "B"]  # the newest, not yet in the cache
    tokens_BT: Int[Array, "B T"]  # all so far
    logprobs_BT: Float[Array, "B T"] | None
    seen_BV: Bool[Array, "B V"] | None
    count: Int[Array, ""]  # how many so far
    done_B: Bool[Array, "B"]
    rows_B: Int[Array, "B"]
    knobs: Knobs
    ends_E: Int[Array, "E"]


class News(NamedTuple):
    """What the host reads of a state; not donated, so it may be read while the next call runs."""

    tokens_BT: Int[Array, "B T"]
    logprobs_BT: Float[Array, "B T"] | None
    count: Int[Array, ""]
    done_B: Bool[Array, "B"]


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a pair of programs is compiled for: rows B, prompt length L, cache length S, most new tokens T."""

    batch: int
    length: int
    slots: int
    new: int


class Programs(NamedTuple):
    """`start(params, tokens_BL, lengths_B, rows_B, done_B, knobs, ends_E)` and `advance(params, state, done_B, limit)`.

    Both return (State, News). `seconds` is how long tracing and compiling took, or reading what is kept.
    """

    start: Any
    advance: Any
    seconds: float


def compile_programs(config: ModelConfig, params: Params, shape: Shape, plan: Plan) -> Programs:
    """Returns the compiled programs of a shape for the mesh in use, else JAX's default device; the same ones again.

    Raises:
        UserError: a batch of that shape does not fit in memory beside the parameters.
    """
    leaves, structure = jax.tree.flatten(params)
    device = str(jax.config.jax_default_device or jax.local_devices()[0])  # pyright: ignore[reportAttributeAccessIssue]
    mesh: Any = current()
    if mesh is not None:
        device = f"{mesh} {[one.id for one in mesh.devices.flat]}"
    return _compile(config, structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves), shape, plan, device)


@functools.lru_cache(maxsize=64)
def _compile(config: ModelConfig, structure: Any, leaves: tuple, shape: Shape, plan: Plan, device: str) -> Programs:
    began = time.perf_counter()
    check_batch(config, cache_dtype(structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves])), shape)
    identity = repr((config, str(structure), leaves, shape, plan, device))

    def build() -> tuple[Any, Any]:
        return _compiled(config, structure, leaves, shape, plan)

    # What is kept is one device's.
    programs = kept(identity, build, (State, News, Cache, Knobs)) if current() is None else build()
    return Programs(programs[0], programs[1], time.perf_counter() - began)


def _compiled(config: ModelConfig, structure: Any, leaves: tuple, shape: Shape, plan: Plan) -> tuple[Any, Any]:
    params = shaped(structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves]), table_of(config))
    named = dict(zip(ARGUMENTS, example_arguments(shape), strict=True))
    arguments = [shaped(named, table_of(config))[name] for name in ARGUMENTS]
    begin = functools.partial(start, config=config, shape=shape, plan=plan)
    further = functools.partial(advance, config=config, plan=plan)
    state = shaped(jax.eval_shape(begin, params, *arguments)[0], table_of(config))
    done_B, limit = jax.ShapeDtypeStruct((shape.batch,), bool), jax.ShapeDtypeStruct((), "int32")
    # `keep_unused`: a program that is kept is run with every argument.
    compiled_start = jax.jit(begin, keep_unused=True).lower(params, *arguments).compile()
    compiled_advance = jax.jit(further, donate_argnums=1, keep_unused=True).lower(params, state, done_B, limit)
    return compiled_start, compiled_advance.compile()


ARGUMENTS = ("tokens_BL", "lengths_B", "rows_B", "done_B", "knobs", "ends_E")
"""Of `start`, after the parameters."""


def example_arguments(shape: Shape) -> tuple[Any, ...]:
    """Returns the shapes of `ARGUMENTS`."""
    ints_B = jax.ShapeDtypeStruct((shape.batch,), "int32")
    scalar, floating = jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((), "float32")
    shapes: Any = (floating, scalar, floating, floating, jax.ShapeDtypeStruct((2,), "uint32"))
    knobs = Knobs(*shapes)
    tokens_BL = jax.ShapeDtypeStruct((shape.batch, shape.length), "int32")
    ends_E = jax.ShapeDtypeStruct((ENDS,), "int32")
    return tokens_BL, ints_B, ints_B, jax.ShapeDtypeStruct((shape.batch,), bool), knobs, ends_E


def start(
    params: Params,
    tokens_BL: Int[Array, "B L"],
    lengths_B: Int[Array, "B"],
    rows_B: Int[Array, "B"],
    done_B: Bool[Array, "B"],
    knobs: Knobs,
    ends_E: Int[Array, "E"],
    *,
    config: ModelConfig,
    shape: Shape,
    plan: Plan,
) -> tuple[State, News]:
    """Reads the prompts and chooses each row's first token.

    Args:
        params: from `models.params.prepare`.
        tokens_BL, lengths_B: prompts padded on the right, and their lengths.
        rows_B: each row's number in the whole input.
        done_B: rows that are only there to fill the batch.
        knobs: sampling settings.
        ends_E: the tokens that end a row, `ENDS` of them; -1 for none.
    """
    cache = empty_cache(config, shape.batch, shape.slots, cache_dtype(params))
    logits_BV, cache = prefill(params, tokens_BL, lengths_B, cache, config=config)
    seen_BV = None
    if plan.penalty:
        real_BL = jnp.arange(shape.length) < lengths_B[:, None]
        # Padding is written to a column beyond the vocabulary, which is then cut off.
        column_BL = jnp.where(real_BL, tokens_BL, config.vocab_size)
        seen_BV = jnp.zeros((shape.batch, config.vocab_size + 1), bool)
        seen_BV = seen_BV.at[jnp.arange(shape.batch)[:, None], column_BL].set(True)[:, :-1]
    state = State(
        cache=cache,
        token_B=jnp.zeros((shape.batch,), jnp.int32),
        tokens_BT=jnp.zeros((shape.batch, shape.new), jnp.int32),
        logprobs_BT=jnp.zeros((shape.batch, shape.new), jnp.float32) if plan.logprobs else None,
        seen_BV=seen_BV,
        count=jnp.zeros((), jnp.int32),
        done_B=done_B,
        rows_B=rows_B,
        knobs=knobs,
        ends_E=ends_E,
    )
    state = _take(state, logits_BV, plan)
    return divided((state, _news(state)), table_of(config))


def advance(
    params: Params,
    state: State,
    done_B: Bool[Array, "B"],
    limit: Int[Array, ""],
    *,
    config: ModelConfig,
    plan: Plan,
) -> tuple[State, News]:
    """Makes tokens until each row has `limit` of them or is done; rows of `done_B` are done from now on."""

    def unfinished(state: State) -> jax.Array:
        return (state.count < limit) & ~jnp.all(state.done_B)

    def step(state: State) -> State:
        logits_BV, cache = decode_step(params, state.token_B, state.cache, config=config)
        return _take(state._replace(cache=cache), logits_BV, plan)

    state = lax.while_loop(unfinished, step, state._replace(done_B=state.done_B | done_B))
    return divided((state, _news(state)), table_of(config))


def _take(state: State, logits_BV: jax.Array, plan: Plan) -> State:
    """Chooses the next token of every row and notes it; in rows that are done it counts for nothing."""
    token_B = choose(logits_BV, state.seen_BV, state.rows_B, state.count, state.knobs, plan)
    # The maximum of numbers is one, and that of any NaN is NaN.
    token_B = jnp.where(jnp.isfinite(jnp.max(logits_BV, axis=-1)), token_B, NO_TOKEN)
    at = (0, state.count)
    batch = token_B.shape[0]
    return state._replace(
        token_B=token_B,
        tokens_BT=lax.dynamic_update_slice(state.tokens_BT, token_B[:, None], at),
        logprobs_BT=None
        if state.logprobs_BT is None
        else lax.dynamic_update_slice(state.logprobs_BT, logprob(logits_BV, token_B)[:, None], at),
        seen_BV=None if state.seen_BV is None else state.seen_BV.at[jnp.arange(batch), token_B].set(True),
        count=state.count + 1,
        done_B=state.done_B | (token_B[:, None] == state.ends_E).any(axis=1),
    )


def _news(state: State) -> News:
    return News(state.tokens_BT, state.logprobs_BT, state.count, state.done_B)
