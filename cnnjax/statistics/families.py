"""Families of comparisons: the probability of any false claim in a family is at most that of a single comparison.

A `Contrast` is a comparison of two arms as a member of a family, with its level, intervals, lost runs and verdict.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from cnnjax.settings.checking import choice
from cnnjax.statistics.losses import Losses, Outcomes, RunCounts, complete, find_losses, mark_collapsed
from cnnjax.statistics.measures import Measure
from cnnjax.statistics.paired import PairedComparison, compare_paired
from cnnjax.statistics.posteriors import Posterior, find_posterior
from cnnjax.statistics.rates import RateComparison
from cnnjax.statistics.verdicts import Criteria, Levels, Verdict, decide, equivalence_p

LEAST_FOR_FLIPS = 8
"""Fewest pairs for which the distribution of the largest of several t values is found by random sign flips."""
FLIPS = 9_999
"""Number of random sign flips."""
DEFAULT = Criteria()


@dataclass(frozen=True)
class Contrast:
    """Two arms compared as a member of a family.

    Attributes:
        first, second: names of the arms.
        first_runs, second_runs: counts of their completed and lost runs.
        comparison: the paired comparison, first minus second, of the completed runs that did not collapse.
        level: level of the interval of the difference.
        verdict_level: level of the test of a difference, on which the verdict rests: `level`, or above it by a
            step-down procedure.
        low, high: Student's interval of the mean difference with confidence ``1 - level``; ``None`` without a spread.
        equivalence_level: level of each of the two one-sided tests of equivalence.
        equivalence_low, equivalence_high: Student's interval with confidence ``1 - 2 * equivalence_level``, which must
            lie within the margin for arms to be equivalent; ``None`` without a spread.
        adjusted_p: p value of the difference, adjusted for the family: to compare with the level of the whole family;
            ``None`` without a spread.
        equivalence_p: p value of the two one-sided tests, not adjusted; ``None`` without a spread.
        verdict: verdict on the first arm against the second, as a member of the family.
        posterior: how probable a difference above, within and below the margin is, as help where the verdict is
            undecided; ``None`` without a spread.
        rates: how often the runs of the two arms collapse; ``None`` for an effect of several arms.
    """

    first: str
    second: str
    first_runs: RunCounts
    second_runs: RunCounts
    comparison: PairedComparison
    level: float
    verdict_level: float
    low: float | None
    high: float | None
    equivalence_level: float
    equivalence_low: float | None
    equivalence_high: float | None
    adjusted_p: float | None
    equivalence_p: float | None
    verdict: Verdict
    posterior: Posterior | None = None
    rates: RateComparison | None = None

    @property
    def decisive_interval(self) -> tuple[float | None, float | None]:
        """The interval beside the verdict: that of equivalence if the verdict is, else `low` and `high`."""
        if self.verdict.word == "equivalent":
            return self.equivalence_low, self.equivalence_high
        return self.low, self.high


def compare_with_baseline(
    arms: Mapping[str, Outcomes],
    baseline: str,
    criteria: Criteria = DEFAULT,
) -> tuple[Contrast, ...]:
    """Compares every other arm with the baseline, by simultaneous intervals and a step-down test.

    With at least eight common seeds, the level of each interval comes from the distribution of the largest t value
    under random sign flips. All arms of one seed flip together, which keeps the correlation between arms: Dunnett's
    method without his assumption of equal variances. With fewer seeds, or if arms have different seeds, the level is
    Sidak's ``1 - (1 - alpha) ** (1 / k)`` for `k` comparisons. The tests step down from that level, by `step_down`, so
    a difference may be found whose interval includes zero, but no other way round.

    Args:
        arms: outcomes of each arm by seed; arms without outcomes still count in the size of the family.
        baseline: name of the arm that the others are compared with.
        criteria: level, margin and power of the family, and what is compared.

    Returns:
        One contrast for each other arm that shares a completed seed with the baseline, in the order of `arms`.

    Raises:
        InputError: `baseline` is not an arm, or an argument is out of range as in `compare_paired` and `decide`.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> [(each.first, each.verdict.word) for each in compare_with_baseline({"valid": valid, "same": same}, "valid")]
        [('same', 'better')]

    References:
        Dunnett, "A multiple comparison procedure for comparing several treatments with a control", 1955; Westfall and
        Young, Resampling-Based Multiple Testing, 1993; Sidak, "Rectangular confidence regions", 1967; Holm, "A simple
        sequentially rejective multiple test procedure", 1979; Holland and Copenhaver, "An improved sequentially
        rejective Bonferroni test procedure", 1987.
    """
    choice(baseline, tuple(arms), "baseline")
    arms = {name: mark_collapsed(outcomes, criteria.measure) for name, outcomes in arms.items()}
    k = len(arms) - 1
    pairs = [(name, baseline) for name in arms if name != baseline and _have_common_seed(arms[name], arms[baseline])]
    compared = [compare_outcomes(arms[a], arms[b], 1 - criteria.alpha, criteria.measure) for a, b in pairs]
    has_all = len(pairs) == k and len({each.seeds for each in compared}) == 1
    differences = np.array([each.differences for each in compared]) if has_all else None
    level, levels, adjusted = step_down([each.t_p for each in compared], differences, k, criteria.alpha)
    losses = [find_losses(arms[a], arms[b], criteria.measure) for a, b in pairs]
    return _contrast(pairs, compared, losses, levels, adjusted, criteria, k, level=level)


def compare_all_pairs(
    arms: Mapping[str, Outcomes],
    criteria: Criteria = DEFAULT,
) -> tuple[Contrast, ...]:
    """Compares all pairs of arms, by Holm's procedure; arguments and errors are those of `compare_with_baseline`.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> [(each.first, each.verdict.word) for each in compare_all_pairs({"valid": valid, "same": same})]
        [('valid', 'worse')]

    References:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    arms = {name: mark_collapsed(outcomes, criteria.measure) for name, outcomes in arms.items()}
    planned = [((a, b), arms[a], arms[b]) for a, b in combinations(arms, 2)]
    return tuple(each for each in compare_planned(planned, criteria) if each)


def compare_planned(
    planned: Sequence[tuple[tuple[str, str], Outcomes, Outcomes]], criteria: Criteria
) -> list[Contrast | None]:
    """Compares pairs of outcomes that form one family, by Holm's procedure.

    Args:
        planned: the names of both sides, and the outcomes of each from `mark_collapsed`.
        criteria: level, margin and power of the family, and what is compared.

    Returns:
        The contrasts; ``None`` for sides that share no completed seed.
    """
    places = [place for place, (_, first, second) in enumerate(planned) if _have_common_seed(first, second)]
    told = [planned[place] for place in places]
    contrasts = contrast_all(
        [names for names, _, _ in told],
        [compare_outcomes(first, second, 1 - criteria.alpha, criteria.measure) for _, first, second in told],
        [find_losses(first, second, criteria.measure) for _, first, second in told],
        len(planned),
        criteria,
    )
    found = dict(zip(places, contrasts, strict=True))
    return [found.get(place) for place in range(len(planned))]


def contrast_all(
    pairs: Sequence[tuple[str, str]],
    compared: Sequence[PairedComparison],
    losses: Sequence[Losses],
    k: int,
    criteria: Criteria = DEFAULT,
    *,
    labels: Mapping[str, str] | None = None,
) -> tuple[Contrast, ...]:
    """Returns the contrasts of comparisons that form one family, by Holm's procedure.

    Args:
        pairs: names of the two sides of each comparison.
        compared: the comparisons.
        losses: runs of each comparison.
        k: number of planned comparisons, including those that could not be made.
        criteria: level, margin and power of the family.
        labels: labels of verdicts, as for `decide`.
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
    *,
    level: float | None = None,
) -> tuple[Contrast, ...]:
    """Returns the contrasts; `levels` are those of the tests, and of the intervals unless these have a `level`."""
    one_sided_p = [equivalence_p(each, criteria.margin) for each in compared]
    narrow, _ = holm(_pad(one_sided_p, k), criteria.alpha)
    rate_levels, _ = holm(_pad([each.rates.p if each.rates else None for each in losses], k), criteria.alpha)
    scope = f"as one of {k} comparisons" if k > 1 else ""

    def gather_levels(index: int) -> Levels:
        wide = level or levels[index]
        low = narrow[index]
        return Levels(wide, low, difference=levels[index], rates=rate_levels[index], worst=(wide, low))

    return tuple(
        make_contrast(
            pair,
            each,
            lost,
            gather_levels(index),
            adjusted[index],
            criteria,
            labels=labels,
            scope=scope,
        )
        for index, (pair, each, lost) in enumerate(zip(pairs, compared, losses, strict=True))
    )


def make_contrast(
    pair: tuple[str, str],
    compared: PairedComparison,
    losses: Losses,
    levels: Levels,
    adjusted_p: float | None,
    criteria: Criteria,
    **options: Any,
) -> Contrast:
    """Returns a comparison with its intervals and verdict.

    Args:
        pair: names of the two sides.
        compared: the comparison.
        losses: runs of both sides.
        levels: levels of its interval and of its tests.
        adjusted_p: p value of the difference, adjusted for the family.
        criteria: margin and power of the verdict, and what is compared.
        options: further arguments of `decide`.
    """
    low, high = compared.interval(1 - levels.interval)
    narrow_low, narrow_high = compared.interval(1 - 2 * levels.equivalence)
    verdict = decide(
        compared,
        margin=criteria.margin,
        power=criteria.power,
        levels=levels,
        losses=losses,
        measure=criteria.measure,
        **options,
    )
    return Contrast(
        first=pair[0],
        second=pair[1],
        first_runs=losses.first,
        second_runs=losses.second,
        comparison=compared,
        level=levels.interval,
        verdict_level=levels.difference,
        low=low,
        high=high,
        equivalence_level=levels.equivalence,
        equivalence_low=narrow_low,
        equivalence_high=narrow_high,
        adjusted_p=adjusted_p,
        equivalence_p=equivalence_p(compared, criteria.margin),
        verdict=verdict,
        posterior=find_posterior(compared, criteria.margin, higher_is_better=criteria.measure.higher_is_better),
        rates=losses.rates,
    )


def _have_common_seed(first: Outcomes, second: Outcomes) -> bool:
    return bool(complete(first).keys() & complete(second).keys())


def compare_outcomes(first: Outcomes, second: Outcomes, confidence: float, measure: Measure) -> PairedComparison:
    """Compares the completed runs of two arms, as `compare_paired` does; outcomes are from `mark_collapsed`."""
    return compare_paired(
        complete(first),
        complete(second),
        confidence,
        resolution=measure.resolution,
        higher_is_better=measure.higher_is_better,
    )


def _pad(p_values: Sequence[float | None], k: int) -> list[float | None]:
    """Returns the p values of `k` comparisons: those given, then ``None`` for those that could not be made."""
    return [*p_values, *[None] * (k - len(p_values))]


def sidak(alpha: float, k: int) -> float:
    """Returns the level of each of `k` comparisons for which the whole family has level `alpha`.

    Example:
        >>> f"{sidak(0.05, 5):.4f}"
        '0.0102'
    """
    return float(1 - (1 - alpha) ** (1 / max(k, 1)))


def holm(p_values: Sequence[float | None], alpha: float) -> tuple[list[float], list[float | None]]:
    """Returns the level at which Holm's procedure tests each p value, and the adjusted p values.

    The smallest of `m` is tested at ``alpha / m``, the next at ``alpha / (m - 1)``, and so on until one is larger than
    its level; all that follow share that level. ``None`` counts as a p value of 1.

    Example:
        >>> holm([0.01, 0.04], alpha=0.05)
        ([0.025, 0.05], [0.02, 0.04])
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


def step_down(
    p_values: Sequence[float | None], differences: np.ndarray | None, k: int, alpha: float
) -> tuple[float, list[float], list[float | None]]:
    """Returns the level of all intervals of a family, the level at which each comparison is tested, and adjusted p.

    At the level of a family, the largest ``|t|`` is significant with probability `alpha` if no arm differs: it is found
    by `draw_statistics`, at least Sidak's level and at most `alpha`. It is Sidak's without differences, with fewer than
    `LEAST_FOR_FLIPS` seeds, or if the differences of an arm are all equal.

    The smallest p value is tested at the level of the intervals, that of the whole family. Once it is significant, the
    next one is tested at the level of a family without the first, and so on until one fails; all that follow share its
    level. Whatever arms differ truly, the first of the others to be tested is tested at the level of a family that they
    all are in; so the probability to claim any of them is at most `alpha`.

    A claim has a direction. That none is wrong either is proved for independent comparisons (Shaffer 1980); for those
    with a common baseline it is simulated.

    Args:
        p_values: p values of the t tests of the comparisons that could be made; ``None`` without a spread.
        differences: their differences, float64 (k, seeds); ``None`` if some could not be made, or their seeds differ.
        k: number of planned comparisons.
        alpha: level of the whole family.

    Example:
        >>> level, levels, adjusted = step_down([0.03, 0.001, 0.2], None, 3, 0.05)
        >>> f"{level:.4f}", [f"{each:.4f}" for each in levels], [f"{each:.3f}" for each in adjusted]
        ('0.0170', ['0.0253', '0.0170', '0.0253'], ['0.059', '0.003', '0.200'])

    References:
        Holm, "A simple sequentially rejective multiple test procedure", 1979; Holland and Copenhaver, "An improved
        sequentially rejective Bonferroni test procedure", 1987; Westfall and Young, Resampling-Based Multiple Testing,
        1993, algorithm 4.1; Shaffer, "Control of directional errors with stagewise multiple test procedures", 1980.
    """
    values = [1.0 if p is None else p for p in p_values]
    order = np.argsort(values, kind="stable")
    draws = _draw_family(differences)
    # Of each draw, the largest |t| among the comparisons that are not yet tested.
    largest = None if draws is None else np.maximum.accumulate(draws[:, order[::-1]], axis=1)[:, ::-1]
    freedom = 0 if differences is None else differences.shape[1] - 1
    first = level = _find_level(None if largest is None else largest[:, 0], freedom, k, alpha)
    levels, adjusted = [first] * len(values), [1.0] * len(values)
    goes_on, before = True, 0.0
    for place, index in enumerate(order):
        left = None if largest is None else largest[:, place]
        if goes_on and place > 0:
            level = _find_level(left, freedom, k - place, alpha)
        levels[index] = level
        goes_on = goes_on and values[index] <= level
        before = max(before, _adjust(values[index], left, freedom, k - place))
        adjusted[index] = before
    return first, levels, [None if p is None else each for p, each in zip(p_values, adjusted, strict=True)]


def _find_level(largest: np.ndarray | None, freedom: int, k: int, alpha: float) -> float:
    from scipy.special import stdtr

    least = sidak(alpha, k)
    if largest is None:
        return least
    return min(max(float(2 * stdtr(freedom, -np.quantile(largest, 1 - alpha))), least), alpha)


def _draw_family(differences: np.ndarray | None) -> np.ndarray | None:
    if differences is None or differences.shape[1] < LEAST_FOR_FLIPS or not np.ptp(differences, axis=1).all():
        return None
    return draw_statistics(differences)


def draw_statistics(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draws ``|t|`` of several arms under the hypothesis that none differs from the baseline.

    In every draw, the differences minus the mean of their arm get random signs, one per seed for all arms.

    Args:
        differences: differences to the baseline, float64 (arms, seeds).
        seed: seed of the signs.

    Returns:
        float64 (`FLIPS`, arms).
    """
    n = differences.shape[1]
    residuals = (differences - differences.mean(1, keepdims=True)) * np.sqrt(n / (n - 1))
    signs = _draw_signs(n, seed)
    means = signs @ residuals.T / n
    variances = np.maximum((residuals**2).mean(1) - means**2, np.finfo(float).tiny)
    statistics: np.ndarray = np.abs(means) / np.sqrt(variances / (n - 1))
    return statistics


@functools.lru_cache(maxsize=8)
def _draw_signs(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (FLIPS, n))


def _adjust(p: float, largest: np.ndarray | None, freedom: int, k: int) -> float:
    """Returns the p value adjusted for `k` comparisons: at least the unadjusted one, and at most Sidak's."""
    from scipy.special import stdtrit

    highest = 1 - (1 - p) ** k
    if largest is None:
        return highest
    reached = np.count_nonzero(largest >= -float(stdtrit(freedom, p / 2))) + 1  # what was seen counts as one draw
    return min(max(reached / (len(largest) + 1), p), highest)
