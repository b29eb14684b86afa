"""Errors, ranks, inversions and expected errors of rows that were predicted."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.cycles.device import load_device
from llmjax.cycles.published.expected import expected_error, shipped
from llmjax.cycles.published.scores import (
    FITTED,
    NEW,
    SOURCE,
    Outcome,
    by_tier,
    counted,
    expected,
    inversions,
    rank,
    score,
    seen_by_fit,
    worst,
)
from llmjax.cycles.published.table import Row

ROW = Row(
    "r", "C", "made up", "A100-80GB SXM", 1, "GPT-2 124M", "train step", "4", "1024", "", "bf16", "flash", "",
    "step time", 50.0, "ms", "", "",
)  # fmt: skip


def outcome(predicted, published, chip="gpu:a100", tier="C", seen=NEW, **changes):
    return Outcome(replace(ROW, tier=tier, **changes), chip, "train", predicted, published, seen)


@settings(deadline=None)  # the first example imports SciPy
@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), min_size=1, max_size=20))
def test_an_error_is_the_same_whichever_way_the_ratio_is_taken(pairs):
    one = score([outcome(a, b) for a, b in pairs])
    other = score([outcome(b, a) for a, b in pairs])
    assert one and other and one.error == pytest.approx(other.error) and one.error >= 0
    assert (1 + one.bias) * (1 + other.bias) == pytest.approx(1, rel=1e-6)


def test_a_score_is_the_median_ratio():
    found = score([outcome(1.1, 1.0), outcome(1.2, 1.0), outcome(1.0, 1.3)])
    assert found and (found.rows, found.error, found.bias) == (3, pytest.approx(0.2), pytest.approx(0.1))
    assert score([]) is None


def test_ranks_need_three_times():
    assert rank([outcome(1, 1), outcome(2, 2)]) is None
    assert rank([outcome(1, 10), outcome(2, 20), outcome(3, 30)]) == pytest.approx(1)
    assert rank([outcome(3, 10), outcome(2, 20), outcome(1, 30)]) == pytest.approx(-1)


def test_a_kernel_of_the_fits_own_source_is_no_test():
    card = load_device("gpu:h100")
    mine = replace(ROW, tier="K", source="ai-dynamo/aiconfigurator@1 systems/data")
    assert seen_by_fit(mine, card) == FITTED
    assert seen_by_fit(replace(mine, tier="C"), card) == SOURCE
    assert seen_by_fit(replace(mine, source="somebody's blog"), card) == NEW
    rows = [outcome(1, 1, tier="K", seen=FITTED), outcome(2, 1, seen=SOURCE), outcome(3, 1)]
    assert counted(rows) == rows[1:]
    assert len(by_tier(rows)) == 3


def test_the_worst_are_furthest_off_either_way():
    rows = [outcome(1.0, 1.0), outcome(1.0, 9.0), outcome(3.0, 1.0)]
    assert [o.ratio for o in worst(rows, 2)] == [pytest.approx(1 / 9), 3.0]


def test_an_inversion_is_a_clear_order_the_wrong_way_round():
    slow, fast = outcome(1.0, 2.0, "tpu:v4"), outcome(2.0, 1.0, "tpu:v5e")
    assert inversions([slow, fast]) == [(fast, slow)]
    assert inversions([slow, replace(fast, predicted=1.1)]) == []
    assert inversions([slow, replace(fast, row=replace(ROW, batch="9"))]) == []  # another program


def test_expected_errors_are_of_whole_programs_and_of_two_rows():
    rows = [outcome(1.2, 1.0), outcome(1.2, 1.0, tier="K"), outcome(9.0, 1.0, stack="TensorFlow + XLA")]
    assert expected(rows) == {}
    assert expected([*rows, outcome(1.2, 1.0)]) == {"gpu:a100": {"train": {"error": 0.2, "rows": 2}}}
    eager = [outcome(1.0, 1.5, tier="D"), outcome(1.0, 1.5, tier="D")]
    assert expected(eager) == {"gpu:a100": {"train": {"error": 0.5, "rows": 2}}}
    assert expected([*eager, *rows, outcome(1.2, 1.0)]) == {"gpu:a100": {"train": {"error": 0.2, "rows": 2}}}


def test_a_chip_without_rows_borrows_from_its_likes():
    def one(error, rows):
        return {"train": {"error": error, "rows": rows}}

    table = {"gpu:a100": one(0.2, 5), "gpu:l4": one(0.4, 2), "tpu:v5e": one(0.1, 9)}
    assert expected_error("gpu:a100", "lm", table) == (0.2, 5, "gpu:a100")
    assert expected_error("gpu:h100", "train", table) == (pytest.approx(0.3), 7, "gpu")
    assert expected_error("gpu:h100", "decode", table) is None


def test_what_ships_is_medians_by_chip_and_kind():
    for chip, errors in shipped().items():
        assert load_device(chip).name == chip
        assert errors and all(0 < e["error"] < 10 and e["rows"] > 1 for e in errors.values())
