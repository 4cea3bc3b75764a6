"""Families of comparisons against hand-worked cases, SciPy and statsmodels, and what holds for any numbers."""

import numpy as np
import pytest
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import Criteria, Measure, compare_all_pairs, compare_paired, compare_with_baseline
from cnnjax.statistics.families import find_family_level, holm, sidak

STEP = 1e-4
CRITERIA = Criteria(measure=Measure("accuracy", resolution=STEP))


def draw_arms(means, n=6, spread=0.001, seed=0):
    random = np.random.default_rng(seed)
    common = random.normal(0.97, 0.002, n)
    return {
        name: dict(enumerate(map(float, np.rint((common + mean + random.normal(0, spread, n)) / STEP) * STEP)))
        for name, mean in means.items()
    }


def test_holms_procedure_on_a_hand_worked_case():
    levels, adjusted = holm([0.04, 0.01, None, 0.02], 0.05)
    # In order 0.01, 0.02, 0.04, none: 0.01 is below 0.05 / 4, 0.02 is above 0.05 / 3, so the rest is tested at that.
    assert levels == pytest.approx([0.05 / 3, 0.0125, 0.05 / 3, 0.05 / 3])
    assert adjusted == [pytest.approx(0.08), pytest.approx(0.04), None, pytest.approx(0.06)]
    assert holm([], 0.05) == ([], [])


@pytest.mark.parametrize("seed", range(20))
def test_holm_agrees_with_statsmodels(seed):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(seed).uniform(0, 0.1, 7) ** 1.5
    rejected, adjusted, *_ = multitest.multipletests(p_values, 0.05, method="holm")
    levels, ours = holm(list(p_values), 0.05)
    assert ours == pytest.approx(list(adjusted))
    assert [p <= level for p, level in zip(p_values, levels, strict=True)] == list(rejected)


def test_a_single_comparison_is_not_adjusted():
    arms = draw_arms({"a": 0.002, "base": 0.0})
    alone = compare_paired(arms["a"], arms["base"], resolution=STEP)
    for (contrast,) in (compare_with_baseline(arms, "base", CRITERIA), compare_all_pairs(arms, CRITERIA)):
        assert (contrast.level, contrast.adjusted_p) == (pytest.approx(0.05), pytest.approx(alone.t_p))
        assert (contrast.low, contrast.high) == pytest.approx((alone.low, alone.high))
        assert "as one of" not in contrast.verdict.reason


@pytest.mark.parametrize("n", [5, 12])
def test_interval_and_verdict_agree(n):
    for seed in range(10):
        arms = draw_arms({"base": 0.0, "a": 0.0, "b": 0.001, "c": -0.002, "d": 0.004}, n, seed=seed)
        contrasts = (
            *compare_with_baseline(arms, "base", CRITERIA),
            *compare_all_pairs(arms, CRITERIA),
        )
        for contrast in contrasts:
            outside = contrast.low > 0 or contrast.high < 0
            assert outside == (contrast.adjusted_p < 0.05) or abs(contrast.adjusted_p - 0.05) < 0.002
            assert contrast.verdict.word in (
                ("better", "worse", "equivalent") if outside else ("equivalent", "undecided")
            )


def test_simultaneous_intervals_are_wider_and_have_one_level():
    arms = draw_arms({"base": 0.0, "a": 0.0, "b": 0.001, "c": -0.002}, 5)
    contrasts = compare_with_baseline(arms, "base", CRITERIA)
    assert [contrast.first for contrast in contrasts] == ["a", "b", "c"]
    assert {contrast.level for contrast in contrasts} == {sidak(0.05, 3)}
    for contrast in contrasts:
        assert contrast.high - contrast.low > contrast.comparison.high - contrast.comparison.low
        assert "as one of 3 comparisons" in contrast.verdict.reason


def find_level(differences):
    level, largest = find_family_level(differences, len(differences), 0.05)
    assert largest is not None
    return level


def test_the_level_of_one_arm_against_a_baseline_is_that_of_a_single_comparison():
    assert find_level(np.random.default_rng(0).standard_normal((1, 20))) == pytest.approx(0.05)


def test_nearly_identical_arms_have_almost_the_level_of_one_comparison():
    random = np.random.default_rng(1)
    assert find_level(random.standard_normal(40) + 0.01 * random.standard_normal((9, 40))) > 0.04


def test_independent_arms_have_almost_sidaks_level():
    assert find_level(np.random.default_rng(2).standard_normal((5, 200))) == pytest.approx(sidak(0.05, 5), rel=0.15)


def test_arms_with_a_common_baseline_have_dunnetts_level():
    random = np.random.default_rng(3)
    base, arms = random.standard_normal(400), random.standard_normal((6, 400))
    # Dunnett's two-sided point for six arms and many degrees of freedom is 2.57 (Dunnett, 1964, table III).
    assert stats.norm.ppf(1 - find_level(arms - base) / 2) == pytest.approx(2.57, abs=0.05)


def test_the_level_is_never_below_sidaks():
    # Each arm has four differences of 0 and four of one step: 2 of 256 flips make all residuals of an arm equal.
    rows = [np.roll([0, 0, 0, 0, 1, 1, 1, 1], shift) for shift in range(4)]
    rows += [np.array(row) for row in ([0, 1] * 4, [0, 0, 1, 1] * 2, [0, 1, 1, 0] * 2, [1, 0, 0, 1, 0, 1, 1, 0])]
    assert find_level(STEP * np.array(rows)) == pytest.approx(sidak(0.05, 8))
    arms = {str(index): dict(enumerate(0.9 + STEP * row)) for index, row in enumerate(rows)}
    for contrast in compare_with_baseline(arms | {"base": dict.fromkeys(range(8), 0.9)}, "base", CRITERIA):
        assert contrast.comparison.t_p <= contrast.adjusted_p <= 1 - (1 - contrast.comparison.t_p) ** 8


def test_arms_with_different_seeds_have_sidaks_level():
    arms = draw_arms({"base": 0.0, "a": 0.0, "b": 0.001}, 10)
    del arms["a"][3], arms["b"][5]
    assert {contrast.level for contrast in compare_with_baseline(arms, "base", CRITERIA)} == {sidak(0.05, 2)}


def test_arms_without_a_common_seed_are_left_out():
    arms = {"base": {0: 0.9, 1: 0.91, 2: 0.9}, "a": {0: 0.92, 1: 0.92, 2: 0.93}, "b": {7: 0.9}}
    assert [contrast.first for contrast in compare_with_baseline(arms, "base")] == ["a"]
    assert [(c.first, c.second) for c in compare_all_pairs(arms)] == [("base", "a")]


def test_an_unknown_baseline_is_refused():
    with pytest.raises(InputError, match=r"baseline='c': must be one of a, b"):
        compare_with_baseline({"a": {0: 0.9}, "b": {0: 0.8}}, "c")
