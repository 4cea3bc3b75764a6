"""Families of comparisons against hand-worked cases, SciPy and statsmodels, and what holds for any numbers."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import Criteria, Measure, compare_all_pairs, compare_paired, compare_with_baseline
from cnnjax.statistics.families import FLIPS, holm, sidak, step_down

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
            found = contrast.comparison.t_p < contrast.verdict_level
            assert found == (contrast.adjusted_p < 0.05) or abs(contrast.adjusted_p - 0.05) < 0.002
            assert contrast.verdict.word in (
                ("better", "worse", "equivalent") if found else ("equivalent", "undecided")
            )
            outside = contrast.low > 0 or contrast.high < 0
            assert outside == (contrast.comparison.t_p < contrast.level)
            if contrast.verdict.word in ("better", "worse"):
                assert contrast.verdict.by_step_down == (not outside)


@pytest.mark.parametrize("seed", range(20))
def test_stepping_down_agrees_with_statsmodels(seed):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(seed).uniform(0, 0.1, 7) ** 1.5
    rejected, adjusted, *_ = multitest.multipletests(p_values, 0.05, method="holm-sidak")
    first, levels, ours = step_down(list(p_values), None, 7, 0.05)
    assert first == sidak(0.05, 7)
    assert ours == pytest.approx(list(adjusted))
    assert [p <= level for p, level in zip(p_values, levels, strict=True)] == list(rejected)


@pytest.mark.parametrize("n", [5, 12])
def test_stepping_down_claims_what_every_family_that_holds_the_comparison_claims(n):
    """Closed testing (Marcus, Peritz and Gabriel 1976): every set of arms is tested as a family of its own."""
    claims = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        means = np.array([0.0, 1.0, 1.5, 2.5, -1.0])[:, None]
        differences = means + random.normal(0, 1, (5, n)) + random.normal(0, 1, n)
        p = stats.ttest_1samp(differences, 0, axis=1).pvalue
        sets = [list(each) for size in range(1, 6) for each in itertools.combinations(range(5), size)]
        levels = {tuple(each): find_level(differences[each]) for each in sets}
        is_rejected = {each: p[list(each)].min() <= level for each, level in levels.items()}
        closed = [all(found for each, found in is_rejected.items() if arm in each) for arm in range(5)]
        first, ours, adjusted = step_down(list(p), differences, 5, 0.05)
        assert [value <= level for value, level in zip(p, ours, strict=True)] == closed
        assert [value <= 0.05 for value in adjusted] == closed or min(abs(np.array(adjusted) - 0.05)) < 2 / FLIPS**0.5
        claims += sum(closed) - sum(p <= first)
    assert claims > 0  # more than by intervals alone


def test_a_difference_found_by_stepping_down_says_so_and_keeps_its_interval():
    base = dict(enumerate([0.9000, 0.9010, 0.9020, 0.9005, 0.9015]))
    far = {seed: value + 0.02 + 0.0001 * (seed - 2) for seed, value in base.items()}
    near = {seed: base[seed] + gain for seed, gain in enumerate((0.003, 0.001, 0.006, 0.005, 0.0105))}
    arms = {"base": base, "far": far, "near": near}
    clear, stepped = compare_with_baseline(arms, "base", dataclasses.replace(CRITERIA, margin=0.001))
    assert (clear.verdict.label, clear.verdict.by_step_down, clear.level) == ("better", False, sidak(0.05, 2))
    assert (stepped.verdict.word, stepped.verdict.label) == ("better", "better; found step by step")
    assert (stepped.level, stepped.verdict_level) == (sidak(0.05, 2), pytest.approx(0.05))
    assert stepped.low < 0 < stepped.high
    assert "holds zero together with all others" in stepped.verdict.reason
    # Without the clear difference beside it, it is not found.
    (_, alone) = compare_with_baseline(arms | {"far": base}, "base", CRITERIA)
    assert alone.verdict.word == "undecided"


def test_the_worst_case_of_lost_runs_is_judged_at_the_level_of_the_interval():
    measure = Measure("accuracy", resolution=STEP, chance=0.1)
    base = dict(enumerate([0.9400, 0.9410, 0.9420, 0.9405, 0.9415]))
    far, near = (
        {seed: base[seed] + gain for seed, gain in enumerate(gains)}
        for gains in ((0.02, 0.0201, 0.0202, 0.0201, 0.02), (0.003, 0.002, 0.006, 0.005, 0.0095))
    )
    # The base lost a run that may have been as good as the best one, which both arms have at that seed.
    arms = {"base": base | {5: None}, "far": far | {5: max(far.values())}, "near": near | {5: max(near.values())}}
    clear, found = compare_with_baseline(arms, "base", Criteria(measure=measure))
    worst = [near[seed] - base[seed] for seed in base] + [0.0]
    assert sidak(0.05, 2) < stats.ttest_1samp(worst, 0).pvalue < 0.05 == pytest.approx(found.verdict_level)
    assert clear.verdict.survives_losses
    assert (found.verdict.survives_losses, found.verdict.restriction) == (False, "of the runs that completed")


def test_simultaneous_intervals_are_wider_and_have_one_level():
    arms = draw_arms({"base": 0.0, "a": 0.0, "b": 0.001, "c": -0.002}, 5)
    contrasts = compare_with_baseline(arms, "base", CRITERIA)
    assert [contrast.first for contrast in contrasts] == ["a", "b", "c"]
    assert {contrast.level for contrast in contrasts} == {sidak(0.05, 3)}
    for contrast in contrasts:
        assert contrast.high - contrast.low > contrast.comparison.high - contrast.comparison.low
        assert "as one of 3 comparisons" in contrast.verdict.reason


def find_level(differences):
    """The level of a family, which no p value changes."""
    return step_down([None] * len(differences), differences, len(differences), 0.05)[0]


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
