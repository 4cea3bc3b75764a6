"""Group-sequential comparisons: tests at several planned looks, with the error rate of a single test.

The looks are fixed before the first one: after the seeds of the study, after twice as many, and so on up to a maximum.
The level is spent in proportion to the seeds seen (Lan and DeMets' spending function ``alpha * t``). A comparison that
is decided at one look is not tested again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cnnjax.settings.checking import choice
from cnnjax.statistics.families import DEFAULT, Contrast, compare_outcomes, make_contrast, sidak
from cnnjax.statistics.losses import Outcomes, complete, find_losses, mark_collapsed
from cnnjax.statistics.verdicts import Criteria

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
) -> tuple[Contrast, ...]:
    """Compares every other arm with the baseline at planned looks, and stops at the first look that decides.

    Each comparison has Sidak's level for the number of comparisons, which is spent over its looks.

    Args:
        arms: outcomes of each arm by seed.
        baseline: name of the arm that the others are compared with.
        ended: seeds at which each arm has a result, with or without a value.
        seeds: all seeds that may be run, in order; a look uses as many of the first ones as it has seeds.
        looks: number of seeds at each look, from `plan_looks`.
        criteria: as for `compare_with_baseline`.

    Returns:
        One contrast for each other arm that has reached its first look and shares a completed seed with the baseline:
        that of the look that decided it, or of the last look reached. If undecided, its `seeds_needed` is the next
        look.

    Raises:
        InputError: `baseline` is not an arm, or an argument is out of range as in `compare_paired` and `decide`.

    Example:
        >>> arms = {"valid": {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, "same": {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}}
        >>> ended = {name: tuple(runs) for name, runs in arms.items()}
        >>> [each.verdict.word for each in compare_in_looks(arms, "valid", ended, seeds=range(8), looks=(4, 8))]
        ['better']
    """
    choice(baseline, tuple(arms), "baseline")
    k = len(arms) - 1
    levels = spend(looks, sidak(criteria.alpha, k))
    contrasts = []
    for name in (name for name in arms if name != baseline):
        contrast = None
        for number, (look, level) in enumerate(zip(looks, levels, strict=True), 1):
            first = seeds[:look]
            if len(first) < look or not all(seed in ended[name] and seed in ended[baseline] for seed in first):
                break
            own, others = (
                mark_collapsed({seed: arms[each][seed] for seed in first if seed in arms[each]}, criteria.measure)
                for each in (name, baseline)
            )
            if not complete(own).keys() & complete(others).keys():
                break
            compared = compare_outcomes(own, others, 1 - level, criteria.measure)
            losses = find_losses(own, others, criteria.measure)
            scope = f"as one of {k} comparisons, " * (k > 1) + f"at look {number} of {len(looks)}"
            contrast = make_contrast(
                (name, baseline), compared, losses, (level, level), None, criteria, scope=scope, plans=False
            )
            if contrast.verdict.word != "undecided" or losses.both_at_chance:
                break  # more seeds would not help, because neither network learns
            further = looks[number] if number < len(looks) else None
            what = f"the next look is at {further} seeds" if further else "it was the last look"
            reason = f"{contrast.verdict.reason}; {what}"
            contrast = replace(contrast, verdict=replace(contrast.verdict, reason=reason, seeds_needed=further))
        contrasts += [contrast] if contrast else []
    return tuple(contrasts)


def _exceed(bound: float, sums: np.ndarray, weights: np.ndarray, step: float, wanted: float) -> float:
    """Returns the probability that the sum stays within the bound, minus the wanted probability."""
    from scipy.special import ndtr

    return float(weights @ (ndtr((bound - sums) / step) - ndtr((-bound - sums) / step)) - wanted)
