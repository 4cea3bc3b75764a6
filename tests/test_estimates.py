"""Estimates agree with SciPy's distributions, with hand-worked values, and with simulations."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cnnjax import InputError
from cnnjax.statistics.estimates import (
    Estimate,
    estimate_mean,
    smallest_detectable_difference,
    typical_standard_deviation,
)

SAMPLES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(SAMPLES, st.floats(0.01, 0.99))
def test_the_interval_is_scipys_t_interval(values, confidence):
    estimate = estimate_mean(values, confidence)
    error = scipy.stats.sem(values)
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * error
    assert estimate.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert estimate.standard_deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert estimate.high - estimate.mean == pytest.approx(half, rel=1e-9, abs=1e-9)
    if error > 1e-9:
        interval = scipy.stats.t.interval(confidence, len(values) - 1, np.mean(values), error)
        assert (estimate.low, estimate.high) == pytest.approx(interval, rel=1e-6, abs=1e-6)


def test_the_interval_of_a_hand_worked_case():
    # mean 2, deviations -1, 0, 1: s = 1; t(0.975, 2) = 4.302653 from any table; half = 4.302653 / sqrt(3).
    estimate = estimate_mean([1.0, 2.0, 3.0])
    assert (estimate.n, estimate.mean, estimate.standard_deviation) == (3, 2.0, 1.0)
    assert estimate.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert estimate.high == pytest.approx(2 + 2.484138, abs=1e-6)


def test_one_value_has_no_spread_and_no_interval():
    assert estimate_mean([0.97]) == Estimate(1, 0.97, None, None, None)
    assert estimate_mean([0.97]).high is None


def test_equal_values_without_a_resolution_have_an_interval_of_zero_width():
    assert estimate_mean(np.full(4, 0.5)) == Estimate(4, 0.5, 0.0, 0.5, 0.5)


def test_an_interval_is_never_narrower_than_the_resolution_allows():
    # t(0.975, 3) = 3.182446 from any table; a step of 0.01 has a standard deviation of 0.01 / sqrt(12).
    estimate = estimate_mean(np.full(4, 0.5), resolution=0.01)
    assert (estimate.standard_deviation, estimate.high - estimate.mean) == (
        0.0,
        pytest.approx(3.182446 * 0.01 / 48**0.5),
    )
    wide = [0.9, 0.95, 0.97]
    assert estimate_mean(wide, resolution=0.01) == estimate_mean(wide)


@pytest.mark.parametrize(("mean", "n"), [(0.5, 3), (0.501, 5), (0.5049, 10)])
def test_intervals_of_rounded_values_have_the_stated_coverage(mean, n):
    samples = np.round(np.random.default_rng(n).normal(mean, 0.003, (2000, n)), 2)
    estimates_of_all = [estimate_mean(sample, resolution=0.01) for sample in samples]
    assert np.mean([each.low <= mean <= each.high for each in estimates_of_all]) > 0.94


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        ([], 0.95, r"values=\[\]: must be finite numbers, at least one"),
        ([0.9, math.nan], 0.95, r"values=\[0.9, nan\]: must be finite numbers"),
        ([0.9, math.inf], 0.95, "must be finite numbers"),
        ([0.9], 1.0, r"confidence=1.0: must be > 0 and < 1"),
        ([0.9], 0.0, r"confidence=0.0: must be > 0 and < 1"),
    ],
)
def test_invalid_values_and_confidences_are_refused(values, confidence, message):
    with pytest.raises(InputError, match=message):
        estimate_mean(values, confidence)


@given(st.lists(SAMPLES, min_size=1, max_size=6), st.floats(-100, 100))
def test_the_typical_spread_does_not_depend_on_the_means_of_the_groups(groups, shift):
    moved = [[value + index * shift for value in group] for index, group in enumerate(groups)]
    assert typical_standard_deviation(moved) == pytest.approx(typical_standard_deviation(groups), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_typical_spread_of_normal_groups_is_their_standard_deviation(n):
    groups = np.random.default_rng(n).normal(size=(4001, n)) * 3
    assert typical_standard_deviation(groups) == pytest.approx(3, rel=0.05)


def test_the_typical_spread_of_a_hand_worked_case():
    # Variances 2, 1 and 8 with 1, 2 and 1 degrees of freedom; the medians of chi² are 0.4549 and 2 log 2.
    groups = [[0.0, 2.0], [1.0, 2.0, 3.0], [0.0, 4.0], [7.0], []]
    assert typical_standard_deviation(groups) == pytest.approx(math.sqrt(2 / 0.454936), rel=1e-5)


def test_one_extreme_group_hardly_changes_the_typical_spread():
    calm = [[0.96, 0.97, 0.965]] * 4
    assert typical_standard_deviation([*calm, [0.1, 0.9, 0.1]]) == typical_standard_deviation(calm)


def test_groups_of_one_have_no_spread():
    assert typical_standard_deviation([[0.9], [0.8], []]) is None
    assert typical_standard_deviation([]) is None


def _power(difference, n, alpha):
    noncentrality, critical = difference * math.sqrt(n), scipy.stats.t.ppf(1 - alpha / 2, n - 1)
    missed_below = scipy.stats.nct.cdf(-critical, n - 1, noncentrality)
    return scipy.stats.nct.sf(critical, n - 1, noncentrality) + np.nan_to_num(missed_below)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30, 1000])
@pytest.mark.parametrize("alpha", [1e-4, 0.05, 0.5])
@pytest.mark.parametrize("power", [0.51, 0.8, 0.99])
def test_the_noncentral_t_distribution_gives_the_smallest_difference_its_power(n, alpha, power):
    difference = smallest_detectable_difference(1.0, n, alpha, power)
    assert _power(difference, n, alpha) == pytest.approx(power, abs=1e-7)


@pytest.mark.parametrize("n", [3, 5, 40])
def test_the_difference_has_its_power_at_the_levels_of_large_families(n):
    assert _power(smallest_detectable_difference(1.0, n, 1e-7), n, 1e-7) == pytest.approx(0.8, abs=1e-7)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_the_detectable_difference_agrees_with_statsmodels(n):
    power = pytest.importorskip("statsmodels.stats.power")
    expected = power.TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert smallest_detectable_difference(0.01, n) == pytest.approx(0.01 * expected, rel=1e-5)


@pytest.mark.parametrize(("n", "expected"), [(10, 0.996), (34, 0.4944), (100, 0.2829)])
def test_the_detectable_difference_agrees_with_published_tables_of_power(n, expected):
    # A paired design with d = 0.5 needs 34 pairs for 80% power at 5% (Cohen 1988; G*Power).
    assert smallest_detectable_difference(1.0, n) == pytest.approx(expected, abs=1e-3)


def test_a_paired_test_finds_the_difference_as_often_as_promised():
    rng = np.random.default_rng(0)
    n, trials = 5, 20_000
    difference = smallest_detectable_difference(0.002, n)
    samples = rng.normal(difference, 0.002, (trials, n))
    found = np.mean(scipy.stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / trials))


@given(st.floats(1e-6, 1e3), st.integers(2, 200))
def test_the_smallest_difference_scales_with_the_spread(deviation, n):
    assert smallest_detectable_difference(deviation, n) == pytest.approx(
        deviation * smallest_detectable_difference(1.0, n), rel=1e-9
    )


def test_without_spread_every_difference_is_found_and_with_one_pair_none():
    assert smallest_detectable_difference(0.0, 5) == 0.0
    assert smallest_detectable_difference(0.1, 1) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 5), r"standard_deviation=-0.1: must be >= 0"),
        ((math.nan, 5), r"standard_deviation=nan: must be a finite number"),
        ((0.1, 5, 0.0), r"alpha=0.0: must be >= 1e-07 and < 1"),
        ((0.1, 2, 1e-5), r"alpha=1e-05: must be >= 0.0001 and < 1"),
        ((0.1, 5, 0.05, 1.0), r"power=1.0: must be > alpha \(0.05\) and < 1"),
        ((0.1, 5, 0.05, 0.05), r"power=0.05: must be > alpha"),
    ],
)
def test_levels_and_powers_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        smallest_detectable_difference(*arguments)
