import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llmjax.train.metrics import (
    bootstrap_interval,
    calibration_error,
    confusion,
    evaluate_logits,
    from_json,
    macro_f1,
    table,
    to_json,
)

answers = st.integers(1, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60),
    )
)


@given(answers)
def test_confusion_and_f1_against_counting(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = case
    predicted_N, labels_N = np.array(pairs).T
    counts_CC = confusion(predicted_N, labels_N, classes)
    for true in range(classes):
        for answer in range(classes):
            assert counts_CC[true, answer] == pairs.count((answer, true))
    scores = []
    for c in range(classes):
        hits = sum(p == c and t == c for p, t in pairs)
        precision = hits / max(1, sum(p == c for p, _ in pairs))
        recall = hits / max(1, sum(t == c for _, t in pairs))
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert macro_f1(counts_CC) == pytest.approx(np.mean(scores))


def test_calibration_error_closed_form() -> None:
    # ten answers at 0.9 of which seven are right, ten at 0.6 of which six are: 1/2 x |0.7 - 0.9| + 1/2 x 0
    confidence_N = np.array([0.9] * 10 + [0.6] * 10)
    correct_N = np.array([True] * 7 + [False] * 3 + [True] * 6 + [False] * 4)
    assert calibration_error(confidence_N, correct_N) == pytest.approx(0.1)
    assert calibration_error(np.ones(5), np.ones(5, bool)) == 0.0
    assert calibration_error(np.ones(5), np.zeros(5, bool)) == 1.0


@given(
    st.lists(st.tuples(st.floats(0.01, 1.0), st.booleans()), min_size=1, max_size=50),
)
def test_calibration_error_against_the_definition(pairs: list[tuple[float, bool]]) -> None:
    confidence_N = np.array([confidence for confidence, _ in pairs])
    correct_N = np.array([correct for _, correct in pairs])
    expected = 0.0
    for index in range(15):
        inside = (np.ceil(confidence_N * 15).astype(int) - 1).clip(0) == index
        if inside.any():
            expected += inside.sum() / len(pairs) * abs(correct_N[inside].mean() - confidence_N[inside].mean())
    assert calibration_error(confidence_N, correct_N) == pytest.approx(expected)


def test_bootstrap_interval_is_seeded_and_of_the_right_width() -> None:
    correct_N = np.arange(1000) < 800
    low, high = bootstrap_interval(correct_N, seed=0)
    # the normal approximation: 1.96 x sqrt(0.8 x 0.2 / 1000) = 0.0248 either side
    assert 0.8 - low == pytest.approx(0.0248, abs=0.004) and high - 0.8 == pytest.approx(0.0248, abs=0.004)
    assert (low, high) == bootstrap_interval(correct_N, seed=0)
    assert len({bootstrap_interval(np.arange(99_991) < 80_000, seed) for seed in range(5)}) == 5
    assert bootstrap_interval(np.ones(10, bool), seed=0) == (1.0, 1.0)


def test_evaluation_closed_form_json_and_table() -> None:
    # probabilities 3/4 and 1/4: logits log 3 and 0
    logits_NC = np.log([[3.0, 1.0], [3.0, 1.0], [1.0, 3.0], [3.0, 1.0]]).astype(np.float32)
    found = evaluate_logits(logits_NC, np.array([0, 0, 1, 1]), ("bad", "good"))
    assert found.accuracy == 0.75 and found.majority_accuracy == 0.5 and found.examples == 4
    assert found.confusion_CC == ((2, 0), (1, 1))
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found.loss == pytest.approx(-(3 * np.log(0.75) + np.log(0.25)) / 4, rel=1e-6)
    assert found.calibration_error == pytest.approx(0.0, abs=1e-7)
    assert found.accuracy_low <= found.accuracy <= found.accuracy_high
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(found, "dev"))
    text = console.export_text()
    assert "0.7500" in text and "always the commonest class" in text and "1 bad, 1 good" in text


def test_logits_of_any_size_give_finite_figures() -> None:
    found = evaluate_logits(np.array([[1e4, -1e4], [-3e38, 3e38]], np.float32), np.array([0, 1]), ("a", "b"))
    assert found.loss == 0.0 and found.accuracy == 1.0 and found.calibration_error == 0.0
