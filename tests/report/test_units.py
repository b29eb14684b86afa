"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.report.units import percent, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00 k"),
        (1234567, "1.23 M"),
        (12.5e9, "12.5 G"),
        (999_700, "1.00 M"),
        (0.25, "0.25"),
    ],
)
def test_short(value, text):
    assert short(value) == text
    assert short(value, "B").removesuffix("B").strip() == text


@given(st.integers(0, 10**22))
def test_short_is_within_half_a_per_cent(value):
    number, _, suffix = short(value).partition(" ")
    assert float(number) * 1000 ** " kMGTPEZ".index(suffix or " ") == pytest.approx(value, rel=5.1e-3)
    assert len(number) <= 4


def test_percent():
    assert [percent(1, 8), percent(1, 10**6), percent(0, 5), percent(3, 0)] == ["12.5%", "<0.1%", "", ""]
