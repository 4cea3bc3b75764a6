"""Tests that hold at any time: e-values by integration, intervals by root finding, and how often they are wrong."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from cnnjax import InputError
from cnnjax.statistics import (
    Criteria,
    Measure,
    TrainingDraw,
    compare_in_looks,
    decide_for_new_training,
    plan_looks_at_any_time,
)
from cnnjax.statistics.any_time import (
    SCALE,
    equal_rates_p,
    find_critical,
    find_least_seeds,
    find_levels,
    log_e_value,
    log_e_value_above,
)

STEP = 1e-4
DIFFERENCES = np.array([0.31, -0.12, 0.55, 0.48, 0.07, 0.29])


def find_statistic(values, mean=0.0):
    return float((values.mean() - mean) / values.std(ddof=1) * math.sqrt(len(values)))


def integrate_likelihood(values, effect):
    """The likelihood of values with a mean of `effect` standard deviations, integrated over their log."""
    log_deviation = np.linspace(-6, 8, 2000)[:, None]
    deviation = np.exp(log_deviation)
    densities = np.exp(-0.5 * (values / deviation - effect) ** 2) / deviation
    return float(integrate.trapezoid(densities.prod(1), log_deviation[:, 0]))


@pytest.mark.parametrize("scale", [SCALE, 2.5])
@pytest.mark.parametrize("values", [DIFFERENCES, DIFFERENCES[:2], -DIFFERENCES[:4]])
def test_e_values_are_ratios_of_likelihoods_integrated_over_the_spread_and_the_effect(values, scale):
    def weigh(effect):
        return integrate_likelihood(values, effect) * stats.norm.pdf(effect, 0, scale)

    above, below = (integrate.quad(weigh, *ends, epsrel=1e-6)[0] for ends in ((0, 9), (-9, 0)))
    none = integrate_likelihood(values, 0.0)
    t, n = find_statistic(values), len(values)
    assert np.exp(log_e_value(t, n, scale)) == pytest.approx((above + below) / none, rel=1e-4)
    assert np.exp(log_e_value_above(t, n, scale)) == pytest.approx(2 * above / none, rel=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 40])
def test_e_values_have_mean_one_without_a_difference_and_less_on_the_other_side(n):
    def average(value, effect):
        density = stats.nct(n - 1, effect * math.sqrt(n)).pdf if effect else stats.t(n - 1).pdf
        return sum(
            integrate.quad(lambda t: float(np.exp(value(t, n))) * density(t), *ends, limit=200)[0]
            for ends in ((-np.inf, -1), (-1, 1), (1, np.inf))
        )

    assert average(log_e_value, 0) == pytest.approx(1, rel=1e-5)
    assert average(log_e_value_above, 0) == pytest.approx(1, rel=1e-5)
    assert average(log_e_value_above, -0.3) < 1


@given(st.integers(2, 200), st.floats(1e-4, 0.4), st.floats(0.2, 5))
def test_the_critical_statistic_is_where_the_e_value_reaches_its_bound(n, alpha, scale):
    critical = float(find_critical(n, alpha, scale))
    if math.isinf(critical):
        assert log_e_value(1e9, n, scale) < math.log(1 / alpha)
    else:
        wanted = optimize.brentq(lambda t: log_e_value(t, n, scale) + math.log(alpha), 0, 2 * critical)
        assert critical == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("n", "alpha"), [(5, 0.05), (10, 0.05), (10, 0.0025), (40, 0.001), (300, 0.05)])
def test_levels_are_those_of_students_tests_at_the_critical_statistics(n, alpha):
    def root(value):
        return optimize.brentq(lambda t: value(t, n) + math.log(alpha), 0, 1e4)

    two_sided, one_sided = find_levels(n, alpha)
    assert two_sided == pytest.approx(2 * stats.t.sf(root(log_e_value), n - 1), rel=1e-6)
    assert one_sided == pytest.approx(stats.t.sf(root(log_e_value_above), n - 1), rel=1e-6)
    assert two_sided < alpha > one_sided > two_sided / 2


def test_the_fewest_seeds_that_can_decide_are_those_whose_e_value_has_no_bound_below():
    for alpha in (0.05, 0.05 / 13, 0.001):
        least = find_least_seeds(alpha)
        assert log_e_value(1e6, least) > math.log(1 / alpha) > log_e_value(1e6, least - 1)
        assert find_levels(least - 1, alpha)[0] == 0
    assert 15 <= find_least_seeds(1e-8) <= 20
    assert plan_looks_at_any_time(9, 12, 0.05) == (9, 10, 11, 12)
    with pytest.raises(InputError, match=r"6 seeds can never decide at the level 0\.0025 .* must be >= 7"):
        plan_looks_at_any_time(3, 6, 0.05 / 20)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_looking_after_every_seed_is_wrong_no_more_often_than_the_level_says(alpha):
    studies, most = 4000, 60
    random = np.random.default_rng(0)
    values = random.standard_normal((studies, most))
    n = np.arange(1, most + 1)
    mean = np.cumsum(values, 1) / n
    deviation = np.sqrt(np.maximum(np.cumsum(values**2, 1) - n * mean**2, 0)[:, 1:] / (n[1:] - 1))
    t = mean[:, 1:] / deviation * np.sqrt(n[1:])
    error = 3 * math.sqrt(alpha * (1 - alpha) / studies)
    for value in (log_e_value, log_e_value_above):
        wrong = np.mean(np.any(value(t, n[1:]) >= math.log(1 / alpha), axis=1))
        assert alpha / 4 < wrong < alpha + error
    assert np.mean(np.any(np.abs(t) > stats.t.isf(alpha / 2, n[1:] - 1), axis=1)) > 2 * alpha  # as tests of one look


def test_rates_are_compared_by_a_mixture_of_binomials_that_has_mean_one():
    for first, second in ((7, 0), (2, 5), (0, 3)):
        mixture, _ = integrate.quad(
            lambda p, k=first, rest=second: stats.beta.pdf(p, 0.5, 0.5) * (2 * p) ** k * (2 - 2 * p) ** rest, 0, 1
        )
        assert equal_rates_p(first, second) == pytest.approx(min(1 / mixture, 1), rel=1e-6)
    shares = stats.binom.pmf(np.arange(31), 30, 0.5)
    found = np.array([equal_rates_p(k, 30 - k) for k in range(31)])
    assert shares @ np.where(found < 1, 1 / found, 0) <= 1 + 1e-9


def make_arms(differences, n, seed=0):
    random = np.random.default_rng(seed)
    base = np.rint(random.normal(9700, 10, n))
    arms = {name: base + each + np.rint(random.normal(0, 20, n)) for name, each in differences.items()}
    return {name: {s: float(v * STEP) for s, v in enumerate(values)} for name, values in {"base": base, **arms}.items()}


def compare(arms, looks, ended=None, **measure):
    criteria = Criteria(measure=Measure("accuracy", resolution=STEP, **measure))
    ended = ended or {name: set(values) for name, values in arms.items()}
    contrasts = compare_in_looks(arms, "base", ended, range(looks[-1]), looks, criteria, at_any_time=True)
    return {contrast.first: contrast for contrast in contrasts}


@pytest.mark.parametrize("seed", range(3))
def test_a_comparison_ends_at_the_first_seed_whose_e_values_exclude_zero_or_all_outside_the_margin(seed):
    arms = make_arms({"far": 60, "near": 25, "same": 0}, 40, seed)
    contrasts = compare(arms, tuple(range(6, 41)))
    bound = math.log(3 / 0.05)
    for name, contrast in contrasts.items():
        differences = np.array([arms[name][s] - arms["base"][s] for s in range(40)])
        for n in range(6, 41):
            first = differences[:n]
            differs = log_e_value(find_statistic(first), n) > bound
            inside = [log_e_value_above(s * find_statistic(first, -s * 0.002), n) > bound for s in (-1, 1)]
            if differs or all(inside):
                break
        word = "equivalent" if all(inside) else ("better" if differs else "undecided")
        assert (contrast.comparison.n, contrast.verdict.word) == (n, word)
        ends = [find_statistic(first, end) for end in (contrast.low, contrast.high)]
        assert log_e_value(np.array(ends), n) == pytest.approx([bound, bound], rel=1e-6)
    assert contrasts["far"].verdict.word == "better"


def test_the_reason_says_that_there_is_a_look_after_every_seed_and_which_comes_next():
    contrast = compare(make_arms({"near": 20}, 8), tuple(range(6, 31)))["near"]
    assert (contrast.verdict.word, contrast.verdict.seeds_needed) == ("undecided", 9)
    assert "looked at after every seed; the next look is at 9 seeds" in contrast.verdict.reason


def test_lost_runs_leave_too_few_seeds_to_decide_and_more_seeds_are_asked_for():
    arms = make_arms({"far": 200}, 6)
    arms["far"] |= {1: math.nan, 3: math.nan}
    contrast = compare(arms, tuple(range(5, 31)), chance=0.1)["far"]
    assert (contrast.comparison.n, contrast.low, contrast.verdict.seeds_needed) == (4, None, 7)
    assert contrast.verdict.reason.startswith("4 seeds at which both arms trained tell too little of the spread: 5 are")
    assert contrast.rates.p == equal_rates_p(2, 0)
    wider = decide_for_new_training(contrast, TrainingDraw(10, 200, with_replacement=False), 1)
    assert (wider.word, wider.low, wider.high) == ("undecided", None, None)


def test_a_verdict_counts_the_seeds_of_the_worst_case_for_itself():
    arms = make_arms({"far": 200}, 12)
    arms["far"][3] = None
    contrast = compare(arms, (12,))["far"]
    assert (contrast.comparison.n, contrast.verdict.word, contrast.verdict.survives_losses) == (11, "better", False)
    assert contrast.level == find_levels(11, 0.05)[0]
