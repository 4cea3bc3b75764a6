"""How probable a difference above, within and below the margin is: help where a comparison is undecided, no verdict.

A verdict bounds how often it is wrong, whatever the truth. These probabilities weigh what the truth may be instead, and
so depend on what was thought possible before: here, every mean difference and every logarithm of the spread alike.
"""

from dataclasses import dataclass
from typing import Annotated

from cnnjax.settings.checking import Interval, check
from cnnjax.statistics.paired import PairedComparison


@dataclass(frozen=True)
class Posterior:
    """Probabilities of the true mean difference, which add up to 1.

    Attributes:
        better: that the first arm is better by more than the margin.
        within: that the difference is within the margin.
        worse: that the first arm is worse by more than the margin.
    """

    better: float
    within: float
    worse: float


def find_posterior(comparison: PairedComparison, margin: float, *, higher_is_better: bool = True) -> Posterior | None:
    """Returns the probabilities of a difference above, within and below the margin, given the differences seen.

    With the flat prior, the mean of `n` normal differences with mean `m` and spread `s` is distributed as ``m + t s /
    sqrt(n)``, with Student's `t` of ``n - 1`` degrees of freedom. Seeds are independent, so the correlation that the
    test of Benavoli et al. has for cross-validation is zero. Nothing is adjusted for other comparisons.

    Args:
        comparison: the comparison.
        margin: margin of equivalence (the region of practical equivalence, ROPE), > 0.
        higher_is_better: whether a higher value is better.

    Returns:
        The probabilities; ``None`` without a spread.

    Raises:
        InputError: the margin is not positive.

    Example:
        >>> from cnnjax.statistics.paired import compare_paired
        >>> comparison = compare_paired({0: 0.972, 1: 0.975, 2: 0.971}, {0: 0.970, 1: 0.971, 2: 0.968})
        >>> found = find_posterior(comparison, margin=0.002)
        >>> f"{found.better:.1%}, {found.within:.1%}, {found.worse:.1%}"
        '88.7%, 10.6%, 0.7%'

    References:
        Benavoli, Corani, Demsar and Zaffalon, "Time for a change: a tutorial for comparing multiple classifiers through
        Bayesian analysis", 2017; Jeffreys, Theory of Probability, 1961, section 3.41.
    """
    from scipy.special import stdtr

    check(margin, Annotated[float, Interval(0, open_low=True)], "margin")
    if comparison.spread is None:
        return None
    error = comparison.spread / comparison.n**0.5
    above = float(stdtr(comparison.n - 1, (comparison.mean - margin) / error))
    below = float(stdtr(comparison.n - 1, (-margin - comparison.mean) / error))
    better, worse = (above, below) if higher_is_better else (below, above)
    return Posterior(better, max(1 - above - below, 0.0), worse)
