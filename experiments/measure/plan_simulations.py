"""Simulated pilots and studies: how often the figures of plans are right."""

import math
from itertools import product
from typing import Any

import numpy as np

from cnnjax.console.tables import Column, Table, Value
from cnnjax.statistics.families import sidak
from cnnjax.statistics.planning import estimate_spread, squeeze_groups, trace_power
from experiments.measure.simulations import ALPHA, make_rows

PILOTS = ((1, 9), (2, 5), (3, 5), (8, 5), (20, 3))
"""Numbers of configurations and of seeds of a pilot."""
FAMILY = 20
"""Number of comparisons of a study with a baseline."""


def tabulate_found(studies: int) -> Table:
    """Tabulates how often true differences of both signs are found in a family, and how large they look where they are.

    There are fifty times as many studies, because a weak test finds few of them.
    """
    columns = (
        Column("comparisons", right=True),
        Column("seeds", right=True),
        Column("true difference, in standard deviations", "+.1f", True),
        Column("planned power", ".2%", True),
        Column("found", ".2%", True),
        Column("planned exaggeration", ".2f", True),
        Column("times as large where found", ".2f", True),
    )

    def count(random: np.random.Generator, k: int, n: int, difference: float) -> tuple[Any, ...]:
        drawn = random.normal(difference, 1.0, (50 * studies, n))
        means, errors = drawn.mean(1), drawn.std(1, ddof=1) / math.sqrt(n)
        found = np.abs(means) > _find_critical(n, sidak(ALPHA, k)) * errors
        (point,) = trace_power([difference], 1.0, n, sidak(ALPHA, k))
        seen = np.abs(means[found] / difference) if found.any() else None
        return point.power, found, point.exaggeration, seen

    situations = product((1, FAMILY), (3, 5, 10), (0.5, -0.5, 1.5, -1.5))
    title = "What plans say of a true difference, at the level of the family"
    return Table(columns, make_rows(situations, count), title)


def _find_critical(n: int, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - level / 2))


def tabulate_spreads(studies: int) -> Table:
    """Tabulates how often the interval of a pilot's spread is right, and how far spreads are off by empirical Bayes."""
    columns = (
        Column("configurations", right=True),
        Column("seeds", right=True),
        Column("true spreads"),
        Column("80% interval of the typical spread covers", ".1%", True),
        Column("the true one is lower", ".1%", True),
        Column("higher", ".1%", True),
        Column("a spread is off by a factor of", ".2f", True),
        Column("by empirical Bayes", ".2f", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, ((groups, n), prior) in enumerate(product(PILOTS, (math.inf, 8.0, 3.0))):
        random = np.random.default_rng(index)
        ends, raw, squeezed = [], [], []
        for _ in range(studies):
            true = np.ones(groups) if math.isinf(prior) else prior / random.chisquare(prior, groups)
            drawn = random.normal(0, 1, (groups, n)) * np.sqrt(true)[:, None]
            spread, variances = estimate_spread(drawn), squeeze_groups([*drawn])
            assert spread is not None
            assert variances is not None
            low, high = spread.interval()
            typical = math.sqrt(float(np.median(true)))
            ends.append((low <= typical <= high, typical < low, typical > high))
            raw.append(np.log(drawn.var(1, ddof=1) / true))
            squeezed.append(np.log(np.array(variances.variances) / true))
        off = (math.exp(float(np.sqrt(np.mean(np.square(each)))) / 2) for each in (raw, squeezed))
        kind = "equal" if math.isinf(prior) else f"inverse chi² of {prior:g} degrees"
        rows.append((groups, n, kind, *map(float, np.mean(ends, 0)), *off))
    return Table(columns, tuple(rows), "The spread that a pilot has, and the interval that plans give it")
