"""Simulated comparisons whose true difference may be any, and how often what was said to be probable is so."""

from itertools import pairwise, product

import numpy as np
from scipy.special import stdtr

from cnnjax.console.tables import Column, Table
from cnnjax.statistics.verdicts import MARGIN, half_widths, judge
from experiments.measure.simulations import ALPHA, NOISES, SEEDS, SPREAD, STEP, draw_accuracies, make_rows, summarize

WIDEST = 0.01
"""True differences are drawn from minus to plus this one, all alike."""
BINS = tuple(pairwise((0.0, 0.2, 0.4, 0.6, 0.8, 1.0)))


def tabulate_posteriors(studies: int) -> Table:
    """Tabulates how often the truth is within the margin where that is given a probability; undecided ones alone."""
    columns = (
        Column("noise"),
        Column("seeds", right=True),
        *(Column(f"said to be within in {low:.0%} to {high:.0%}: it is", ".1%", True) for low, high in BINS),
    )

    def count(random: np.random.Generator, noise: str, n: int) -> list[np.ndarray | None]:
        truths = random.uniform(-WIDEST, WIDEST, 20 * studies)
        first, second = draw_accuracies(random, NOISES[noise], 0.0, 0.0, (len(truths), n))
        mean, spread = summarize(np.rint((first - second + truths[:, None]) / STEP) * STEP)
        found, same = judge(mean, half_widths(spread, n, ALPHA, ALPHA), MARGIN)
        error = spread / np.sqrt(n)
        within = stdtr(n - 1, (MARGIN - mean) / error) - stdtr(n - 1, (-MARGIN - mean) / error)
        is_within = np.abs(truths) <= MARGIN
        parts = [~found & ~same & (within >= low) & (within < high) for low, high in BINS]
        return [is_within[part] if part.sum() >= studies / 10 else None for part in parts]

    title = f"Undecided comparisons: the probability that the difference is within ±{100 * MARGIN:g} points"
    rows = make_rows(product(("normal", "t of 3 degrees"), SEEDS), count)
    return Table(columns, rows, f"{title}; the spread of a run is {100 * SPREAD:g} points")
