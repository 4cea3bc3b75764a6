"""Comparisons over several datasets: averages, single datasets, and other datasets like these."""

import math

import numpy as np
import pytest
from scipy import stats

from cnnjax.statistics import Criteria, Measure, compare_over_datasets, mark_collapsed
from cnnjax.statistics.datasets import average_outcomes

ACCURACY = Measure("accuracy", resolution=1e-4, chance=0.1)


def simulate(random, datasets, seeds, means, between, noise):
    """Outcomes of arms whose true differences to the first one differ between datasets by this standard deviation."""
    arms = {}
    for number, mean in enumerate(means):
        bonus = mean + (between * random.normal(size=datasets) if number else np.zeros(datasets))
        values = np.round(0.9 + bonus[:, None] + noise * random.normal(size=(datasets, seeds)), 4)
        arms[f"arm {number}"] = {f"set {row}": dict(enumerate(map(float, each))) for row, each in enumerate(values)}
    return arms


def test_a_seed_has_a_mean_if_it_completed_on_all_datasets():
    outcomes = {
        "a": {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.9, 4: 0.9},
        "b": {0: 0.7, 1: None, 2: math.nan, 3: 0.1, 5: 0.8},
    }
    found = average_outcomes({name: mark_collapsed(each, ACCURACY) for name, each in outcomes.items()})
    assert list(found) == [0, 1, 2, 3]
    assert found[0] == pytest.approx(0.8)
    assert found[1] is None
    assert math.isnan(found[2])
    assert math.isnan(found[3])


def test_the_average_is_compared_as_the_means_of_seeds_are():
    arms = simulate(np.random.default_rng(0), 3, 6, (0.0, 0.004), 0.003, 0.002)
    (found,) = compare_over_datasets(arms, criteria=Criteria(measure=ACCURACY))
    first, second = (np.mean([[*each.values()] for each in arm.values()], axis=0) for arm in arms.values())
    test = stats.ttest_rel(first, second)
    assert found.average.comparison.mean == pytest.approx(np.mean(first - second))
    assert found.average.comparison.t_p == pytest.approx(test.pvalue)
    assert (found.average.low, found.average.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    on_each = [each.comparison.mean for each in found.on_each.values()]
    assert [*found.on_each] == ["set 0", "set 1", "set 2"]
    assert np.mean(on_each) == pytest.approx(found.average.comparison.mean)
    wide = stats.t.interval(0.95, 2, np.mean(on_each), stats.sem(on_each))
    half = math.hypot(wide[1] - wide[0], found.average.high - found.average.low) / 2
    assert found.other_datasets.high - np.mean(on_each) == pytest.approx(half)
    assert np.mean(on_each) - found.other_datasets.low == pytest.approx(half)


def test_differences_are_drawn_towards_the_average_as_far_as_noise_explains_them():
    (alike,) = compare_over_datasets(simulate(np.random.default_rng(1), 6, 4, (0.0, 0.01), 0.0, 0.01))
    (unlike,) = compare_over_datasets(simulate(np.random.default_rng(1), 6, 4, (0.0, 0.01), 0.1, 0.001))
    for found, share in ((alike, (0.0, 0.7)), (unlike, (0.99, 1.0))):
        own = np.array([each.comparison.mean for each in found.on_each.values()])
        shrunken = np.array([*found.shrunken.values()])
        assert shrunken.mean() == pytest.approx(own.mean())
        assert share[0] <= shrunken.std() / own.std() <= share[1]


@pytest.mark.parametrize(("datasets", "between"), [(2, 0.01), (3, 0.0), (5, 0.002)])
def test_claims_for_other_datasets_are_seldom_false(datasets, between):
    random = np.random.default_rng(datasets)
    studies, false = 60, 0
    for _ in range(studies):
        found = compare_over_datasets(simulate(random, datasets, 4, (0.0, 0.0, 0.0), between, 0.002), "arm 0")
        false += any(each.other_datasets.word in ("better", "worse") for each in found)
    assert false <= stats.binom.ppf(0.9999, studies, 0.05)


@pytest.mark.parametrize("baseline", ["arm 0", None])
def test_claims_of_averages_and_of_single_datasets_are_seldom_false(baseline):
    random = np.random.default_rng(9)
    studies, of_averages, of_singles = 60, 0, 0
    for _ in range(studies):
        found = compare_over_datasets(simulate(random, 3, 4, (0.0, 0.0, 0.0), 0.0, 0.002), baseline)
        of_averages += any(each.average.verdict.word in ("better", "worse") for each in found)
        of_singles += any(one.verdict.word in ("better", "worse") for each in found for one in each.on_each.values())
    most = stats.binom.ppf(0.9999, studies, 0.05)
    assert of_averages <= most
    assert of_singles <= most


def test_a_difference_that_all_datasets_share_is_found_for_others():
    arms = simulate(np.random.default_rng(2), 5, 5, (0.0, 0.03), 0.003, 0.002)
    (found,) = compare_over_datasets(arms, "arm 0", Criteria(measure=ACCURACY))
    assert found.average.verdict.word == "better"
    assert found.other_datasets.word == "better"
    assert {each.verdict.word for each in found.on_each.values()} == {"better"}
