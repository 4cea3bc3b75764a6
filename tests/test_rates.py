"""Rates of runs that collapse, against SciPy, an enumeration of all outcomes, and simulated arms of equal rates."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial

from cnnjax import InputError
from cnnjax.statistics import compare_rates, estimate_rate
from cnnjax.statistics.rates import equal_rates_p


@pytest.mark.parametrize(("runs", "confidence"), list(itertools.product((1, 3, 5, 10, 40), (0.9, 0.95, 0.99))))
def test_the_interval_is_that_of_clopper_and_pearson(runs, confidence):
    for collapsed in range(runs + 1):
        rate = estimate_rate(collapsed, runs, confidence)
        expected = binomtest(collapsed, runs).proportion_ci(confidence, method="exact")
        assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("runs", "bound"), [(3, 0.63), (5, 0.45), (10, 0.26), (20, 0.14)])
def test_without_a_collapse_the_upper_bound_is_that_of_the_documentation(runs, bound):
    assert estimate_rate(0, runs, 0.9).high == pytest.approx(1 - 0.05 ** (1 / runs))  # the upper 5% alone
    assert round(estimate_rate(0, runs, 0.9).high, 2) == bound


def test_without_a_run_nothing_is_known_of_the_rate():
    assert (estimate_rate(0, 0).low, estimate_rate(0, 0).high) == (0, 1)


@pytest.mark.parametrize("collapsed", [-1, 4])
def test_more_collapses_than_runs_are_refused(collapsed):
    with pytest.raises(InputError, match=rf"collapsed={collapsed}: must be from 0 to 3"):
        estimate_rate(collapsed, 3)


def enumerate_p(first, second, seeds):
    """The largest probability, over 4,001 of them, of all outcomes that are at least as far from equal rates."""
    reached = abs(first - second) / np.sqrt(first + second)
    pairs = itertools.product(range(seeds + 1), repeat=2)
    extreme = [(a, b) for a, b in pairs if 0 < a + b <= seeds and abs(a - b) / np.sqrt(a + b) >= reached - 1e-9]
    alone = np.linspace(0, 0.5, 4001)
    chances = np.stack([alone, alone, 1 - 2 * alone], axis=-1)
    return max(sum(multinomial.pmf([[a, b, seeds - a - b]], seeds, chances) for a, b in extreme))


@pytest.mark.parametrize("seeds", [3, 5, 6, 8, 10])
def test_the_p_value_is_that_of_all_outcomes_enumerated(seeds):
    for first, second in itertools.product(range(seeds + 1), repeat=2):
        if first + second <= seeds and first != second:
            found = equal_rates_p(first, second, seeds)
            assert found == pytest.approx(enumerate_p(first, second, seeds), abs=1e-6)
            assert found == equal_rates_p(second, first, seeds)


def test_it_is_exact_and_finds_more_than_mcnemars_test():
    for seeds in (10, 20):
        for first, second in [(5, 0), (7, 1), (9, 2)]:
            if first + second <= seeds:
                assert equal_rates_p(first, second, seeds) <= binomtest(first, first + second).pvalue + 1e-9
    assert equal_rates_p(5, 0, 5) == pytest.approx(2 * 0.5**5)  # the least of five seeds: nothing is ever shown
    assert equal_rates_p(5, 0, 6) < 0.05 < equal_rates_p(4, 0, 6)
    assert equal_rates_p(3, 3, 10) == equal_rates_p(0, 0, 10) == 1


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("common", [0.0, 0.5])
def test_arms_that_collapse_equally_often_are_rarely_said_to_differ(share, common):
    random, seeds, studies = np.random.default_rng(0), 12, 2000
    shared = random.random((studies, seeds)) < common  # at these seeds one draw decides both arms
    draws = random.random((2, studies, seeds))
    first, second = draws[0] < share, np.where(shared, draws[0], draws[1]) < share
    alone = np.stack([(first & ~second).sum(1), (second & ~first).sum(1)], axis=1).tolist()
    p = [equal_rates_p(a, b, seeds) for a, b in alone]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_the_comparison_is_paired_and_names_the_arm_that_collapses_less():
    first = {seed: seed in (0, 1) for seed in range(12)}
    second = {seed: seed in (0, *range(3, 11)) for seed in range(1, 14)}
    found = compare_rates(first, second)
    assert (found.first.collapsed, found.first.runs, found.second.collapsed, found.second.runs) == (2, 12, 8, 13)
    assert (found.first_alone, found.second_alone) == (1, 8)  # seeds 0, 12 and 13 are of one arm alone
    assert found.p == equal_rates_p(1, 8, 11)
    assert found.reliability(0.05) == "more reliable"
    assert compare_rates(second, first).reliability(0.05) == "less reliable"
    assert found.reliability(0.01) == ""
