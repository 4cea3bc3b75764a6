"""How many seeds it takes: the probabilities with which a number of seeds decides.

Differences are taken for independent draws from one normal distribution of known spread. Planning goes by differences
that are fixed beforehand, the margin and zero, never by the mean that happens to have been observed.
"""

import math

import numpy as np

MOST_SEEDS = 1000
_NODES = 400


def plan_seeds(
    spread: float, margin: float, alpha: float = 0.05, power: float = 0.8, equivalence_alpha: float | None = None
) -> int | None:
    """Returns the fewest seeds that find a difference as large as the margin, and show that none is smaller than it.

    Args:
        spread: standard deviation of the differences, > 0.
        margin: of equivalence, > 0.
        alpha: level of the t test, and of the one-sided ones where these have no other.
        power: probability, at the difference `margin`, that the t test finds it, and, at no difference, that the two
            one-sided tests find equivalence.
        equivalence_alpha: level of the one-sided tests.

    Returns:
        At least 3; ``None`` where `MOST_SEEDS` are too few.
    """
    for n in range(3, MOST_SEEDS + 1):
        finds = power_of_difference(margin, spread, n, alpha) >= power
        if finds and power_of_equivalence(0.0, spread, n, margin, equivalence_alpha or alpha) >= power:
            return n
    return None


def plan_detection(spread: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Returns the fewest seeds, at least 3, whose t test finds a true difference; ``None`` beyond `MOST_SEEDS`."""
    seeds = range(3, MOST_SEEDS + 1)
    return next((n for n in seeds if power_of_difference(difference, spread, n, alpha) >= power), None)


def find_margin(spread: float, n: int, alpha: float, power: float, equivalence_alpha: float) -> float:
    """Returns the smallest margin that `n` seeds decide, as `plan_seeds` says."""
    from scipy.optimize import brentq

    def lack(margin: float) -> float:
        finds = power_of_difference(margin, spread, n, alpha)
        return power - min(finds, power_of_equivalence(0.0, spread, n, margin, equivalence_alpha))

    high = spread
    while lack(high) > 0:
        high *= 2
    return float(brentq(lack, 0, high))


def power_of_difference(difference: float, spread: float, n: int, alpha: float = 0.05) -> float:
    """Returns the probability that the two-sided paired t test finds a true mean difference."""
    from scipy.special import ncfdtr, stdtrit

    # The square of a noncentral t is a noncentral F; nan is how SciPy says that it is too small for a float.
    missed = ncfdtr(1, n - 1, n * (difference / spread) ** 2, stdtrit(n - 1, 1 - alpha / 2) ** 2)
    return float(1 - np.nan_to_num(missed))


def power_of_equivalence(difference: float, spread: float, n: int, margin: float, alpha: float = 0.05) -> float:
    """Returns the probability that two one-sided t tests find a true mean difference smaller than the margin.

    Given the sample's standard deviation, which is distributed as chi with ``n - 1`` degrees of freedom, both tests
    reject where the mean lies within what is left of the margin; that is integrated over quantiles of chi.

    References:
        Phillips, "Power of the two one-sided tests procedure in bioequivalence", 1990.
    """
    from scipy.special import ndtr, stdtrit
    from scipy.stats import chi2

    error = spread / math.sqrt(n)
    quantiles = (np.arange(_NODES) + 0.5) / _NODES
    left = margin - stdtrit(n - 1, 1 - alpha) * error * np.sqrt(chi2.ppf(quantiles, n - 1) / (n - 1))
    reached = ndtr((left - difference) / error) - ndtr((-left - difference) / error)
    return float(np.mean(np.where(left > 0, reached, 0.0)))
