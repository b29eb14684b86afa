import numpy as np
import pytest

from llmjax.train.defaults import LABELS, LONGEST, PRETRAINED, TAUGHT, Start, resolve, told

OPEN = dict.fromkeys(["data.max_length", "model.n_embd", "model.n_head", *TAUGHT, *LABELS, *PRETRAINED])
SHORT = np.array([5, 9, 12, 13])


def test_fresh_weights_learn_from_a_teacher_at_a_high_rate_and_pretrained_ones_from_labels_at_a_low_one() -> None:
    fresh = resolve(OPEN, Start(False, 0, SHORT))
    kept = resolve(OPEN, Start(True, 0, SHORT))
    assert fresh["train.distill_steps"] > 0 and fresh["train.epochs"] == 0
    assert kept["train.distill_steps"] == 0 and kept["train.epochs"] > 0
    assert fresh["train.optimizer.learning_rate"] > 20 * kept["train.optimizer.learning_rate"]
    assert fresh["model.n_embd"] % fresh["model.n_head"] == 0 and "model.n_embd" not in kept
    assert fresh["data.max_length"] == kept["data.max_length"] == 16


def test_epochs_without_a_teacher_mean_labels_alone_and_what_is_set_stays() -> None:
    settings = OPEN | {"train.epochs": 3, "model.dropout": 0.0}
    chosen = resolve(settings, Start(False, 0, SHORT))
    assert chosen["train.distill_steps"] == 0 and chosen["train.token_dropout"] == LABELS["train.token_dropout"]
    assert not {"train.epochs", "model.dropout"} & set(chosen)
    both = resolve(settings | {"train.distill_steps": 9}, Start(False, 0, SHORT))
    assert both["train.token_dropout"] == TAUGHT["train.token_dropout"]
    assert resolve({"train.epochs": 3, "data.train": ""}, Start(False, 0, SHORT)) == {}


def test_the_rate_falls_with_a_width_that_was_asked_for() -> None:
    rates = [resolve(OPEN, Start(False, width, SHORT)) for width in (32, 96, 768)]
    assert [chosen["train.optimizer.learning_rate"] for chosen in rates] == pytest.approx([3e-3, 3e-3, 3e-3 / 8])
    assert all("model.n_embd" not in chosen and "model.n_head" not in chosen for chosen in rates)


def test_a_batch_of_made_up_texts_has_as_many_tokens_whatever_their_length() -> None:
    for longest in (8, 40, 200, 4000):
        chosen = resolve(OPEN, Start(False, 0, np.full(50, longest)))
        assert chosen["data.max_length"] == min(longest, LONGEST)
        assert 16 <= chosen["train.batch_size"] <= 5120 / chosen["data.max_length"] or longest == 4000
    rare = np.concatenate([np.full(99, 20), [5000]])
    assert resolve(OPEN, Start(True, 0, rare))["data.max_length"] == 24


def test_what_was_chosen_is_told_as_one_writes_settings() -> None:
    line = told({"train.epochs": 3, "train.optimizer.learning_rate": 5e-5}, pretrained=True)
    assert line == "chosen for pretrained weights: train.epochs=3, train.optimizer.learning_rate=5e-05"
