"""Sequential comparisons: tests at several looks, with the error rate of a single test.

Either a few looks are fixed before the first one: after the seeds of the study, after twice as many, and so on up to a
maximum. Their level is spent in proportion to the seeds seen (Lan and DeMets' spending function ``alpha * t``). Or
there is a look after every seed, by the tests of `cnnjax.statistics.any_time`. A comparison that is decided at one look
is not tested again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cnnjax.settings.checking import choice
from cnnjax.statistics.any_time import equal_rates_p, find_least_seeds, find_levels
from cnnjax.statistics.families import DEFAULT, Contrast, compare_outcomes, make_contrast, sidak
from cnnjax.statistics.losses import Losses, Outcomes, complete, count_runs, find_losses, mark_collapsed
from cnnjax.statistics.paired import find_differences
from cnnjax.statistics.verdicts import LEAST_SEEDS, Criteria, Levels, half_widths, judge

_NODES = 200


def plan_looks(first: int, most: int) -> tuple[int, ...]:
    """Returns the number of seeds at each look: `first`, doubled while below `most`, and finally `most`.

    Example:
        >>> plan_looks(5, 30)
        (5, 10, 20, 30)
    """
    looks = [first]
    while 2 * looks[-1] < most:
        looks.append(2 * looks[-1])
    return (*looks, most) if most > first else (first,)


def spend(looks: Sequence[int], alpha: float) -> tuple[float, ...]:
    """Returns the two-sided level at which to test at each look.

    The levels are those of boundaries for sums of independent normal differences: the probability of having crossed one
    by look ``i`` is ``alpha * looks[i] / looks[-1]``. The t tests use these levels too;
    `docs/statistics.md` shows how well that works.

    Args:
        looks: number of seeds at each look, ascending.
        alpha: level of all looks together.

    Example:
        >>> [f"{level:.4f}" for level in spend((5, 10, 20), alpha=0.05)]
        ['0.0125', '0.0161', '0.0322']

    References:
        Lan and DeMets, "Discrete sequential boundaries for clinical trials", 1983; Armitage, McPherson and Rowe,
        "Repeated significance tests on accumulating data", 1969; Jennison and Turnbull, Group Sequential Methods, 2000.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    levels: list[float] = []
    unit, quadrature = np.polynomial.legendre.leggauss(_NODES)
    sums, weights, before = np.zeros(1), np.ones(1), 0  # distribution of the sum that has crossed no boundary
    for look in looks:
        step = np.sqrt(look - before)
        bound = brentq(_exceed, 0, 10 * np.sqrt(look), (sums, weights, step, 1 - alpha * look / looks[-1]), xtol=1e-12)
        levels.append(float(2 * ndtr(-bound / np.sqrt(look))))
        density = np.exp(-0.5 * ((bound * unit[:, None] - sums) / step) ** 2) / (step * np.sqrt(2 * np.pi)) @ weights
        sums, weights, before = bound * unit, density * quadrature * bound, look
    return tuple(levels)


def compare_in_looks(
    arms: Mapping[str, Outcomes],
    baseline: str,
    ended: Mapping[str, Collection[int]],
    seeds: Sequence[int],
    looks: Sequence[int],
    criteria: Criteria = DEFAULT,
    *,
    at_any_time: bool = False,
) -> tuple[Contrast, ...]:
    """Compares every other arm with the baseline at several looks, and stops at the first look that decides.

    At planned looks, each comparison has Sidak's level for the number of comparisons, which is spent over its looks. At
    looks at any time it has Bonferroni's, ``alpha / k``, because Sidak's inequality is not proved for these tests.

    Args:
        arms: outcomes of each arm by seed.
        baseline: name of the arm that the others are compared with.
        ended: seeds at which each arm has a result, with or without a value.
        seeds: all seeds that may be run, in order; a look uses as many of the first ones as it has seeds.
        looks: number of seeds at each look, from `plan_looks`, or from `plan_looks_at_any_time`.
        criteria: as for `compare_with_baseline`.
        at_any_time: whether the tests hold at any time, so that any looks are allowed.

    Returns:
        One contrast for each other arm that has reached a look at which it shares a completed seed with the baseline:
        that of the look that decided it, or of the last look reached. If undecided, its `seeds_needed` is the next
        look. It has no intervals if lost runs leave fewer seeds than can decide at any time.

    Raises:
        InputError: `baseline` is not an arm, or an argument is out of range as in `compare_paired` and `decide`.

    Example:
        >>> arms = {"valid": {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, "same": {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}}
        >>> ended = {name: tuple(runs) for name, runs in arms.items()}
        >>> [each.verdict.word for each in compare_in_looks(arms, "valid", ended, seeds=range(8), looks=(4, 8))]
        ['better']
    """
    choice(baseline, tuple(arms), "baseline")
    k, measure = len(arms) - 1, criteria.measure
    share = share_level(criteria.alpha, k, at_any_time)
    spent = () if at_any_time else spend(looks, share)

    def level(number: int, pairs: int) -> tuple[float, float]:
        return find_levels(pairs, share) if at_any_time else (spent[number], spent[number])

    contrasts = []
    for name in (name for name in arms if name != baseline):
        reached = None
        for number, look in enumerate(looks):
            first = seeds[:look]
            if len(first) < look or not all(seed in ended[name] and seed in ended[baseline] for seed in first):
                break
            own, others = (
                mark_collapsed({seed: arms[each][seed] for seed in first if seed in arms[each]}, measure)
                for each in (name, baseline)
            )
            pairs = len(complete(own).keys() & complete(others).keys())
            if not pairs:
                reached = None  # the next seeds may be the first at which both trained
                continue
            reached = number, own, others, level(number, pairs)
            if _ends(own, others, reached[-1], criteria):
                break
        if reached is None:
            continue
        number, own, others, levels = reached
        scope = f"as one of {k} comparisons, " * (k > 1)
        scope += "looked at after every seed" if at_any_time else f"at look {number + 1} of {len(looks)}"
        further = looks[number + 1] if number + 1 < len(looks) else None
        contrasts.append(
            _contrast((name, baseline), (own, others), levels, share if at_any_time else None, scope, further, criteria)
        )
    return tuple(contrasts)


def _contrast(
    pair: tuple[str, str],
    outcomes: tuple[Outcomes, Outcomes],
    levels: tuple[float, float],
    share: float | None,
    scope: str,
    further: int | None,
    criteria: Criteria,
) -> Contrast:
    """Returns the comparison at a look.

    Args:
        pair: names of both arms.
        outcomes: their outcomes at the look.
        levels: levels of the tests of this look; 0 where so few seeds can never decide.
        share: level of all looks together, if the tests hold at any time; otherwise ``None``.
        scope: as for `decide`.
        further: the next look; ``None`` after the last one.
        criteria: as for `compare_with_baseline`.
    """
    losses = find_losses(*outcomes, criteria.measure)
    can_decide, least = all(levels), LEAST_SEEDS
    wide, narrow = levels if can_decide or not share else (share, share)
    tests = Levels(wide, narrow, difference=wide, rates=wide, worst=(wide, narrow))
    if share:
        assert losses.rates is not None  # two arms have rates
        p = equal_rates_p(losses.rates.first_alone, losses.rates.second_alone)
        losses = replace(losses, rates=replace(losses.rates, p=p))
        worst = find_levels(len(losses.lowest), share) if losses.lowest else tests.worst
        tests, least = replace(tests, rates=share, worst=worst), find_least_seeds(share)
    compared = compare_outcomes(*outcomes, 1 - wide, criteria.measure)
    contrast = make_contrast(pair, compared, losses, tests, None, criteria, scope=scope, least=least, plans=False)
    if not can_decide:
        contrast = replace(contrast, low=None, high=None, equivalence_low=None, equivalence_high=None)
    if contrast.verdict.word != "undecided" or losses.both_at_chance:
        return contrast
    what = f"the next look is at {further} seeds" if further else "it was the last look"
    reason = f"{contrast.verdict.reason}; {what}"
    return replace(contrast, verdict=replace(contrast.verdict, reason=reason, seeds_needed=further))


def share_level(alpha: float, k: int, at_any_time: bool) -> float:
    """Returns the level of each of `k` comparisons, for all its looks together: Sidak's, or Bonferroni's at any time.

    Example:
        >>> f"{share_level(0.05, 20, at_any_time=False):.6f}", share_level(0.05, 20, at_any_time=True)
        ('0.002561', 0.0025)
    """
    return alpha / max(k, 1) if at_any_time else sidak(alpha, k)


def _ends(own: Outcomes, others: Outcomes, levels: tuple[float, float], criteria: Criteria) -> bool:
    """Returns whether a comparison is decided, or more seeds would not help, because neither network learns."""
    measure = criteria.measure
    if Losses(count_runs([own], measure), count_runs([others], measure)).both_at_chance:
        return True
    differences, spread = find_differences(complete(own), complete(others), measure.resolution)
    n = len(differences)
    if n < LEAST_SEEDS or spread is None or not all(levels):
        return False
    return any(judge(differences.mean(), half_widths(np.asarray(spread), n, *levels), criteria.margin))


def _exceed(bound: float, sums: np.ndarray, weights: np.ndarray, step: float, wanted: float) -> float:
    """Returns the probability that the sum stays within the bound, minus the wanted probability."""
    from scipy.special import ndtr

    return float(weights @ (ndtr((bound - sums) / step) - ndtr((-bound - sums) / step)) - wanted)
