"""Factorial studies: hand-worked effects, shares of variance against statsmodels, and designs with missing cells."""

import itertools

import numpy as np
import pytest
from scipy import stats

from cnnjax import InputError
from cnnjax.statistics import (
    Criteria,
    Measure,
    adjust_for_size,
    analyze_variance,
    compare_paired,
    estimate_effects,
    split_variance,
)
from cnnjax.statistics.factors import MOST_FACTORS

FACTORS = ("padding", "width")


LABELS = (("v", "s"), ("8", "16", "32"))


def simulate(padding=0.002, width=0.01, interaction=0.0, spread=0.001, n=5, seed=0):
    random = np.random.default_rng(seed)
    common = random.normal(0.97, 0.003, n)
    return {
        cell: {
            index: float(
                common[index]
                + padding * (cell[0] == "s")
                + width * LABELS[1].index(cell[1])
                + interaction * (cell[0] == "s") * LABELS[1].index(cell[1])
                + random.normal(0, spread)
            )
            for index in range(n)
        }
        for cell in itertools.product(*LABELS)
    }


def analyse_by_statsmodels(cells, formula):
    api = pytest.importorskip("statsmodels.formula.api")
    anova = pytest.importorskip("statsmodels.stats.anova")
    pandas = pytest.importorskip("pandas")
    rows = [(*cell, f"s{seed}", value) for cell, values in cells.items() for seed, value in values.items()]
    frame = pandas.DataFrame(rows, columns=[*FACTORS, "seed", "value"])
    return anova.anova_lm(api.ols(formula, frame).fit(), typ=2)


@pytest.mark.parametrize("lost", [(), ((("v", "8"), 0), (("s", "32"), 3), (("s", "16"), 3))])
def test_sums_of_squares_agree_with_statsmodels(lost):
    cells = simulate(interaction=0.001)
    for cell, seed in lost:
        del cells[cell][seed]
    shares = {share.factors: share for share in analyze_variance(FACTORS, cells)}
    table = analyse_by_statsmodels(cells, "value ~ seed + padding * width")
    for factors, row in {("padding",): "padding", ("width",): "width", FACTORS: "padding:width"}.items():
        assert shares[factors].squares == pytest.approx(table["sum_sq"][row])
        assert shares[factors].freedom == table["df"][row]
        assert shares[factors].p == pytest.approx(table["PR(>F)"][row], rel=1e-6)


def test_omega_squared_of_a_hand_worked_case():
    cells = {("a", "x"): {0: 1.0, 1: 2.0}, ("b", "x"): {0: 5.0, 1: 6.5}}
    # One factor that varies: differences 4 and 4.5 of two seeds, so SS 18.0625 of the factor, 0.0625 left, df 1 and 1.
    (share,) = analyze_variance(("f", "g"), cells)
    total = sum((value - 3.625) ** 2 for value in (1.0, 2.0, 5.0, 6.5))
    assert (share.factors, share.freedom, share.squares) == (("f",), 1, pytest.approx(18.0625))
    assert pytest.approx(18.0625 / 0.0625) == share.F
    assert share.omega_squared == pytest.approx((18.0625 - 0.0625) / (total + 0.0625))
    assert share.partial == pytest.approx(288 / (288 + 4))
    assert share.p == pytest.approx(stats.f.sf(289, 1, 1))


def test_the_interval_of_a_share_contains_the_true_share():
    random = np.random.default_rng(0)
    held = []
    for _ in range(200):
        cells = {(label,): {seed: 0.5 * (label == "b") + random.normal() for seed in range(20)} for label in "ab"}
        (share,) = analyze_variance(("f",), cells)
        # Noncentrality 40 * 0.25**2 = 2.5.
        held.append(share.low <= 2.5 / 42.5 <= share.high)
    assert 0.9 <= np.mean(held) <= 0.99


def test_a_design_with_a_missing_cell_still_gives_the_shares_of_its_factors():
    cells = simulate(interaction=0.0)
    del cells["s", "32"]
    shares = {share.factors: share for share in analyze_variance(FACTORS, cells)}
    table = {factors: share.freedom for factors, share in shares.items()}
    assert table == {("width",): 2, ("padding",): 1, FACTORS: 1}
    effects = {effect.name: effect for effect in estimate_effects(FACTORS, cells)}
    assert effects["padding: s - v"].combinations == 2
    assert effects["width: 32 - 8"].combinations == 1


@pytest.mark.parametrize("cells", [{}, {("a", "x"): {0: 1.0}, ("b", "x"): {0: 2.0}}, {("a", "x"): {0: 1.0, 1: 1.0}}])
def test_without_degrees_of_freedom_for_the_error_there_are_no_shares(cells):
    assert analyze_variance(("f", "g"), cells) == ()


def test_a_cell_with_other_labels_is_refused():
    with pytest.raises(InputError, match=r"cells: \('a',\) must have 2 labels, one for each of f, g"):
        analyze_variance(("f", "g"), {("a",): {0: 1.0}})


def test_a_main_effect_is_the_mean_of_its_simple_effects_by_hand():
    cells = {
        ("v", "8"): {0: 0.90, 1: 0.91},
        ("s", "8"): {0: 0.92, 1: 0.92},
        ("v", "16"): {0: 0.94, 1: 0.95},
        ("s", "16"): {0: 0.95, 1: 0.98},
    }
    padding, width = estimate_effects(FACTORS, cells)
    assert padding.name == "padding: s - v"
    # Seed 0: (0.02 + 0.01) / 2; seed 1: (0.01 + 0.03) / 2.
    assert padding.contrast.comparison.differences == pytest.approx((0.015, 0.02))
    assert (padding.combinations, width.name) == (2, "width: 16 - 8")
    (interaction,) = estimate_effects(FACTORS, cells, 2)
    # Seed 0: 0.01 - 0.02; seed 1: 0.03 - 0.01.
    assert interaction.contrast.comparison.differences == pytest.approx((-0.01, 0.02))
    assert interaction.name == "padding: s - v x width: 16 - 8"


def test_effects_are_against_the_references_that_are_given():
    effects = estimate_effects(FACTORS, simulate(), references={"width": "32"})
    assert [effect.name for effect in effects] == ["padding: s - v", "width: 8 - 32", "width: 16 - 32"]
    assert effects[1].contrast.comparison.mean == pytest.approx(-0.02, abs=0.002)


def test_the_effect_in_a_study_of_one_factor_is_the_paired_comparison():
    cells = {("a",): {0: 0.9, 1: 0.92, 2: 0.91}, ("b",): {0: 0.95, 1: 0.94, 2: 0.95}}
    (effect,) = estimate_effects(("f",), cells)
    alone = compare_paired(cells["b",], cells["a",])
    assert effect.contrast.comparison.differences == pytest.approx(alone.differences)
    assert effect.contrast.adjusted_p == pytest.approx(alone.t_p)


def test_an_effect_that_comes_from_size_alone_vanishes_at_equal_size():
    sizes = {
        (padding, width): 1000 * int(width) * factor
        for padding, factors in (("v", (1, 4, 1)), ("s", (3, 1, 5)))
        for width, factor in zip(("8", "16", "32"), factors, strict=True)
    }
    cells = {
        cell: {seed: 0.9 + 0.01 * float(np.log10(size)) + 0.003 * (cell[0] == "s") + 0.001 * seed for seed in range(4)}
        for cell, size in sizes.items()
    }
    padding, *widths = adjust_for_size(FACTORS, cells, sizes)
    assert (padding.first, padding.second) == ("padding=s", "padding=v")
    assert padding.comparison.mean == pytest.approx(0.003)
    assert [width.comparison.mean for width in widths] == pytest.approx([0, 0], abs=1e-9)


def test_effects_are_not_adjusted_if_the_levels_almost_determine_the_size():
    sizes = {cell: 1000 * int(cell[1]) * (2 if cell[0] == "s" else 1) for cell in itertools.product(*LABELS)}
    cells = simulate()
    assert adjust_for_size(FACTORS, cells, sizes) == ()
    assert (
        adjust_for_size(FACTORS, cells, {cell: size + 50 * index for index, (cell, size) in enumerate(sizes.items())})
        == ()
    )


def test_the_spread_of_an_effect_is_at_least_that_of_rounding():
    cells = {cell: dict.fromkeys(range(3), 0.9) for cell in itertools.product(*LABELS)}
    padding, *_ = estimate_effects(FACTORS, cells, criteria=Criteria(measure=Measure("f1", resolution=1e-4)))
    assert padding.contrast.comparison.spread == pytest.approx(1e-4 / np.sqrt(6 * 3))
    interaction, *_ = estimate_effects(FACTORS, cells, 2, criteria=Criteria(measure=Measure("f1", resolution=1e-4)))
    assert interaction.contrast.comparison.spread == pytest.approx(1e-4 * np.sqrt(4 / 12))


@pytest.mark.parametrize("resolution", [None, 1e-4])
def test_an_interaction_of_nothing_is_exactly_zero(resolution):
    gains = np.random.default_rng(0).integers(1, 5000, (4, 5)) * 1e-4
    cells = {(a, b): dict(enumerate(gains[a] + gains[b])) for a, b in itertools.product((0, 1), (2, 3))}
    first, second, third, fourth = (np.array([*values.values()]) for values in cells.values())
    assert (first - second - third + fourth).any()
    named = {(f"a{a}", f"b{b}"): values for (a, b), values in cells.items()}
    criteria = Criteria(measure=Measure("loss", is_share=False, resolution=resolution))
    (interaction,) = estimate_effects(("a", "b"), named, 2, criteria=criteria)
    assert interaction.contrast.comparison.differences == (0,) * 5
    assert interaction.contrast.comparison.probability_of_improvement == 0.5


def test_effects_that_tie_with_zero_count_half_at_equal_size():
    random = np.random.default_rng(0)
    sizes = dict(zip(itertools.product("vs", ("8", "16")), (1000, 3000, 4000, 2000), strict=True))
    gains = [0.1, 0.0, 0.0, 0.0, -0.1]  # of one level: it is better at one seed, and equal at three
    base = random.random(5)
    cells = {cell: dict(enumerate(base + (cell[0] == "s") * np.array(gains))) for cell in sizes}
    padding, width = adjust_for_size(("padding", "width"), cells, sizes)
    assert (padding.comparison.wins, padding.comparison.probability_of_improvement) == (0.5, 0.5)
    assert width.comparison.differences == (0,) * 5


def test_all_levels_of_a_factor_are_compared_over_the_combinations_that_they_share():
    # Strides 3 exist for width 8 alone, where strides 2 do less than elsewhere.
    gains = {("1", "8"): 0.0, ("1", "16"): 0.0, ("2", "8"): -0.01, ("2", "16"): -0.05, ("3", "8"): -0.02}
    cells = {cell: {seed: 0.9 + gain + 0.001 * seed for seed in range(5)} for cell, gain in gains.items()}
    two, three, width = estimate_effects(
        ("strides", "width"), cells, criteria=Criteria(measure=Measure("f1", resolution=1e-3))
    )
    assert [each.contrast.comparison.mean for each in (two, three)] == pytest.approx([-0.01, -0.02])
    assert (two.combinations, two.possible, two.is_common) == (three.combinations, three.possible, True) == (1, 2, True)
    # Width has one level beside its reference, and so all combinations that have both.
    assert (width.combinations, width.possible) == (2, 3)


def test_levels_without_a_common_combination_are_marked():
    gains = {("1", "8"): 0.0, ("1", "16"): 0.0, ("2", "8"): -0.01, ("3", "16"): -0.02}
    cells = {cell: {seed: 0.9 + gain + 0.001 * seed for seed in range(5)} for cell, gain in gains.items()}
    criteria = Criteria(measure=Measure("f1", resolution=1e-3))
    found = estimate_effects(("strides", "width"), cells, criteria=criteria)
    effects = [each for each in found if "strides" in each.factors]
    assert [(each.is_common, each.combinations) for each in effects] == [(False, 1), (False, 1)]


def share_over_all_orders(factors, cells):
    """What each source adds, averaged over all orders of the sources, each model fitted by least squares."""
    rows = [(cell, seed, value) for cell, values in cells.items() for seed, value in values.items()]
    values = np.array([value for *_, value in rows])

    def explain(sources):
        chosen = [index for index in range(len(factors)) if index in sources]
        groups = [*itertools.combinations(chosen, 2)] if len(chosen) > 1 else [chosen] * len(chosen)
        keyed = [[tuple(cell[index] for index in group) for cell, *_ in rows] for group in groups]
        keyed += [[seed for _, seed, _ in rows]] * ("seed" in sources)
        columns = [[float(key == level) for key in column] for column in keyed for level in set(column)]
        matrix = np.array([np.ones(len(rows)), *columns]).T
        left = values - matrix @ np.linalg.lstsq(matrix, values, rcond=None)[0]
        return 1 - float(left @ left / np.sum((values - values.mean()) ** 2))

    sources = [*range(len(factors)), "seed"]
    shares = dict.fromkeys(sources, 0.0)
    orders = list(itertools.permutations(sources))
    for order in orders:
        for place, source in enumerate(order):
            shares[source] += (explain(order[: place + 1]) - explain(order[:place])) / len(orders)
    return [shares[source] for source in sources]


@pytest.mark.parametrize("lost", [(), [("s", "32")], [("s", "8"), ("v", "16")]])
def test_shares_of_the_variance_are_means_over_all_orders(lost):
    cells = {cell: values for cell, values in simulate(interaction=0.004, spread=0.004).items() if cell not in lost}
    del next(iter(cells.values()))[3]
    split = split_variance(FACTORS, cells)
    assert [*split.factors.values(), split.seeds] == pytest.approx(share_over_all_orders(FACTORS, cells))
    assert sum(split.factors.values()) + split.seeds + split.rest == pytest.approx(1)


def test_in_a_full_grid_the_interactions_are_divided_among_their_factors():
    random = np.random.default_rng(0)
    grid = itertools.product("ab", "cde", "fg")
    cells = {cell: dict(enumerate(random.normal(len(set("adf") & set(cell)), 1, 4))) for cell in grid}
    factors = ("x", "y", "z")
    total = np.var([value for values in cells.values() for value in values.values()]) * len(cells) * 4
    squares = {share.factors: share.squares / total for share in analyze_variance(factors, cells)}
    split = split_variance(factors, cells)
    for factor in factors:
        halves = sum(each / 2 for names, each in squares.items() if len(names) == 2 and factor in names)
        assert split.factors[factor] == pytest.approx(squares[factor,] + halves)


def test_without_variance_or_with_too_many_factors_there_is_nothing_to_divide():
    assert split_variance(("f",), {("a",): {0: 0.9, 1: 0.9}, ("b",): {0: 0.9}}) is None
    assert split_variance(("f",), {("a",): {}}) is None
    many = MOST_FACTORS + 1
    assert split_variance(tuple(map(str, range(many))), {("a",) * many: {0: 0.1}, ("b",) * many: {0: 0.2}}) is None


def test_a_cell_that_lost_nearly_all_its_runs_does_not_take_the_seeds_from_the_others():
    cells = simulate()
    for seed in (1, 2, 3, 4):
        cells["s", "16"][seed] = None
    padding, sixteen, thirty_two = estimate_effects(FACTORS, cells)
    assert (padding.combinations, padding.contrast.comparison.n, padding.contrast.verdict.word) == (2, 5, "better")
    # The widths are compared where all of them are: with the padding that kept its runs.
    assert [(each.combinations, each.contrast.comparison.n) for each in (sixteen, thirty_two)] == [(1, 5), (1, 5)]
    (first, second) = estimate_effects(FACTORS, cells, 2)
    assert (first.contrast.comparison.n, second.contrast.comparison.n) == (1, 5)


IMAGES = 1000
SHARES = Criteria(measure=Measure("f1", resolution=1 / IMAGES))


def count_right(odds, seeds=5, spread=0.0):
    """Returns cells of two factors whose log-odds are given, with a common shift by seed and whole counts of images."""
    shifts = np.linspace(-0.3, 0.3, seeds)
    noise = np.random.default_rng(0).normal(0, spread, (len(odds), seeds))
    return {
        cell: {
            seed: float(np.rint(IMAGES / (1 + np.exp(-value - shifts[seed] - noise[number, seed])))) / IMAGES
            for seed in range(seeds)
        }
        for number, (cell, value) in enumerate(odds.items())
    }


def test_an_interaction_in_log_odds_by_hand():
    counts = {("v", "8"): 900, ("s", "8"): 950, ("v", "16"): 990, ("s", "16"): 1000}
    cells = {cell: {0: right / IMAGES, 1: right / IMAGES} for cell, right in counts.items()}
    (found,) = estimate_effects(FACTORS, cells, 2, criteria=SHARES)
    odds = {cell: np.log((right + 0.5) / (IMAGES - right + 0.5)) for cell, right in counts.items()}
    expected = odds["s", "16"] - odds["v", "16"] - odds["s", "8"] + odds["v", "8"]
    assert found.log_odds.difference == pytest.approx(expected)
    # Of two seeds that agree, the spread is what rounding may hide: 1 / sqrt(12) images, by the slope of the log-odds.
    slopes = [1 / (right + 0.5) + 1 / (IMAGES - right + 0.5) for right in counts.values()]
    error = np.sqrt(np.sum(np.square(slopes)) / 12 / 2)
    assert found.log_odds.high - expected == pytest.approx(stats.t.ppf(0.975, 1) * error)
    assert found.log_odds.word == "undecided"  # two seeds decide nothing


def test_an_interaction_that_comes_from_the_ceiling_alone_is_none_in_log_odds():
    odds = {("v", "8"): 1.0, ("s", "8"): 2.0, ("v", "16"): 4.0, ("s", "16"): 5.0}
    (found,) = estimate_effects(FACTORS, count_right(odds, spread=0.05), 2, criteria=SHARES)
    assert found.contrast.verdict.label == "depends"
    assert (found.log_odds.word, found.log_odds.difference) == ("undecided", pytest.approx(0, abs=0.2))


@pytest.mark.parametrize(("last", "word"), [(2.0, "depends"), (5.5, "reversed")])
def test_an_interaction_may_hold_or_turn_round_in_log_odds(last, word):
    odds = {("v", "8"): 1.0, ("s", "8"): 2.0, ("v", "16"): 4.0, ("s", "16"): last}
    (found,) = estimate_effects(FACTORS, count_right(odds, 8, spread=0.05), 2, criteria=SHARES)
    assert found.contrast.comparison.mean < -0.05
    assert found.log_odds.word == word


def test_there_are_no_log_odds_of_certainty_without_a_number_of_images_nor_of_losses():
    cells = count_right({("v", "8"): 1.0, ("s", "8"): 2.0, ("v", "16"): 2.0, ("s", "16"): 4.0})
    unknown = Criteria(measure=Measure("f1"))
    (found,) = estimate_effects(FACTORS, cells, 2, criteria=unknown)
    assert found.log_odds is not None
    cells["s", "16"][0] = 1.0
    (found,) = estimate_effects(FACTORS, cells, 2, criteria=unknown)
    assert found.log_odds is None
    (found,) = estimate_effects(FACTORS, cells, 2, criteria=Criteria(measure=Measure("loss", is_share=False)))
    assert found.log_odds is None
    assert all(effect.log_odds is None for effect in estimate_effects(FACTORS, cells, criteria=SHARES))
