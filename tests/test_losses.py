"""Lost runs: their worst case in hand-worked comparisons, and the qualification of claims that depend on them."""

import math
import re

import numpy as np
import pytest
from scipy.stats import binom

from cnnjax.statistics import (
    Criteria,
    Measure,
    compare_all_pairs,
    compare_in_looks,
    compare_with_baseline,
    estimate_effects,
)
from cnnjax.statistics.families import holm, sidak
from cnnjax.statistics.losses import Losses, RunCounts, count_runs, find_collapsed, find_losses, mark_collapsed

STEP = 1e-4
MEASURE = Measure("accuracy", resolution=STEP, chance=0.1)
MNIST = Measure("accuracy", resolution=STEP, chance=0.1135)


def draw(mean, n=10, spread=0.0004, seed=0):
    random = np.random.default_rng(seed)
    return {index: float(np.rint((0.97 + mean + random.normal(0, spread)) / STEP) * STEP) for index in range(n)}


def lose(outcomes, seeds):
    return outcomes | dict.fromkeys(seeds)


def collapse(outcomes, seeds, value=0.1):
    return outcomes | dict.fromkeys(seeds, value)


def contrast(first, second, measure=MEASURE):
    arms = {"first": first, "second": second}
    (found,) = compare_with_baseline(arms, "second", Criteria(measure=measure))
    return found


def test_the_worst_case_of_a_hand_worked_comparison():
    # Seed 1 is lost by the first, seed 2 by the second, seed 3 by both; seed 4 has not ended on one side.
    first = {0: 0.9, 1: None, 2: 0.8, 3: None, 4: 0.9}
    second = {0: 0.7, 1: 0.6, 2: None, 3: None}
    losses = find_losses(first, second, MEASURE)
    assert (losses.first, losses.second) == (RunCounts(3, 2), RunCounts(2, 2))
    assert losses.lowest == pytest.approx((0.2, 0.1 - 0.6, 0.8 - 0.9, 0.1 - 0.9))
    assert losses.highest == pytest.approx((0.2, 0.9 - 0.6, 0.8 - 0.1, 0.9 - 0.1))


def make_runs(counts, images=10_000):
    return {seed: count / images for seed, count in enumerate(counts)}


def test_a_run_is_at_chance_unless_a_binomial_test_shows_that_it_is_better():
    # Of 10,000 images 1,135 have the most frequent class: the answer of a network that learned nothing.
    limit = int(binom.isf(0.001, 10_000, 0.1135))
    counts = count_runs([make_runs([980, 1135, limit, limit + 2, 9700])], MNIST)
    assert (counts.completed, counts.at_chance) == (5, 3)
    errors = {seed: 1 - value for seed, value in make_runs([980, 1135, limit, limit + 2, 9700]).items()}
    assert count_runs([errors], Measure("error", higher_is_better=False, resolution=STEP, chance=0.8865)) == counts


def test_arms_that_learn_nothing_are_not_equivalent():
    stuck = make_runs([1135, 1135, 1135, 980, 1135])
    arms = {"a": stuck, "b": make_runs([1135] * 5), "base": make_runs([1135] * 5), "good": make_runs([9700] * 5)}
    found = {c.first: c.verdict for c in compare_with_baseline(arms, "base", Criteria(measure=MNIST))}
    assert (found["b"].word, found["b"].label, found["b"].seeds_needed) == (
        "undecided",
        "undecided; both at chance",
        None,
    )
    assert found["a"].label == "undecided; both at chance"
    assert found["good"].word == "better"
    seeds = range(10)
    (looked,) = compare_in_looks(
        {"a": make_runs([1135] * 10), "base": make_runs([1135] * 10)},
        "base",
        {"a": seeds, "base": seeds},
        seeds,
        (5, 10),
        Criteria(measure=MNIST),
    )
    assert (looked.verdict.label, looked.comparison.n, looked.verdict.seeds_needed) == (
        "undecided; both at chance",
        5,
        None,
    )


@pytest.mark.parametrize("value", [math.nan, 0.1, 0.098])
def test_a_run_that_diverged_and_one_at_chance_are_the_same_to_every_verdict(value):
    found = contrast(collapse(draw(0.004), [3], value), draw(0.0, seed=1))
    expected = contrast(collapse(draw(0.004), [3], math.nan), draw(0.0, seed=1))
    assert found == expected
    assert (found.first_runs.trained, found.first_runs.collapsed, found.first_runs.failed) == (9, 1, 0)


def test_the_typical_run_is_compared_over_the_seeds_at_which_both_arms_trained():
    whole = contrast(draw(0.004), draw(0.0, seed=1))
    found = contrast(collapse(draw(0.004), [3]), collapse(draw(0.0, seed=1), [7]))
    assert found.comparison.seeds == (0, 1, 2, 4, 5, 6, 8, 9)
    kept = [whole.comparison.differences[seed] for seed in found.comparison.seeds]
    assert found.comparison.mean == pytest.approx(np.mean(kept))
    assert (found.rates.first.collapsed, found.rates.first.runs, found.rates.second.collapsed) == (1, 10, 1)


def test_a_failed_run_says_nothing_of_the_rate_at_which_runs_collapse():
    found = contrast(collapse(lose(draw(0.004), [0]), [3]), draw(0.0, seed=1))
    assert (found.rates.first.collapsed, found.rates.first.runs) == (1, 9)
    assert (found.first_runs.lost, found.first_runs.failed) == (2, 1)
    assert find_collapsed({0: None, 1: 0.1, 2: math.nan, 3: 0.97}, MEASURE) == {1: True, 2: True, 3: False}


def test_without_what_guessing_reaches_only_runs_that_diverged_collapse():
    loss = Measure("loss", is_share=False, higher_is_better=False)
    assert find_collapsed({0: 2.3, 1: math.nan, 2: 0.1}, loss) == {0: False, 1: True, 2: False}
    with_chance = Measure("loss", is_share=False, higher_is_better=False, chance=2.3)
    assert find_collapsed({0: 2.3, 1: math.nan, 2: 0.1}, with_chance) == {0: True, 1: True, 2: False}


def test_marking_what_collapsed_twice_changes_nothing_and_keeps_an_arm_that_never_trained():
    once = mark_collapsed({0: 0.97, 1: 0.1, 2: None}, MEASURE)
    assert math.isnan(once[1])
    assert str(mark_collapsed(once, MEASURE)) == str(once)
    assert mark_collapsed({0: 0.1, 1: 0.098}, MEASURE) == {0: 0.1, 1: 0.098}


N = 20


@pytest.mark.parametrize(
    ("gain", "first", "second", "label"),
    [
        (0.006, 1, 0, "better of the runs that trained (19 of 20)"),
        (0.006, 0, 10, "better and more reliable"),
        (0.006, 3, 15, "undecided; more reliable"),
        (0.006, 2, 12, "better of the runs that trained (18 of 20 against 8 of 20) and more reliable"),
        (0.006, 12, 2, "better of the runs that trained (8 of 20 against 18 of 20) but less reliable"),
        (-0.006, 12, 2, "worse of the runs that trained (8 of 20 against 18 of 20) and less reliable"),
        (-0.006, 2, 12, "worse of the runs that trained (18 of 20 against 8 of 20) but more reliable"),
        (0.0, 1, 0, "equivalent of the runs that trained (19 of 20)"),
        (0.0, 12, 2, "equivalent of the runs that trained (8 of 20 against 18 of 20) and less reliable"),
    ],
)
def test_verdicts_on_the_typical_run_and_on_the_rates_are_said_in_few_words(gain, first, second, label):
    sides = collapse(draw(gain, N), range(first)), collapse(draw(0.0, N, seed=1), range(N - second, N))
    found = contrast(*sides).verdict
    assert found.label == label
    assert found.in_short == re.sub(r" \(.*?\)", "", label)


def test_an_arm_that_never_trained_is_worse_than_one_that_did():
    never, good = dict.fromkeys(range(5), 0.1), draw(0.0, 5)
    found = contrast(never, good)
    assert (found.verdict.word, found.verdict.label) == ("worse", "worse; never trained")
    assert contrast(good, never).verdict.label == "better; the other never trained"
    assert found.rates.p == pytest.approx(2 * 0.5**5)  # so five seeds alone do not show that it is less reliable


def test_few_trained_runs_decide_nothing_but_the_rates():
    found = contrast(collapse(draw(0.004, N), range(2, N)), draw(0.0, N, seed=1)).verdict
    assert (found.word, found.label) == ("undecided", "undecided; less reliable")
    assert found.reason.startswith("2 seeds at which both arms trained tell too little")
    assert "collapsed 18 of 20 against 0 of 20" in found.reason


def test_looks_and_effects_leave_collapsed_runs_to_the_rates():
    arms = {"base": draw(0.0), "a": collapse(draw(0.006, seed=1), [2])}
    (looked,) = compare_in_looks(
        arms, "base", dict.fromkeys(arms, range(10)), range(10), (10,), Criteria(measure=MEASURE)
    )
    assert looked.verdict.label == "better of the runs that trained (9 of 10)"
    cells = {("a",): arms["a"], ("base",): arms["base"]}
    (effect,) = estimate_effects(("f",), cells, references={"f": "base"}, criteria=Criteria(measure=MEASURE))
    assert effect.contrast.comparison.differences == looked.comparison.differences
    assert (effect.contrast.verdict.label, effect.contrast.rates) == (looked.verdict.label, None)


def test_rates_are_compared_at_the_level_of_the_family():
    stable, wild = draw(0.0, N), collapse(draw(0.0, N, seed=1), range(6))
    (alone,) = compare_all_pairs({"a": stable, "b": wild}, Criteria(measure=MEASURE))
    assert (alone.verdict.reliability, alone.rates.p < 0.05) == ("more reliable", True)
    several = {f"c{index}": draw(0.0, N, seed=2 + index) for index in range(8)}
    compared = compare_with_baseline({"a": stable, "b": wild} | several, "a", Criteria(measure=MEASURE))
    assert compared[0].rates == compare_with_baseline({"a": stable, "b": wild}, "a", Criteria(measure=MEASURE))[0].rates
    assert compared[0].verdict.reliability == ""


def test_without_losses_there_is_no_worst_case():
    losses = find_losses({0: 0.9}, {0: 0.8}, MEASURE)
    assert losses == Losses(RunCounts(1, 0), RunCounts(1, 0), rates=losses.rates)
    assert str(count_runs([{0: 0.9, 1: None}, {0: None}], MEASURE)) == "1 of 3"


@pytest.mark.parametrize("lost", [1, 5])
def test_an_arm_that_lost_runs_is_called_better_only_of_the_runs_that_completed(lost):
    found = contrast(lose(draw(0.004), range(lost)), draw(0.0, seed=1))
    assert (found.first_runs, found.second_runs) == (RunCounts(10 - lost, lost), RunCounts(10, 0))
    assert (found.verdict.word, found.verdict.survives_losses) == ("better", False)
    assert found.verdict.label.startswith(f"better of the runs that completed ({10 - lost} of 10)")


def test_exchanging_the_arms_exchanges_the_verdict():
    found = contrast(draw(0.0, seed=1), lose(draw(0.004), range(5)))
    assert (found.verdict.word, found.verdict.survives_losses) == ("worse", False)
    assert "worse of the runs that completed (10 of 10 against 5 of 10)" in found.verdict.label


def test_a_claim_that_holds_in_the_worst_case_is_made_without_a_qualification():
    # The first lost nothing; the lost run of the second counts as the best one seen, and the difference is large.
    found = contrast(draw(0.02), lose(draw(0.0, seed=1), [3]))
    assert (found.verdict.label, found.verdict.survives_losses) == ("better", True)
    # Against an arm near chance one lost run of ten does not matter.
    poor = {seed: round(value - 0.8, 4) for seed, value in draw(0.0, seed=1).items()}
    assert contrast(lose(draw(0.0), [3]), poor).verdict.label == "better"


@pytest.mark.parametrize("side", [0, 1])
def test_equivalence_with_a_lost_run_is_claimed_only_of_the_runs_that_completed(side):
    sides = [draw(0.0), draw(0.0, seed=1)]
    assert contrast(*sides).verdict.label == "equivalent"
    sides[side] = lose(sides[side], [0])
    found = contrast(*sides)
    assert (found.verdict.word, found.verdict.survives_losses) == ("equivalent", False)


def test_equal_arms_of_which_one_loses_its_low_runs_are_not_called_better():
    claims = []
    for study in range(200):
        first, second = (draw(0.0, spread=0.002, seed=2 * study + side) for side in (0, 1))
        low = [seed for seed, value in first.items() if value < 0.97 - 0.74 * 0.002]
        verdict = contrast(lose(first, low), second).verdict
        claims.append((verdict.word == "better", verdict.word == "better" and verdict.survives_losses))
    words, whole = np.mean(claims, axis=0)
    assert words > 0.05  # so often the runs that completed look better
    assert whole <= 0.02


def test_an_arm_without_any_run_counts_in_the_size_of_the_family():
    arms = {"base": draw(0.0), "a": draw(0.001, seed=1), "b": lose({}, range(10)), "c": {}}
    (only,) = compare_with_baseline(arms, "base", Criteria(measure=MEASURE))
    assert only.level == sidak(0.05, 3)
    assert only.adjusted_p == pytest.approx(1 - (1 - only.comparison.t_p) ** 3)
    assert "as one of 3 comparisons" in only.verdict.reason
    (pair,) = compare_all_pairs(arms, Criteria(measure=MEASURE))
    assert pair.level == holm([pair.comparison.t_p, *[None] * 5], 0.05)[0][0]
    assert pair.equivalence_level == holm([pair.equivalence_p, *[None] * 5], 0.05)[0][0]
    ended = {name: set(range(10)) for name in arms}
    (looked,) = compare_in_looks(arms, "base", ended, range(10), (10,), Criteria(measure=MEASURE))
    assert looked.level == pytest.approx(sidak(0.05, 3))


def test_claims_at_a_look_are_qualified_too():
    arms = {"base": draw(0.0), "a": lose(draw(0.004, seed=1), [2])}
    (found,) = compare_in_looks(
        arms, "base", dict.fromkeys(arms, range(10)), range(10), (10,), Criteria(measure=MEASURE)
    )
    assert (found.verdict.word, found.verdict.survives_losses, found.first_runs) == ("better", False, RunCounts(9, 1))


def test_effects_count_the_runs_of_their_cells_and_check_their_claims_in_the_worst_case():
    cells = {
        (padding, width): draw(0.004 * (padding == "same"), seed=index)
        for index, (padding, width) in enumerate([("valid", "8"), ("valid", "16"), ("same", "8"), ("same", "16")])
    }
    whole = estimate_effects(("padding", "width"), cells, criteria=Criteria(measure=MEASURE))[0].contrast
    assert (whole.verdict.word, whole.verdict.survives_losses) == ("better", True)
    cells["same", "16"] = lose(cells["same", "16"], [0])
    found = estimate_effects(("padding", "width"), cells, criteria=Criteria(measure=MEASURE))[0].contrast
    assert (found.first_runs, found.second_runs) == (RunCounts(19, 1), RunCounts(20, 0))
    assert (found.verdict.word, found.verdict.survives_losses, found.comparison.n) == ("better", False, 9)
    cells["same", "16"] = lose(cells["same", "16"], range(10))  # the mean is over the other width alone
    padding, width = estimate_effects(("padding", "width"), cells, criteria=Criteria(measure=MEASURE))
    assert (padding.combinations, padding.possible, padding.contrast.verdict.survives_losses) == (1, 2, False)
    assert padding.contrast.first_runs == RunCounts(10, 10)
    assert padding.contrast.level == holm([padding.contrast.comparison.t_p, width.contrast.comparison.t_p], 0.05)[0][0]


def test_an_effect_that_cannot_be_estimated_counts_in_the_family():
    labels = [("valid", "8"), ("same", "8"), ("valid", "16"), ("same", "16")]
    cells = {cell: draw(0.0, seed=index) for index, cell in enumerate(labels)}
    cells["valid", "16"] = cells["same", "16"] = {}
    (only,) = estimate_effects(("padding", "width"), cells, criteria=Criteria(measure=MEASURE))
    assert only.contrast.level == pytest.approx(0.05 / 2)


def test_an_interaction_depends_and_is_neither_better_nor_worse():
    cells = {
        (a, b): draw(0.004 * (a == "y" and b == "v"), seed=index)
        for index, (a, b) in enumerate([("x", "u"), ("x", "v"), ("y", "u"), ("y", "v")])
    }
    (found,) = estimate_effects(("a", "b"), cells, 2, criteria=Criteria(measure=MEASURE))
    assert (found.contrast.verdict.word, found.contrast.verdict.label.split(";")[0]) == ("better", "depends")


def test_a_difference_not_shown_to_exceed_the_margin_says_so():
    near, far = contrast(draw(0.0022), draw(0.0, seed=1)), contrast(draw(0.006), draw(0.0, seed=1))
    assert (near.verdict.word, near.verdict.label) == ("better", "better; by more than 0.2 not shown")
    assert near.low < 0.002
    assert far.verdict.label == "better"
    assert far.low > 0.002


def test_an_equivalence_rests_on_the_interval_of_its_tests():
    found = contrast(draw(0.0), draw(0.0, seed=1))
    assert found.verdict.word == "equivalent"
    assert found.decisive_interval == found.comparison.interval(1 - 2 * found.equivalence_level)
    assert max(map(abs, found.decisive_interval)) < 0.002
    other = contrast(draw(0.006), draw(0.0, seed=1))
    assert other.decisive_interval == (other.low, other.high)
