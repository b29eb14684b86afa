"""Temperatures fitted on held-out texts, the set of trained tokens, and the file that keeps both."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.errors import UserError
from llmjax.infer.calibration import (
    FEW,
    FILE,
    HIGHEST,
    LOWEST,
    Calibration,
    fit_temperature,
    knows_any,
    read_calibration,
    tempered,
    write_calibration,
)
from llmjax.train.metrics import calibration_error


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return odds_NC / odds_NC.sum(axis=1, keepdims=True)


def drawn(rows: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits `scale` times too large for the labels that are drawn from them."""
    random = np.random.default_rng(0)
    logits_NC = random.normal(0, 1.5, (rows, 3))
    labels_N = np.array([random.choice(3, p=probs) for probs in softmax(logits_NC)])
    return scale * logits_NC, labels_N


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_a_known_scale_and_its_error(scale: float) -> None:
    logits_NC, labels_N = drawn(6000, scale)
    temperature = fit_temperature(logits_NC, labels_N)
    assert temperature == pytest.approx(scale, rel=0.08)
    probs_NC = tempered(softmax(logits_NC), temperature)
    correct_N = logits_NC.argmax(axis=1) == labels_N
    assert calibration_error(probs_NC.max(axis=1), correct_N) < 0.03
    if scale == 4.0:
        assert calibration_error(softmax(logits_NC).max(axis=1), correct_N) > 0.1


def test_a_few_texts_or_only_right_answers_make_no_extreme_temperature() -> None:
    logits_NC, labels_N = drawn(FEW - 1, 4.0)
    assert fit_temperature(logits_NC, labels_N) == 1.0
    logits_NC, _ = drawn(200, 1.0)
    assert LOWEST <= fit_temperature(logits_NC, logits_NC.argmax(axis=1)) < 1
    assert 1 < fit_temperature(logits_NC, logits_NC.argmin(axis=1)) <= HIGHEST


@given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1), st.floats(LOWEST, HIGHEST))
def test_tempering_probabilities_is_dividing_logits(rows: list[list[float]], temperature: float) -> None:
    logits_NC = np.array(rows)
    found_NC = tempered(softmax(logits_NC), temperature)
    np.testing.assert_allclose(found_NC, softmax(logits_NC / temperature), atol=1e-9)
    probs_NC = softmax(logits_NC).astype(np.float32)
    assert tempered(probs_NC, temperature).dtype == np.float32 and tempered(probs_NC, 1.0) is probs_NC


@given(st.sets(st.integers(0, 60_000), max_size=50), st.floats(LOWEST, HIGHEST))
def test_the_file_gives_back_what_was_written(tmp_path_factory, tokens: set[int], temperature: float) -> None:
    folder = tmp_path_factory.mktemp("best")
    write_calibration(folder, Calibration(temperature, np.array(sorted(tokens), np.int32)))
    found = read_calibration(folder)
    assert found.temperature == temperature
    assert found.trained_U is not None and found.trained_U.tolist() == sorted(tokens)
    assert (folder / FILE).stat().st_size < 12_000


def test_a_folder_without_the_file_leaves_scores_alone_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert read_calibration(tmp_path).temperature == 1.0
    write_calibration(tmp_path, Calibration(2.0))
    assert read_calibration(tmp_path).trained_U is None
    good = {"temperature": 2.0, "trained_tokens": "eJwDAAAAAAE="}
    temperatures = [good | {"temperature": value} for value in ("hot", float("nan"), 0, None)]
    for bad in ({}, [], *temperatures, *(good | {"trained_tokens": value} for value in ("%", "AAAA", 3))):
        (tmp_path / FILE).write_text(json.dumps(bad))
        with pytest.raises(UserError, match=r"calibration\.json: is damaged"):
            read_calibration(tmp_path)
    (tmp_path / FILE).write_bytes(b"\xff{")
    with pytest.raises(UserError, match="is damaged"):
        read_calibration(tmp_path)


def test_a_text_is_known_by_any_token_that_is_no_special_one() -> None:
    tokens_T, offsets_M = np.array([5, 9, 7, 0, 9, 0, 5], np.int32), np.array([0, 2, 3, 5, 6, 7])
    known_N = knows_any(np.array([0, 5], np.int32), tokens_T, offsets_M, special=[0])
    assert known_N.tolist() == [True, False, False, False, True]
