import dataclasses

import pytest

from llmjax.models.gpt2 import GPT2Config
from llmjax.train.speed import SpeedMeter, measure_peak, train_flops

CONFIG = GPT2Config(vocab_size=100, n_positions=16, n_embd=8, n_layer=3, n_head=2)


def test_language_model_flops_are_six_a_parameter_and_token_plus_attention() -> None:
    matrices = 3 * (8 * 24 + 8 * 8 + 2 * 8 * 32) + 8 * 100
    attention = 3 * 3 * 4 * 16 * 8  # 3 layers, forward and twice backward, scores and mix of 2 x L x D each
    assert train_flops(CONFIG, "lm", rows=2, tokens=32, length=16) == 32 * (6 * matrices + attention)


def test_classifier_counts_its_last_layer_for_one_token_a_row() -> None:
    two = dataclasses.replace(CONFIG, n_layer=2, vocab_size=1)
    below = train_flops(two, "lm", rows=2, tokens=32, length=16) - 32 * 6 * 8
    rest = 6 * (8 * 8 + 2 * 8 * 32) + 3 * 4 * 16 * 8 + 6 * 8 * 2
    expected = below + 32 * 6 * 8 * 24 + 2 * rest
    assert train_flops(CONFIG, "classifier", rows=2, tokens=32, length=16) == expected


def test_meter_averages_over_its_window() -> None:
    meter = SpeedMeter(peak=1000.0, window=2)
    assert meter.tokens_per_second() == 0.0
    for seconds, tokens, flops in ((9.0, 1, 1.0), (1.0, 30, 400.0), (3.0, 50, 800.0)):
        meter.add(seconds, tokens, flops)
    assert meter.tokens_per_second() == pytest.approx(20.0)
    assert meter.mfu() == pytest.approx(0.3)


def test_peak_is_that_of_a_machine_of_this_century() -> None:
    assert 1e8 < measure_peak("float32") < 1e15
