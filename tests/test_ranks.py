"""Ranks over datasets: a published example, SciPy's statistic, and ties."""

import numpy as np
import pytest
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import rank_arms

DEMSAR = np.array(
    [
        (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
    ]
)  # fmt: skip
"""AUC of four variants of C4.5 on 14 datasets: Demsar, 2006, table 6. Both 0.975 of voting have ranks of their own."""


def test_ranks_agree_with_the_published_example():
    ranks = rank_arms(DEMSAR)
    assert ranks.mean == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert ranks.critical_difference == pytest.approx(1.25, abs=0.01)
    assert rank_arms(DEMSAR, 0.1).critical_difference == pytest.approx(1.12, abs=0.01)
    # 9.28 there, without the correction for ties: these take 6.5 of the 70 that the squares of all ranks sum to.
    assert ranks.statistic == pytest.approx(9.28 * 70 / 63.5, abs=0.01)


def test_friedmans_statistic_with_ties_agrees_with_scipy():
    statistic, p = stats.friedmanchisquare(*DEMSAR.T)
    ranks = rank_arms(DEMSAR)
    assert ranks.statistic == pytest.approx(statistic)
    assert ranks.p == pytest.approx(p, abs=0.01)


def test_the_p_value_of_few_datasets_agrees_with_a_hand_worked_case():
    # Two datasets that agree on three arms: 6 of the 36 pairs of orders agree.
    ranks = rank_arms(np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]))
    assert ranks.p == pytest.approx(1 / 6, abs=0.02)
    assert ranks.critical_difference is None  # Friedman's test does not find that they differ


def test_values_that_differ_by_rounding_alone_share_a_rank():
    means = np.mean([0.1, 0.2, 0.3]), np.mean([0.3, 0.2, 0.1])
    assert means[0] != means[1]
    assert rank_arms(np.array([[*means, 0.9], [0.1, 0.2, 0.3]])).mean == (2.75, 2.25, 1.0)


def test_equal_values_everywhere_show_no_difference():
    ranks = rank_arms(np.ones((3, 4)))
    assert (ranks.mean, ranks.statistic, ranks.p) == ((2.5,) * 4, 0.0, 1.0)


@pytest.mark.parametrize("values", [np.ones(3), np.ones((1, 3)), np.ones((3, 1)), np.array([[1, np.nan], [1, 2]])])
def test_values_of_another_shape_are_refused(values):
    with pytest.raises(InputError, match=r"values: must be finite \(datasets, arms\), at least 2 x 2"):
        rank_arms(values)
