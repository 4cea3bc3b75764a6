"""Probabilities of a difference against numerical integration over mean and spread, and what holds for any numbers."""

import numpy as np
import pytest
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import compare_paired, find_posterior

FIRST = {0: 0.972, 1: 0.975, 2: 0.971, 3: 0.974}
SECOND = {0: 0.971, 1: 0.971, 2: 0.970, 3: 0.974}


def test_the_probabilities_are_those_of_the_posterior_over_mean_and_spread():
    comparison = compare_paired(FIRST, SECOND)
    means, logs = np.linspace(-0.1, 0.1, 8001), np.linspace(np.log(1e-4), np.log(1.0), 600)
    spreads = np.exp(logs)[:, None]
    density = np.zeros((len(logs), len(means)))
    for difference in comparison.differences:
        density += stats.norm.logpdf(difference, means, spreads)
    density = np.exp(density - density.max())  # flat in the mean and in the logarithm of the spread
    weights = density.sum(0) / density.sum()
    found = find_posterior(comparison, 0.001)
    parts = (means > 0.001, np.abs(means) <= 0.001, means < -0.001)
    assert (found.better, found.within, found.worse) == pytest.approx([weights[part].sum() for part in parts], abs=0.01)
    assert found.better + found.within + found.worse == pytest.approx(1)


def test_the_arms_in_the_other_order_and_the_other_direction_swap_better_and_worse():
    found = find_posterior(compare_paired(FIRST, SECOND), 0.001)
    for other in (
        find_posterior(compare_paired(SECOND, FIRST), 0.001),
        find_posterior(compare_paired(FIRST, SECOND), 0.001, higher_is_better=False),
    ):
        assert (other.worse, other.within, other.better) == pytest.approx((found.better, found.within, found.worse))


def test_without_a_spread_nothing_is_known_and_without_a_margin_nothing_is_asked():
    assert find_posterior(compare_paired({0: 0.9}, {0: 0.8}), 0.001) is None
    with pytest.raises(InputError, match="margin"):
        find_posterior(compare_paired(FIRST, SECOND), 0.0)
