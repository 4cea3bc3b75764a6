"""Many comparisons at once: a family errs no more often than one comparison would.

A `Contrast` is two arms compared as one of a family: its level, its intervals, what became of the runs, and the
verdict.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from cnnjax.settings.checking import choice
from cnnjax.statistics.losses import Losses, Outcomes, Runs, complete, find_losses
from cnnjax.statistics.paired import PairedComparison, compare_paired
from cnnjax.statistics.verdicts import Criteria, Verdict, decide, equivalence_p

LEAST_FOR_FLIPS = 8
"""Fewest pairs for which the largest of several t values is found by flips of signs."""
FLIPS = 9_999
DEFAULT = Criteria()


@dataclass(frozen=True)
class Contrast:
    """Two arms of a family.

    Attributes:
        first, second: their names.
        first_runs, second_runs: how many of their runs completed, and how many were lost.
        comparison: first less second, of the runs that completed.
        level: at which a difference is tested.
        low, high: Student's interval of the mean difference with confidence ``1 - level``; ``None`` without a spread.
        equivalence_level: at which each of the two one-sided tests of equivalence is made.
        equivalence_low, equivalence_high: Student's interval with confidence ``1 - 2 * equivalence_level``, which must
            lie within the margin for arms to be equivalent; ``None`` without a spread.
        adjusted_p: of the difference, to be held against the level of the family; ``None`` without a spread.
        equivalence_p: of the two one-sided tests, by themselves; ``None`` without a spread.
        verdict: of the first against the second, as one of the family.
    """

    first: str
    second: str
    first_runs: Runs
    second_runs: Runs
    comparison: PairedComparison
    level: float
    low: float | None
    high: float | None
    equivalence_level: float
    equivalence_low: float | None
    equivalence_high: float | None
    adjusted_p: float | None
    equivalence_p: float | None
    verdict: Verdict

    @property
    def decisive_interval(self) -> tuple[float | None, float | None]:
        """The interval that the verdict rests on: that of equivalence where this is the verdict, else `low`, `high`."""
        if self.verdict.word == "equivalent":
            return self.equivalence_low, self.equivalence_high
        return self.low, self.high


def compare_with_base(
    arms: Mapping[str, Outcomes],
    base: str,
    criteria: Criteria = DEFAULT,
    *,
    resolution: float | None = None,
    chance: float = 0.0,
) -> tuple[Contrast, ...]:
    """Compares every other arm with one of them, by simultaneous intervals.

    From eight common seeds on, the level of each comparison is found from the largest t value of all under flips of
    signs, those of one seed together, which keeps what the arms have in common: Dunnett's idea, without his equal
    spreads. Of fewer seeds, and where arms lack some, it is Sidak's ``1 - (1 - alpha) ** (1 / k)`` for `k` comparisons.

    Args:
        arms: the outcomes of each arm by seed; one without any counts in the size of the family all the same.
        base: the name of the arm that the others are compared with.
        criteria: of the family.
        resolution: the step of the values, as for `compare_paired`.
        chance: the accuracy of guessing, the least that a lost run counts as.

    Returns:
        One contrast for each other arm that has completed a seed that the base has completed, in the order of `arms`.

    Raises:
        InputError: there is no such arm, or as `compare_paired` and `decide`.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> [(each.first, each.verdict.word) for each in compare_with_base({"valid": valid, "same": same}, "valid")]
        [('same', 'better')]

    References:
        Dunnett, "A multiple comparison procedure for comparing several treatments with a control", 1955; Westfall and
        Young, Resampling-Based Multiple Testing, 1993; Sidak, "Rectangular confidence regions", 1967.
    """
    choice(base, tuple(arms), "base")
    k = len(arms) - 1
    pairs = _find_pairs(arms, [(name, base) for name in arms if name != base])
    compared = _compare(arms, pairs, criteria.alpha, resolution)
    has_all = len(pairs) == k and len({each.seeds for each in compared}) == 1
    differences = np.array([each.differences for each in compared]) if has_all else None
    level, largest = find_family_level(differences, k, criteria.alpha)
    adjusted = [_adjust(each.t_p, each.statistic, largest, k) for each in compared]
    losses = [find_losses(arms[a], arms[b], chance, resolution) for a, b in pairs]
    return _contrast(pairs, compared, losses, [level] * len(pairs), adjusted, criteria, k)


def compare_all_pairs(
    arms: Mapping[str, Outcomes],
    criteria: Criteria = DEFAULT,
    *,
    resolution: float | None = None,
    chance: float = 0.0,
) -> tuple[Contrast, ...]:
    """Compares all pairs of arms by Holm's procedure; otherwise as `compare_with_base`.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> [(each.first, each.verdict.word) for each in compare_all_pairs({"valid": valid, "same": same})]
        [('valid', 'worse')]

    References:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    planned = list(combinations(arms, 2))
    pairs = _find_pairs(arms, planned)
    losses = [find_losses(arms[a], arms[b], chance, resolution) for a, b in pairs]
    compared = _compare(arms, pairs, criteria.alpha, resolution)
    return contrast_all(pairs, compared, losses, len(planned), criteria)


def contrast_all(
    pairs: Sequence[tuple[str, str]],
    compared: Sequence[PairedComparison],
    losses: Sequence[Losses],
    k: int,
    criteria: Criteria = DEFAULT,
    *,
    labels: Mapping[str, str] | None = None,
) -> tuple[Contrast, ...]:
    """Returns comparisons as the members of one family, by Holm's procedure.

    Args:
        pairs: the names of the two sides of each.
        compared: the comparisons.
        losses: of each.
        k: how many were planned, those that could not be made included.
        criteria: of the family.
        labels: as for `decide`.
    """
    levels, adjusted = holm(_pad([each.t_p for each in compared], k), criteria.alpha)
    return _contrast(pairs, compared, losses, levels, adjusted, criteria, k, labels)


def _contrast(
    pairs: Sequence[tuple[str, str]],
    compared: Sequence[PairedComparison],
    losses: Sequence[Losses],
    levels: Sequence[float],
    adjusted: Sequence[float | None],
    criteria: Criteria,
    k: int,
    labels: Mapping[str, str] | None = None,
) -> tuple[Contrast, ...]:
    one_sided_p = [equivalence_p(each, criteria.margin) for each in compared]
    narrow, _ = holm(_pad(one_sided_p, k), criteria.alpha)
    scope = f"as one of {k} comparisons" if k > 1 else ""
    return tuple(
        make_contrast(
            pair, each, lost, (levels[index], narrow[index]), adjusted[index], criteria, labels=labels, scope=scope
        )
        for index, (pair, each, lost) in enumerate(zip(pairs, compared, losses, strict=True))
    )


def make_contrast(
    pair: tuple[str, str],
    compared: PairedComparison,
    losses: Losses,
    levels: tuple[float, float],
    adjusted_p: float | None,
    criteria: Criteria,
    **options: Any,
) -> Contrast:
    """Returns a comparison with its verdict.

    Args:
        pair: names of the two sides.
        compared: the comparison.
        losses: of its runs.
        levels: of a difference, and of each of the one-sided tests of equivalence.
        adjusted_p: p value of the difference as one of its family.
        criteria: of the family.
        options: further ones of `decide`.
    """
    level, narrow = levels
    low, high = compared.interval(1 - level)
    narrow_low, narrow_high = compared.interval(1 - 2 * narrow)
    verdict = decide(
        compared, level, criteria.margin, criteria.power, equivalence_alpha=narrow, losses=losses, **options
    )
    return Contrast(
        first=pair[0],
        second=pair[1],
        first_runs=losses.first,
        second_runs=losses.second,
        comparison=compared,
        level=level,
        low=low,
        high=high,
        equivalence_level=narrow,
        equivalence_low=narrow_low,
        equivalence_high=narrow_high,
        adjusted_p=adjusted_p,
        equivalence_p=equivalence_p(compared, criteria.margin),
        verdict=verdict,
    )


def _find_pairs(arms: Mapping[str, Outcomes], planned: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the pairs that have completed a seed in common."""
    return [(a, b) for a, b in planned if complete(arms[a]).keys() & complete(arms[b]).keys()]


def _compare(
    arms: Mapping[str, Outcomes], pairs: Sequence[tuple[str, str]], alpha: float, resolution: float | None
) -> list[PairedComparison]:
    return [compare_paired(complete(arms[a]), complete(arms[b]), 1 - alpha, resolution=resolution) for a, b in pairs]


def _pad(p_values: Sequence[float | None], k: int) -> list[float | None]:
    """Returns the p values of `k` comparisons, of which the last could not be made."""
    return [*p_values, *[None] * (k - len(p_values))]


def sidak(alpha: float, k: int) -> float:
    """Returns the level of each of `k` comparisons with which all of them err with probability `alpha` at most."""
    return float(1 - (1 - alpha) ** (1 / max(k, 1)))


def holm(p_values: Sequence[float | None], alpha: float) -> tuple[list[float], list[float | None]]:
    """Returns the level at which Holm's procedure tests each p value, and the adjusted p values.

    The smallest of `m` is tested at ``alpha / m``, the next at ``alpha / (m - 1)``, and so on until one is larger than
    its level; all that follow share that level. ``None`` counts as a p value of 1.
    """
    values = np.array([1.0 if p is None else p for p in p_values])
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    passed = int(np.argmax([*(values[order] * factors > alpha), True]))
    factors[passed:] = factors[passed] if passed < len(factors) else 1
    levels, p_adjusted = np.empty(len(values)), np.empty(len(values))
    levels[order], p_adjusted[order] = alpha / factors, adjusted
    known = [None if p is None else float(a) for p, a in zip(p_values, p_adjusted, strict=True)]
    return [float(level) for level in levels], known


def find_family_level(differences: np.ndarray | None, k: int, alpha: float) -> tuple[float, np.ndarray | None]:
    """Returns the level of each comparison with a base, and the draws of the largest ``|t|`` that it is from.

    The level is that at which the largest ``|t|`` is significant with probability `alpha`; never below Sidak's, which
    needs no draws, nor above `alpha`.

    Args:
        differences: to the base, float64 (k, seeds); ``None`` where arms lack seeds that others have.
        k: number of comparisons.
        alpha: of all of them together.

    Returns:
        Sidak's level and ``None`` where there are no differences, fewer than `LEAST_FOR_FLIPS` seeds, or an arm does
        not vary.
    """
    from scipy.special import stdtr

    least = sidak(alpha, k)
    if differences is None or differences.shape[1] < LEAST_FOR_FLIPS or not np.ptp(differences, axis=1).all():
        return least, None
    largest = draw_largest(differences)
    level = float(2 * stdtr(differences.shape[1] - 1, -np.quantile(largest, 1 - alpha)))
    return min(max(level, least), alpha), largest


def draw_largest(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns draws of the largest ``|t|`` of several arms where none differs, (flips,).

    The differences, less the means of their arms, get signs at random, one a seed for all arms.

    Args:
        differences: float64 (arms, seeds).
        seed: of the signs.
    """
    n = differences.shape[1]
    residuals = (differences - differences.mean(1, keepdims=True)) * np.sqrt(n / (n - 1))
    signs = _draw_signs(n, seed)
    means = signs @ residuals.T / n
    variances = np.maximum((residuals**2).mean(1) - means**2, np.finfo(float).tiny)
    largest: np.ndarray = np.max(np.abs(means) / np.sqrt(variances / (n - 1)), axis=1)
    return largest


@functools.lru_cache(maxsize=8)
def _draw_signs(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (FLIPS, n))


def _adjust(p: float | None, statistic: float | None, largest: np.ndarray | None, k: int) -> float | None:
    """Returns the p value as one of `k`, between that of the test alone and Sidak's, as levels are."""
    if p is None or statistic is None:
        return None
    highest = 1 - (1 - p) ** k
    if largest is None:
        return highest
    return min(max(float(np.mean([*(largest >= abs(statistic)), True])), p), highest)
