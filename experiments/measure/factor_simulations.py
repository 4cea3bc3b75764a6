"""Simulated studies of several factors whose true effects are known, and how often claims about them are wrong."""

from itertools import product

import numpy as np

from cnnjax.console.tables import Column, Table
from cnnjax.statistics.verdicts import MARGIN, half_widths, judge
from experiments.measure.simulations import ALPHA, SEEDS, STEP, make_rows

CEILINGS = (0.9, 0.97, 0.995)
"""Accuracies of the cell with both reference levels."""
CHANGE, INTERACTION, NOISE = 0.7, 0.3, 0.06
"""Log-odds: what each factor does, an interaction, and the standard deviation of a run (0.17 points at 97%)."""


def tabulate_interactions(studies: int) -> Table:
    """Tabulates how often two factors that add up in log-odds are said to depend, in points and in log-odds."""
    columns = (
        Column("accuracy", ".1%", True),
        Column("both factors"),
        Column("seeds", right=True),
        Column("depends in points", ".1%", True),
        Column("false: depends in log-odds", ".1%", True),
        Column("interaction covers", ".1%", True),
        Column("found in log-odds, above", ".1%", True),
        Column("found in log-odds, below", ".1%", True),
    )

    def count(random: np.random.Generator, accuracy: float, factors: str, n: int) -> tuple[np.ndarray, ...]:
        judged = {}
        for truth in (0.0, INTERACTION, -INTERACTION):
            cells = draw_cells(random, accuracy, CHANGE if factors == "improve" else -CHANGE, truth, (studies, n))
            points, odds = combine(cells), combine(find_log_odds(cells))
            found = judge(points.mean(1), half_widths(points.std(1, ddof=1), n, ALPHA, ALPHA), MARGIN)
            half, _ = half_widths(odds.std(1, ddof=1), n, ALPHA, ALPHA)
            judged[truth] = found[0] & ~found[1], odds.mean(1), half
        means, halves = (np.array([judged[truth][place] for truth in judged]) for place in (1, 2))
        return (
            judged[0.0][0],
            np.abs(means[0]) > halves[0],
            np.abs(means - np.array([list(judged)]).T) <= halves,
            means[1] > halves[1],
            means[2] < -halves[2],
        )

    title = "Two factors whose effects add up in log-odds, and so depend in points"
    return Table(columns, make_rows(product(CEILINGS, ("improve", "worsen"), SEEDS), count), title)


def draw_cells(
    random: np.random.Generator, accuracy: float, change: float, interaction: float, shape: tuple[int, int]
) -> np.ndarray:
    """Returns accuracies of the cells of two factors of two levels, float64 (2, 2, studies, seeds), in whole steps.

    Args:
        random: random generator.
        accuracy: accuracy of the cell with both reference levels.
        change: what the other level of each factor adds in log-odds.
        interaction: what both other levels together add beyond.
        shape: (studies, seeds).
    """
    odds = np.log(accuracy / (1 - accuracy)) + change * np.array([[0.0, 1.0], [1.0, 2.0]])
    odds[1, 1] += interaction
    drawn = odds[..., None, None] + NOISE * random.standard_normal((2, 2, *shape))
    cells: np.ndarray = np.rint(1 / (1 + np.exp(-drawn)) / STEP) * STEP
    return cells


def find_log_odds(cells: np.ndarray) -> np.ndarray:
    """Returns the log-odds of accuracies, as interactions are compared by."""
    odds: np.ndarray = np.log((cells + STEP / 2) / (1 - cells + STEP / 2))
    return odds


def combine(cells: np.ndarray) -> np.ndarray:
    """Returns the interaction of every study and seed."""
    interaction: np.ndarray = cells[1, 1] - cells[1, 0] - cells[0, 1] + cells[0, 0]
    return interaction
