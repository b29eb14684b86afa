from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llmjax.errors import UserError
from llmjax.models.gpt2 import GPT2Config
from llmjax.models.params import init_params
from llmjax.train.optimizer import OptimizerConfig, decay_mask, make_optimizer, make_schedule

TINY = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}


@pytest.mark.parametrize("embeddings", [False, True])
def test_decay_falls_on_matrices_only(embeddings: bool) -> None:
    params = init_params(GPT2Config(**TINY), "classifier", jax.random.key(0))
    mask = decay_mask(params, embeddings)
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, value in jax.tree_util.tree_leaves_with_path(mask)
        if value
    }
    kernels = {f"h_0/{name}/kernel" for name in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj")}
    tables = {"wte/embedding", "wpe/embedding"} if embeddings else set()
    assert decayed == kernels | {"score/kernel"} | tables
    assert jax.tree.structure(mask) == jax.tree.structure(params)


def test_decay_shrinks_what_has_no_gradient() -> None:
    params = {"a": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}, "wte": {"embedding": jnp.ones(3)}}
    config = OptimizerConfig(learning_rate=0.5, schedule="constant", warmup_fraction=0.0, weight_decay=0.2)
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"]["kernel"], -0.5 * 0.2, rtol=1e-6)
    assert not updates["a"]["bias"].any() and not updates["wte"]["embedding"].any()


def test_cosine_schedule_values() -> None:
    schedule = make_schedule(OptimizerConfig(learning_rate=2.0, warmup_fraction=0.1, final_fraction=0.1), 100)
    rates = [float(schedule(step)) for step in (0, 4, 9, 10, 55, 100, 1000)]
    # linear up over 10 updates, at half the cosine the mean of peak and floor, then the floor
    np.testing.assert_allclose(rates, [0.2, 1.0, 2.0, 2.0, 1.1, 0.2, 0.2], rtol=1e-6)


def test_linear_and_constant_schedule_values() -> None:
    linear = make_schedule(OptimizerConfig(learning_rate=1.0, schedule="linear", warmup_fraction=0.2), 10)
    np.testing.assert_allclose([float(linear(step)) for step in range(11)], [0.5, 1, *np.linspace(1, 0, 9)], atol=1e-6)
    constant = make_schedule(OptimizerConfig(learning_rate=3.0, schedule="constant", warmup_fraction=0.0), 10)
    assert [float(constant(step)) for step in (0, 9, 20)] == [3.0, 3.0, 3.0]


def test_clipping_bounds_the_norm_and_zero_turns_it_off() -> None:
    grads = {"kernel": jnp.array([30.0, 40.0])}
    for clip, norm in ((5.0, 5.0), (0.0, 50.0)):
        # Adam's first moment after one update is (1 - b1) x the clipped gradient
        optimizer = make_optimizer(OptimizerConfig(clip_norm=clip), 10)
        _, state = optimizer.update(grads, optimizer.init(grads), grads)
        moments = optax.tree_utils.tree_get(state, "mu")
        np.testing.assert_allclose(np.linalg.norm(moments["kernel"]), 0.1 * norm, rtol=1e-5)


def test_accumulated_updates_equal_one_of_the_mean_gradient() -> None:
    params = {"kernel": jnp.array([1.0, -2.0])}
    grads = [{"kernel": jnp.array(value)} for value in ([1.0, 0.0], [0.0, 3.0])]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
    config = OptimizerConfig(learning_rate=0.1, warmup_fraction=0.0)
    whole = make_optimizer(config, 5)
    expected, _ = whole.update(mean, whole.init(params), params)

    parts = make_optimizer(OptimizerConfig(learning_rate=0.1, warmup_fraction=0.0, accumulate=2), 10)
    state = parts.init(params)
    first, state = parts.update(grads[0], state, params)
    second, state = parts.update(grads[1], state, params)
    assert not first["kernel"].any()
    np.testing.assert_allclose(second["kernel"], expected["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup_fraction": 10}, "warmup_fraction is 10"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0"),
        ({"accumulate": 0}, "accumulate is 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        OptimizerConfig(**setting)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 1e6])
def test_it_is_adamw_with_clipping(clip_norm: float) -> None:
    config = OptimizerConfig(learning_rate=1e-2, clip_norm=clip_norm, weight_decay=0.1)
    ours = make_optimizer(config, 10)
    theirs = optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.adamw(make_schedule(config, 10), 0.9, 0.999, 1e-8, weight_decay=0.1, mask=lambda p: decay_mask(p, False)),
    )
    params = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}
    keys = jax.random.split(jax.random.key(0), 5)
    states = [(params, ours.init(params)), (params, theirs.init(params))]
    for key in keys:
        grads = {"kernel": jax.random.normal(key, (3, 4)), "bias": jax.random.normal(key, (4,))}
        for n, optimizer in enumerate((ours, theirs)):
            updates, state = jax.jit(optimizer.update)(grads, states[n][1], states[n][0])
            states[n] = (optax.apply_updates(states[n][0], updates), state)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), states[0][0], states[1][0])
