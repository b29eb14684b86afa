"""What the footer of a comparison says of expected errors."""

import pytest

from llmjax.report.chips import footer


def row(target, checked):
    figures = {"seconds": 1e-3, "compiler_cycles": None, "device": target, "memory_too_much": 0}
    return {"target": target, "checked": checked, **figures}


def test_errors_of_the_cards_are_told_with_their_range():
    rows = [row("gpu:h100", {"product": 0.046, "collective": 0.072}), row("gpu:a100", {"product": 0.072})]
    (line,) = [line for line in footer(rows, 80) if line.startswith("Expected error")]
    assert "product 5% to 7%, collective 7%" in line


@pytest.mark.parametrize("checked", [{}, None])
def test_a_chip_that_nothing_was_held_against_says_so(checked):
    (line,) = [line for line in footer([row("tpu:v5e:2x2", checked)], 80) if "No error is known" in line]
    assert "tpu:v5e:2x2" in line
    assert not any("No error" in line for line in footer([row("cpu", {})], 80))


def test_the_error_of_whole_programs_is_told_and_whose_it_is():
    mine = row("gpu:a100", {}) | {"expected_error": {"error": 0.18, "rows": 4, "of": "gpu:a100"}}
    theirs = row("gpu:b200", {}) | {"expected_error": {"error": 0.25, "rows": 9, "of": "gpu"}}
    (line,) = [line for line in footer([mine, theirs], 100) if line.startswith("Off by")]
    assert "gpu:a100 18% of 4, gpu:b200 25% of 9 others" in line
    assert not any(line.startswith("Off by") for line in footer([row("gpu:a100", {})], 100))
