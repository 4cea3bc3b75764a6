"""Student's t test that may be made after every seed: e-values, and the levels of t tests that they amount to.

An e-value is evidence against a hypothesis: a likelihood ratio, which has a mean of 1 if the hypothesis is true. If it
is computed again after every seed, the probability that it ever reaches ``1 / alpha`` is at most `alpha` (Ville 1939).
So the number of seeds need not be planned, and it does not matter how often somebody looks.

The differences are normal with mean ``m0 + effect * sigma``. Their standard deviation `sigma` is not known: with the
scale-invariant prior ``1 / sigma``, which cancels in the ratio, only ratios of differences count. Under the hypothesis
`effect` is 0; the alternative is a normal mixture of effects with mean 0 and standard deviation `SCALE`. For ``n``
differences with Student's statistic ``t`` and ``g = n * SCALE ** 2`` this leaves the closed form ::

    e = (1 + g) ** -0.5 * ((n - 1 + t ** 2) / (n - 1 + t ** 2 / (1 + g))) ** (n / 2)

References:
    Ville, Etude critique de la notion de collectif, 1939; Lai, "On confidence sequences", 1976; Wang and Ramdas,
    "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", 2023; Perez-Ortiz et al.,
    "E-statistics, group invariance and anytime valid testing", 2022 (the right Haar prior).
"""

import functools

import numpy as np

from cnnjax.errors import InputError

SCALE = 1.0
"""Standard deviation of the effects of the alternative, in units of the standard deviation of the differences.

Effects from 0.5 to 2 are those that take between a few and 40 seeds to see. Over that range no other scale is much
better (`docs/calibration.md` compares them); larger effects are found in a few seeds anyway.
"""
LEAST_LEVEL = 1e-12
"""Smaller levels count as 0: no difference that occurs is so clear."""


def log_e_value(statistic: float | np.ndarray, n: int | np.ndarray, scale: float = SCALE) -> np.ndarray:
    """Returns the log of the e-value against a mean of `m0`, for differences above and below it.

    Args:
        statistic: Student's statistic, the mean of the differences minus `m0`, divided by its standard error.
        n: number of differences, >= 2.
        scale: standard deviation of the effects of the alternative, > 0.

    Example:
        >>> bool(np.isclose(log_e_value(4.0, 10), np.log(11**-0.5 * (25 / (9 + 16 / 11)) ** 5)))
        True
    """
    squared, gain = np.square(statistic), 1 + n * scale**2
    ratio = np.log1p(squared / (n - 1)) - np.log1p(squared / (n - 1) / gain)
    value: np.ndarray = n / 2 * ratio - np.log(gain) / 2
    return value


def log_e_value_above(statistic: float | np.ndarray, n: int | np.ndarray, scale: float = SCALE) -> np.ndarray:
    """Returns the log of the e-value against a mean of `m0` or less: the mixture has positive effects alone.

    It is the e-value of `log_e_value` times twice the posterior probability of a positive effect, which is Student's
    distribution function with `n` degrees of freedom. Arguments are those of `log_e_value`.

    Example:
        >>> both, above, below = log_e_value(2.0, 10), log_e_value_above(2.0, 10), log_e_value_above(-2.0, 10)
        >>> bool(np.isclose(np.exp(both), (np.exp(above) + np.exp(below)) / 2))
        True
    """
    from scipy.special import stdtr

    gain = 1 + n * scale**2
    moved = statistic * np.sqrt(n * (gain - 1) / gain / (n - 1 + np.square(statistic) / gain))
    with np.errstate(divide="ignore"):
        value: np.ndarray = np.log(2 * stdtr(n, moved)) + log_e_value(statistic, n, scale)
    return value


def find_critical(n: int | np.ndarray, alpha: float, scale: float = SCALE) -> np.ndarray:
    """Returns the statistic from which on the e-value of `log_e_value` is at least ``1 / alpha``.

    The confidence sequence of the mean, which holds at all `n` at once with probability ``1 - alpha``, is the mean plus
    and minus this many standard errors.

    Args:
        n: number of differences, >= 2.
        alpha: level of all looks together, > 0 and < 1.
        scale: as for `log_e_value`.

    Returns:
        The critical statistic; infinite if `n` differences can never be so clear.

    Example:
        >>> [f"{critical:.2f}" for critical in find_critical(np.array([4, 5, 10, 40]), 0.05)]
        ['inf', '8.45', '3.87', '3.32']
    """
    gain = 1 + n * scale**2
    ratio = (gain / alpha**2) ** (1 / np.asarray(n, float))
    with np.errstate(divide="ignore"):
        squared = (n - 1) * (ratio - 1) / np.maximum(1 - ratio / gain, 0)
    critical: np.ndarray = np.sqrt(squared)
    return critical


@functools.lru_cache(maxsize=4096)
def find_levels(n: int, alpha: float, scale: float = SCALE) -> tuple[float, float]:
    """Returns the levels of Student's tests of `n` differences that hold at any time, at a level of all looks together.

    Args:
        n: number of differences, >= 1.
        alpha: level of all looks together, > 0 and < 0.5.
        scale: as for `log_e_value`.

    Returns:
        The level of the two-sided test of a difference, by `log_e_value`, and that of each of the one-sided tests of
        equivalence, by `log_e_value_above`; 0 where `n` differences can never be clear enough.

    Example:
        >>> [f"{level:.4f}" for level in find_levels(10, 0.05)]
        ['0.0038', '0.0043']
    """
    from scipy.optimize import brentq
    from scipy.special import stdtr

    if n < 2:
        return 0.0, 0.0
    two_sided, low = (float(find_critical(n, each, scale)) for each in (alpha, 2 * alpha))
    one_sided = np.inf
    if np.isfinite(low):  # the e-value above is less than twice the other one, and at least as large
        high = two_sided if np.isfinite(two_sided) else 1e6

        def lack(statistic: float) -> float:
            return float(log_e_value_above(statistic, n, scale) + np.log(alpha))

        one_sided = brentq(lack, low, high) if lack(high) > 0 else np.inf
    levels = float(2 * stdtr(n - 1, -two_sided)), float(stdtr(n - 1, -one_sided))
    wide, narrow = (level if level >= LEAST_LEVEL else 0.0 for level in levels)
    return wide, narrow


def find_least_seeds(alpha: float) -> int:
    """Returns the fewest differences that can be clear enough at a level of all looks together.

    Example:
        >>> find_least_seeds(0.05), find_least_seeds(0.05 / 20)
        (5, 7)
    """
    return next(n for n in range(2, 1000) if all(find_levels(n, alpha)))


def equal_rates_p(first_alone: int, second_alone: int) -> float:
    """Returns the p value, valid at any time, of the test that the runs of two arms collapse equally often.

    If they do, each seed at which one arm alone collapsed is the first arm's with probability one half, whatever the
    other seeds are. The e-value is that of a mixture of other probabilities with Jeffreys' prior, and the p value its
    inverse: the probability that it is ever as small as `alpha` is at most `alpha`.

    Args:
        first_alone, second_alone: seeds at which one arm collapsed and the other did not.

    Example:
        >>> f"{equal_rates_p(7, 0):.3f}", equal_rates_p(3, 3)
        ('0.037', 1.0)

    References:
        Robbins, "Statistical methods related to the law of the iterated logarithm", 1970; Krichevsky and Trofimov, "The
        performance of universal encoding", 1981.
    """
    from scipy.special import betaln

    seeds = first_alone + second_alone
    log_e = seeds * np.log(2) + betaln(first_alone + 0.5, second_alone + 0.5) - betaln(0.5, 0.5)
    return float(min(np.exp(-log_e), 1.0))


def plan_looks_at_any_time(first: int, most: int, alpha: float) -> tuple[int, ...]:
    """Returns the numbers of seeds after which to look: every one up to `most`, from the first that can decide.

    Args:
        first: seeds that all arms have, >= 1.
        most: most seeds of an arm.
        alpha: level of all looks of a comparison together.

    Raises:
        InputError: `most` seeds can never decide.

    Example:
        >>> plan_looks_at_any_time(3, 8, alpha=0.05)
        (5, 6, 7, 8)
    """
    least = find_least_seeds(alpha)
    if most < least:
        raise InputError(f"{most} seeds can never decide at the level {alpha:.2g} of a comparison; must be >= {least}")
    return tuple(range(max(first, least), most + 1))
