"""Repeated runs: mean with confidence interval, typical spread, and the smallest difference that they can detect.

Pure functions of numbers, based on SciPy. Runs that differ only in their seeds are treated as independent draws from
one normal distribution.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from cnnjax.errors import InputError
from cnnjax.settings.checking import Interval, check
from cnnjax.statistics.measures import ACCURACY, Measure

LEAST_FOR_INTERVAL = 3
"""Fewest values for which an interval of their mean is given."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        n: number of values.
        mean: mean of the values.
        standard_deviation: standard deviation of the values, with ``n - 1`` in the denominator; ``None`` for one value.
        low, high: ends of the interval of the mean; ``None`` if there are too few values.
    """

    n: int
    mean: float
    standard_deviation: float | None
    low: float | None
    high: float | None


def estimate_mean(values: Iterable[float], confidence: float = 0.95, *, resolution: float | None = None) -> Estimate:
    """Estimates the mean of a normal distribution, with Student's interval ``mean ± t * s / sqrt(n)``.

    `t` is the quantile ``(1 + confidence) / 2`` of Student's distribution with ``n - 1`` degrees of freedom, and `s` is
    the standard deviation. A few values that happen to be equal do not prove that the runs do not vary, so `s` is taken
    to be at least the standard deviation that rounding to the resolution could hide.

    Args:
        values: finite numbers, at least one.
        confidence: share of such intervals that contain the true mean, > 0 and < 1.
        resolution: step between possible values, such as one over the number of test images; ``None`` if unknown.

    Returns:
        The estimate; for a single value, without standard deviation and interval.

    Raises:
        InputError: there is no value, one is not finite, or the confidence is out of range.

    Example:
        >>> estimate = estimate_mean([0.97, 0.98, 0.99])
        >>> f"{estimate.mean:.2f} [{estimate.low:.4f}, {estimate.high:.4f}]"
        '0.98 [0.9552, 1.0048]'

    References:
        Student (1908), The probable error of a mean, Biometrika 6.
    """
    check(confidence, Annotated[float, Interval(0, 1, open_low=True, open_high=True)], "confidence")
    sample = read_sample(values)
    n, mean = len(sample), float(sample.mean())
    if n == 1:
        return Estimate(1, mean, None, None, None)
    from scipy.special import stdtrit

    deviation = float(sample.std(ddof=1))
    spread = max(deviation, rounding_deviation(resolution))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * spread / math.sqrt(n)
    return Estimate(n, mean, deviation, mean - half, mean + half)


def estimate_score(values: Iterable[float], measure: Measure = ACCURACY, confidence: float = 0.95) -> Estimate:
    """Estimates the mean of a measure, as `estimate_mean` does; the interval of a share is cut off at 0 and 1.

    Fewer than `LEAST_FOR_INTERVAL` values have no interval: two values say so little about the spread that it would
    reach 13 standard errors to both sides.

    Example:
        >>> estimate = estimate_score([0.99, 0.98, 0.94])
        >>> f"{estimate.mean:.2f} [{estimate.low:.4f}, {estimate.high:.4f}]", estimate_score([0.9, 0.8]).low
        ('0.97 [0.9043, 1.0000]', None)
    """
    found = estimate_mean(values, confidence, resolution=measure.resolution)
    if found.low is None or found.high is None or found.n < LEAST_FOR_INTERVAL:
        return replace(found, low=None, high=None)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0)) if measure.is_share else found


def interquartile_mean(values: Iterable[float]) -> float:
    """Returns the mean of the middle half of the values.

    A quarter of the values is cut off at each end; if ``n / 4`` is not a whole number, one value at each end counts in
    part.

    Args:
        values: finite numbers, at least one.

    Raises:
        InputError: there is no value, or one is not finite.

    Example:
        >>> interquartile_mean([0.1, 0.96, 0.97, 0.98, 0.99])  # weights 0, 0.75, 1, 0.75, 0
        0.97

    References:
        Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021.
    """
    sample = np.sort(read_sample(values))
    ends = np.clip(np.arange(len(sample) + 1), len(sample) / 4, 3 * len(sample) / 4)
    return float(np.average(sample, weights=np.diff(ends)))


def typical_standard_deviation(groups: Iterable[Iterable[float]]) -> float | None:
    """Estimates the standard deviation within a typical group.

    The groups may have different means, and a few groups with extreme spreads hardly change the result: it is the
    square root of the median over groups of ``s_i² v_i / median(chi²(v_i))``, with ``v_i = n_i - 1`` degrees of
    freedom. For normal groups of equal variance, that variance is the median of every term.

    Args:
        groups: finite numbers, such as the accuracies of a cell's seeds; groups of fewer than two values are ignored.

    Returns:
        The standard deviation; ``None`` if no group has two values.

    Raises:
        InputError: a value is not finite.
    """
    from scipy.stats import chi2

    samples = [read_sample(values) for values in map(tuple, groups) if len(values) > 1]
    if not samples:
        return None
    terms = [sample.var(ddof=1) * (len(sample) - 1) / chi2.median(len(sample) - 1) for sample in samples]
    return math.sqrt(float(np.median(terms)))


def smallest_detectable_difference(
    standard_deviation: float, n: int, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Returns the true mean difference that a two-sided paired t test detects with probability `power`.

    The test statistic of `n` differences with mean `d` has the noncentral t distribution with ``n - 1`` degrees of
    freedom and noncentrality ``d * sqrt(n) / standard_deviation``; Brent's method finds the `d` whose statistic falls
    outside ``±t``, Student's quantile ``1 - alpha / 2``, with probability `power`.

    Args:
        standard_deviation: standard deviation of the differences, >= 0.
        n: number of pairs.
        alpha: level of the test, >= 1e-7 (for two pairs 0.0001) and < 1.
        power: power of the test, > alpha and < 1.

    Returns:
        The difference, in the unit of `standard_deviation`; ``None`` for fewer than two pairs.

    Raises:
        InputError: an argument is out of range.

    References:
        Cohen (1988), Statistical Power Analysis for the Behavioral Sciences, 2nd edition, chapter 2.
    """
    check(standard_deviation, Annotated[float, Interval(0)], "standard_deviation")
    check(alpha, Annotated[float, Interval(1e-7 if n > 2 else 1e-4, 1, open_high=True)], "alpha")
    if not alpha < power < 1:
        raise InputError(f"power={power}: must be > alpha ({alpha}) and < 1")
    if n < 2:
        return None
    return _solve_noncentrality(n - 1, alpha, power) * standard_deviation / math.sqrt(n)


def _solve_noncentrality(freedom: int, alpha: float, power: float) -> float:
    from scipy.optimize import brentq
    from scipy.special import ncfdtr, stdtrit

    # The square of a noncentral t is a noncentral F, which holds both tails at once.
    critical = stdtrit(freedom, 1 - alpha / 2) ** 2

    def lack(noncentrality: float) -> float:
        missed = ncfdtr(1, freedom, noncentrality**2, critical)
        return float(power - 1 + np.nan_to_num(missed))  # SciPy returns nan for a probability too small for a float

    high = 1.0
    while lack(high) > 0:
        high *= 2
    return float(brentq(lack, 0, high))


def rounding_deviation(resolution: float | None) -> float:
    """Returns the standard deviation of rounding errors, ``resolution / √12``: as much spread as rounding may hide."""
    return (resolution or 0.0) / math.sqrt(12)


def read_sample(values: Iterable[float]) -> np.ndarray:
    """Returns the values as float64 (n,); raises `InputError` if there are none or one is not finite."""
    sample = np.array(tuple(values), float)
    if not len(sample) or not np.isfinite(sample).all():
        shown = np.array2string(sample, threshold=8, separator=", ")
        raise InputError(f"values={shown}: must be finite numbers, at least one")
    return sample
