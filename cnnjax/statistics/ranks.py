"""Ranks of arms within each dataset, and tests of whether their mean ranks differ."""

import math
from dataclasses import dataclass

import numpy as np

from cnnjax.errors import InputError
from cnnjax.statistics.paired import round_off

SHUFFLES = 9_999


@dataclass(frozen=True)
class Ranks:
    """Ranks of arms over datasets.

    Attributes:
        mean: mean rank of each arm; 1 is best, equal values share their mean rank.
        statistic: statistic of Friedman's test, corrected for ties; 0 if all arms are equal on every dataset.
        p: p value of Friedman's test: how often random ranks give a statistic at least as large.
        critical_difference: smallest significant difference of two mean ranks, by Nemenyi's test; ``None`` if
            Friedman's test is not significant, because then arms are not compared in pairs.
    """

    mean: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float | None


def rank_arms(values: np.ndarray, alpha: float = 0.05, seed: int = 0) -> Ranks:
    """Compares arms over datasets by Friedman's test and, if it is significant, Nemenyi's critical difference.

    The p value comes from a permutation test, because the chi-squared approximation is poor for few datasets.

    Args:
        values: accuracies, float (datasets, arms), at least 2 x 2; higher is better.
        alpha: level of both tests.
        seed: seed of the permutations.

    Raises:
        InputError: the values have another shape, or one is not finite.

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
    ranks = rankdata([-round_off(row, np.abs(row).max()) for row in values], axis=1)
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
    """Returns Friedman's statistic of many tables of ranks, (tables, datasets, arms)."""
    _, blocks, k = ranks.shape
    between = np.sum((ranks.sum(1) - blocks * (k + 1) / 2) ** 2, axis=1)
    within = np.sum((ranks - (k + 1) / 2) ** 2, axis=(1, 2))
    statistic: np.ndarray = (k - 1) * between / np.where(within, within, 1.0)
    return statistic
