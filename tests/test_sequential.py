"""Planned looks: published boundaries, the error rate of all looks together, and when comparisons stop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import Criteria, Measure, compare_in_looks, compare_paired, plan_looks, spend

STEP = 1e-4
CRITERIA = Criteria(measure=Measure("accuracy", resolution=STEP))


@pytest.mark.parametrize(
    ("first", "most", "looks"),
    [(5, 30, (5, 10, 20, 30)), (5, 10, (5, 10)), (5, 5, (5,)), (5, 6, (5, 6)), (3, 24, (3, 6, 12, 24)), (5, 3, (5,))],
)
def test_every_look_doubles_the_seeds_up_to_the_maximum(first, most, looks):
    assert plan_looks(first, most) == looks


def test_a_single_look_has_the_whole_level():
    assert spend((10,), 0.05) == pytest.approx((0.05,))


def test_boundaries_agree_with_the_multivariate_normal():
    looks, alpha = (5, 10, 20), 0.05
    bounds = [stats.norm.ppf(1 - level / 2) for level in spend(looks, alpha)]
    for count in (1, 2, 3):
        n = np.array(looks[:count])
        correlation = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
        inside = stats.multivariate_normal(np.zeros(count), correlation).cdf(
            bounds[:count], lower_limit=[-bound for bound in bounds[:count]]
        )
        assert 1 - inside == pytest.approx(alpha * looks[count - 1] / 20, abs=2e-4)


def test_boundaries_for_equal_looks_are_those_published():
    # Lan and DeMets, 1983, for five looks, the spending function alpha * t and a one-sided level of 0.025.
    bounds = [stats.norm.ppf(1 - level / 2) for level in spend((1, 2, 3, 4, 5), 0.05)]
    assert bounds == pytest.approx([2.58, 2.49, 2.41, 2.34, 2.28], abs=0.01)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5, unique=True).map(sorted), st.floats(0.001, 0.2))
def test_no_look_spends_more_than_its_share_of_the_level(looks, alpha):
    levels = spend(looks, alpha)
    assert all(0 < level <= alpha * 1.0001 for level in levels)
    assert levels[0] == pytest.approx(alpha * looks[0] / looks[-1], rel=1e-6)


def make_arms(differences, n):
    random = np.random.default_rng(0)
    base = np.rint(random.normal(9700, 10, n))
    arms = {
        "base": base,
        **{name: base + difference + np.rint(random.normal(0, 40, n)) for name, difference in differences.items()},
    }
    return {name: {seed: float(value * STEP) for seed, value in enumerate(values)} for name, values in arms.items()}


def compare(arms, looks, **options):
    ended = {name: set(values) for name, values in arms.items()} | options.pop("ended", {})
    seeds = range(looks[-1])
    return {c.first: c for c in compare_in_looks(arms, "base", ended, seeds, looks, CRITERIA, **options)}


def test_a_comparison_stops_at_the_look_that_decides():
    contrasts = compare(make_arms({"worse": -300, "near": 12}, 40), (5, 10, 20, 40))
    assert (contrasts["worse"].verdict.word, contrasts["worse"].comparison.n) == ("worse", 5)
    assert contrasts["near"].comparison.n > 5
    assert "as one of 2 comparisons, at look 1 of 4" in contrasts["worse"].verdict.reason


def test_an_undecided_comparison_names_the_next_look():
    arms = make_arms({"near": 12}, 12)
    (contrast,) = compare(arms, (5, 10, 20)).values()
    assert (contrast.comparison.n, contrast.verdict.word, contrast.verdict.seeds_needed) == (10, "undecided", 20)
    levels = spend((5, 10, 20), 0.05)
    assert contrast.level == pytest.approx(levels[1])
    alone = compare_paired(*({s: arms[name][s] for s in range(10)} for name in ("near", "base")), resolution=STEP)
    assert (contrast.low, contrast.high) == alone.interval(1 - levels[1])


def test_a_look_waits_for_all_its_seeds_and_a_diverged_run_has_ended():
    arms = make_arms({"near": 12}, 10)
    del arms["near"][7]
    assert compare(arms, (5, 10))["near"].comparison.n == 5
    contrast = compare(arms, (5, 10), ended={"near": set(range(10))})["near"]
    assert (contrast.comparison.n, contrast.comparison.unpaired) == (9, (7,))


def test_an_arm_before_its_first_look_has_no_verdict():
    assert compare(make_arms({"near": 12}, 4), (5, 10)) == {}


def test_an_unknown_baseline_is_refused():
    with pytest.raises(InputError, match=r"baseline='x': must be one of a"):
        compare_in_looks({"a": {0: 0.9}}, "x", {"a": [0]}, [0], (1,))


def test_levels_are_finite_where_looks_are_many():
    levels = spend(tuple(range(3, 60, 3)), 0.05)
    assert all(math.isfinite(level) and level > 0 for level in levels)
