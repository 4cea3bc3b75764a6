"""Simulated studies over several datasets: how often intervals and verdicts are right, about these and about others."""

from itertools import product

import numpy as np

from cnnjax.console.tables import Column, Table
from cnnjax.statistics.datasets import half_widths_for_other_datasets
from cnnjax.statistics.verdicts import MARGIN, half_widths
from experiments.measure.simulations import ALPHA, SPREAD, STEP, make_rows, summarize

DATASETS = (2, 3, 5, 10)
SEEDS = (3, 10)
BETWEEN = {"none": 0.0, "that of the seeds": np.sqrt(2) * SPREAD, "five times that": 5 * np.sqrt(2) * SPREAD}
"""Standard deviation of the true differences between datasets, by its name in the table."""
CORRELATIONS = (0.0, 0.5)
"""Of the differences of a seed on any two datasets."""


def tabulate_datasets(studies: int) -> Table:
    """Tabulates how often intervals and verdicts are right about the average, and about other datasets."""
    columns = (
        Column("datasets", right=True),
        Column("seeds", right=True),
        Column("spread between datasets"),
        Column("correlation", right=True),
        Column("average over these: covers", ".1%", True),
        Column("for other datasets: covers", ".1%", True),
        Column("false better", ".1%", True),
        Column("false worse", ".1%", True),
        Column("false equivalent, margin above", ".1%", True),
        Column("false equivalent, margin below", ".1%", True),
    )

    def count(random: np.random.Generator, sets: int, n: int, name: str, correlation: float) -> tuple[np.ndarray, ...]:
        true = random.normal(0, BETWEEN[name], (studies, sets, 1))
        common, own = (random.normal(0, np.sqrt(2) * SPREAD, (studies, rows, n)) for rows in (1, sets))
        noise = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        differences = np.rint((true + noise) / STEP) * STEP
        mean, spread = summarize(differences.mean(1))
        halves = half_widths(spread, n, ALPHA, ALPHA)
        between_means = differences.mean(-1).std(-1, ddof=1)
        wide, narrow = (
            half_widths_for_other_datasets(between_means, sets, half, level)
            for level, half in zip((ALPHA, 2 * ALPHA), halves, strict=True)
        )
        covered = np.abs(mean - true.mean((1, 2))) <= halves[0]
        claims = (covered, np.abs(mean) <= wide, mean > wide, mean < -wide)
        same = (np.abs(mean + sign * MARGIN) + narrow < MARGIN for sign in (1, -1))
        return *claims, *same

    situations = product(DATASETS, SEEDS, BETWEEN, CORRELATIONS)
    return Table(columns, make_rows(situations, count), "Intervals and verdicts over several datasets")
