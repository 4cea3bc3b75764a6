"""Simulated studies whose true differences are known, and tables of how often the statistics are wrong about them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

from cnnjax.console.tables import Column, Table, Value
from cnnjax.statistics import (
    Measure,
    Noise,
    estimate_rate,
    plan_looks,
    plan_looks_at_any_time,
    spend,
    split_noise,
)
from cnnjax.statistics.any_time import SCALE, find_levels
from cnnjax.statistics.families import holm, sidak, step_down
from cnnjax.statistics.losses import find_losses
from cnnjax.statistics.paired import least_spread
from cnnjax.statistics.rates import equal_rates_p
from cnnjax.statistics.verdicts import LEAST_SEEDS, MARGIN, Word, half_widths, judge, plan_seeds, survives

STEP = 1e-4
"""Step between accuracies: one of 10,000 test images."""
SPREAD = 0.002
"""Standard deviation of the accuracies of an arm, unless the name of the noise says otherwise."""
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""A function that draws noise of a given shape, in units of `SPREAD`."""


def draw_normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws normal noise."""
    return random.standard_normal(shape)


def draw_heavy(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws noise from Student's t distribution with three degrees of freedom, scaled to unit variance."""
    noise: np.ndarray = random.standard_t(3, shape) / np.sqrt(3)
    return noise


def draw_skewed(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws exponential noise whose long tail is towards low accuracies."""
    return 1 - random.exponential(1, shape)


def draw_wide_skewed(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws the noise of `draw_skewed`, three times as wide."""
    return 3 * draw_skewed(random, shape)


def draw_small(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws normal noise with a standard deviation of half a step, so that many accuracies of an arm are equal."""
    return random.standard_normal(shape) * 0.5 * STEP / SPREAD


def fall(share: float) -> Draw:
    """Returns a function that draws normal noise, with a share of the runs ten standard deviations lower."""

    def draw(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.where(random.random(shape) < share, -10.0, 0.0) + 10 * share + random.standard_normal(shape)

    return draw


RARELY, OFTEN = fall(0.05), fall(0.1)
NOISES: dict[str, tuple[Draw, Draw]] = {
    "normal": (draw_normal, draw_normal),
    "t of 3 degrees": (draw_heavy, draw_heavy),
    "skewed (exponential)": (draw_skewed, draw_skewed),
    "1 run in 20 falls far": (RARELY, RARELY),
    "1 run in 10 falls far": (OFTEN, OFTEN),
    "half a step": (draw_small, draw_small),
    "one arm skewed, three times as wide": (draw_wide_skewed, draw_normal),
    "one arm: 1 run in 20 falls far": (RARELY, draw_normal),
    "one arm: 1 run in 10 falls far": (OFTEN, draw_normal),
}
"""Noise of the first and of the second arm, by its name in the tables."""
FAMILIES: dict[str, tuple[Draw, Draw]] = {
    **{name: draws for name, draws in NOISES.items() if not name.startswith("one arm")},
    "arms skewed": (draw_skewed, draw_normal),
    "base skewed, three times as wide": (draw_normal, draw_wide_skewed),
    "arms: 1 run in 20 falls far": (RARELY, draw_normal),
    "arms: 1 run in 10 falls far": (OFTEN, draw_normal),
    "base: 1 run in 20 falls far": (draw_normal, RARELY),
    "base: 1 run in 10 falls far": (draw_normal, OFTEN),
}
"""Noise of the arms and of their base, by its name in the tables."""


def draw_accuracies(
    random: np.random.Generator, draws: tuple[Draw, Draw], difference: float, correlation: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the accuracies of two arms, float64 (studies, seeds) each, rounded to whole steps.

    Args:
        random: random generator.
        draws: noise of the first and of the second arm.
        difference: true mean of the first arm minus that of the second.
        correlation: correlation of the arms over the seeds, if both are normal.
        shape: (studies, seeds).
    """
    common = draws[1](random, shape)
    arms = (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * draw(random, shape) for draw in draws)
    first, second = (0.97 + SPREAD * arm for arm in arms)
    return np.rint((first + difference) / STEP) * STEP, np.rint(second / STEP) * STEP


def draw_differences(
    random: np.random.Generator, draws: tuple[Draw, Draw], difference: float, correlation: float, shape: tuple[int, int]
) -> np.ndarray:
    """Returns the differences of two arms, (studies, seeds), rounded to whole steps; arguments as `draw_accuracies`."""
    first, second = draw_accuracies(random, draws, difference, correlation, shape)
    differences: np.ndarray = np.rint((first - second) / STEP) * STEP
    return differences


def summarize(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the spread of the differences of every study, as `compare_paired` computes them."""
    return differences.mean(-1), np.maximum(differences.std(-1, ddof=1), least_spread(STEP))


def make_rows(
    situations: Iterable[tuple[Any, ...]], count: Callable[..., Iterable[Any]]
) -> tuple[tuple[Value, ...], ...]:
    """Returns a row for every situation: its values, then the mean of each of its rates.

    Args:
        situations: the values of the first columns, such as the noise and the number of seeds.
        count: returns the rates, each a number, an array of whether something is so in a study, or ``None``; called
            with a random generator and the values of a situation.
    """
    return tuple(
        (
            *situation,
            *(
                None if rate is None else float(np.mean(rate))
                for rate in count(np.random.default_rng(index), *situation)
            ),
        )
        for index, situation in enumerate(situations)
    )


ALPHA, POWER = 0.05, 0.8
SEEDS = (3, 5, 10, 20)
LOOKS = ((3, 24), (5, 40), (10, 40))
FIRST, MOST = 5, 40


def tabulate_verdicts(studies: int) -> Table:
    """Tabulates how often verdicts on two arms are wrong, and how often they are right."""
    columns = (
        Column("noise"),
        Column("correlation", right=True),
        Column("seeds", right=True),
        Column("false better", ".1%", True),
        Column("false worse", ".1%", True),
        Column("interval covers", ".1%", True),
        Column("false equivalent, margin above", ".1%", True),
        Column("false equivalent, margin below", ".1%", True),
        Column("found, twice the margin above", ".1%", True),
        Column("found, twice the margin below", ".1%", True),
        Column("equivalent at no difference", ".1%", True),
    )

    def count(random: np.random.Generator, noise: str, correlation: float, n: int) -> tuple[np.ndarray, ...]:
        def draw(truth: float) -> tuple[np.ndarray, np.ndarray, int]:
            return *summarize(draw_differences(random, NOISES[noise], truth, correlation, (studies, n))), n

        return _judge_truths(draw)

    return Table(columns, make_rows(product(NOISES, (0.0, 0.7), SEEDS), count), "Two arms")


def _judge_truths(
    draw: Callable[[float], tuple[np.ndarray, np.ndarray, np.ndarray | int]],
) -> tuple[np.ndarray, ...]:
    """Judges studies of five true differences, from none to twice the margin above and below.

    Args:
        draw: draws studies of a true difference; returns the mean, the spread and the number of differences of each.

    Returns:
        Whether each study is called better and worse where there is no difference; whether an interval covers;
        equivalent at the margin above and below; better at twice the margin, worse at twice the margin below; and
        equivalent where there is no difference.
    """
    better, worse, same, covered = {}, {}, {}, []
    for times in (0, 1, -1, 2, -2):
        truth = times * MARGIN
        mean, spread, kept = draw(truth)
        halves = half_widths(spread, kept, ALPHA, ALPHA)
        found, equivalent = judge(mean, halves, MARGIN)
        claimed = found & ~equivalent
        better[times], worse[times], same[times] = claimed & (mean > 0), claimed & (mean < 0), equivalent
        covered.append((np.abs(mean - truth) <= halves[0])[np.broadcast_to(kept, mean.shape) >= LEAST_SEEDS])
    return better[0], worse[0], np.concatenate(covered), same[1], same[-1], better[2], worse[-2], same[0]


def tabulate_power(studies: int) -> Table:
    """Tabulates how often the planned number of seeds decides."""
    columns = (
        Column("spread of differences, points", ".2f", True),
        Column("planned seeds", right=True),
        Column("finds the margin", ".1%", True),
        Column("finds no difference equivalent", ".1%", True),
        Column("decides at half the margin", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, spread in enumerate((0.0005, 0.001, 0.002, 0.004)):
        random = np.random.default_rng(index)
        planned = plan_seeds(spread, MARGIN, ALPHA, POWER)
        assert planned is not None
        judged = []
        for difference in (MARGIN, 0.0, MARGIN / 2):
            drawn = np.rint((difference + spread * random.standard_normal((studies, planned))) / STEP) * STEP
            mean, deviation = summarize(drawn)
            judged.append(judge(mean, half_widths(deviation, planned, ALPHA, ALPHA), MARGIN))
        rates = (judged[0][0], judged[1][1], judged[2][0] | judged[2][1])
        rows.append((100 * spread, planned, *(float(np.mean(rate)) for rate in rates)))
    return Table(columns, tuple(rows), f"Seeds planned for a power of {POWER:.0%}, if the spread is known")


def tabulate_pilots(studies: int) -> Table:
    """Tabulates how far a planned number of seeds is off if the spread is estimated from a few seeds."""
    columns = (
        Column("seeds of the pilot", right=True),
        Column("planned seeds, 10% of studies below", right=True),
        Column("10% above", right=True),
        Column("with the true spread", right=True),
    )
    rows: list[tuple[Value, ...]] = []
    spread = np.sqrt(2) * SPREAD
    for pilot in (3, 5, 10, 20):
        drawn = spread * np.random.default_rng(pilot).standard_normal((studies, pilot))
        low, high = np.quantile(drawn.std(1, ddof=1), (0.1, 0.9))
        rows.append((pilot, *(plan_seeds(float(each), MARGIN, ALPHA, POWER) for each in (low, high, spread))))
    return Table(columns, tuple(rows), "Seeds planned by the spread that a pilot has")


def tabulate_looks(studies: int) -> Table:
    """Tabulates how often comparisons at several looks are wrong."""
    columns = (
        Column("noise"),
        Column("looks"),
        Column("false better or worse", ".1%", True),
        Column("false equivalent, margin above", ".1%", True),
        Column("false equivalent, margin below", ".1%", True),
        Column("false better or worse without spending", ".1%", True),
    )
    planned = {", ".join(map(str, looks)): looks for looks in (plan_looks(*each) for each in LOOKS)}
    every = plan_looks_at_any_time(LEAST_SEEDS, MOST, ALPHA)
    at_any_time = {f"at any time, {every[0]} to {every[-1]}": every}

    def count(random: np.random.Generator, noise: str, listed: str) -> tuple[np.ndarray, ...]:
        looks = (planned | at_any_time)[listed]
        levels = _find_levels(looks, ALPHA, at_any_time=listed in at_any_time)
        none, above, below = (
            draw_differences(random, NOISES[noise], times * MARGIN, 0.0, (studies, looks[-1])) for times in (0, 1, -1)
        )
        return (
            _look(none, looks, levels)[0] == DIFFERS,
            _look(above, looks, levels)[0] == SAME,
            _look(below, looks, levels)[0] == SAME,
            _look(none, looks, [(ALPHA, ALPHA)] * len(looks))[0] == DIFFERS,
        )

    situations = [*product(NOISES, planned), *product(NOISES, at_any_time)]
    return Table(columns, make_rows(situations, count), "Looking again with more seeds")


OPEN, DIFFERS, SAME = range(3)


def _find_levels(
    looks: Sequence[int], level: float, at_any_time: bool, scale: float = SCALE
) -> list[tuple[float, float]]:
    """Returns the levels of the tests of difference and of equivalence at each look, for a level of all together."""
    if at_any_time:
        return [find_levels(n, level, scale) for n in looks]
    return [(each, each) for each in spend(looks, level)]


def _look(
    differences: np.ndarray, looks: Sequence[int], levels: Sequence[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the first look that decides has found in each study, and its number of seeds; else that of all."""
    found, seeds = np.full(len(differences), OPEN), np.full(len(differences), looks[-1])
    for n, each in zip(looks, levels, strict=True):
        mean, spread = summarize(differences[:, :n])
        differs, same = judge(mean, half_widths(spread, n, *each), MARGIN)
        is_new = (differs | same) & (found == OPEN)
        found[is_new], seeds[is_new] = np.where(same[is_new], SAME, DIFFERS), n
    return found, seeds


def tabulate_stopping(studies: int) -> Table:
    """Tabulates how many seeds a comparison takes until it is decided, at planned looks and at any time."""
    scales = (SCALE, SCALE / 2, 2 * SCALE)
    columns = (
        Column("comparisons", right=True),
        Column("true difference, points", ".1f", True),
        Column("planned looks: mean seeds", ".1f", True),
        Column("decided", ".1%", True),
        Column("any time: mean seeds", ".1f", True),
        Column("decided", ".1%", True),
        *(Column(f"mean seeds with a scale of {scale:g}", ".1f", True) for scale in scales[1:]),
    )

    def count(random: np.random.Generator, k: int, points: float) -> tuple[np.ndarray, ...]:
        drawn = draw_differences(random, NOISES["normal"], points / 100, 0.0, (studies, MOST))
        drawn[::2] *= -1
        planned, share = plan_looks(FIRST, MOST), ALPHA / k
        plans = [(planned, _find_levels(planned, sidak(ALPHA, k), at_any_time=False))]
        every = tuple(range(FIRST, MOST + 1))
        plans += [(every, _find_levels(every, share, at_any_time=True, scale=scale)) for scale in scales]
        (found, seeds), (found_at_any_time, seeds_at_any_time), *others = (_look(drawn, *plan) for plan in plans)
        decided = found != OPEN, found_at_any_time != OPEN
        return seeds, decided[0], seeds_at_any_time, decided[1], *(of_scale for _, of_scale in others)

    situations = product((1, ARMS), (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0))
    return Table(columns, make_rows(situations, count), f"Seeds until decided, {FIRST} at first and {MOST} at most")


ARMS = 14


def tabulate_families(studies: int) -> Table:
    """Tabulates how often any verdict of a family is wrong; uses half as many studies, because each takes longer."""
    columns = (
        Column("noise"),
        Column("seeds", right=True),
        Column("any false better or worse", ".1%", True),
        Column("all intervals cover", ".1%", True),
        Column("any false equivalent, margin above", ".1%", True),
        Column("any false equivalent, margin below", ".1%", True),
    )

    def count(random: np.random.Generator, noise: str, n: int) -> list[np.ndarray]:
        families = [_draw_family(random, FAMILIES[noise], 0.0, n) for _ in range(max(studies // 2, 1))]
        claimed, missed = np.array([_judge_family(differences) for differences in families]).T
        rates = [claimed, ~missed]
        for truth in (MARGIN, -MARGIN):
            drawn = np.array([_draw_family(random, FAMILIES[noise], truth, n) for _ in range(studies)])
            mean, spread = summarize(drawn)
            _, same = judge(mean, half_widths(spread, n, ALPHA, ALPHA / ARMS), MARGIN)
            rates.append(same.any(1))
        return rates

    title = f"{ARMS} arms of equal means against a base, with spreads from half to three times the base's"
    return Table(columns, make_rows(product(FAMILIES, SEEDS), count), title)


def _draw_family(random: np.random.Generator, draws: tuple[Draw, Draw], difference: float, n: int) -> np.ndarray:
    """Returns the differences of all arms to the base, (arms, seeds), rounded to whole steps."""
    arms = difference + SPREAD * draws[0](random, (ARMS, n)) * np.linspace(0.5, 3, ARMS)[:, None]
    base = SPREAD * draws[1](random, (1, n))
    differences: np.ndarray = (np.rint((0.97 + arms) / STEP) - np.rint((0.97 + base) / STEP)) * STEP
    return differences


def _find_family_level(differences: np.ndarray) -> float:
    """Returns the level of the intervals of a family, which does not depend on its p values."""
    return step_down([None] * ARMS, differences, ARMS, ALPHA)[0]


def _judge_family(differences: np.ndarray) -> tuple[bool, bool]:
    """Returns whether any difference is claimed, and whether any interval misses the true difference, which is zero."""
    mean, spread = summarize(differences)
    level = _find_family_level(differences)
    found, same = judge(mean, half_widths(spread, differences.shape[1], level, ALPHA / ARMS), MARGIN)
    return bool((found & ~same).any()), bool(found.any())


CHANCE = 0.1
LOST = {f"the lowest {share:.0%} of the first arm": share for share in (0.1, 0.23)}
"""Share of the runs that the first arm loses, by its name in the table."""
IMAGES = 400


def tabulate_losses(studies: int) -> Table:
    """Tabulates how often verdicts on two arms are wrong if the first arm loses its lowest runs."""
    columns = (
        Column("runs lost"),
        Column("seeds", right=True),
        Column("completed look better", ".1%", True),
        Column("false better, unqualified", ".1%", True),
        Column("false worse, unqualified", ".1%", True),
        Column("false equivalent, margin below, unqualified", ".1%", True),
        Column("better by 1 point found", ".1%", True),
        Column("of these unqualified", ".1%", True),
    )

    def count(random: np.random.Generator, name: str, n: int) -> tuple[float, ...]:
        said = {truth: _judge_losses(random, truth, LOST[name], (studies, n)) for truth in (0.0, -MARGIN, 0.01)}
        whole = {truth: [word for word, survived in words if survived] for truth, words in said.items()}
        better, far = (sum(word == "better" for word, _ in said[truth]) for truth in (0.0, 0.01))
        return (
            better / studies,
            whole[0.0].count("better") / studies,
            whole[0.0].count("worse") / studies,
            whole[-MARGIN].count("equivalent") / studies,
            far / studies,
            whole[0.01].count("better") / max(far, 1),
        )

    title = "Runs that diverge where they would have ended low"
    return Table(columns, make_rows(product(LOST, SEEDS), count), title)


def _judge_losses(
    random: np.random.Generator, difference: float, share: float, shape: tuple[int, int]
) -> list[tuple[Word, bool]]:
    """Returns the verdict of each study, and whether it survives the worst case of the lost runs."""
    first, second = draw_accuracies(random, (draw_normal, draw_normal), difference, 0.0, shape)
    lost = first < 0.97 + difference + SPREAD * _find_quantile(share)
    return [_judge_one(*study) for study in zip(first, second, lost, strict=True)]


def _find_quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def _judge_one(first: np.ndarray, second: np.ndarray, lost: np.ndarray) -> tuple[Word, bool]:
    differences = np.rint((first - second)[~lost] / STEP) * STEP
    n = len(differences)
    if n < 3:
        return "undecided", True
    mean, spread = differences.mean(), max(differences.std(ddof=1), least_spread(STEP))
    found, same = judge(mean, half_widths(spread, n, ALPHA, ALPHA), MARGIN)
    if not found and not same:
        return "undecided", True
    word: Word = "equivalent" if same else "better" if mean > 0 else "worse"
    outcomes = {
        seed: None if gone else float(value) for seed, (value, gone) in enumerate(zip(first, lost, strict=True))
    }
    losses = find_losses(outcomes, dict(enumerate(map(float, second))), Measure("accuracy", chance=CHANCE))
    return word, survives(word, losses, (ALPHA, ALPHA), MARGIN)


COLLAPSES: dict[str, tuple[float, float]] = {
    "none": (0.0, 0.0),
    "1 in 20 of the first arm": (0.05, 0.0),
    "1 in 10 of the first arm": (0.1, 0.0),
    "3 in 10 of the first arm": (0.3, 0.0),
    "1 in 10 of both": (0.1, 0.1),
    "3 in 10 of both": (0.3, 0.3),
}
"""Probability that a run of the first and of the second arm collapses, by its name in the tables."""


def tabulate_collapses(studies: int) -> Table:
    """Tabulates how often the parts of a result are wrong if runs collapse, whatever they would have been."""
    columns = (
        Column("runs that collapse"),
        Column("seeds", right=True),
        Column("false better", ".1%", True),
        Column("false worse", ".1%", True),
        Column("interval of the typical run covers", ".1%", True),
        Column("false equivalent, margin above", ".1%", True),
        Column("false equivalent, margin below", ".1%", True),
        Column("found, twice the margin above", ".1%", True),
        Column("found, twice the margin below", ".1%", True),
        Column("more reliable", ".1%", True),
        Column("less reliable", ".1%", True),
        Column("interval of the rate covers", ".1%", True),
        Column("interval of all runs' mean covers", ".1%", True),
    )

    def count(random: np.random.Generator, name: str, n: int) -> tuple[Any, ...]:
        shares, all_covered = COLLAPSES[name], []
        stuck: list[np.ndarray] = []

        def draw(truth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            first, second = draw_accuracies(random, NOISES["normal"], truth, 0.0, (studies, n))
            stuck[:] = [random.random((studies, n)) < share for share in shares]
            every = np.where(stuck[0], CHANCE, first) - np.where(stuck[1], CHANCE, second)
            shift = truth - shares[0] * (0.97 + truth - CHANCE) + shares[1] * (0.97 - CHANCE)
            of_all = half_widths(every.std(1, ddof=1), n, ALPHA, ALPHA)[0]
            all_covered.append(np.abs(every.mean(1) - shift) <= of_all)
            return summarize_trained(first - second, stuck[0] | stuck[1])

        *parts, _ = _judge_truths(draw)
        rates = [estimate_rate(collapsed, n) for collapsed in range(n + 1)]
        known = [
            [rates[k].low <= share <= rates[k].high for k in each.sum(1)]
            for each, share in zip(stuck, shares, strict=True)
        ]
        return *parts, *_judge_rates(stuck[0], stuck[1], ALPHA), known, all_covered

    title = "Runs that collapse: the typical run, the rates, and what a mean of all runs says"
    return Table(columns, make_rows(product(COLLAPSES, SEEDS), count), title)


def summarize_trained(differences: np.ndarray, is_left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean and the spread of the differences that count, and their number, of every study.

    Args:
        differences: differences by seed, float64 (..., seeds).
        is_left_out: whether one of the two runs collapsed, bool of the same shape.

    Returns:
        Where fewer than `LEAST_SEEDS` count, the spread is infinite and the number `LEAST_SEEDS`` less one, so nothing
        is decided.
    """
    weights = ~is_left_out
    n = weights.sum(-1)
    steps = np.rint(differences / STEP) * STEP
    mean = (steps * weights).sum(-1) / np.maximum(n, 1)
    squares = (weights * (steps - mean[..., None]) ** 2).sum(-1)
    spread = np.maximum(np.sqrt(squares / np.maximum(n - 1, 1)), least_spread(STEP))
    return mean, np.where(n < LEAST_SEEDS, np.inf, spread), np.maximum(n, LEAST_SEEDS - 1)


def _judge_rates(first: np.ndarray, second: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether the first arm of every study is called more, and whether less reliable; bool (studies, seeds)."""
    n = first.shape[1]
    alone = (first & ~second).sum(1), (second & ~first).sum(1)
    shown = np.array([equal_rates_p(int(a), int(b), n) <= alpha for a, b in zip(*alone, strict=True)])
    return shown & (alone[0] < alone[1]), shown & (alone[0] > alone[1])


GAPS = (1, 3, 10)


def tabulate_gaps(studies: int) -> Table:
    """Tabulates how often the lowest run of an arm is far below the others though all of them trained."""
    columns = (
        Column("noise"),
        Column("seeds", right=True),
        *(Column(f"gap over {times} x the range of the others", ".1%", True) for times in GAPS),
    )

    def count(random: np.random.Generator, noise: str, n: int) -> list[np.ndarray]:
        drawn = np.sort(NOISES[noise][0](random, (studies, n)), axis=1)
        ratio = (drawn[:, 1] - drawn[:, 0]) / (drawn[:, -1] - drawn[:, 1])
        return [ratio > times for times in GAPS]

    situations = product(("normal", "t of 3 degrees", "skewed (exponential)"), SEEDS)
    title = "Why no rule by gaps: the lowest run of an arm of which every run trained"
    return Table(columns, make_rows(situations, count), title)


FAMILY_COLLAPSES: dict[str, tuple[float, float]] = {
    "1 in 20 of every arm": (0.05, 0.05),
    "1 in 10 of every arm": (0.1, 0.1),
    "3 in 10 of every arm": (0.3, 0.3),
    "1 in 10 of the arms": (0.1, 0.0),
    "1 in 10 of the base": (0.0, 0.1),
    "3 in 10 of the base": (0.0, 0.3),
}
"""Probability that a run of an arm and of the base collapses, by its name in the tables."""


def tabulate_family_collapses(studies: int) -> Table:
    """Tabulates how often any part of the results of a family is wrong; uses half as many studies."""
    columns = (
        Column("runs that collapse"),
        Column("seeds", right=True),
        Column("any false better or worse", ".1%", True),
        Column("any false equivalent, margin above", ".1%", True),
        Column("any false equivalent, margin below", ".1%", True),
        Column("any false more or less reliable", ".1%", True),
        Column("any true one", ".1%", True),
    )

    def count(random: np.random.Generator, name: str, n: int) -> np.ndarray:
        shares = FAMILY_COLLAPSES[name]
        return np.array([_judge_collapsing_family(random, shares, n) for _ in range(max(studies // 2, 1))]).T

    title = (
        f"Runs that collapse among {ARMS} arms of equal typical runs, with spreads from half to three times the base's"
    )
    return Table(columns, make_rows(product(FAMILY_COLLAPSES, SEEDS), count), title)


def _judge_collapsing_family(random: np.random.Generator, shares: tuple[float, float], n: int) -> tuple[bool, ...]:
    """Returns whether any claim is made that the columns of `tabulate_family_collapses` name."""
    stuck, base = random.random((ARMS, n)) < shares[0], random.random((1, n)) < shares[1]
    differences, is_left_out = _draw_family(random, (draw_normal, draw_normal), 0.0, n), stuck | base
    mean, spread, kept = summarize_trained(differences, is_left_out)
    level = sidak(ALPHA, ARMS) if is_left_out.any() else _find_family_level(differences)
    halves = half_widths(spread, kept, level, ALPHA / ARMS)
    found, same = judge(mean, halves, MARGIN)
    shifted = [judge(mean + sign * MARGIN, halves, MARGIN)[1] for sign in (1, -1)]
    alone = (stuck & ~base).sum(1), (base & ~stuck).sum(1)
    p = [equal_rates_p(int(a), int(b), n) for a, b in zip(*alone, strict=True)]
    shown = np.array(p) <= holm(p, ALPHA)[0]
    is_true = np.sign(alone[0] - alone[1]) == np.sign(shares[0] - shares[1])
    claims = (found & ~same, *shifted, shown & ~is_true, shown & is_true)
    return tuple(bool(claim.any()) for claim in claims)


def tabulate_images(studies: int) -> Table:
    """Tabulates how often intervals and verdicts for new images are right; an eighth of the studies is resampled."""
    columns = (
        Column("tables of seeds by images"),
        Column("seeds", right=True),
        Column("interval covers", ".1%", True),
        Column(f"as one of {ARMS} covers", ".2%", True),
        Column("bootstrap covers", ".1%", True),
        Column("interval for seeds alone covers", ".1%", True),
        Column("false better", ".1%", True),
        Column("false worse", ".1%", True),
        Column("false equivalent, margin above", ".1%", True),
        Column("false equivalent, margin below", ".1%", True),
    )

    def count(random: np.random.Generator, name: str, n: int) -> tuple[Any, ...]:
        tables = [TABLES[name](random, n) for _ in range(studies)]
        resampled = split_noise(tables[: max(studies // 8, 1)], 1 - ALPHA)
        noises = split_noise(tables, 1 - ALPHA, resample=False)
        halves = [
            _find_halves(noises, confidence) for confidence in (1 - ALPHA, (1 - ALPHA) ** (1 / ARMS), 1 - 2 * ALPHA)
        ]
        means = np.array([noise.mean for noise in noises])
        alone, _ = half_widths(np.array([noise.error_of_seeds for noise in noises]) * np.sqrt(n), n, ALPHA, ALPHA)
        margin = 4 * np.median(halves[0]) / 1.96
        same = [np.abs(means + truth) + halves[2] < margin for truth in (margin, -margin)]
        return (
            np.abs(means) <= halves[0],
            np.abs(means) <= halves[1],
            [noise.bootstrap[0] <= 0 <= noise.bootstrap[1] for noise in resampled if noise.bootstrap],
            np.abs(means) <= alone,
            means > halves[0],
            means < -halves[0],
            *same,
        )

    title = "Intervals and verdicts for new seeds and new images"
    return Table(columns, make_rows(product(TABLES, SEEDS), count), title)


def _find_halves(noises: Sequence[Noise], confidence: float) -> np.ndarray:
    return np.array([noise.interval(confidence)[1] - noise.mean for noise in noises])


def draw_numbers(share: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Returns a function that draws normal tables of seeds by images, with mean zero.

    Args:
        share: part of the variance of the mean of a table that comes from images.
    """

    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        seeds, images, both = (0.8 * (1 - share) * n, share * IMAGES, 0.2 * (1 - share) * n * IMAGES)
        return (
            random.normal(0, np.sqrt(seeds), (n, 1))
            + random.normal(0, np.sqrt(images), (1, IMAGES))
            + random.normal(0, np.sqrt(both), (n, IMAGES))
        )

    return draw


def draw_answers(random: np.random.Generator, n: int) -> np.ndarray:
    """Draws which images two equally good networks classify correctly, 90%, and returns the differences (n, images).

    Images are hard for both networks or for one, seeds are good or bad, and the rest is chance.
    """
    hard, own = random.normal(0, 0.6, IMAGES), random.normal(0, 0.8, (2, 1, IMAGES))
    seeds, rest = random.normal(0, 0.1, (2, n, 1)), random.normal(0, 0.6, (2, n, IMAGES))
    deviation = np.sqrt(0.6**2 + 0.8**2 + 0.1**2 + 0.6**2)
    first, second = hard + own + seeds + rest > deviation * _find_quantile(0.1)
    differences: np.ndarray = first.astype(float) - second
    return differences


TABLES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    **{f"normal, {share:.0%} of the variance from images": draw_numbers(share) for share in (0.0, 0.3, 0.7)},
    "right answers less right answers": draw_answers,
}
"""What tables of seeds by images hold; their true mean over seeds and images is zero."""
