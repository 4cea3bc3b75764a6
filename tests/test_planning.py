"""Plans agree with noncentral t distributions, brute-force simulations and the model of empirical Bayes."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import zeta

from cnnjax import InputError
from cnnjax.statistics.planning import (
    Spread,
    estimate_spread,
    exaggerate,
    plan_equivalence,
    plan_seeds_between,
    squeeze_variances,
    trace_power,
)
from cnnjax.statistics.verdicts import MOST_SEEDS, plan_detection


def simulate_studies(difference, n, alpha, studies=400_000):
    """Returns the means of simulated studies with a spread of 1, and which of them SciPy's quantile finds."""
    random = np.random.default_rng(n)
    samples = random.normal(difference, 1.0, (studies, n))
    means, errors = samples.mean(1), samples.std(1, ddof=1) / math.sqrt(n)
    return means, np.abs(means) / errors > scipy.stats.t.ppf(1 - alpha / 2, n - 1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("difference", "n", "alpha"), [(0.5, 5, 0.05), (1.5, 5, 0.0026), (0.3, 12, 0.05), (2, 3, 0.05)]
)
def test_a_difference_is_found_and_exaggerated_as_often_and_as_much_as_in_simulated_studies(difference, n, alpha, sign):
    means, found = simulate_studies(sign * difference, n, alpha)
    (point,) = trace_power([sign * difference], 1.0, n, alpha)
    assert point.power == pytest.approx(found.mean(), abs=5 * math.sqrt(point.power / len(found)))
    seen = np.abs(means[found]) / difference
    assert point.exaggeration == pytest.approx(seen.mean(), abs=5 * seen.std() / math.sqrt(len(seen)))


@pytest.mark.parametrize(
    ("difference", "n", "alpha"), [(0.5, 5, 0.05), (1.5, 5, 0.0026), (-1.5, 5, 0.0026), (1, 2, 0.1)]
)
def test_the_power_curve_is_that_of_the_noncentral_t_distribution(difference, n, alpha):
    critical, shift = scipy.stats.t.ppf(1 - alpha / 2, n - 1), difference / 0.7 * math.sqrt(n)
    expected = scipy.stats.nct.sf(critical, n - 1, shift) + scipy.stats.nct.cdf(-critical, n - 1, shift)
    assert trace_power([difference], 0.7, n, alpha)[0].power == pytest.approx(expected, rel=1e-6)


def test_a_z_test_exaggerates_as_gelman_and_carlin_compute():
    # Their closed form for a known spread: the mean of |N(d, 1)| beyond ±1.96, over d; reached as n grows.
    d, z = 1.0, scipy.stats.norm.ppf(0.975)
    above = d * scipy.stats.norm.sf(z - d) + scipy.stats.norm.pdf(z - d)
    below = -d * scipy.stats.norm.cdf(-z - d) + scipy.stats.norm.pdf(z + d)
    power = scipy.stats.norm.sf(z - d) + scipy.stats.norm.cdf(-z - d)
    assert exaggerate(d / 1000, 1.0, 1_000_000) == pytest.approx((above + below) / power / d, rel=1e-4)


@given(st.floats(0.05, 3), st.integers(2, 40), st.sampled_from([0.0026, 0.05, 0.3]))
def test_what_is_found_looks_too_large_and_the_more_so_the_smaller_it_is(difference, n, alpha):
    nearer, farther = (exaggerate(each, 1.0, n, alpha) for each in (difference, 1.5 * difference))
    assert nearer >= farther - 1e-9
    assert farther > 1 - 1e-9
    assert exaggerate(-difference, 1.0, n, alpha) == nearer
    assert exaggerate(difference / 50, 0.02, n, alpha) == pytest.approx(nearer)


@pytest.mark.parametrize(
    "arguments", [(0.0, 1.0, 5), (0.1, 0.0, 5), (0.1, 1.0, 1), (0.1, 1.0, 5, 0.0), (math.nan, 1.0, 5)]
)
def test_exaggeration_of_impossible_designs_is_refused(arguments):
    with pytest.raises(InputError, match="must be"):
        exaggerate(*arguments)


@pytest.mark.parametrize("alpha", [0.05, 0.0025])
def test_the_planned_seeds_are_the_fewest_that_show_equal_arms_equivalent(alpha):
    planned = plan_equivalence(1.0, 0.8, alpha)

    def simulate(n):
        samples = np.random.default_rng(n).standard_normal((200_000, n))
        half = scipy.stats.t.ppf(1 - alpha, n - 1) * samples.std(1, ddof=1) / math.sqrt(n)
        return np.mean(np.abs(samples.mean(1)) + half < 0.8)

    assert simulate(planned) > 0.797
    assert simulate(planned - 1) < 0.803
    assert plan_equivalence(100.0, 0.8, alpha) is None


def test_the_interval_of_a_spread_holds_the_true_one_as_often_as_it_says():
    deviations = np.random.default_rng(0).normal(0, 2.0, (20_000, 5)).std(1, ddof=1)
    ends = np.array([Spread(each, 4).interval() for each in deviations])
    assert np.mean((ends[:, 0] <= 2) & (ends[:, 1] >= 2)) == pytest.approx(0.8, abs=0.01)
    assert np.mean(ends[:, 1] < 2) == pytest.approx(0.1, abs=0.01)


def test_the_range_of_planned_seeds_holds_the_right_number_in_four_of_five_pilots():
    def plan(spread):
        return plan_detection(spread, 1.5)

    pilots = np.random.default_rng(1).normal(0, 1.5, (300, 5)).std(1, ddof=1)
    ranges = [plan_seeds_between(Spread(each, 4), plan) for each in pilots]
    right = plan(1.5)
    assert np.mean([low <= right <= (high or MOST_SEEDS) for low, high in ranges]) == pytest.approx(0.8, abs=0.07)


def draw_groups(random, groups, prior, scale, free):
    """Returns the variances of groups by the model: the true ones are scaled inverse chi² with `prior` degrees."""
    true = prior * scale / random.chisquare(prior, groups)
    return true, true * random.chisquare(free, groups) / free


@pytest.mark.parametrize(("prior", "scale"), [(4.0, 2.0), (12.0, 0.01)])
def test_squeezing_finds_the_prior_that_the_variances_were_drawn_from(prior, scale):
    _, variances = draw_groups(np.random.default_rng(0), 40_000, prior, scale, 4)
    squeezed = squeeze_variances(variances, [4] * len(variances))
    assert squeezed.prior_freedom == pytest.approx(prior, rel=0.1)
    assert squeezed.prior_variance == pytest.approx(scale, rel=0.03)


def test_squeezing_agrees_with_its_equations_solved_by_other_means():
    variances, free = np.array([1.0, 9.0, 100.0, 4.0]), np.array([4, 2, 9, 4])
    moments = [scipy.stats.loggamma(each / 2, loc=-math.log(each / 2)) for each in free]  # of log(s² / sigma²)
    logs = np.log(variances) - [each.mean() for each in moments]
    excess = logs.var(ddof=1) - np.mean([each.var() for each in moments])
    prior = 2 * brentq(lambda x: zeta(2, x) - excess, 1e-3, 1e6)  # zeta(2, x) is trigamma(x)
    scale = math.exp(logs.mean() + scipy.stats.loggamma(prior / 2).mean() - math.log(prior / 2))
    squeezed = squeeze_variances(variances, free)
    assert squeezed.prior_freedom == pytest.approx(prior)
    assert squeezed.prior_variance == pytest.approx(scale)
    assert squeezed.freedoms == pytest.approx(np.minimum(prior + free, 19))
    for variance, each, found in zip(variances, free, squeezed.variances, strict=True):
        # The mean of 1 / sigma² given s², integrated over the prior and the likelihood.
        def weigh(precision, power, variance=variance, each=each):
            likelihood = scipy.stats.chi2.pdf(each * variance * precision, each) * precision
            return scipy.stats.gamma.pdf(precision, prior / 2, scale=2 / prior / scale) * likelihood * precision**power

        mean = quad(weigh, 0, 20, args=(1,), limit=200)[0] / quad(weigh, 0, 20, args=(0,), limit=200)[0]
        assert found == pytest.approx(1 / mean, rel=1e-4)


def test_squeezed_variances_are_nearer_to_the_true_ones():
    true, variances = draw_groups(np.random.default_rng(2), 200, 6.0, 1.0, 4)
    squeezed = squeeze_variances(variances, [4] * 200).variances
    assert np.mean(np.log(squeezed / true) ** 2) < 0.6 * np.mean(np.log(variances / true) ** 2)


def test_groups_that_vary_as_chance_does_share_the_pooled_variance():
    squeezed = squeeze_variances([1.0, 2.0], [4, 12])
    assert squeezed.variances == pytest.approx([1.75, 1.75])
    assert (squeezed.freedoms, squeezed.prior_freedom) == ((16.0, 16.0), math.inf)
    assert squeeze_variances([3.0], [5]).variances == (3.0,)


@pytest.mark.parametrize(("variances", "freedoms"), [([], []), ([1.0, 0.0], [4, 4]), ([1.0], [0]), ([1.0, 2.0], [4])])
def test_impossible_variances_are_refused(variances, freedoms):
    with pytest.raises(InputError, match="must be"):
        squeeze_variances(variances, freedoms)


@pytest.mark.parametrize(("groups", "prior"), [(1, math.inf), (3, math.inf), (8, math.inf), (3, 8), (8, 3)])
def test_the_interval_of_a_typical_spread_holds_the_true_one_about_as_often_as_it_says(groups, prior):
    random, held = np.random.default_rng(groups), []
    for _ in range(400):
        true = np.ones(groups) if math.isinf(prior) else draw_groups(random, groups, prior, 1.0, 1)[0]
        low, high = estimate_spread(
            random.normal(0, 1, (groups, 9 if groups == 1 else 5)) * np.sqrt(true)[:, None]
        ).interval()
        held.append(low <= math.sqrt(np.median(true)) <= high)
    assert 0.7 <= np.mean(held) <= 0.93


def test_groups_without_a_spread_have_the_least_or_none():
    assert estimate_spread([[0.9], [0.8], []]) is None
    assert estimate_spread([[0.9, 0.9, 0.9]]) is None
    assert estimate_spread([[0.9, 0.9, 0.9], [0.8, 0.8]], least=0.01).deviation == pytest.approx(0.01)
