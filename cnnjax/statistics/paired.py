"""Two arms with common seeds: the differences by seed, their mean, tests of significance, and intervals.

Tests that assume a normal distribution stand beside tests that resample the differences.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cnnjax.errors import InputError
from cnnjax.settings.checking import Interval, check
from cnnjax.statistics.estimates import rounding_deviation

ALL_FLIPS = 20
"""Most nonzero values of which all ``2**n`` flips of signs are tried."""
FLIPS, RESAMPLES = 99_999, 9_999
"""Flips drawn at random for more values, and resamples of the bootstrap."""
LEAST_FOR_BOOTSTRAP = 10
"""Fewest values for a bootstrap: intervals of fewer cover far less than they say, as three have ten resamples."""
SIGNIFICANT = 12
"""Digits to which differences are rounded without a resolution, so that equal ones are equal."""


@dataclass(frozen=True)
class PairedComparison:
    """What is known of the mean difference between two arms, first less second.

    Attributes:
        seeds: of the pairs.
        unpaired: seeds that one of the arms alone has a value for, which are left out.
        differences: first less second, for each of `seeds`.
        mean: of the differences.
        standard_deviation: of the differences, with ``n - 1`` in the denominator; ``None`` for one pair.
        spread: the standard deviation that interval and t test go by: no less than the resolution of the values allows;
            ``None`` for one pair, and where all differences are equal and no resolution is given.
        low, high: Student's interval of the mean; ``None`` without a spread.
        t_p: two-sided p value of the paired t test, the one that verdicts go by; ``None`` without a spread.
        sign_flip_p: two-sided p value of the sign-flip permutation test.
        least_sign_flip_p: the smallest that these pairs can give.
        wilcoxon_p: two-sided p value of the signed-rank test, by flips of the signs.
        bootstrap: bias-corrected and accelerated bootstrap interval of the mean; ``None`` for fewer than ten pairs.
        effect_size: mean over standard deviation of the differences, corrected for few pairs (``d_z``), which depends
            on the pairing; ``None`` for fewer than three pairs and without a spread.
        correlation: of the two arms over the seeds; ``None`` for fewer than three pairs, or where one is constant.
        wins: share of the seeds at which the first arm is better, ties counting half.
        probability_of_improvement: how often a run of the first arm beats one of the second with whatever seed, ties
            counting half.
    """

    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    standard_deviation: float | None
    spread: float | None
    low: float | None
    high: float | None
    t_p: float | None
    sign_flip_p: float
    least_sign_flip_p: float
    wilcoxon_p: float
    bootstrap: tuple[float, float] | None
    effect_size: float | None
    correlation: float | None
    wins: float
    probability_of_improvement: float

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.seeds)

    @property
    def statistic(self) -> float | None:
        """Student's t of the mean; ``None`` without a spread."""
        return None if self.spread is None else self.mean / self.spread * math.sqrt(self.n)

    def interval(self, confidence: float) -> tuple[float, float] | tuple[None, None]:
        """Returns Student's interval of the mean; two times ``None`` without a spread."""
        from scipy.special import stdtrit

        if self.spread is None:
            return None, None
        half = float(stdtrit(self.n - 1, (1 + confidence) / 2)) * self.spread / math.sqrt(self.n)
        return self.mean - half, self.mean + half


def compare_paired(
    first: Mapping[int, float],
    second: Mapping[int, float],
    confidence: float = 0.95,
    *,
    resolution: float | None = None,
    least: float | None = None,
    resampling_seed: int = 0,
) -> PairedComparison:
    """Compares two arms by their differences, seed by seed.

    Accuracies come in steps of one over the number of test images. A few differences that happen to be equal do not
    show that there is no spread, so with a `resolution` the spread is taken to be at least ``resolution / sqrt(6)``.

    Args:
        first, second: values of the arms by seed; finite, at least one seed in common.
        confidence: of the intervals, > 0 and < 1.
        resolution: the step of the values, > 0; ``None`` where they are continuous.
        least: lower bound of the spread; by default that of two values of the resolution.
        resampling_seed: of flips and bootstrap, >= 0.

    Raises:
        InputError: the arms have no seed in common, a value is not finite or no multiple of the resolution, or another
            argument is out of range.

    Example:
        >>> comparison = compare_paired({0: 0.972, 1: 0.975, 2: 0.971}, {0: 0.970, 1: 0.971, 2: 0.968})
        >>> f"{comparison.mean:.3f} [{comparison.low:.4f}, {comparison.high:.4f}]"
        '0.003 [0.0005, 0.0055]'

    References:
        Student, "The probable error of a mean", 1908; Hedges, "Distribution theory for Glass's estimator of effect
        size", 1981; Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021
        (probability of improvement).
    """
    check(confidence, Annotated[float, Interval(0, 1, open_low=True, open_high=True)], "confidence")
    check(resolution, Annotated[float, Interval(0, open_low=True)] | None, "resolution")
    check(resampling_seed, Annotated[int, Interval(0)], "resampling_seed")
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise InputError("first and second have no seed in common")
    a, b = (_read(values, seeds, name) for values, name in ((first, "first"), (second, "second")))
    differences = _subtract(a, b, resolution)
    n, mean = len(seeds), float(differences.mean())
    deviation = float(differences.std(ddof=1)) if n > 1 else None
    if deviation is not None and not np.ptp(differences):
        deviation = 0.0
    spread = None if deviation is None else max(deviation, least_spread(resolution) if least is None else least) or None
    low, high, t_p = (None, None, None) if spread is None else _student(mean, spread, n, confidence)
    sign_flip_p, least = flip_signs(differences, resampling_seed)
    return PairedComparison(
        seeds=tuple(seeds),
        unpaired=tuple(sorted(first.keys() ^ second.keys())),
        differences=tuple(map(float, differences)),
        mean=mean,
        standard_deviation=deviation,
        spread=spread,
        low=low,
        high=high,
        t_p=t_p,
        sign_flip_p=sign_flip_p,
        least_sign_flip_p=least,
        wilcoxon_p=flip_signs(signed_ranks(differences), resampling_seed)[0],
        bootstrap=bootstrap_mean(differences, confidence, resampling_seed),
        effect_size=mean / deviation * _hedges(n - 1) if deviation and n > 2 else None,
        correlation=float(np.corrcoef(a, b)[0, 1]) if n > 2 and np.ptp(a) and np.ptp(b) else None,
        wins=float(np.mean((differences > 0) + 0.5 * (differences == 0))),
        probability_of_improvement=float(np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))),
    )


def least_spread(resolution: float | None) -> float:
    """Returns the standard deviation that differences of values of this resolution have at least.

    Both values are rounded, each by itself.
    """
    return math.sqrt(2) * rounding_deviation(resolution)


def _read(values: Mapping[int, float], seeds: list[int], name: str) -> np.ndarray:
    array = np.array([values[seed] for seed in seeds], float)
    wrong = [seed for seed, value in zip(seeds, array, strict=True) if not math.isfinite(value)]
    if wrong:
        raise InputError(f"{name}[{wrong[0]}]={values[wrong[0]]!r}: must be a finite number")
    return array


def _subtract(a: np.ndarray, b: np.ndarray, resolution: float | None) -> np.ndarray:
    """Returns the differences without the rounding of binary fractions, so that equal ones are equal."""
    if resolution is None:
        largest = max(np.abs(a).max(), np.abs(b).max())
        digits = SIGNIFICANT - math.ceil(math.log10(largest)) if largest else 0
        rounded: np.ndarray = np.round(a - b, digits)
        return rounded
    steps: np.ndarray = np.rint((a - b) / resolution)
    if np.abs((a - b) / resolution - steps).max() > 0.01:
        raise InputError(f"resolution={resolution}: the differences are no multiples of it")
    return steps * resolution


def _student(mean: float, spread: float, n: int, confidence: float) -> tuple[float, float, float]:
    """Returns the interval of the mean, and the p value of the t test."""
    from scipy.special import stdtr, stdtrit

    error = spread / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    return mean - half, mean + half, float(2 * stdtr(n - 1, -abs(mean) / error))


def _hedges(freedom: int) -> float:
    """Returns the factor that makes a standardised mean difference unbiased, of at least two degrees of freedom."""
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


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
