"""What the footer of a comparison says of expected errors."""

import pytest

from llmjax.report.chips import chips_table, footer
from llmjax.report.terminal import console


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


def drawn(rows):
    screen = console()
    with screen.capture() as held:
        screen.print(chips_table(rows, 100))
    return held.get()


def test_the_error_of_whole_programs_stands_beside_the_time_and_says_whose_it_is():
    known = dict.fromkeys(("compile_seconds", "cycles", "tokens_per_second", "bound", "utilisation", "memory_needed"))
    known |= dict.fromkeys(("memory_capacity", "fits", "compiler_cycles"))
    mine = row("gpu:a100", {}) | known | {"expected_error": {"error": 0.18, "rows": 4, "of": "gpu:a100"}}
    theirs = row("gpu:b200", {}) | known | {"expected_error": {"error": 0.25, "rows": 9, "of": "gpu"}}
    shown = drawn([mine, theirs])
    assert "off by" in shown and "18% of 4" in shown and "25% of 9 others" in shown
    assert "off by" not in drawn([row("gpu:a100", {}) | known])
    assert any(line.startswith("off by") for line in footer([mine], 100))
