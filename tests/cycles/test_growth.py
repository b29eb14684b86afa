"""Power laws, straight lines and crossings, against curves whose answer is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cycles.growth import crossing, fit_line, fit_power

XS = (1.0, 2.0, 4.0, 8.0, 16.0)
factors, exponents = st.floats(1e-3, 1e3), st.floats(-3, 3)


@given(factors, exponents)
def test_a_power_law_is_found_again(factor, exponent):
    fit = fit_power(XS, [factor * x**exponent for x in XS])
    assert fit is not None and fit.error is not None
    assert fit.exponent == pytest.approx(exponent, abs=1e-9)
    assert fit.factor == pytest.approx(factor)
    assert fit.error < 1e-6
    assert (fit.low, fit.high) == (pytest.approx(1.0), pytest.approx(16.0))
    assert fit(3.0) == pytest.approx(factor * 3.0**exponent)


def test_the_error_of_an_exponent_is_that_of_a_regression():
    y = [1.0, 2.2, 3.7, 8.5, 15.0]
    fit = fit_power(XS, y)
    assert fit is not None and fit.error is not None
    # scipy.stats.linregress(log x, log y): slope and standard error
    from scipy.stats import linregress

    known = linregress([math.log(x) for x in XS], [math.log(v) for v in y])
    assert fit.exponent == pytest.approx(known.slope)  # pyright: ignore[reportAttributeAccessIssue]
    assert fit.error == pytest.approx(known.stderr)  # pyright: ignore[reportAttributeAccessIssue]


def test_two_points_leave_no_error_and_one_no_law():
    fit = fit_power((1, 2), (3, 6))
    assert fit is not None and fit.error is None and fit.exponent == pytest.approx(1)
    assert fit_power((2, 2), (3, 6)) is None
    assert fit_power((1, 2), (0, 6)) is None


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_straight_line_is_found_again(fixed, each):
    line = fit_line(XS, [fixed + each * x + 1e-12 for x in XS])
    assert line is not None
    assert line.fixed + line.each * 16 == pytest.approx(fixed + each * 16, rel=1e-6, abs=1e-9)
    if fixed > 1 and each > 1:
        assert line.even == pytest.approx(fixed / each, rel=1e-3)


def test_neither_term_of_a_line_is_negative():
    steep = fit_line(XS, [x**2 for x in XS])
    falling = fit_line(XS, [1 / x for x in XS])
    assert steep is not None and steep.fixed == 0 and steep.each > 0
    assert falling is not None and falling.each == 0 and falling.fixed > 0
    assert falling.even is None


@given(st.floats(1.5, 15))
def test_curves_that_cross_inside_the_grid_do_so_where_they_cross(at):
    found = crossing(XS, [x**2 for x in XS], [at * x for x in XS])
    assert found is not None and found.where == "inside"
    assert found.at == pytest.approx(at)


@given(st.floats(17, 10_000))
def test_curves_that_cross_later_are_carried_on(at):
    found = crossing(XS, [x**2 for x in XS], [at * x for x in XS])
    assert found is not None and found.where == "beyond"
    assert found.at == pytest.approx(at, rel=1e-6)


def test_what_is_above_from_the_start_crossed_before():
    found = crossing(XS, [10 * x for x in XS], list(XS))
    assert found is not None and (found.where, found.at) == ("before", 1.0)


def test_curves_that_do_not_meet_have_no_crossing():
    assert crossing(XS, list(XS), [2 * x for x in XS]) is None  # parallel
    assert crossing(XS, list(XS), [2 * x**2 for x in XS]) is None  # apart
    assert crossing(XS, list(XS), [1e9 * x**0.5 for x in XS]) is None  # too far away
    assert crossing((1.0,), (1.0,), (2.0,)) is None
    assert crossing(XS, [0.0] * 5, list(XS)) is None


def test_order_of_the_points_does_not_matter():
    shuffled = (8.0, 1.0, 16.0, 2.0, 4.0)
    assert crossing(shuffled, [x**2 for x in shuffled], [3 * x for x in shuffled]) == crossing(
        XS, [x**2 for x in XS], [3 * x for x in XS]
    )
