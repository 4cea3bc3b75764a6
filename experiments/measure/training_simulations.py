"""Simulated studies whose training images are drawn anew: how often intervals are right about others."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from cnnjax.console.tables import Column, Table, Value
from cnnjax.statistics import TrainingDraw
from cnnjax.statistics.new_training import half_widths_for_new_training
from cnnjax.statistics.verdicts import MARGIN, half_widths
from experiments.measure.simulations import ALPHA, SEEDS, SPREAD, STEP, summarize

AVAILABLE = 400
"""Number of training images that there are."""
DRAWS = {
    "none: all": None,
    "subset, 1 in 20": TrainingDraw(AVAILABLE // 20, AVAILABLE, with_replacement=False),
    "subset, 1 in 2": TrainingDraw(AVAILABLE // 2, AVAILABLE, with_replacement=False),
    "bootstrap": TrainingDraw(AVAILABLE, AVAILABLE, with_replacement=True),
}
"""How the training images of a seed are drawn, by its name in the table; ``None`` trains on all of them."""
SHARES = (0.0, 0.3, 0.7, 1.0)
_AT_ONCE = 100


def tabulate_training(studies: int) -> Table:
    """Tabulates how often intervals and verdicts are right about other draws, and about new training images."""
    columns = (
        Column("training images"),
        Column("share of the variance", ".0%", True),
        Column("seeds", right=True),
        Column("over seeds: covers other draws", ".1%", True),
        Column("over seeds: covers new images", ".1%", True),
        Column("for new images: covers", ".1%", True),
        Column("false better", ".1%", True),
        Column("false worse", ".1%", True),
        Column("false equivalent, margin above", ".1%", True),
        Column("false equivalent, margin below", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, ((name, draw), share, n) in enumerate(product(DRAWS.items(), SHARES, SEEDS)):
        if draw is None and share == 1:
            continue  # all seeds would be equal
        random = np.random.default_rng(index)
        parts = [draw_studies(random, draw, share, (size, n)) for size in _cut(studies)]
        differences, expected = (np.concatenate(part) for part in zip(*parts, strict=True))
        mean, spread = summarize(differences)
        half, _ = half_widths(spread, n, ALPHA, ALPHA)
        covered = np.abs(mean - expected) <= half, np.abs(mean) <= half
        rates: list[float | None] = [float(each.mean()) for each in covered]
        if draw is None:
            rates += [None] * 5
        else:
            wide, narrow = (half_widths_for_new_training(spread, n, level, draw) for level in (ALPHA, 2 * ALPHA))
            claims = (np.abs(mean) <= wide, mean > wide, mean < -wide)
            same = (np.abs(mean + sign * MARGIN) + narrow < MARGIN for sign in (1, -1))
            rates += [float(np.mean(each)) for each in (*claims, *same)]
        rows.append((name, share, n, *rates))
    title = f"Intervals and verdicts for other training images, drawn from {AVAILABLE}"
    return Table(columns, tuple(rows), title)


def _cut(studies: int) -> Iterator[int]:
    return (min(_AT_ONCE, studies - start) for start in range(0, studies, _AT_ONCE))


def draw_studies(
    random: np.random.Generator, draw: TrainingDraw | None, share: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns differences of two arms that are equal on average over all training images, (studies, seeds).

    Each training image favours one of the arms by chance, and a difference is the mean of what the images of a run do,
    with noise of initialisation and data order.

    Args:
        random: random generator.
        draw: how the training images of a seed are drawn; ``None`` if all seeds have all of them.
        share: part of the variance of a difference, over studies, that comes from the training images.
        shape: (studies, seeds).

    Returns:
        The differences, rounded to whole steps, and their mean over all draws from the training images that a study
        has, (studies,).
    """
    size = AVAILABLE if draw is None else draw.drawn
    favours = random.normal(0, np.sqrt(2 * share * size) * SPREAD, (shape[0], AVAILABLE))
    if draw is None:
        rows = np.broadcast_to(np.arange(AVAILABLE), (*shape, AVAILABLE))
    elif draw.with_replacement:
        rows = random.integers(AVAILABLE, size=(*shape, size))
    else:
        rows = random.random((*shape, AVAILABLE)).argsort(-1)[..., :size]
    trained = np.take_along_axis(favours[:, np.newaxis], rows, -1).mean(-1)
    noise = random.normal(0, np.sqrt(2 * (1 - share)) * SPREAD, shape)
    return np.rint((trained + noise) / STEP) * STEP, favours.mean(1)
