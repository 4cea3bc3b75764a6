"""Tests and intervals that resample the differences themselves instead of trusting a distribution."""

import numpy as np

ALL_FLIPS = 20
"""Up to so many nonzero values all ``2**n`` flips of signs are tried."""
FLIPS, RESAMPLES = 99_999, 9_999
"""Drawn at random where there are more; resamples of the bootstrap."""
LEAST_FOR_BOOTSTRAP = 10
"""Of fewer values the interval would cover far less than it says: three have ten different resamples."""


def flip_signs(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Returns the two-sided p value of the sign-flip permutation test, and the least that so many values can give.

    The p value is the share of all flips of the signs whose sum is at least as far from zero. Zeros have no sign.

    Args:
        values: differences or signed ranks, float64 (n,); sums that differ by rounding alone count as equal.
        seed: of the flips, where not all are tried.

    References:
        Fisher, The Design of Experiments, 1935, section 21; Phipson and Smyth, "Permutation p-values should never be
        zero", 2010.
    """
    nonzero = values[values != 0]
    tolerance = 1e-9 * np.abs(values).max(initial=0.0)
    reached = abs(nonzero.sum()) - tolerance
    if len(nonzero) <= ALL_FLIPS:
        sums = np.zeros(1)
        for value in nonzero[1:]:  # the sign of the first one stays: the other half mirrors this one
            sums = np.concatenate([sums + value, sums - value])
        sums = sums + nonzero[:1].sum()
        return float(np.mean(np.abs(sums) >= reached)), 2.0 ** (1 - max(len(nonzero), 1))
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (FLIPS, len(nonzero)))
    count = np.count_nonzero(np.abs(signs @ nonzero) >= reached) + 1  # the values as they are, which is a flip, too
    return float(count / (FLIPS + 1)), max(2.0 ** (1 - len(nonzero)), 1 / (FLIPS + 1))


def signed_ranks(values: np.ndarray) -> np.ndarray:
    """Returns the ranks of the sizes of the nonzero values, with their signs; equal sizes share the mean rank.

    References:
        Wilcoxon, "Individual comparisons by ranking methods", 1945.
    """
    from scipy.stats import rankdata

    nonzero = values[values != 0]
    ranks: np.ndarray = np.sign(nonzero) * rankdata(np.abs(nonzero))
    return ranks


def bootstrap_mean(values: np.ndarray, confidence: float, seed: int) -> tuple[float, float] | None:
    """Returns the bias-corrected and accelerated bootstrap interval of the mean; ``None`` where it would mislead.

    References:
        Efron, "Better bootstrap confidence intervals", 1987.
    """
    from scipy.stats import bootstrap

    if len(values) < LEAST_FOR_BOOTSTRAP or not np.ptp(values):
        return None
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
