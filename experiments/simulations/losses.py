"""Runs that diverge where they would have ended low, and intervals for new images: how often what is said is wrong."""

from itertools import product

import numpy as np

from cnnjax.comparison import split_noise
from cnnjax.comparison.criteria import MARGIN
from cnnjax.comparison.losses import find_losses
from cnnjax.comparison.paired import least_spread
from cnnjax.comparison.verdicts import Word, half_widths, judge, survives
from cnnjax.tables import Column, Table, Value
from experiments.simulations.noises import SPREAD, STEP, draw_accuracies, draw_normal
from experiments.simulations.pairs import ALPHA, SEEDS

CHANCE = 0.1
LOST = (0.1, 0.23)
IMAGES = 400


def tabulate_losses(studies: int) -> Table:
    """Returns how often two arms are misjudged of which the first loses its lowest runs."""
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
    rows: list[tuple[Value, ...]] = []
    for index, (share, n) in enumerate(product(LOST, SEEDS)):
        random = np.random.default_rng(index)
        said = {truth: _judge_losses(random, truth, share, (studies, n)) for truth in (0.0, -MARGIN, 0.01)}
        whole = {truth: [word for word, survived in words if survived] for truth, words in said.items()}
        better, far = (sum(word == "better" for word, _ in said[truth]) for truth in (0.0, 0.01))
        rows.append(
            (
                f"the lowest {share:.0%} of the first arm",
                n,
                better / studies,
                whole[0.0].count("better") / studies,
                whole[0.0].count("worse") / studies,
                whole[-MARGIN].count("equivalent") / studies,
                far / studies,
                whole[0.01].count("better") / max(far, 1),
            )
        )
    return Table(columns, tuple(rows), "Runs that diverge where they would have ended low")


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
    losses = find_losses(outcomes, dict(enumerate(map(float, second))), CHANCE)
    return word, survives(word, losses, (ALPHA, ALPHA), MARGIN)


def tabulate_images(studies: int) -> Table:
    """Returns how often the interval for new seeds and images covers; of an eighth of the studies, as they are slow."""
    columns = (
        Column("share of the variance from images", ".0%", True),
        Column("seeds", right=True),
        Column("interval covers", ".1%", True),
        Column("bootstrap covers", ".1%", True),
        Column("interval for seeds alone covers", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for index, (share, n) in enumerate(product((0.0, 0.3, 0.7), SEEDS)):
        random = np.random.default_rng(index)
        tables = [_draw_table(random, share, n) for _ in range(max(studies // 8, 1))]
        noises = split_noise(tables, 1 - ALPHA)
        means = np.array([table.mean(1) for table in tables])
        alone, _ = half_widths(means.std(1, ddof=1), n, ALPHA, ALPHA)
        rates = (
            [noise.low <= 0 <= noise.high for noise in noises],
            [noise.bootstrap[0] <= 0 <= noise.bootstrap[1] for noise in noises],
            np.abs(means.mean(1)) <= alone,
        )
        rows.append((share, n, *(float(np.mean(rate)) for rate in rates)))
    return Table(columns, tuple(rows), "Intervals for new seeds and new images")


def _draw_table(random: np.random.Generator, share: float, n: int) -> np.ndarray:
    """Returns a table of seeds by images, the variance of whose mean comes from images by a share."""
    seeds, images, both = (0.8 * (1 - share) * n, share * IMAGES, 0.2 * (1 - share) * n * IMAGES)
    return (
        random.normal(0, np.sqrt(seeds), (n, 1))
        + random.normal(0, np.sqrt(images), (1, IMAGES))
        + random.normal(0, np.sqrt(both), (n, IMAGES))
    )
