"""Plans: what a number of seeds would find, and how many seeds are needed, before anything is run.

The level is that of one comparison in its family. Spreads are standard deviations of paired differences, and come from
a pilot, so a plan is as uncertain as they are. Nothing here is used for verdicts.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cnnjax.errors import InputError
from cnnjax.settings.checking import Interval, check
from cnnjax.statistics.estimates import read_sample, typical_standard_deviation
from cnnjax.statistics.verdicts import MOST_SEEDS, power_of_difference, power_of_equivalence

_Z = np.linspace(-9, 9, 4001)
"""Standard normal values over which the mean of what is found is integrated."""
EFFICIENCY = 0.8
"""Share of the degrees of freedom of several groups that the median of their variances makes use of."""
_LEAST_SHARE = 1e-5
"""Least variance of a group as a share of the median one, as in limma, because logarithms are taken."""
Positive = Annotated[float, Interval(0, open_low=True)]


@dataclass(frozen=True)
class Spread:
    """A standard deviation that was estimated from a few values.

    Attributes:
        deviation: the standard deviation, > 0.
        freedom: its degrees of freedom, > 0: the more, the better it is known.
    """

    deviation: float
    freedom: float

    def interval(self, confidence: float = 0.8) -> tuple[float, float]:
        """Returns the interval of the true standard deviation, from the chi² distribution of the variance.

        Example:
            >>> "{:.2f} to {:.2f}".format(*Spread(1.0, 4).interval())  # of five seeds
            '0.72 to 1.94'
        """
        from scipy.special import chdtri

        tail = (1 - confidence) / 2
        low, high = (
            self.deviation * math.sqrt(self.freedom / float(chdtri(self.freedom, p))) for p in (tail, 1 - tail)
        )
        return low, high


@dataclass(frozen=True)
class Squeezed:
    """Variances of several groups, each drawn towards what is usual among them.

    Attributes:
        variances: the squeezed variance of each group.
        freedoms: degrees of freedom of each of them; at most those of all groups together.
        prior_variance: the variance that is usual among the groups.
        prior_freedom: degrees of freedom that it counts for; infinite where the groups vary no more than chance does,
            and 0 for a single group.
    """

    variances: tuple[float, ...]
    freedoms: tuple[float, ...]
    prior_variance: float
    prior_freedom: float


def squeeze_variances(variances: Sequence[float], freedoms: Sequence[float]) -> Squeezed:
    """Squeezes the variances of groups towards a common one, by empirical Bayes.

    The true variances are taken to be drawn from a scaled inverse chi² distribution with `d0` degrees of freedom and
    scale ``s0²``. Both follow from the mean and the variance of ``log(s²)`` over the groups. A squeezed variance is
    ``(d0 s0² + d s²) / (d0 + d)``. If the groups vary no more than chance does, it is the pooled variance for all.

    Args:
        variances: variances of the groups, at least one, each > 0.
        freedoms: their degrees of freedom, each > 0.

    Raises:
        InputError: there is no group, the numbers of both differ, or a value is out of range.

    Example:
        >>> squeezed = squeeze_variances([1.0, 9.0, 100.0], [4, 4, 4])
        >>> [round(variance, 1) for variance in squeezed.variances], round(squeezed.prior_freedom, 1)
        ([1.6, 7.9, 80.2], 1.0)

    References:
        Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
        experiments", 2004, section 6.2; the R package limma, functions `squeezeVar` and `eBayes`.
    """
    from scipy.special import digamma, polygamma

    known, free = read_sample(variances), read_sample(freedoms)
    if len(known) != len(free) or min(known.min(), free.min()) <= 0:
        raise InputError("variances and freedoms: must be as many of each, all > 0")
    pooled = float(np.average(known, weights=free))
    if len(known) == 1:
        return Squeezed((pooled,), (float(free[0]),), pooled, 0.0)
    logs = np.log(known) - digamma(free / 2) + np.log(free / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, free / 2).mean())
    if excess <= 0:
        return Squeezed((pooled,) * len(known), (float(free.sum()),) * len(known), pooled, math.inf)
    prior = 2 * _invert_trigamma(excess)
    usual = math.exp(float(logs.mean() + digamma(prior / 2)) - math.log(prior / 2))
    squeezed = (prior * usual + free * known) / (prior + free)
    return Squeezed(tuple(map(float, squeezed)), tuple(map(float, np.minimum(prior + free, free.sum()))), usual, prior)


def _invert_trigamma(value: float) -> float:
    """Returns the `x` whose trigamma is `value`, which is > 0; trigamma lies between ``1/x`` and ``1/x + 1/x²``."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    low, high = 1 / value, (1 + math.sqrt(1 + 4 * value)) / (2 * value)
    return math.exp(
        float(brentq(lambda log: math.log(polygamma(1, math.exp(log)) / value), math.log(low / 2), math.log(2 * high)))
    )


def estimate_spread(groups: Iterable[Iterable[float]], least: float = 0.0) -> Spread | None:
    """Estimates the standard deviation within a typical group, and how well it is known.

    The deviation is `typical_standard_deviation`, which a few groups with extreme spreads hardly change. Its degrees of
    freedom are those of a typical squeezed variance: those of all groups if they seem to have one variance, and little
    more than its own if they differ; `EFFICIENCY` of that, as it is a median.

    Args:
        groups: finite numbers, such as the accuracies of a cell's seeds; groups of fewer than two values are ignored.
        least: the least standard deviation, >= 0, such as rounding may hide.

    Returns:
        The spread; ``None`` if no group has two values, or if they are all equal and `least` is 0.

    Raises:
        InputError: a value is not finite.

    Example:
        >>> spread = estimate_spread([[0.96, 0.97, 0.98], [0.95, 0.96, 0.97], [0.9]])
        >>> f"{spread.deviation:.3f}, {spread.freedom:.1f} degrees of freedom"
        '0.012, 3.2 degrees of freedom'
    """
    samples = [tuple(values) for values in groups]
    deviation = max(typical_standard_deviation(samples) or 0.0, least)
    squeezed = squeeze_groups(samples, least)
    if not deviation or squeezed is None:
        return None
    efficiency = EFFICIENCY if len(squeezed.freedoms) > 1 else 1.0
    return Spread(deviation, efficiency * float(np.median(squeezed.freedoms)))


def squeeze_groups(groups: Iterable[Sequence[float]], least: float = 0.0) -> Squeezed | None:
    """Returns the squeezed variances of groups of values; arguments and errors are those of `estimate_spread`.

    ``None`` if no group has two values, or if nothing but 0 is known of their spreads.
    """
    samples = [read_sample(values) for values in groups if len(values) > 1]
    if not samples:
        return None
    variances = np.array([sample.var(ddof=1) if np.ptp(sample) else 0.0 for sample in samples])
    lowest = max(least**2, _LEAST_SHARE * float(np.median(variances)))
    if not lowest:
        return None
    return squeeze_variances([*np.maximum(variances, lowest)], [len(sample) - 1 for sample in samples])


@dataclass(frozen=True)
class PowerPoint:
    """What a comparison does with a true difference.

    Attributes:
        difference: the true difference.
        power: probability that it is found.
        exaggeration: how many times as large it looks on average where it is found.
    """

    difference: float
    power: float
    exaggeration: float


def trace_power(differences: Iterable[float], spread: float, n: int, alpha: float = 0.05) -> tuple[PowerPoint, ...]:
    """Returns the power curve of the paired t test: the power, and the exaggeration, at several true differences.

    Args:
        differences: true differences, none of them 0.
        spread: standard deviation of the differences of runs, > 0.
        n: number of pairs, >= 2.
        alpha: level of the test.

    Example:
        >>> for point in trace_power([0.002, 0.005], spread=0.0027, n=5):
        ...     print(f"{point.difference}: found in {point.power:.0%}, looks {point.exaggeration:.2f} times as large")
        0.002: found in 25%, looks 1.58 times as large
        0.005: found in 87%, looks 1.04 times as large
    """
    return tuple(
        PowerPoint(each, power_of_difference(each, spread, n, alpha), exaggerate(each, spread, n, alpha))
        for each in differences
    )


def exaggerate(difference: float, spread: float, n: int, alpha: float = 0.05) -> float:
    """Returns how many times as large a true difference looks, on average where the paired t test finds it.

    A weak test finds a difference only where luck makes it look large. This is Gelman and Carlin's "type M error": the
    mean of ``|m|`` over the studies that find a difference, of either sign, divided by the true one. A mean `m` is
    found if the standard deviation of its sample is small enough, whose probability is that of a chi² distribution; so
    the result is one integral over `m`.

    Args:
        difference: the true difference, not 0; its sign does not matter.
        spread: standard deviation of the differences of runs, > 0.
        n: number of pairs, >= 2.
        alpha: level of the test, > 0 and < 1.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> f"{exaggerate(0.001, spread=0.0027, n=5):.1f}"
        '2.6'

    References:
        Gelman and Carlin, "Beyond power calculations: assessing type S (sign) and type M (magnitude) errors", 2014.
    """
    from scipy.special import chdtr, stdtrit

    check(abs(difference), Positive, "difference")
    check(spread, Positive, "spread")
    check(n, Annotated[int, Interval(2)], "n")
    check(alpha, Annotated[float, Interval(0, 1, open_low=True, open_high=True)], "alpha")
    true = abs(difference) / spread * math.sqrt(n)
    seen = np.abs(true + _Z)
    found = np.exp(-(_Z**2) / 2) * chdtr(n - 1, (n - 1) * (seen / stdtrit(n - 1, 1 - alpha / 2)) ** 2)
    return float(np.sum(seen * found) / np.sum(found) / true)


def plan_equivalence(spread: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Returns the fewest seeds, at least 3, that show the equivalence of equal arms with this power.

    Args:
        spread: standard deviation of the differences of runs, > 0.
        margin: margin of equivalence, > 0.
        alpha: level of each of the two one-sided tests.
        power: probability with which they find that there is no difference as large as the margin.

    Returns:
        The number; ``None`` if `MOST_SEEDS` are too few.

    Example:
        >>> plan_equivalence(spread=0.0027, margin=0.002)
        18
    """
    seeds = range(3, MOST_SEEDS + 1)
    place = bisect.bisect_left(seeds, power, key=lambda n: power_of_equivalence(0.0, spread, n, margin, alpha))
    return seeds[place] if place < len(seeds) else None


def plan_seeds_between(spread: Spread, plan: Callable[[float], int | None]) -> tuple[int | None, int | None]:
    """Returns the fewest and the most seeds that a plan comes to, as far as the spread is known.

    Both are those of the ends of the spread's interval of 80%: with probability 10% the right number is lower, and with
    10% it is higher.

    Args:
        spread: the estimated standard deviation of the differences of runs.
        plan: the number of seeds by the true standard deviation; ``None`` if it is too large.

    Example:
        >>> from cnnjax.statistics.verdicts import plan_detection
        >>> plan_seeds_between(Spread(0.0027, 4), lambda true: plan_detection(true, difference=0.002))
        (10, 56)
    """
    low, high = spread.interval()
    return plan(low), plan(high)
