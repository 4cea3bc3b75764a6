"""Arms ranked within datasets: does one do better on most of them?"""

import math
from dataclasses import dataclass

import numpy as np

from cnnjax.errors import InputError

SHUFFLES = 9_999


@dataclass(frozen=True)
class Ranks:
    """Ranks of arms over datasets.

    Attributes:
        mean: mean rank of each arm; 1 is best, equal values share their mean rank.
        statistic: of Friedman's test, corrected for ties; 0 where all values of every dataset are equal.
        p: how often ranks at random give a statistic as large.
        critical_difference: of two mean ranks, by Nemenyi's test at the level asked for; ``None`` where Friedman's test
            does not reject at that level, for then no two arms are compared.
    """

    mean: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float | None


def rank_arms(values: np.ndarray, alpha: float = 0.05, seed: int = 0) -> Ranks:
    """Ranks arms by Friedman's test, with Nemenyi's critical difference where it finds that they differ.

    The p value is of a permutation test, as the chi-squared distribution is a poor approximation for few datasets.

    Args:
        values: (datasets, arms), the higher the better; at least 2 x 2.
        alpha: level of both tests.
        seed: of the permutations.

    Raises:
        InputError: the values are not of that form.

    Example:
        >>> rank_arms(np.array([[0.97, 0.95, 0.90], [0.88, 0.86, 0.80]])).mean
        (1.0, 2.0, 3.0)

    References:
        Friedman, "The use of ranks to avoid the assumption of normality", 1937; Nemenyi, Distribution-free multiple
        comparisons, 1963; Demsar, "Statistical comparisons of classifiers over multiple data sets", 2006.
    """
    from scipy.stats import rankdata, studentized_range

    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise InputError(f"values: must be finite (datasets, arms), at least 2 x 2, not of shape {values.shape}")
    blocks, k = values.shape
    ranks = rankdata(-values, axis=1)
    statistic = _friedman(ranks[None])[0]
    shuffled = np.random.default_rng(seed).permuted(np.broadcast_to(ranks, (SHUFFLES, blocks, k)), axis=2)
    p = float((np.count_nonzero(_friedman(shuffled) >= statistic - 1e-9) + 1) / (SHUFFLES + 1))
    quantile = float(studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return Ranks(
        tuple(map(float, ranks.mean(0))),
        float(statistic),
        p,
        quantile * math.sqrt(k * (k + 1) / (6 * blocks)) if p <= alpha else None,
    )


def _friedman(ranks: np.ndarray) -> np.ndarray:
    """Returns the statistic for each of many tables of ranks, (tables, blocks, arms)."""
    _, blocks, k = ranks.shape
    between = np.sum((ranks.sum(1) - blocks * (k + 1) / 2) ** 2, axis=1)
    within = np.sum((ranks - (k + 1) / 2) ** 2, axis=(1, 2))
    statistic: np.ndarray = (k - 1) * between / np.where(within, within, 1.0)
    return statistic
