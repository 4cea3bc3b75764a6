"""Rates of runs that collapse: the exact interval of one rate, and the exact comparison of two arms seed by seed.

References:
    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", 1934;
    Suissa and Shuster, "The 2 x 2 matched-pairs trial: exact unconditional design and analysis", 1991.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cnnjax.errors import InputError
from cnnjax.settings.checking import Interval, check

_GRID = 1001
"""Probabilities among which the largest p value is sought first."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rate:
    """How many runs of an arm collapsed, with the exact interval of the probability that a run does.

    Attributes:
        collapsed: runs that collapsed.
        runs: runs that trained or collapsed.
        low, high: Clopper and Pearson's interval of the probability; from 0 to 1 without a run.
    """

    collapsed: int
    runs: int
    low: float
    high: float


@dataclass(frozen=True)
class RateComparison:
    """The rates at which the runs of two arms collapse.

    Attributes:
        first, second: rate of each arm, over all its seeds.
        first_alone, second_alone: common seeds at which one arm collapsed and the other trained.
        p: two-sided p value of the exact test of equal rates at the common seeds, by `equal_rates_p`.
    """

    first: Rate
    second: Rate
    first_alone: int
    second_alone: int
    p: float

    def reliability(self, alpha: float) -> str:
        """Returns whether the first arm is ``more reliable`` or ``less reliable`` at a level; empty if not shown."""
        if self.p > alpha:
            return ""
        return "more reliable" if self.first_alone < self.second_alone else "less reliable"


def estimate_rate(collapsed: int, runs: int, confidence: float = 0.95) -> Rate:
    """Returns the rate of collapsed runs with its exact interval, which covers at least as often as it says.

    With `k` of `n` runs collapsed, its ends are the probabilities at which `k` runs or more, and `k` runs or fewer,
    collapse in ``(1 - confidence) / 2`` of all samples.

    Args:
        collapsed: runs that collapsed, from 0 to `runs`.
        runs: all runs that count, >= 0.
        confidence: confidence of the interval, > 0 and < 1.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> rate = estimate_rate(1, 10)
        >>> f"{rate.low:.4f} to {rate.high:.4f}"
        '0.0025 to 0.4450'
    """
    from scipy.special import betaincinv

    check(confidence, Annotated[float, Interval(0, 1, open_low=True, open_high=True)], "confidence")
    if not 0 <= collapsed <= runs:
        raise InputError(f"collapsed={collapsed}: must be from 0 to {runs}, the number of runs")
    tail = (1 - confidence) / 2
    low = float(betaincinv(collapsed, runs - collapsed + 1, tail)) if collapsed else 0.0
    high = float(betaincinv(collapsed + 1, runs - collapsed, 1 - tail)) if collapsed < runs else 1.0
    return Rate(collapsed, runs, low, high)


def compare_rates(first: Mapping[int, bool], second: Mapping[int, bool], confidence: float = 0.95) -> RateComparison:
    """Compares how often the runs of two arms collapse, paired by seed.

    Five seeds never show a difference at 5%. Six are the fewest, if one arm alone collapses at five of them.

    Args:
        first, second: whether each run collapsed, by seed; seeds of one arm alone count in its rate only.
        confidence: confidence of the interval of each rate.

    Example:
        >>> stable, wild = dict.fromkeys(range(8), False), {seed: seed < 6 for seed in range(8)}
        >>> compared = compare_rates(stable, wild)
        >>> compared.second.collapsed, f"{compared.p:.3f}", compared.reliability(0.05)
        (6, '0.016', 'more reliable')
    """
    seeds = first.keys() & second.keys()
    a, b = (np.array([runs[seed] for seed in seeds], bool) for runs in (first, second))
    rates = [estimate_rate(sum(runs.values()), len(runs), confidence) for runs in (first, second)]
    first_alone, second_alone = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p = equal_rates_p(first_alone, second_alone, len(seeds))
    return RateComparison(rates[0], rates[1], first_alone, second_alone, p)


@functools.lru_cache(maxsize=1024)
def equal_rates_p(first_alone: int, second_alone: int, seeds: int) -> float:
    """Returns the exact two-sided p value of the test that the runs of two arms collapse equally often.

    Of `d` seeds at which one arm alone collapsed, the first did at a number that is binomial with probability one half
    if the rates are equal; the statistic is ``|first_alone - second_alone| / sqrt(d)``. How probable such seeds are is
    not known, so the p value is the largest one over all probabilities. It is exact like McNemar's test, which takes
    `d` as given, but finds more: five against none at ten seeds.

    Args:
        first_alone, second_alone: seeds at which one arm collapsed and the other did not.
        seeds: all common seeds.

    Example:
        >>> f"{equal_rates_p(5, 0, 10):.3f}"
        '0.026'
    """
    from scipy.optimize import minimize_scalar
    from scipy.stats import binom

    discordant = first_alone + second_alone
    if first_alone == second_alone:
        return 1.0
    reached = abs(first_alone - second_alone) / np.sqrt(discordant)
    numbers = np.arange(1, seeds + 1)
    # The first arm collapses alone at least so often, of the given number of seeds, for as large a statistic.
    least = np.ceil((numbers + reached * np.sqrt(numbers)) / 2 - _ROUNDING)
    tails = np.minimum(2 * binom.sf(least - 1, numbers, 0.5), 1.0)

    def reject(probability: np.ndarray | float) -> np.ndarray:
        share: np.ndarray = binom.pmf(numbers, seeds, np.asarray(probability)[..., None]) @ tails
        return share

    grid = np.linspace(0, 1, _GRID)
    best = int(np.argmax(reject(grid)))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    found = minimize_scalar(lambda probability: -float(reject(probability)), bounds=ends, method="bounded")
    return float(min(max(-found.fun, reject(grid).max()), 1.0))
