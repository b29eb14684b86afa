import dataclasses

import jax
import numpy as np
import pytest

from llmjax.data.batches import train_batches
from llmjax.models.params import Params, init_params
from llmjax.train.classification import classification_loss
from llmjax.train.optimizer import OptimizerConfig, make_optimizer
from llmjax.train.step import init_state, make_train_step
from llmjax.train.vocabulary import vocabulary_of
from tests.train.toy import MODEL, make_split

PARAMS = init_params(MODEL, "classifier", jax.random.key(0))
TRAIN = make_split(64, seed=0)
VOCABULARY = vocabulary_of(TRAIN.encoded, PARAMS, 47)


def test_renumbering_keeps_every_text() -> None:
    numbered = VOCABULARY.renumber(TRAIN.encoded)
    np.testing.assert_array_equal(VOCABULARY.used_U[numbered.tokens_T], TRAIN.encoded.tokens_T)
    assert VOCABULARY.used_U[numbered.pad_id] == TRAIN.encoded.pad_id
    assert VOCABULARY.used_U[VOCABULARY.number(47)] == 47
    assert len(VOCABULARY) < MODEL.vocab_size and not {0, 4, 40, 49} & set(VOCABULARY.used_U.tolist())
    with pytest.raises(AssertionError):
        VOCABULARY.number(4)


def test_narrow_then_widen_is_the_identity() -> None:
    again = VOCABULARY.widen(VOCABULARY.narrow(PARAMS))
    jax.tree.map(np.testing.assert_array_equal, again, PARAMS)


def test_one_row_stands_for_all_tokens_not_in_use() -> None:
    standing = dataclasses.replace(VOCABULARY, unknown=47)
    before_VD = np.asarray(PARAMS["wte"]["embedding"])
    after_VD = np.asarray(standing.widen(standing.narrow(PARAMS))["wte"]["embedding"])
    used_U = VOCABULARY.used_U
    np.testing.assert_array_equal(after_VD[used_U], before_VD[used_U])
    others_VD = np.delete(after_VD, used_U, axis=0)
    np.testing.assert_array_equal(others_VD, np.broadcast_to(before_VD[47], others_VD.shape))


def test_training_narrow_gives_what_training_whole_gives() -> None:
    config = OptimizerConfig(learning_rate=1e-2)
    narrow_model = dataclasses.replace(MODEL, vocab_size=len(VOCABULARY))
    results = []
    for model, params, encoded, replacement in (
        (MODEL, PARAMS, TRAIN.encoded, 47),
        (narrow_model, VOCABULARY.narrow(PARAMS), VOCABULARY.renumber(TRAIN.encoded), VOCABULARY.number(47)),
    ):
        step = jax.jit(make_train_step(classification_loss(model, 0.1, 0.2, replacement), config, 10))
        state = init_state(params, make_optimizer(config, 10), seed=0, use_ema=False)
        for _, batch in zip(range(5), train_batches(encoded, TRAIN.labels_N, 16, (16,), seed=0), strict=False):
            state, _ = step(state, batch)
        results.append(state.params)
    whole, narrow = results
    assert not np.array_equal(whole["wte"]["embedding"], PARAMS["wte"]["embedding"])
    one, other = (without_key_biases(params) for params in (VOCABULARY.widen(narrow), whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, other)


def without_key_biases(params: Params) -> Params:
    """Parameters with the biases of attention's keys at zero.

    A key's bias adds the same to every score of a query, which the softmax takes away again: its gradient is nothing
    but rounding, which differs with the shapes, and which Adam scales up to its learning rate.
    """

    def cleared(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.Array) -> jax.Array:
        if [key.key for key in path[-2:]] != ["c_attn", "bias"]:
            return leaf
        return leaf.at[MODEL.width : 2 * MODEL.width].set(0.0)

    return jax.tree_util.tree_map_with_path(cleared, params)
