"""Paired comparisons against hand-worked cases and independent implementations, and what verdicts are made of them."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import compare_paired, decide
from cnnjax.statistics.paired import FLIPS, flip_signs, signed_ranks
from cnnjax.statistics.verdicts import plan_seeds, power_of_difference, power_of_equivalence

A, B = [0.9721, 0.9754, 0.9712, 0.9700, 0.9745], [0.9705, 0.9713, 0.9688, 0.9711, 0.9690]
STEP = 1e-4
accuracies = st.lists(st.integers(9000, 9999).map(lambda count: count / 1e4), min_size=3, max_size=11)
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Heights of cross- less self-fertilised maize in eighths of an inch: Fisher, The Design of Experiments, 1935."""


def by_seed(values):
    return dict(enumerate(values))


def compare(first, second, **options):
    return compare_paired(by_seed(first), by_seed(second), **options)


def draw(n, difference=0.0, spread=0.002, seed=0):
    random = np.random.default_rng(seed)
    common = random.normal(0.97, 0.002, n)
    return common + difference + random.normal(0, spread, n), common


class TestByHand:
    def test_three_differences(self):
        comparison = compare([3.0, 5.0, 4.0], [2.0, 3.0, 1.0])  # differences 1, 2, 3
        half = 4.302652729911275 / math.sqrt(3)  # Student's 97.5% quantile of two degrees of freedom
        assert (comparison.n, comparison.mean, comparison.standard_deviation, comparison.spread) == (3, 2.0, 1.0, 1.0)
        assert (comparison.low, comparison.high) == pytest.approx((2 - half, 2 + half))
        # Of the eight flips of (1, 2, 3), only none and all reach a sum of 6.
        assert comparison.sign_flip_p == comparison.least_sign_flip_p == 0.25
        # Of nine pairs, eight are won and one is a tie, 3 and 3.
        assert (comparison.wins, comparison.probability_of_improvement) == (1.0, pytest.approx(8.5 / 9))
        # The mean is two deviations; J(2) = Gamma(1) / (sqrt(1) * Gamma(1/2)) = 0.5642.
        assert comparison.effect_size == pytest.approx(2 / math.sqrt(math.pi))
        assert comparison.bootstrap is None

    def test_five_seeds_cannot_reach_the_usual_level_by_flips_of_signs(self):
        comparison = compare([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
        assert comparison.sign_flip_p == comparison.least_sign_flip_p == comparison.wilcoxon_p == 0.0625

    def test_signed_ranks_with_ties_and_a_zero(self):
        assert signed_ranks(np.array([0.0, 1.0, 1.0, -1.0, 2.0])) == pytest.approx([2, 2, -2, 4])
        # Of the 16 flips of (2, 2, -2, 4), those with a sum of 6 or more in size: 10, three of 6, and their mirrors.
        assert flip_signs(np.array([2.0, 2.0, -2.0, 4.0]), 0) == (0.5, 0.125)

    def test_darwins_maize(self):
        comparison = compare(DARWIN, [0] * 15)
        deviation = comparison.standard_deviation
        assert comparison.mean / (deviation / math.sqrt(15)) == pytest.approx(2.148, abs=5e-4)
        assert comparison.t_p == pytest.approx(0.0497, abs=5e-5)
        assert comparison.sign_flip_p == 1726 / 2**15  # Fisher counts 863 sums as large

    def test_one_seed_has_no_spread(self):
        comparison = compare([0.9], [0.8])
        assert (comparison.standard_deviation, comparison.spread, comparison.low, comparison.t_p) == (None,) * 4
        assert (comparison.effect_size, comparison.correlation, comparison.sign_flip_p) == (None, None, 1.0)

    def test_equal_differences_leave_the_spread_to_their_resolution(self):
        unknown = compare([0.3, 0.7, 0.1], [0.2, 0.6, 0.0])  # in binary fractions these differences are not equal
        assert (unknown.standard_deviation, unknown.spread, unknown.low, unknown.t_p) == (0.0, None, None, None)
        known = compare([0.9701, 0.9702, 0.9703], [0.97, 0.9701, 0.9702], resolution=STEP)
        assert (known.standard_deviation, known.effect_size) == (0.0, None)
        assert known.spread == pytest.approx(STEP / math.sqrt(6))
        assert known.low < STEP < known.high

    def test_no_difference_at_all(self):
        nothing = compare([0.97, 0.98, 0.96, 0.97], [0.97, 0.98, 0.96, 0.97], resolution=STEP)
        assert (nothing.mean, nothing.t_p, nothing.sign_flip_p, nothing.wilcoxon_p) == (0.0, 1.0, 1.0, 1.0)
        assert (nothing.wins, nothing.correlation) == (0.5, pytest.approx(1.0))

    def test_values_that_differ_by_rounding_alone_are_ties(self):
        assert 0.1 + 0.2 != 0.3
        comparison = compare([0.1 + 0.2, 0.5], [0.3, 0.7])
        assert (comparison.wins, comparison.probability_of_improvement) == (0.25, 0.375)  # of 2 seeds; of 4 pairs

    def test_pairs_are_those_of_one_seed_whatever_the_order(self):
        comparison = compare_paired({3: 0.5, 0: 0.9, 1: 0.7}, {1: 0.6, 2: 0.1, 0: 0.8})
        assert (comparison.seeds, comparison.unpaired) == ((0, 1), (2, 3))
        assert comparison.mean == pytest.approx(0.1)


class TestAgainstOthers:
    @settings(max_examples=40)
    @given(accuracies, st.randoms(use_true_random=False))
    def test_interval_and_improvement_agree_with_scipy(self, first, random):
        second = [round(value + random.randint(-30, 30) / 1e4, 4) for value in first]
        comparison = compare(first, second, resolution=STEP)
        steps = np.rint((np.array(first) - second) / STEP)
        if np.ptp(steps):
            test = stats.ttest_1samp(steps * STEP, 0)
            assert comparison.t_p == pytest.approx(test.pvalue, rel=1e-6)
            assert (comparison.low, comparison.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-6)
        exact = stats.permutation_test((steps,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert comparison.sign_flip_p == pytest.approx(exact.pvalue)
        beaten = stats.mannwhitneyu(first, second).statistic / len(first) ** 2
        assert comparison.probability_of_improvement == pytest.approx(beaten)

    def test_the_signed_rank_test_without_ties_is_that_of_scipy(self):
        assert compare(A, B).wilcoxon_p == pytest.approx(stats.wilcoxon(np.round(np.subtract(A, B), 6)).pvalue)

    def test_all_flips_one_by_one(self):
        values = np.array([0.3, -0.1, 0.4, 0.1, -0.5, 0.2, 0.2])
        sums = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=7)]
        assert flip_signs(values, 0)[0] == np.mean(np.array(sums) >= abs(values.sum()) - 1e-9)

    def test_random_flips_are_near_all_of_them(self):
        values = np.concatenate([np.random.default_rng(0).normal(0.3, 1, 18), [0.0] * 5])
        exact, _ = flip_signs(values, 0)
        drawn, least = flip_signs(np.concatenate([values, np.full(4, 1e-12)]), 0)
        assert drawn == pytest.approx(exact, rel=0.05)
        assert least == 1 / (FLIPS + 1)

    def test_the_bootstrap_interval_of_many_values_is_near_students(self):
        comparison = compare(*draw(200, 0.001))
        width = comparison.high - comparison.low
        assert comparison.bootstrap == pytest.approx((comparison.low, comparison.high), abs=0.05 * width)

    @pytest.mark.parametrize("n", [3, 5, 10, 20])
    @pytest.mark.parametrize("difference", [0.0, 0.001, 0.004])
    def test_equivalence_is_that_of_two_one_sided_tests(self, n, difference):
        for seed in range(10):
            a, b = draw(n, difference, 0.001, seed)
            above = stats.ttest_1samp(a - b, -0.002, alternative="greater").pvalue
            below = stats.ttest_1samp(a - b, 0.002, alternative="less").pvalue
            assert (decide(compare(a, b)).word == "equivalent") == (max(above, below) < 0.05)

    @pytest.mark.parametrize(("difference", "n"), [(0.003, 6), (0.002, 18), (0.01, 5)])
    def test_the_power_of_a_difference_is_that_of_the_noncentral_t(self, difference, n):
        shift, critical = difference / 0.004 * math.sqrt(n), stats.t.ppf(0.975, n - 1)
        exact = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
        assert power_of_difference(difference, 0.004, n) == pytest.approx(exact, abs=1e-6)


class TestPower:
    @pytest.mark.parametrize(("difference", "n"), [(0.0, 6), (0.0, 12), (0.001, 20)])
    def test_the_power_of_equivalence_is_how_often_it_is_found(self, difference, n):
        random = np.random.default_rng(0)
        samples = random.normal(difference, 0.002, (40_000, n))
        half = stats.t.ppf(0.95, n - 1) * samples.std(1, ddof=1) / math.sqrt(n)
        share = np.mean(np.abs(samples.mean(1)) + half < 0.002)
        assert power_of_equivalence(difference, 0.002, n, 0.002) == pytest.approx(share, abs=0.01)

    @pytest.mark.parametrize("spread", [0.0005, 0.002, 0.005])
    def test_the_seeds_are_the_fewest_that_are_enough(self, spread):
        needed = plan_seeds(spread, 0.002)
        powers = [
            min(power_of_difference(0.002, spread, n), power_of_equivalence(0.0, spread, n, 0.002))
            for n in (needed - 1, needed)
        ]
        assert powers[1] >= 0.8
        assert needed == 3 or powers[0] < 0.8

    def test_where_no_reasonable_number_is_enough_there_is_none(self):
        assert plan_seeds(1.0, 0.002) is None


class TestVerdicts:
    @pytest.mark.parametrize(
        ("difference", "spread", "word"),
        [(0.01, 0.001, "better"), (-0.01, 0.001, "worse"), (0.0, 0.0005, "equivalent"), (0.002, 0.004, "undecided")],
    )
    def test_each_is_given_for_a_clear_case(self, difference, spread, word):
        assert decide(compare(*draw(8, difference, spread))).word == word

    def test_a_significant_difference_below_the_margin_is_equivalence_and_says_both(self):
        verdict = decide(compare(*draw(20, 0.001, 0.0003)))
        assert verdict.word == "equivalent"
        assert "90% interval" in verdict.reason
        assert "although zero is outside" in verdict.reason

    def test_exchanging_the_arms_exchanges_better_and_worse(self):
        a, b = draw(8, 0.01, 0.001)
        assert (decide(compare(a, b)).word, decide(compare(b, a)).word) == ("better", "worse")

    def test_an_undecided_one_says_how_many_seeds_would_decide_it(self):
        verdict = decide(compare([0.0, 0.003, -0.002, 0.001], [0.0] * 4))
        assert verdict.word == "undecided"
        assert verdict.seeds_needed == plan_seeds(np.std([0.0, 0.003, -0.002, 0.001], ddof=1), 0.002)
        assert f"{verdict.seeds_needed} seeds in all" in verdict.reason
        assert "with 80% probability each, if the spread seen is the true one" in verdict.reason

    def test_seeds_needed_are_never_fewer_than_those_already_run(self):
        comparison = dataclasses.replace(compare(*draw(8, 0.002, 0.004)), spread=0.0019, mean=0.0015)
        assert decide(comparison, power=0.06).seeds_needed == 9

    def test_where_the_margin_is_out_of_reach_it_says_what_is_not(self):
        verdict = decide(compare([0.9, 0.6, 0.75], [0.7] * 3))
        assert verdict.seeds_needed is None
        assert f"{verdict.seeds_for_seen} seeds would find a true difference as large as seen" in verdict.reason
        assert f"40 would decide by a margin of {100 * verdict.decidable_margin:.2g}" in verdict.reason
        again = decide(compare([0.9, 0.6, 0.75], [0.7] * 3), margin=1.0001 * verdict.decidable_margin)
        assert again.seeds_needed == 40

    def test_the_seeds_for_the_difference_seen_find_it(self):
        verdict = decide(compare([0.9, 0.6, 0.75], [0.7] * 3))
        samples = np.random.default_rng(0).normal(0.05, 0.15, (10_000, verdict.seeds_for_seen))
        assert np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.015)

    def test_few_seeds_are_told_to_rest_on_normality(self):
        assert "a sign-flip test gives 0.0625 at best" in decide(compare(A, B)).reason
        assert "normality" not in decide(compare(*draw(6))).reason

    def test_seeds_that_are_left_out_are_told(self):
        first, second = map(by_seed, draw(6))
        assert "left out: 1" in decide(compare_paired(first, {s: v for s, v in second.items() if s != 1})).reason

    @pytest.mark.parametrize("n", [1, 2])
    def test_fewer_than_three_seeds_decide_nothing(self, n):
        assert decide(compare([0.9, 0.91][:n], [0.1, 0.12][:n])).word == "undecided"

    def test_equal_differences_of_unknown_resolution_decide_nothing(self):
        verdict = decide(compare([0.97] * 4, [0.9] * 4))
        assert (verdict.word, "the spread is unknown" in verdict.reason) == ("undecided", True)

    def test_of_no_difference_few_are_called_one(self):
        words = [decide(compare(*draw(5, 0.0, 0.003, seed))).word for seed in range(400)]
        assert np.mean([word in ("better", "worse") for word in words]) < 0.08


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_paired({0: 1.0}, {1: 1.0}), "no seed in common"),
        (lambda: compare([math.nan], [1.0]), r"first\[0\]=nan: must be a finite number"),
        (lambda: compare([1.0], [math.inf]), r"second\[0\]=inf: must be a finite number"),
        (lambda: compare([1.0], [1.0], confidence=1.0), "confidence=1.0"),
        (lambda: compare([1.0], [1.0], resolution=0.0), "resolution=0.0: must be > 0"),
        (lambda: compare([0.97005], [0.97], resolution=STEP), "resolution=0.0001: the differences are no multiples"),
        (lambda: compare([1.0], [1.0], resampling_seed=-1), "resampling_seed=-1"),
        (lambda: decide(compare(A, B), alpha=0.5), "alpha=0.5"),
        (lambda: decide(compare(A, B), margin=0.0), "margin=0.0: must be > 0"),
        (lambda: decide(compare(A, B), power=0.05), r"power=0.05: must be > alpha"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
