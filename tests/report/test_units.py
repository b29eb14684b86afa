"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.report.units import percent, quantity, scale_of, seconds, short


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
        (0.0021, "0.0021"),
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


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.5, "1.50 s"),
        (5.7303, "5.73 s"),
        (0.0517586, "51.8 ms"),
        (0.9999e-3, "1.00 ms"),
        (999.4e-6, "999 µs"),
        (0.00123, "1.23 ms"),
        (4.5e-6, "4.50 µs"),
        (2e-9, "2.00 ns"),
        (0, "0 s"),
        (5000.4, "5,000 s"),
        (3e11, "3e+11 s"),
    ],
)
def test_seconds(value, said):
    assert seconds(value) == said


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.027379, "s", "27.4 ms"),
        (518e6, "B", "518 MB"),
        (3e10, "B/s", "30.0 GB/s"),
        (0.5, "%", "50.0%"),
        (0.00012, "%", "0.012%"),
        (2.1, "x", "2.10×"),
        (-3.0, "x", "−3×"),
        (2048, "", "2,048"),
        (124_439_808, "", "124 M"),
        (72.5e6, "cycles", "72.5 M"),
        (0.93, "FLOP/cycle", "0.93"),
        (float("nan"), "s", "–"),
        (float("-inf"), "", "–"),
    ],
)
def test_quantity(value, unit, said):
    assert quantity(value, unit) == said


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["s", "B", "B/s", "%", "x", "", "cycles"]))
def test_any_quantity_is_said(value, unit):
    assert quantity(value, unit)
    size, name = scale_of(abs(value), unit)
    assert size > 0 and (value == 0 or abs(value) / size < 1e7 or abs(value) > 1e20 or unit in ("s", "x", "%"))
    assert unit in ("%", "x") or name.endswith(unit)


@pytest.mark.parametrize(
    ("largest", "unit", "said"),
    [
        (0.027, "s", (1e-3, "ms")),
        (2e9, "B", (1e9, "GB")),
        (3e10, "B/s", (1e9, "GB/s")),
        (72.5e6, "cycles", (1e6, "M cycles")),
        (900, "tokens/s", (1.0, "tokens/s")),
        (2048, "", (1.0, "")),
        (0.4, "%", (0.01, "%")),
        (0, "s", (1.0, "s")),
    ],
)
def test_scale(largest, unit, said):
    assert scale_of(largest, unit) == said
