import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.prune import magnitude, sparsity
from llmjax.adapt.tuning import begin
from llmjax.errors import UserError
from llmjax.memory import tree_bytes
from llmjax.models.params import flat_tree, init_params, nested_tree, stack_layers, unstack_layers
from llmjax.train.classification import classification_loss
from llmjax.train.optimizer import OptimizerConfig, make_optimizer
from llmjax.train.step import init_state, make_train_step
from tests.adapt.models import FAMILIES, batch, drawn, logits

METHODS = ("last-layer", "biases", "lora", "adalora", "adapters")
RATE = OptimizerConfig(learning_rate=1e-2)


def settings(method: str, **more: Any) -> AdaptConfig:
    return AdaptConfig(method, rank=2, initial_rank=3, width=4, **more)


def trained(config, params, adapt: AdaptConfig, steps: int = 3):
    """Returns the tuning, and what is trained before and after a few steps."""
    begun, tuning = begin(adapt, config, params, "classifier", jax.random.key(2))
    assert tuning is not None
    state = init_state(begun, make_optimizer(RATE, steps, tuning.around), 0, False)
    made = make_train_step(classification_loss(config, 0.0, 0.0, 0), RATE, steps, tuning=tuning)
    step = jax.jit(made, donate_argnums=0)
    for _ in range(steps):
        state, metrics = step(state, batch(), tuning.frozen)
        assert metrics.finite
    return tuning, begun, state


@pytest.mark.parametrize(
    ("family", "method"),
    [*(("gpt2", method) for method in METHODS), ("bert", "adapters"), ("llama", "lora"), ("llama", "biases")],
)
def test_a_method_begins_at_the_base_trains_its_own_part_and_merges(family: str, method: str) -> None:
    config = FAMILIES[family]
    params = drawn(family)
    if (family, method) == ("llama", "biases"):
        with pytest.raises(UserError, match="has none; take lora"):
            begin(settings(method), config, params, "classifier", jax.random.key(2))
        return
    tuning, begun, state = trained(config, params, settings(method))
    at_first = tuning.merge(tuning.frozen, begun)
    np.testing.assert_allclose(logits(config, at_first), logits(config, params), atol=2e-6)
    after = tuning.merge(tuning.frozen, state.params)
    joined = tuning.join(tuning.frozen, state.params, jax.random.key(0))
    np.testing.assert_allclose(logits(config, joined), logits(config, after), atol=1e-5)
    assert np.abs(logits(config, after) - logits(config, params)).max() > 1e-4
    # What is not trained is as it was, and no moment of Adam stands beside it.
    flat, before = flat_tree(after), flat_tree(params)
    beside = {at[:-1] for at in flat_tree(begun)}
    for at in before:
        assert at[:-1] in beside or np.array_equal(flat[at], before[at]), at
    assert not set(flat_tree(begun)) & set(flat_tree(tuning.frozen))
    if method != "adalora":  # whose allocator has two more
        assert tree_bytes(state.opt_state) < 2 * tree_bytes(begun) + 64


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_recovery_of_a_pruned_model_keeps_its_zeros_and_moves_the_rest(family: str) -> None:
    config = FAMILIES[family]
    pruned = magnitude(drawn(family), config).params
    tuning, _, state = trained(config, pruned, settings("nonzeros"))
    after = flat_tree(tuning.merge(tuning.frozen, state.params))
    for at, before in flat_tree(pruned).items():
        zeros = np.asarray(before == 0) if at[-1] == "kernel" else np.zeros(before.shape, bool)
        assert not np.asarray(after[at])[zeros].any(), at
    assert sparsity(nested_tree(after), config) == sparsity(pruned, config) == 0.5
    moved = np.asarray(after["score", "kernel"]) != np.asarray(pruned["score"]["kernel"])
    assert moved.all()


@pytest.mark.parametrize("method", ["lora", "adapters"])
def test_stacked_layers_train_as_layers_apart_do(method: str) -> None:
    config = FAMILIES["gpt2"]
    stacked, params = dataclasses.replace(config, scan_layers=True), drawn("gpt2")
    begun, tuning = begin(settings(method), stacked, stack_layers(params, stacked), "classifier", jax.random.key(2))
    apart, own = begin(settings(method), config, params, "classifier", jax.random.key(2))
    assert tuning is not None and own is not None
    same = unstack_layers(begun, stacked)
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, apart)
    found = []
    for one, shape, start in ((tuning, stacked, begun), (own, config, same)):
        state = init_state(start, make_optimizer(RATE, 3, one.around), 0, False)
        step = jax.jit(make_train_step(classification_loss(shape, 0.0, 0.0, 0), RATE, 3, tuning=one))
        for _ in range(3):
            state, metrics = step(state, batch(), one.frozen)
        found.append(float(metrics.loss))
    assert found[0] == pytest.approx(found[1], rel=2e-4)


def test_dropout_is_drawn_anew_each_step_and_not_in_evaluation() -> None:
    config, params = FAMILIES["gpt2"], drawn("gpt2")
    tuning, _, state = trained(config, params, settings("lora", dropout=0.5))
    keys = [jax.random.key(n) for n in (0, 0, 1)]
    once, again, other = (logits(config, tuning.join(tuning.frozen, state.params, key)) for key in keys)
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 1e-6


def test_a_lora_step_needs_less_memory_than_a_full_one() -> None:
    config = dataclasses.replace(FAMILIES["gpt2"], n_embd=64, vocab_size=2000, n_layer=1)
    params = init_params(config, "classifier", jax.random.key(0))
    sizes = {}
    for method in ("full", "lora"):
        begun, tuning = begin(settings(method), config, params, "classifier", jax.random.key(2))
        state = init_state(begun, make_optimizer(RATE, 3), 0, False)
        step = make_train_step(classification_loss(config, 0.0, 0.0, 0), RATE, 3, tuning=tuning)
        rest = () if tuning is None else (tuning.frozen,)
        memory: Any = jax.jit(step, donate_argnums=0).lower(state, batch(), *rest).compile().memory_analysis()
        sizes[method] = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    assert sizes["lora"] < 0.5 * sizes["full"], sizes


def test_targets_are_path_endings_or_patterns_and_unknown_ones_are_told_the_nearest() -> None:
    config, params = FAMILIES["gpt2"], drawn("gpt2")

    def modules(*targets: str) -> set[str]:
        begun, _ = begin(settings("lora", targets=targets), config, params, "classifier", jax.random.key(2))
        return {"/".join(at[:-1]) for at in flat_tree(begun) if at[-1] == "lora_a"}

    assert modules("c_attn") == {"h_0/attn/c_attn", "h_1/attn/c_attn"}
    assert modules("mlp/c_proj") == {"h_0/mlp/c_proj", "h_1/mlp/c_proj"}
    assert modules("h_1/*") == {f"h_1/{at}" for at in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj")}
    assert len(modules()) == 8
    with pytest.raises(UserError, match=r"'c_atn' names no weight of this gpt2; some of its paths end in .*c_attn"):
        modules("c_atn")
    with pytest.raises(UserError, match="names no weight"):
        modules("score")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "lorra"}, "must be one of full, nonzeros, last-layer, biases, lora, adalora, adapters"),
        ({"method": "lora", "dropout": 1.0}, r"adapt.dropout is 1.0: it must be in \[0, 1\)"),
        ({"method": "adalora", "initial_rank": 2}, "adapt.initial_rank is 2, below adapt.rank=8"),
        ({"method": "adalora", "rank_stabilised": True}, "adapt.rank_stabilised is of lora"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        AdaptConfig(**values)


@pytest.mark.parametrize(
    ("adapt", "says"),
    [
        (
            AdaptConfig("lora", rank=17),
            r"adapt.rank: 17 is not within 1 and 16, the rank of h_0/attn/c_attn \(16 x 48\)",
        ),
        (AdaptConfig("adapters", width=16), "adapt.width: 16 is no bottleneck of a model of width 16"),
    ],
)
def test_sizes_that_do_not_fit_the_model_are_refused(adapt: AdaptConfig, says: str) -> None:
    config, params = FAMILIES["gpt2"], drawn("gpt2")
    with pytest.raises(UserError, match=says):
        begin(adapt, config, params, "classifier", jax.random.key(2))


def test_rank_stabilised_scaling_divides_by_the_root() -> None:
    assert AdaptConfig("lora", rank=16, alpha=8.0).scale == 0.5
    assert AdaptConfig("lora", rank=16, alpha=8.0, rank_stabilised=True).scale == 2.0


@pytest.mark.parametrize(
    ("method", "share"), [("last-layer", (1 + 1 / 2 + 1 / 2) / 3), ("biases", 2 / 3), ("lora", None), ("nonzeros", 1)]
)
def test_a_step_that_trains_a_part_does_less_work(method: str, share: float | None) -> None:
    _, tuning = begin(settings(method), FAMILIES["gpt2"], drawn("gpt2"), "classifier", jax.random.key(0))
    assert tuning is not None
    if share is None:
        assert 2 / 3 < tuning.work < 1
    else:
        assert tuning.work == pytest.approx(share)
