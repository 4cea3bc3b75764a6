"""Many comparisons at once: how strict each must be, so that the family of them errs no more often than one would.

Every comparison of a family is tested at a level of its own, and its interval has the confidence of that level, so
interval and verdict say the same. Against a base the levels are equal, and the intervals hold together with the
confidence asked for. Of all pairs the levels are Holm's, which decide more, and hold for the verdicts alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cnnjax.comparison.paired import PairedComparison, compare_paired
from cnnjax.comparison.verdicts import MARGIN, Verdict, decide, equivalence_p
from cnnjax.rules import choice

LEAST_FOR_FLIPS = 8
"""Pairs from which on the largest of several t values is found by flips of signs: below, there are too few flips."""
FLIPS = 9_999
Values = Mapping[int, float]


@dataclass(frozen=True)
class Contrast:
    """Two arms of a family.

    Attributes:
        first, second: their names.
        comparison: first less second.
        level: at which a difference is tested.
        low, high: Student's interval of the mean difference with confidence ``1 - level``; ``None`` without a spread.
        adjusted_p: of the difference, to be held against the level of the family; ``None`` without a spread.
        verdict: of the first against the second, as one of the family.
    """

    first: str
    second: str
    comparison: PairedComparison
    level: float
    low: float | None
    high: float | None
    adjusted_p: float | None
    verdict: Verdict


def compare_with_base(
    arms: Mapping[str, Values],
    base: str,
    alpha: float = 0.05,
    margin: float = MARGIN,
    power: float = 0.8,
    *,
    resolution: float | None = None,
) -> tuple[Contrast, ...]:
    """Compares every other arm with one of them, by simultaneous intervals.

    From eight common seeds on, the level of each comparison is found from the largest t value of all under flips of
    signs, those of one seed together, which keeps what the arms have in common: Dunnett's idea, without his equal
    spreads. Of fewer seeds, and where arms lack some, it is Sidak's ``1 - (1 - alpha) ** (1 / k)`` for `k` comparisons.

    Args:
        arms: values of each arm by seed.
        base: the name of the arm that the others are compared with.
        alpha: probability of any false claim of a difference, and of any false claim of equivalence.
        margin: of equivalence.
        power: with which the seeds that are planned decide.
        resolution: the step of the values, as for `compare_paired`.

    Returns:
        One contrast for each other arm that has a seed in common with the base, in the order of `arms`.

    Raises:
        InputError: there is no such arm, or as `compare_paired` and `decide`.

    References:
        Dunnett, "A multiple comparison procedure for comparing several treatments with a control", 1955; Westfall and
        Young, Resampling-Based Multiple Testing, 1993; Sidak, "Rectangular confidence regions", 1967.
    """
    choice(base, tuple(arms), "base")
    pairs = [(name, base) for name in arms if name != base and arms[name].keys() & arms[base].keys()]
    compared = _compare(arms, pairs, alpha, resolution)
    largest = _draw_largest_of(compared)
    if largest is None:
        level = sidak(alpha, len(pairs))
        adjusted = [None if each.t_p is None else 1 - (1 - each.t_p) ** len(pairs) for each in compared]
    else:
        level = find_level(largest, compared[0].n, alpha)
        adjusted = [float(np.mean([*(largest >= abs(each.statistic or 0.0)), True])) for each in compared]
    return _contrast(pairs, compared, [level] * len(pairs), adjusted, alpha, margin, power)


def compare_all_pairs(
    arms: Mapping[str, Values],
    alpha: float = 0.05,
    margin: float = MARGIN,
    power: float = 0.8,
    *,
    resolution: float | None = None,
) -> tuple[Contrast, ...]:
    """Compares all pairs of arms by Holm's procedure; otherwise as `compare_with_base`.

    References:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    pairs = [pair for pair in combinations(arms, 2) if arms[pair[0]].keys() & arms[pair[1]].keys()]
    return contrast_all(pairs, _compare(arms, pairs, alpha, resolution), alpha, margin, power)


def contrast_all(
    pairs: Sequence[tuple[str, str]],
    compared: Sequence[PairedComparison],
    alpha: float = 0.05,
    margin: float = MARGIN,
    power: float = 0.8,
) -> tuple[Contrast, ...]:
    """Returns comparisons as the members of one family, by Holm's procedure.

    Args:
        pairs: the names of the two sides of each.
        compared: the comparisons.
        alpha, margin, power: as for `compare_with_base`.
    """
    levels, adjusted = holm([each.t_p for each in compared], alpha)
    return _contrast(pairs, compared, levels, adjusted, alpha, margin, power)


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


def _compare(
    arms: Mapping[str, Values], pairs: Sequence[tuple[str, str]], alpha: float, resolution: float | None
) -> list[PairedComparison]:
    return [compare_paired(arms[a], arms[b], 1 - alpha, resolution=resolution) for a, b in pairs]


def draw_largest(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns draws of the largest ``|t|`` of several arms where none differs, (flips,).

    The differences, less the means of their arms, get signs at random, one a seed for all arms.

    Args:
        differences: float64 (arms, seeds).
        seed: of the signs.
    """
    n = differences.shape[1]
    residuals = (differences - differences.mean(1, keepdims=True)) * np.sqrt(n / (n - 1))
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (FLIPS, n))
    means = signs @ residuals.T / n
    variances = np.maximum((residuals**2).mean(1) - means**2, np.finfo(float).tiny)
    largest: np.ndarray = np.max(np.abs(means) / np.sqrt(variances / (n - 1)), axis=1)
    return largest


def find_level(largest: np.ndarray, n: int, alpha: float) -> float:
    """Returns the level of each comparison with which the largest ``|t|`` is significant with probability `alpha`.

    Args:
        largest: draws, from `draw_largest`.
        n: number of seeds.
        alpha: of all comparisons together.
    """
    from scipy.special import stdtr

    return min(float(2 * stdtr(n - 1, -np.quantile(largest, 1 - alpha))), alpha)


def _draw_largest_of(compared: Sequence[PairedComparison]) -> np.ndarray | None:
    """Returns the draws; ``None`` where flips cannot tell them."""
    if len({each.seeds for each in compared}) != 1 or compared[0].n < LEAST_FOR_FLIPS:
        return None
    differences = np.array([each.differences for each in compared])
    return draw_largest(differences) if np.ptp(differences, axis=1).all() else None


def _contrast(
    pairs: Sequence[tuple[str, str]],
    compared: Sequence[PairedComparison],
    levels: Sequence[float],
    adjusted: Sequence[float | None],
    alpha: float,
    margin: float,
    power: float,
) -> tuple[Contrast, ...]:
    narrow, _ = holm([equivalence_p(each, margin) for each in compared], alpha)
    scope = f"as one of {len(pairs)} comparisons" if len(pairs) > 1 else ""
    contrasts = []
    for (first, second), each, level, p, one_sided in zip(pairs, compared, levels, adjusted, narrow, strict=True):
        verdict = decide(each, level, margin, power, equivalence_alpha=one_sided, scope=scope)
        low, high = each.interval(1 - level)
        contrasts.append(Contrast(first, second, each, level, low, high, p, verdict))
    return tuple(contrasts)
