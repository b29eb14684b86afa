import jax
import numpy as np
import pytest

from experiments.board import _parameters
from experiments.board_parts.strategies import SHOWN, State, change_of, check_saved, plain, steps_of
from llmjax.errors import UserError
from llmjax.kernels.formats import Groups
from llmjax.models.llama import LlamaConfig
from llmjax.models.params import init_params

CONFIG = LlamaConfig(
    vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=128, max_position_embeddings=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def state() -> State:
    return State(CONFIG, init_params(CONFIG, "lm", jax.random.key(0)))


def tokens_NL() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50, (4, 16)).astype(np.int32)


def test_steps_are_read_in_order_and_every_shown_one_is_one() -> None:
    assert steps_of("base") == ()
    assert steps_of("full+mlp-50 + lora+int8") == ("full", "mlp-50", "lora", "int8")
    for step in SHOWN:
        assert steps_of(step) == (step,)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("full+wandda-50", r"'wandda-50' is no step; there are full, .*Did you mean 'wanda-50'"),
        ("mlp-100", "'mlp-100' is no step"),
        ("gptq-5", "'gptq-5' is no step"),
        ("", "'' is no step"),
        ("int8+lora", "'int8' packs the weights: nothing can follow it"),
        ("gptq-4+int8", "'gptq-4' packs the weights"),
    ],
)
def test_what_is_no_strategy_is_refused_in_a_line(strategy: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        steps_of(strategy)


@pytest.mark.parametrize(
    ("strategy", "says"), [("lorra", r"'lorra' is none of strategies\. Did you mean 'lora'"), ("adapters", "no names")]
)
def test_what_no_folder_can_hold_is_refused_in_a_line(strategy: str, says: str) -> None:
    check_saved("lora", ("lora", "adapters"))
    with pytest.raises(UserError, match=says):
        check_saved(strategy, ("lora", "adapters"))


def test_steps_do_what_they_are_called(state: State) -> None:
    def after(step: str) -> State:
        change = change_of(step)
        assert change is not None
        return change(state, tokens_NL())

    zeros = [np.mean(np.asarray(after(step).params["layers_0"]["mlp"]["up_proj"]["kernel"]) == 0) for step in
             ("magnitude-25", "wanda-50", "wanda-2:4")]  # fmt: skip
    np.testing.assert_allclose(zeros, [0.25, 0.5, 0.5], atol=0.01)
    assert after("mlp-50").config.layer.inner == 64
    assert after("heads-50").config.layer.heads == 2
    assert after("layers-50").config.layers == 1
    assert after("int8").format == "int8" and after("int8").params is state.params
    packed = after("round-4")
    assert _parameters(packed) == _parameters(state) == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert packed.format == "int4"
    assert isinstance(packed.params["layers_0"]["mlp"]["up_proj"]["kernel"], Groups)
    assert plain(packed).params["layers_0"]["mlp"]["up_proj"]["kernel"].shape == (64, 128)
