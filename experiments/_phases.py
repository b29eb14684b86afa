"""The phases of a model's life as functions with abstract arguments: compiled like in real use, no weight allocated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from experiments._programs import Phase, Shape
from llmjax.adapt.folders import shapes_of
from llmjax.data.batches import Batch
from llmjax.errors import UserError, did_you_mean
from llmjax.infer import loop
from llmjax.infer.embed import embed
from llmjax.infer.sampling import Plan
from llmjax.infer.step import decode_step, prefill
from llmjax.kernels.formats import activation_dtype, check_format
from llmjax.models.cache import bucket, empty_cache
from llmjax.models.config import DTYPES, ModelConfig
from llmjax.models.families import family_of, make_model
from llmjax.models.folders import named_config
from llmjax.models.layout import check_heads, table_of
from llmjax.models.params import prepare
from llmjax.parallel.layout import Table, shaped
from llmjax.train import OptimizerConfig, init_state, make_optimizer, make_train_step
from llmjax.train.classification import classification_loss
from llmjax.train.lm import lm_loss
from llmjax.train.task import LossFn


def of_model(shape: Shape) -> Phase:
    """Returns the phase of a model that `shape` names; a value that does not fit raises `UserError`."""
    if shape.phase not in PHASES:
        near = did_you_mean(shape.phase, PHASES)
        raise UserError(f"phase={shape.phase!r} is none of {', '.join(PHASES)}.{near}")
    for name in ("batch", "length", "new_tokens"):
        if getattr(shape, name) < 1:
            raise UserError(f"{name}={getattr(shape, name)} must be at least 1.")
    inference = shape.phase in ("prefill", "decode", "generate")
    if inference:
        check_format(shape.dtype, "dtype")
    elif shape.dtype not in DTYPES:
        near = did_you_mean(shape.dtype, DTYPES)
        raise UserError(f"dtype={shape.dtype!r} must be one of {', '.join(DTYPES)} for phase={shape.phase!r}.{near}")
    config = named_config(shape.model, **({"kv_cache": shape.kv_cache} if inference else {"dtype": shape.dtype}))
    if inference and not family_of(config).causal:
        raise UserError(f"phase={shape.phase!r}: {shape.model} is a {config.family}, which does not continue texts.")
    tokens = shape.length + (shape.new_tokens if shape.phase == "generate" else 0)
    if tokens > config.context:
        raise UserError(f"length={shape.length}: {tokens} tokens are more than {shape.model}'s {config.context}.")
    phase = of_config(config, shape)
    summary = f"{shape.model} {shape.phase}: batch {shape.batch}, {phase.summary}, {shape.dtype}"
    return phase._replace(summary=summary)


def of_config(config: ModelConfig, shape: Shape, microbatches: int = 1) -> Phase:
    """Returns a phase of a model by its config, with its arguments where the mesh in use has them.

    microbatches: of which a training step adds up the gradients of one.
    """
    check_heads(config)
    if shape.phase == "lm":
        phase = _training(config, shape, "lm", lm_loss(config), microbatches)
    else:
        phase = PHASES[shape.phase](config, shape)
    return phase._replace(args=tuple(_lying(arg, table_of(config)) for arg in phase.args))


def _lying(arg: Any, table: Table) -> Any:
    """Returns an argument with the shardings of the mesh in use; a lone array has a row of the batch in each row."""
    return shaped({"rows_B": arg}, table)["rows_B"] if hasattr(arg, "shape") else shaped(arg, table)


def _ints(*dims: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, jnp.int32)


def _prepared(config: ModelConfig, shape: Shape) -> Any:
    params = shapes_of(shape.model, config, "lm")
    return jax.eval_shape(lambda params: prepare(params, config, check_format(shape.dtype)), params)


def _cache(config: ModelConfig, shape: Shape, slots: int) -> Any:
    dtype = activation_dtype(check_format(shape.dtype))
    return jax.eval_shape(lambda: empty_cache(config, shape.batch, slots, dtype))


def _prefill(config: ModelConfig, shape: Shape) -> Phase:
    cache = _cache(config, shape, bucket(shape.length))
    args = (_prepared(config, shape), _ints(shape.batch, shape.length), _ints(shape.batch), cache)
    return Phase(jax.jit(partial(prefill, config=config), donate_argnums=3), args, f"prompts of {shape.length}")


def decoding(config: ModelConfig, shape: Shape, slots: int) -> Phase:
    """Returns a step that makes one more token of each row, over a cache of so many slots."""
    cache = _cache(config, shape, slots)
    args = (_prepared(config, shape), _ints(shape.batch), cache)
    function = jax.jit(partial(decode_step, config=config), donate_argnums=2)
    return Phase(function, args, f"one token, cache of {cache.slots}")


def _decode(config: ModelConfig, shape: Shape) -> Phase:
    return decoding(config, shape, bucket(shape.length))


def _generate(config: ModelConfig, shape: Shape) -> Phase:
    plan = Plan(draws=False, top_k=False, top_p=False, penalty=False, logprobs=False)
    whole = loop.Shape(shape.batch, shape.length, bucket(shape.length + shape.new_tokens), shape.new_tokens)

    def generate(params: Any, *arguments: Any) -> jax.Array:
        state, news = loop.start(params, *arguments, config=config, shape=whole, plan=plan)
        return loop.advance(params, state, news.done_B, jnp.int32(whole.new), config=config, plan=plan)[1].tokens_BT

    args = (_prepared(config, shape), *loop.example_arguments(whole))
    what = f"prompts of {shape.length}, {shape.new_tokens} new tokens"
    return Phase(jax.jit(generate), args, what, trips=shape.new_tokens - 1)


def _classify(config: ModelConfig, shape: Shape) -> Phase:
    model = make_model(config, "classifier")

    def classify(params: Any, tokens_BL: jax.Array, lengths_B: jax.Array) -> jax.Array:
        mask_BL = jnp.arange(tokens_BL.shape[1])[None, :] < lengths_B[:, None]
        logits_BC: Any = model.apply({"params": params}, tokens_BL, mask_BL)
        return jax.nn.softmax(logits_BC, axis=-1)

    args = (shapes_of(shape.model, config, "classifier"), _ints(shape.batch, shape.length), _ints(shape.batch))
    return Phase(jax.jit(classify), args, f"texts of {shape.length}")


def _embed(config: ModelConfig, shape: Shape) -> Phase:
    args = (shapes_of(shape.model, config, "none"), _ints(shape.batch, shape.length), _ints(shape.batch))
    return Phase(jax.jit(partial(embed, config=config)), args, f"texts of {shape.length}")


def _train(config: ModelConfig, shape: Shape) -> Phase:
    return _training(config, shape, "classifier", classification_loss(config, 0.0, 0.0, 0))


def _lm(config: ModelConfig, shape: Shape) -> Phase:
    return _training(config, shape, "lm", lm_loss(config))


def _training(config: ModelConfig, shape: Shape, head: Any, loss_fn: LossFn, accumulate: int = 1) -> Phase:
    settings, steps = OptimizerConfig(accumulate=accumulate), 1000
    params = shapes_of(shape.model, config, head)
    state = jax.eval_shape(lambda params: init_state(params, make_optimizer(settings, steps), 0, False), params)
    rows, tokens_BL = _ints(shape.batch), _ints(shape.batch, shape.length)
    mask_BL = jax.ShapeDtypeStruct(tokens_BL.shape, jnp.bool_)
    leaves: list[Any] = [tokens_BL, mask_BL, rows, jax.ShapeDtypeStruct(rows.shape, jnp.float32), rows]
    step = make_train_step(loss_fn, settings, steps, table=table_of(config))
    return Phase(jax.jit(step, donate_argnums=0), (state, Batch(*leaves)), f"texts of {shape.length}")


PHASES: dict[str, Callable[[ModelConfig, Shape], Phase]] = {
    "prefill": _prefill,
    "decode": _decode,
    "generate": _generate,
    "classify": _classify,
    "embed": _embed,
    "train": _train,
    "lm": _lm,
}
