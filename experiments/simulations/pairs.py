"""Two arms: how often verdicts and intervals are wrong, whatever the noise and whichever way the arms differ."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from cnnjax.comparison import plan_looks, spend
from cnnjax.comparison.criteria import MARGIN
from cnnjax.comparison.power import plan_seeds
from cnnjax.comparison.verdicts import half_widths, judge
from cnnjax.tables import Column, Table, Value
from experiments.simulations.noises import NOISES, SPREAD, STEP, draw_differences, summarize

ALPHA, POWER = 0.05, 0.8
SEEDS = (3, 5, 10, 20)
LOOKS = ((3, 24), (5, 40), (10, 40))


def tabulate_verdicts(studies: int) -> Table:
    """Returns the rates at which verdicts of two arms are wrong, and right."""
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
    rows: list[tuple[Value, ...]] = []
    for index, (noise, correlation, n) in enumerate(product(NOISES, (0.0, 0.7), SEEDS)):
        random = np.random.default_rng(index)
        better, worse, same, covered = {}, {}, {}, []
        for times in (0, 1, -1, 2, -2):
            truth = times * MARGIN
            mean, spread = summarize(draw_differences(random, NOISES[noise], truth, correlation, (studies, n)))
            halves = half_widths(spread, n, ALPHA, ALPHA)
            found, equivalent = judge(mean, halves, MARGIN)
            claimed = found & ~equivalent
            better[times], worse[times], same[times] = claimed & (mean > 0), claimed & (mean < 0), equivalent
            covered.append(np.abs(mean - truth) <= halves[0])
        rates = (better[0], worse[0], np.array(covered), same[1], same[-1], better[2], worse[-2], same[0])
        rows.append((noise, correlation, n, *(float(np.mean(rate)) for rate in rates)))
    return Table(columns, tuple(rows), "Two arms")


def tabulate_power(studies: int) -> Table:
    """Returns how often the planned seeds decide."""
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
    """Returns how far a plan by the spread of a few seeds is off."""
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
    """Returns how often looking again with more seeds is wrong."""
    columns = (
        Column("noise"),
        Column("looks"),
        Column("false better or worse", ".1%", True),
        Column("false equivalent, margin above", ".1%", True),
        Column("false equivalent, margin below", ".1%", True),
        Column("false better or worse without spending", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, (noise, (first, most)) in enumerate(product(NOISES, LOOKS)):
        random = np.random.default_rng(index)
        looks = plan_looks(first, most)
        levels = spend(looks, ALPHA)
        none, above, below = (
            draw_differences(random, NOISES[noise], times * MARGIN, 0.0, (studies, most)) for times in (0, 1, -1)
        )
        rates = (
            _look(none, looks, levels)[0],
            _look(above, looks, levels)[1],
            _look(below, looks, levels)[1],
            _look(none, looks, (ALPHA,) * len(looks))[0],
        )
        rows.append((noise, ", ".join(map(str, looks)), *rates))
    return Table(columns, tuple(rows), "Looking again with more seeds")


def _look(differences: np.ndarray, looks: tuple[int, ...], levels: tuple[float, ...]) -> tuple[float, float]:
    """Returns how often the first look that decides finds a difference, and how often equivalence."""
    decided = np.zeros(len(differences), bool)
    rates = np.zeros(2)
    for found, same in _judge_looks(differences, looks, levels):
        rates += np.sum(found & ~same & ~decided), np.sum(same & ~decided)
        decided |= found | same
    return float(rates[0] / len(decided)), float(rates[1] / len(decided))


def _judge_looks(
    differences: np.ndarray, looks: tuple[int, ...], levels: tuple[float, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for n, level in zip(looks, levels, strict=True):
        mean, spread = summarize(differences[:, :n])
        yield judge(mean, half_widths(spread, n, level, level), MARGIN)
