"""Paired comparison of two arms with common seeds: differences by seed, their mean, tests and intervals.

There are tests that assume a normal distribution, and tests that resample the differences.
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
"""Largest number of nonzero values for which all ``2**n`` sign flips are tried."""
FLIPS, RESAMPLES = 99_999, 9_999
"""Number of random sign flips for more values, and of resamples of the bootstrap."""
LEAST_FOR_BOOTSTRAP = 10
"""Fewest values for a bootstrap; with fewer, intervals cover far too rarely (three values have only ten resamples)."""
SIGNIFICANT = 12
"""Significant digits to which differences without a resolution are rounded, so that equal ones compare equal."""


@dataclass(frozen=True)
class PairedComparison:
    """Differences between two arms, first minus second, with tests and intervals of their mean.

    Attributes:
        seeds: seeds of the pairs.
        unpaired: seeds that only one of the arms has a value for; they are left out.
        differences: first minus second, for each of `seeds`.
        mean: mean of the differences.
        standard_deviation: standard deviation of the differences, with ``n - 1`` in the denominator; ``None`` for one
            pair.
        spread: standard deviation used for the interval and the t test: at least as large as rounding to the resolution
            may hide; ``None`` for one pair, and if all differences are equal and no resolution is given.
        low, high: Student's interval of the mean; ``None`` without a spread.
        t_p: two-sided p value of the paired t test, on which verdicts are based; ``None`` without a spread.
        sign_flip_p: two-sided p value of the sign-flip permutation test.
        least_sign_flip_p: smallest p value that this test can give for so many pairs.
        wilcoxon_p: two-sided p value of Wilcoxon's signed-rank test, by sign flips.
        bootstrap: bias-corrected and accelerated bootstrap interval of the mean; ``None`` for fewer than ten pairs, and
            if all differences are equal.
        effect_size: ``d_z``, the mean divided by the standard deviation of the differences, corrected for few pairs;
            ``None`` for fewer than three pairs, and if all differences are equal.
        correlation: correlation of the two arms over the seeds; ``None`` for fewer than three pairs, or if an arm is
            constant.
        wins: share of the seeds at which the first arm is better; ties count half.
        probability_of_improvement: share of all pairs of runs, of any two seeds, in which the first arm is better; ties
            count half.
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
        """Student's t statistic of the mean; ``None`` without a spread."""
        return None if self.spread is None else self.mean / self.spread * math.sqrt(self.n)

    def interval(self, confidence: float) -> tuple[float, float] | tuple[None, None]:
        """Returns Student's interval of the mean; ``(None, None)`` without a spread."""
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
    higher_is_better: bool = True,
    resampling_seed: int = 0,
) -> PairedComparison:
    """Compares two arms by their differences at common seeds.

    Accuracies are multiples of one over the number of test images. A few differences that happen to be equal do not
    prove that the arms do not vary, so with a `resolution` the spread is taken to be at least ``resolution / sqrt(6)``.

    Args:
        first, second: finite values of the arms by seed, with at least one seed in common.
        confidence: confidence of the intervals, > 0 and < 1.
        resolution: step between possible values, > 0; ``None`` if they are continuous.
        least: lower bound of the spread; by default that of the difference of two values of this resolution.
        higher_is_better: whether a higher value is better.
        resampling_seed: seed of sign flips and bootstrap, >= 0.

    Raises:
        InputError: the arms have no seed in common, a value is not finite, a difference is not a multiple of the
            resolution, or another argument is out of range.

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
    seeds, a, b = _align(first, second)
    differences = _subtract(a, b, resolution)
    n, mean = len(seeds), float(differences.mean())
    deviation, spread = _find_spread(differences, least_spread(resolution) if least is None else least)
    low, high, t_p = (None, None, None) if spread is None else _student(mean, spread, n, confidence)
    sign_flip_p, least = flip_signs(differences, resampling_seed)
    is_better = np.greater if higher_is_better else np.less
    all_pairs = round_off(a[:, None] - b, max(np.abs(a).max(), np.abs(b).max()))
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
        wins=float(np.mean(is_better(differences, 0) + 0.5 * (differences == 0))),
        probability_of_improvement=float(np.mean(is_better(all_pairs, 0) + 0.5 * (all_pairs == 0))),
    )


def find_differences(
    first: Mapping[int, float], second: Mapping[int, float], resolution: float | None = None
) -> tuple[np.ndarray, float | None]:
    """Returns the differences at common seeds, float64 (pairs,), and their spread, as in a `PairedComparison`.

    Arguments and errors are those of `compare_paired`.

    Example:
        >>> differences, spread = find_differences({0: 0.972, 1: 0.975, 2: 0.971}, {0: 0.970, 1: 0.971, 3: 0.968})
        >>> differences.tolist(), f"{spread:.4f}"
        ([0.002, 0.004], '0.0014')
    """
    _, a, b = _align(first, second)
    differences = _subtract(a, b, resolution)
    return differences, _find_spread(differences, least_spread(resolution))[1]


def _find_spread(differences: np.ndarray, least: float) -> tuple[float | None, float | None]:
    """Returns the standard deviation of the differences, and their spread, which is at least `least`."""
    if len(differences) < 2:
        return None, None
    deviation = float(differences.std(ddof=1)) if np.ptp(differences) else 0.0
    return deviation, max(deviation, least) or None


def least_spread(resolution: float | None) -> float:
    """Returns the standard deviation of the rounding error of a difference, both of whose values are rounded."""
    return math.sqrt(2) * rounding_deviation(resolution)


def _align(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Returns the common seeds of two arms, and the values of both at these."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise InputError("first and second have no seed in common")
    a, b = (_read(values, seeds, name) for values, name in ((first, "first"), (second, "second")))
    return seeds, a, b


def _read(values: Mapping[int, float], seeds: list[int], name: str) -> np.ndarray:
    array = np.array([values[seed] for seed in seeds], float)
    wrong = [seed for seed, value in zip(seeds, array, strict=True) if not math.isfinite(value)]
    if wrong:
        raise InputError(f"{name}[{wrong[0]}]={values[wrong[0]]!r}: must be a finite number")
    return array


def _subtract(a: np.ndarray, b: np.ndarray, resolution: float | None) -> np.ndarray:
    """Returns the differences without floating-point rounding errors, so that equal ones compare equal."""
    if resolution is None:
        return round_off(a - b, max(np.abs(a).max(), np.abs(b).max()))
    steps: np.ndarray = np.rint((a - b) / resolution)
    if np.abs((a - b) / resolution - steps).max() > 0.01:
        raise InputError(f"resolution={resolution}: the differences are no multiples of it")
    return steps * resolution


def round_off(differences: np.ndarray, largest: float) -> np.ndarray:
    """Returns differences of values without rounding errors: to `SIGNIFICANT` digits of the largest absolute value."""
    rounded: np.ndarray = np.round(differences, SIGNIFICANT - math.ceil(math.log10(largest)) if largest else 0)
    return rounded


def _student(mean: float, spread: float, n: int, confidence: float) -> tuple[float, float, float]:
    """Returns the interval of the mean, and the p value of the t test."""
    from scipy.special import stdtr, stdtrit

    error = spread / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    return mean - half, mean + half, float(2 * stdtr(n - 1, -abs(mean) / error))


def _hedges(freedom: int) -> float:
    """Returns Hedges' factor, which makes a standardised mean difference unbiased; needs two degrees of freedom."""
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def flip_signs(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Returns the two-sided p value of the sign-flip permutation test, and the smallest that so many values can give.

    The p value is the share of all sign flips whose sum is at least as far from zero as that of the values. Zeros are
    ignored. Sums that differ only by rounding count as equal.

    Args:
        values: differences or signed ranks, float64 (n,).
        seed: seed of the random flips, if there are more than `ALL_FLIPS` nonzero values.

    Example:
        >>> flip_signs(np.array([0.01, 0.02, 0.03]), seed=0)
        (0.25, 0.25)

    References:
        Fisher, The Design of Experiments, 1935, section 21; Phipson and Smyth, "Permutation p-values should never be
        zero", 2010.
    """
    nonzero = values[values != 0]
    tolerance = 1e-9 * np.abs(values).max(initial=0.0)
    reached = abs(nonzero.sum()) - tolerance
    if len(nonzero) <= ALL_FLIPS:
        sums = np.zeros(1)
        for value in nonzero[1:]:  # the first sign is kept, because flipping all signs gives the same distance
            sums = np.concatenate([sums + value, sums - value])
        sums = sums + nonzero[:1].sum()
        return float(np.mean(np.abs(sums) >= reached)), 2.0 ** (1 - max(len(nonzero), 1))
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (FLIPS, len(nonzero)))
    count = np.count_nonzero(np.abs(signs @ nonzero) >= reached) + 1  # the unflipped values count as one flip
    return float(count / (FLIPS + 1)), max(2.0 ** (1 - len(nonzero)), 1 / (FLIPS + 1))


def signed_ranks(values: np.ndarray) -> np.ndarray:
    """Returns the ranks of the absolute nonzero values, with their signs; equal ones share their mean rank.

    Example:
        >>> signed_ranks(np.array([0.3, -0.1, 0.0, 0.3])).tolist()
        [2.5, -1.0, 2.5]

    References:
        Wilcoxon, "Individual comparisons by ranking methods", 1945.
    """
    from scipy.stats import rankdata

    nonzero = values[values != 0]
    ranks: np.ndarray = np.sign(nonzero) * rankdata(np.abs(nonzero))
    return ranks


def bootstrap_mean(values: np.ndarray, confidence: float, seed: int) -> tuple[float, float] | None:
    """Returns the bias-corrected and accelerated bootstrap interval of the mean.

    ``None`` for fewer than `LEAST_FOR_BOOTSTRAP` values, and if all values are equal.

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
