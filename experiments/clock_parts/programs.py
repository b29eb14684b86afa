"""A case of the clock job as a JAX function, and arguments to call it with.

Weights are random numbers of the given size and type: what a step costs does not depend on them.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._phases import of_config
from experiments._programs import Shape, build
from experiments.clock_parts.cases import Case
from llmjax.adapt.structured import after
from llmjax.infer.sampling import Sampling
from llmjax.kernels.formats import Rows
from llmjax.models.cache import Cache
from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size, make_model
from llmjax.models.params import Params, param_shapes

_BLOCK = 1 << 20  # random values that a large array repeats
_TOKEN = 7
_CALLS = ("jaxpr", "call_jaxpr")  # parameters of equations that only call a function


class Form(NamedTuple):
    """A case before there are numbers: a jitted function, the same without jit, and abstract arguments.

    `trips` is how often a loop runs whose length the program leaves open.
    """

    function: Any
    plain: Callable[..., Any]
    args: tuple[Any, ...]
    trips: int | None = None


class Made(NamedTuple):
    """A form with arguments of its first call; `following(outputs, args)` are those of the next one."""

    function: Any
    plain: Callable[..., Any]
    args: tuple[Any, ...]
    following: Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]
    trips: int | None = None


def form_of(case: Case) -> Form:
    """Returns what a case compiles."""
    if case.phase in ("classify", "embed") or (case.phase == "decode" and not case.cached):
        return _forward(case)
    shape = Shape(case.model, case.phase, case.batch, case.length, max(1, case.new_tokens), case.dtype, case.kv_cache)
    phase = of_config(_config(case, kv_cache=case.kv_cache), shape) if case.pruned else build(shape)
    function, args = phase.function, phase.args
    if not case.prepared:
        args = (_as_stored(case), *args[1:])
    elif case.written_out:
        args = (_written_out(args[0]), *args[1:])
    return Form(function, getattr(function, "__wrapped__", function), args, phase.trips)


def _config(case: Case, **more: Any) -> ModelConfig:
    """The config of a case's model, with what it has lost."""
    config = from_size(case.model, **more)
    part, _, share = case.pruned.partition("-")
    return after(config, part, int(share) / 100) if part else config


def build_case(case: Case) -> Made:
    """Returns what a case runs, with arguments; nothing is compiled yet."""
    function, plain, abstract, trips = form_of(case)
    params, rest = fill(abstract[0]), abstract[1:]
    if case.phase in ("classify", "embed") or not case.cached:
        mask_BL = np.ones((case.batch, case.length), bool)
        args = (params, _tokens(case.batch, case.length), mask_BL)
        return Made(function, plain, args, lambda outputs, args: args)
    if case.phase == "decode":
        cache = _filled_to(fill(rest[1]), case.length)
        return Made(function, plain, (params, _tokens(case.batch), cache), partial(_next_step, case.length))
    lengths_B = np.full(case.batch, case.length, np.int32)
    tokens_BL = _tokens(case.batch, case.length)
    if case.phase == "prefill":
        args = (params, tokens_BL, lengths_B, fill(rest[2]))
        return Made(function, plain, args, lambda outputs, args: (*args[:3], outputs[1]))
    rows_B, alive_B = np.arange(case.batch, dtype=np.int32), np.zeros(case.batch, bool)
    args = (params, tokens_BL, lengths_B, rows_B, alive_B, Sampling().knobs(), np.int32(-1))
    return Made(function, plain, args, lambda outputs, args: args, trips)


def fill(tree: Any) -> Any:
    """Returns arrays for abstract ones: normal numbers x 0.02, 8-bit integers, zeros of wider integers and False."""
    return jax.tree.map(_filled, tree)


def _filled(leaf: Any) -> jax.Array:
    random = np.random.default_rng(0)
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        block = random.standard_normal(_BLOCK, np.float32) * 0.02
    elif leaf.dtype == jnp.int8:
        block = random.integers(-127, 128, _BLOCK, np.int8)
    else:
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(np.resize(block, leaf.shape), leaf.dtype)


def _tokens(*dims: int) -> np.ndarray:
    return np.full(dims, _TOKEN, np.int32)


def _filled_to(cache: Cache, length: int) -> Cache:
    """The cache with one token less than `length` in it: a step attends to `length` of them."""
    return cache._replace(end=np.int32(length - 1))  # pyright: ignore[reportArgumentType]


def _next_step(length: int, outputs: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*args[:2], _filled_to(outputs[1], length))


def _forward(case: Case) -> Form:
    """The model over whole rows, its weights stored in `dtype`: a class, a vector, or the next token's logits."""
    config = _config(case, dtype=case.dtype, param_dtype=case.dtype)
    head: Any = {"classify": "classifier", "embed": "none"}.get(case.phase, "lm")
    model = make_model(config, head)

    def forward(params: Params, tokens_BL: jax.Array, mask_BL: jax.Array) -> jax.Array:
        found: Any = model.apply({"params": params}, tokens_BL, mask_BL)
        match case.phase:
            case "classify":
                return jax.nn.softmax(found, axis=-1)
            case "embed":
                return jnp.sum(found * mask_BL[..., None], axis=1) / jnp.sum(mask_BL, axis=1, keepdims=True)
        return found[:, -1]

    tokens_BL, mask_BL = (jax.ShapeDtypeStruct((case.batch, case.length), kind) for kind in (jnp.int32, jnp.bool_))
    return Form(jax.jit(forward), forward, (param_shapes(config, head), tokens_BL, mask_BL))


def _as_stored(case: Case) -> Params:
    """The weights as the model stores them: plain arrays, every product written `x @ kernel`."""
    if case.dtype == "int8":
        raise ValueError(f"weights as stored are float32 or bfloat16, not {case.dtype}")
    return param_shapes(_config(case, param_dtype=case.dtype), "lm")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _WrittenOut(Rows):
    """A weight whose products are written as sums, under the name that XLA gives to those it writes out itself."""

    def multiply(self, x_TD: jax.Array) -> jax.Array:
        with jax.named_scope("dot_general"):
            return jnp.sum(self.values_ED * x_TD[:, None], axis=-1)


def _written_out(params: Params) -> Params:
    def change(leaf: Any) -> Any:
        return _WrittenOut(leaf.values_ED, leaf.scale_E) if isinstance(leaf, Rows) else leaf

    return jax.tree.map(change, params, is_leaf=lambda leaf: isinstance(leaf, Rows))


def op_by_op(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], int]:
    """Returns a function that gives JAX's primitives to the device one after the other, and how many they are.

    It does what an array program does that was never jitted, without the time that the model's own Python takes.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    structure = jax.tree.structure(shapes)

    def run(*args: Any) -> Any:
        return structure.unflatten(_evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args)))

    return run, _equations(closed.jaxpr)


def _evaluate(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    last = {v: k for k, e in enumerate(jaxpr.eqns) for v in e.invars if not hasattr(v, "val")}
    last |= dict.fromkeys((v for v in jaxpr.outvars if not hasattr(v, "val")), len(jaxpr.eqns))
    for k, equation in enumerate(jaxpr.eqns):
        given = [atom.val if hasattr(atom, "val") else values[atom] for atom in equation.invars]
        inner = _called(equation)
        if inner is None:
            found = equation.primitive.bind(*given, **equation.params)
            found = found if equation.primitive.multiple_results else [found]
        else:
            found = _evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given)
        values.update(zip(equation.outvars, found, strict=True))
        for v in {v for v in equation.invars if not hasattr(v, "val") and last[v] == k}:
            del values[v]  # as Python frees what no name is left for
    return [atom.val if hasattr(atom, "val") else values[atom] for atom in jaxpr.outvars]


def _equations(jaxpr: Any) -> int:
    inner = [_called(equation) for equation in jaxpr.eqns]
    return sum(1 if call is None else _equations(getattr(call, "jaxpr", call)) for call in inner)


def _called(equation: Any) -> Any:
    """The function that an equation does nothing but call, None of any other equation."""
    if equation.primitive.name in ("while", "scan", "cond", "custom_linear_solve"):
        return None
    return next((equation.params[name] for name in _CALLS if name in equation.params), None)
