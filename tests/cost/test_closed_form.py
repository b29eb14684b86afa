"""GPT-2's matrix products, from its configuration, for every size and phase: exactly."""

import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments._programs import Shape, build
from llmjax.cost import cost_module
from llmjax.hlo.parser import parse
from llmjax.kernels.formats import BLOCK
from llmjax.models.cache import bucket
from llmjax.models.config import ModelConfig
from llmjax.models.families import from_size, make_model

BATCH, LENGTH = 2, 24


def layer(config: ModelConfig, batch: int, length: int, queries: int) -> int:
    """FLOPs of one layer over `length` tokens of which `queries` ask and go on."""
    d, f = config.width, config.layer.inner
    project = 2 * batch * length * d * 3 * d
    attend = 2 * (2 * batch * queries * length * d)
    return project + attend + 2 * batch * queries * d * d + 2 * (2 * batch * queries * d * f)


def language_model(config: ModelConfig, batch: int, length: int) -> int:
    head = 2 * batch * length * config.width * config.vocab_size
    return config.layers * layer(config, batch, length, length) + head


def classifier(config: ModelConfig, batch: int, length: int) -> int:
    """The last layer's queries, output projection and MLP are those of one token a row."""
    whole = (config.layers - 1) * layer(config, batch, length, length)
    return whole + layer(config, batch, length, 1) + 2 * batch * config.width * config.num_labels


def vocabulary(config: ModelConfig) -> int:
    """Rows of the vocabulary projection as inference prepares it."""
    return -(-config.vocab_size // BLOCK) * BLOCK


def prefill(config: ModelConfig, batch: int, length: int) -> int:
    """Logits of the last token, which alone goes on from the last layer's keys and values."""
    head = 2 * batch * config.width * vocabulary(config)
    whole = (config.layers - 1) * layer(config, batch, length, length)
    return whole + layer(config, batch, length, 1) + head


def decode(config: ModelConfig, batch: int, length: int) -> int:
    """One token a row, which attends to every slot of the cache."""
    d, f, slots = config.width, config.layer.inner, bucket(length)
    attend = 2 * (2 * batch * slots * d)
    return config.layers * (attend + 2 * batch * (4 * d * d + 2 * d * f)) + 2 * batch * d * vocabulary(config)


def abstract(config: ModelConfig, head: str):
    model = make_model(config, head)
    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32)
    return model, jax.eval_shape(model.init, jax.random.key(0), tokens)["params"], tokens


def train_step(model):
    def step(params, tokens):
        def loss(params):
            logits = model.apply({"params": params}, tokens)
            return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]).mean()

        return jax.value_and_grad(loss)(params)

    return step


def matmul_flops(text: str) -> int:
    cost = cost_module(parse(text))
    assert not cost.lower_bound
    return cost.totals.matmul_flops


def products_written_out(text: str) -> int:
    ops = cost_module(parse(text)).ops
    parts = [part for op in ops for part in (op.fused or (op,)) if part.instruction.opcode in ("multiply", "reduce")]
    return sum(part.cost.matmul_flops for part in parts)


@pytest.mark.parametrize("size", ["tiny", "distilgpt2"])
@pytest.mark.parametrize("phase", ["prefill", "train"])
def test_language_model_compiled(size, phase):
    config = from_size(size, scan_layers=True)
    model, params, tokens = abstract(config, "lm")
    step = train_step(model) if phase == "train" else lambda p, t: model.apply({"params": p}, t)
    times = 3 if phase == "train" else 1  # a gradient for each operand of each product
    text = jax.jit(step).lower(params, tokens).compile().as_text()
    assert matmul_flops(text) == times * language_model(config, BATCH, LENGTH)


PHASES = {
    "prefill": prefill,
    "decode": decode,
    "classify": classifier,
    "train": lambda config, batch, length: 3 * classifier(config, batch, length),
}


@pytest.mark.parametrize(
    ("size", "phase"), [*itertools.product(("tiny", "gpt2"), PHASES), ("gpt2-xl", "prefill"), ("gpt2-xl", "decode")]
)
def test_phases_before_optimisation(size, phase):
    """All layers, unrolled, as they are used: the text before optimisation needs no long compilation."""
    built = build(Shape(size, phase, BATCH, LENGTH, 1, "float32"))
    text = built.function.lower(*built.args).as_text(dialect="hlo", debug_info=True)
    assert matmul_flops(text) == PHASES[phase](from_size(size), BATCH, LENGTH)


@pytest.mark.parametrize("phase", PHASES)
def test_phases_compiled(phase):
    built = build(Shape("tiny", phase, BATCH, LENGTH, 1, "float32"))
    config = from_size("tiny")
    # Of the last layer's lone query, the gradients of keys and values are outer products: XLA makes multiplications
    # of them, as often as they are used, with nothing to add up.
    outer = 2 * (2 * BATCH * LENGTH * config.width) if phase == "train" else 0
    text = built.function.lower(*built.args).compile().as_text()
    written_out = products_written_out(text) if phase == "train" else 0
    assert matmul_flops(text) - written_out == PHASES[phase](config, BATCH, LENGTH) - outer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_decode_compiled(batch, dtype):
    built = build(Shape("tiny", "decode", batch, LENGTH, 1, dtype))
    text = built.function.lower(*built.args).compile().as_text()
    config = from_size("tiny")
    d, f, n = config.width, config.layer.inner, config.layers
    more = 0
    if batch == 1 and dtype != "float32":  # a lone token is padded to two
        more = n * 2 * (4 * d * d + 2 * d * f) + 2 * d * vocabulary(config)
    assert matmul_flops(text) == decode(config, batch, LENGTH) + more


def test_generation_is_prefill_and_decode_steps():
    new = 5
    built = build(Shape("tiny", "generate", BATCH, LENGTH, new, "float32"))
    cost = cost_module(parse(built.function.lower(*built.args).as_text(dialect="hlo", debug_info=True)))
    (loop,) = cost.bounded_trip_counts
    cost = cost_module(cost.module, {loop: built.trips or 0})
    config = from_size("tiny")
    steps = (new - 1) * decode(config, BATCH, bucket(LENGTH + new))
    assert cost.totals.matmul_flops == prefill(config, BATCH, LENGTH) + steps


@pytest.mark.parametrize("size", ["tiny", "gpt2"])
def test_classifier_compiled(size):
    config = from_size(size, n_layer=2)
    model, params, tokens = abstract(config, "classifier")
    text = jax.jit(lambda p, t: model.apply({"params": p}, t)).lower(params, tokens).compile().as_text()
    assert matmul_flops(text) == classifier(config, BATCH, LENGTH)


def test_remat_computes_each_layer_again():
    config = from_size("tiny", remat=True)
    model, params, tokens = abstract(config, "lm")
    text = jax.jit(train_step(model)).lower(params, tokens).as_text(dialect="hlo")
    layers = config.layers * layer(config, BATCH, LENGTH, LENGTH)
    # The last product of a layer, the MLP's projection, is not needed again.
    last = config.layers * 2 * BATCH * LENGTH * config.width * config.layer.inner
    assert matmul_flops(text) == 3 * language_model(config, BATCH, LENGTH) + layers - last
