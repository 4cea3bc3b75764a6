"""Analysis of the factors of a study: shares of the variance, effects of levels, and interactions.

The shares come from an analysis of variance with a mean for every seed (runs with the same seed share their batches),
main effects, and interactions of two factors. Sums of squares are of type II: a term is tested by how much it improves
the model of all terms that do not contain it. So the design may be unbalanced or incomplete. Effects are paired
differences between levels, averaged over those combinations of the other factors that both levels have.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cnnjax.errors import InputError
from cnnjax.statistics.families import DEFAULT, Contrast, contrast_all
from cnnjax.statistics.losses import Losses, Outcomes, complete, count_runs, mark_collapsed
from cnnjax.statistics.measures import Measure
from cnnjax.statistics.paired import PairedComparison, compare_paired, round_off
from cnnjax.statistics.verdicts import SIGNS, Criteria

Labels = tuple[str, ...]
"""A cell, as the labels of its levels, in the order of the factors."""
Accuracies = Mapping[Labels, Mapping[int, float]]
"""Accuracies of every cell, by seed."""
Cells = Mapping[Labels, Outcomes]
"""Outcomes of every cell, by seed."""
Term = tuple[int, ...]
"""Index of one factor (main effect), or of two (interaction)."""
Block = Sequence[tuple[Labels, int]]
"""Cells that differ only in the chosen factors, each with its sign (+1 or -1) in the effect."""


@dataclass(frozen=True)
class Share:
    """Share of the variance that one term explains.

    Attributes:
        factors: name of the factor, or names of the two that interact.
        freedom: degrees of freedom.
        squares: sum of squares of type II.
        F, p: F statistic and p value of the test of no effect.
        omega_squared: estimated share of the total variance, at least 0.
        partial: estimated share of the variance that the other terms do not explain, at least 0.
        low, high: confidence interval of the partial share.
    """

    factors: tuple[str, ...]
    freedom: int
    squares: float
    F: float
    p: float
    omega_squared: float
    partial: float
    low: float
    high: float


def analyze_variance(factors: Sequence[str], cells: Accuracies, confidence: float = 0.95) -> tuple[Share, ...]:
    """Returns the shares of all factors, and of those interactions of two that the design can estimate, largest first.

    With error mean square ``e``, ``omega² = (SS - df e) / (SS_total + e)`` and ``partial omega² = df (F - 1) /
    (df (F - 1) + N)`` for `N` values; the interval is that of the noncentrality `l` of F, as ``l / (l + N)``.

    Args:
        factors: names of the factors.
        cells: accuracies of the cells, by seed.
        confidence: confidence of the intervals.

    Returns:
        One share per term; empty if no degree of freedom is left for the error, or all values are equal.

    Raises:
        InputError: the number of labels of a cell is not the number of factors.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> (share,) = analyze_variance(["padding"], {("valid",): valid, ("same",): same})
        >>> share.factors, f"{share.partial:.2f}"
        (('padding',), '0.98')

    References:
        Yates, "The analysis of multiple classifications with unequal numbers", 1934; Olejnik and Algina, "Generalized
        eta and omega squared statistics", 2003; Steiger, "Beyond the F test", 2004.
    """
    wrong = next((labels for labels in cells if len(labels) != len(factors)), None)
    if wrong is not None:
        raise InputError(f"cells: {wrong} must have {len(factors)} labels, one for each of {', '.join(factors)}")
    if not any(cells.values()):
        return ()
    design = _Design(cells)
    terms = [term for order in (1, 2) for term in combinations(range(len(factors)), order)]
    error, freedom = design.fit(terms)
    total = float(np.sum((design.values - design.values.mean()) ** 2))
    if freedom < 1 or error <= 1e-12 * total or not total:
        return ()
    shares = list(_share(design, terms, (error / freedom, freedom, total), confidence, factors))
    return tuple(sorted(shares, key=lambda share: -share.omega_squared))


class _Design:
    """The accuracies as one column, to be fitted by the indicator columns of seeds and terms."""

    def __init__(self, cells: Accuracies) -> None:
        rows = [(labels, seed, value) for labels, values in cells.items() for seed, value in values.items()]
        self.labels = [labels for labels, _, _ in rows]
        self.values = np.array([value for _, _, value in rows], float)
        self.seeds = _indicate([seed for _, seed, _ in rows])

    def fit(self, terms: Sequence[Term]) -> tuple[float, int]:
        """Fits seeds and terms; returns the residual sum of squares, and its degrees of freedom."""
        columns = [_indicate([tuple(labels[index] for index in term) for labels in self.labels]) for term in terms]
        matrix = np.hstack([self.seeds, *columns])
        left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
        kept = left[:, singular > 1e-9 * singular.max(initial=0.0)]
        centred = self.values - self.values.mean()  # for precision; the seeds' columns contain the constant
        residual = centred - kept @ (kept.T @ centred)
        return float(residual @ residual), len(self.values) - kept.shape[1]


def _indicate(keys: Sequence[object]) -> np.ndarray:
    distinct = list(dict.fromkeys(keys))
    return np.array([[key == other for other in distinct] for key in keys], float)


def _share(
    design: _Design,
    terms: Sequence[Term],
    error: tuple[float, int, float],
    confidence: float,
    factors: Sequence[str],
) -> Iterator[Share]:
    from scipy.special import fdtrc

    mean_square, error_freedom, total = error
    count = len(design.values)
    for term in terms:
        others = [other for other in terms if not set(term) <= set(other)]
        without, freedom_without = design.fit(others)
        squares, freedom_with = design.fit([*others, term])
        freedom = freedom_without - freedom_with
        if freedom < 1:
            continue
        explained = max(without - squares, 0.0)
        ratio = explained / freedom / mean_square
        gain = freedom * (ratio - 1)
        yield Share(
            tuple(factors[index] for index in term),
            freedom,
            explained,
            ratio,
            float(fdtrc(freedom, error_freedom, ratio)),
            max((explained - freedom * mean_square) / (total + mean_square), 0.0),
            max(gain / (gain + count), 0.0) if gain > -count else 0.0,
            *(
                noncentrality / (noncentrality + count)
                for noncentrality in _noncentralities(ratio, freedom, error_freedom, confidence)
            ),
        )


def _noncentralities(ratio: float, freedom: int, error_freedom: int, confidence: float) -> Iterator[float]:
    """Yields the lower and the upper end of the confidence interval of the noncentrality of F."""
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    for level in ((1 + confidence) / 2, (1 - confidence) / 2):

        def lack(noncentrality: float, level: float = level) -> float:
            return float(np.nan_to_num(ncfdtr(freedom, error_freedom, noncentrality, ratio)) - level)

        high = 1.0
        while lack(high) > 0:
            high *= 2
        yield float(brentq(lack, 0, high)) if lack(0.0) > 0 else 0.0


@dataclass(frozen=True)
class Effect:
    """The effect of a level of one factor, or of a pair of levels of two, against the reference levels.

    Attributes:
        factors: name of the factor, or names of the two that interact.
        labels: label of the level of each factor.
        references: label of the reference level of each factor.
        combinations: number of combinations of the other factors' levels that the effect is averaged over.
        possible: number of such combinations in the study. If it is larger than `combinations`, the levels were tried,
            or have results, in a part of the study only.
        is_common: whether all levels of these factors are compared over the same combinations.
        unpaired: seeds that are left out because some of the cells have no value for them.
        contrast: the comparison, whose difference is the effect, as one of the family of all effects of its order; the
            runs of its first side are those of cells with the sign +1.
    """

    factors: tuple[str, ...]
    labels: tuple[str, ...]
    references: tuple[str, ...]
    combinations: int
    possible: int
    is_common: bool
    unpaired: tuple[int, ...]
    contrast: Contrast

    @property
    def name(self) -> str:
        """Name of the effect, such as ``model.padding: same - valid``."""
        changes = (f"{a}: {b} - {c}" for a, b, c in zip(self.factors, self.labels, self.references, strict=True))
        return " x ".join(changes)


def estimate_effects(
    factors: Sequence[str],
    cells: Cells,
    order: int = 1,
    *,
    references: Mapping[str, str] | None = None,
    criteria: Criteria = DEFAULT,
) -> tuple[Effect, ...]:
    """Returns the effects of all levels, or of all pairs of levels of two factors, with verdicts by Holm's procedure.

    Args:
        factors: names of the factors.
        cells: outcomes of the cells by seed; effects of cells without outcomes still count in the size of the family.
        order: 1 for main effects, 2 for interactions.
        references: label of the reference level by factor; by default the first level that occurs.
        criteria: level, margin and power of the family of all effects, and what is compared.

    Returns:
        The effects that can be estimated: those with completed runs of a common seed, in some combination of the other
        factors' levels.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> (effect,) = estimate_effects(["padding"], {("valid",): valid, ("same",): same})
        >>> effect.name, f"{effect.contrast.comparison.mean:.3f}", effect.contrast.verdict.word
        ('padding: same - valid', '0.010', 'better')
    """
    if not cells:
        return ()
    cells = {labels: mark_collapsed(outcomes, criteria.measure) for labels, outcomes in cells.items()}
    first = {factor: next(iter(cells))[index] for index, factor in enumerate(factors)}
    references = {**first, **(references or {})}
    planned = [
        plan
        for chosen in combinations(range(len(factors)), order)
        for plan in _plan(cells, chosen, tuple(references[factors[index]] for index in chosen))
    ]
    measure = criteria.measure
    told = [(plan, compared) for plan in planned if (compared := _compare(plan, cells, measure)) is not None]
    signs = SIGNS if measure.higher_is_better else {"better": "negative", "worse": "positive"}
    contrasts = contrast_all(
        [(" x ".join(factors[index] for index in plan.chosen), "0") for plan, _ in told],
        [compared for _, compared in told],
        [_find_losses(plan.blocks, cells, measure) for plan, _ in told],
        len(planned),
        criteria,
        labels=signs if order > 1 else None,
    )
    return tuple(
        Effect(
            tuple(factors[index] for index in plan.chosen),
            plan.labels,
            tuple(references[factors[index]] for index in plan.chosen),
            len(plan.used),
            plan.possible,
            plan.is_common,
            _list_unpaired(plan.used, cells, compared),
            contrast,
        )
        for (plan, compared), contrast in zip(told, contrasts, strict=True)
    )


@dataclass(frozen=True)
class _Plan:
    """An effect to estimate.

    Attributes:
        chosen: indices of its factors.
        labels: label of the level of each factor.
        blocks: the blocks of the study that the effect is about.
        used: those blocks that have results, over which the effect is averaged.
        possible, is_common: as in `Effect`.
    """

    chosen: tuple[int, ...]
    labels: Labels
    blocks: tuple[Block, ...]
    used: tuple[Block, ...]
    possible: int
    is_common: bool


def _plan(cells: Cells, chosen: tuple[int, ...], references: Labels) -> Iterator[_Plan]:
    """Yields the effects of the chosen factors: one for every tuple of levels without a reference level."""
    blocks: dict[Labels, dict[Labels, Block]] = {}
    for cell in cells:
        labels = tuple(cell[index] for index in chosen)
        if all(label != reference for label, reference in zip(labels, references, strict=True)):
            corners = tuple(_list_corners(cell, chosen, references))
            if all(corner in cells for corner, _ in corners):
                blocks.setdefault(labels, {})[_leave_out(cell, chosen)] = corners
    used = {
        labels: {rest: block for rest, block in found.items() if _combine([block], cells)}
        for labels, found in blocks.items()
    }
    common = set.intersection(*(set(found) for found in used.values() if found)) if any(used.values()) else set()
    possible = len({_leave_out(cell, chosen) for cell in cells})
    for labels, found in blocks.items():
        rests = [rest for rest in used[labels] if rest in common or not common]
        yield _Plan(
            chosen,
            labels,
            tuple(block for rest, block in found.items() if rest in rests or rest not in used[labels]),
            tuple(used[labels][rest] for rest in rests),
            possible,
            bool(common),
        )


def _leave_out(cell: Labels, chosen: Sequence[int]) -> Labels:
    return tuple(label for index, label in enumerate(cell) if index not in chosen)


def _compare(plan: _Plan, cells: Cells, measure: Measure) -> PairedComparison | None:
    """Compares the effect of each seed with zero; returns ``None`` if no seed has values in all the cells."""
    values = _combine(plan.used, cells)
    if not values:
        return None
    count, resolution = len(plan.used), measure.resolution
    largest = max(abs(v) for block in plan.used for cell, _ in block for v in complete(cells[cell]).values())
    values = dict(zip(values, round_off(np.array([*values.values()]), largest).tolist(), strict=True))
    step = resolution and resolution / count
    # An effect is a mean over blocks of sums of 2**order values, each rounded with a variance of step**2 / 12.
    least = resolution and resolution * math.sqrt(2 ** len(plan.chosen) / (12 * count))
    zeros = dict.fromkeys(values, 0.0)
    return compare_paired(values, zeros, resolution=step, least=least, higher_is_better=measure.higher_is_better)


def _combine(blocks: Sequence[Block], cells: Cells, fill: Mapping[int, float] | None = None) -> dict[int, float]:
    """Returns the effect by seed, for the seeds that all cells of the blocks have.

    Args:
        blocks: blocks that the effect is averaged over.
        cells: outcomes of the cells.
        fill: value assumed for lost runs, by the sign of their cell; by default lost runs are left out.
    """
    sides = [
        (
            sign,
            complete(cells[cell])
            if fill is None
            else {**dict.fromkeys(cells[cell], fill[sign]), **complete(cells[cell])},
        )
        for block in blocks
        for cell, sign in block
    ]
    seeds = set.intersection(*(set(values) for _, values in sides)) if sides else set()
    return {seed: float(sum(sign * values[seed] for sign, values in sides) / len(blocks)) for seed in sorted(seeds)}


def _find_losses(blocks: Sequence[Block], cells: Cells, measure: Measure) -> Losses:
    """Returns the runs of the cells with sign +1 and with sign -1, and how far lost runs could move the effect."""
    sides = [dict.fromkeys(cell for block in blocks for cell, sign in block if sign == side) for side in (1, -1)]
    first, second = (count_runs((cells[cell] for cell in side), measure) for side in sides)
    if not first.lost + second.lost:
        return Losses(first, second)
    ends = measure.bound_lost(value for side in sides for cell in side for value in complete(cells[cell]).values())
    if ends is None:
        return Losses(first, second, (), ())
    low, high = ends
    lowest, highest = (_combine(blocks, cells, fill) for fill in ({1: low, -1: high}, {1: high, -1: low}))
    return Losses(first, second, tuple(lowest.values()), tuple(highest.values()))


def _list_unpaired(blocks: Sequence[Block], cells: Cells, compared: PairedComparison) -> tuple[int, ...]:
    known = {seed for block in blocks for cell, _ in block for seed in complete(cells[cell])}
    return tuple(sorted(known - set(compared.seeds)))


def _list_corners(cell: Labels, chosen: Sequence[int], references: Sequence[str]) -> Iterator[tuple[Labels, int]]:
    """Yields the cell with every subset of the chosen factors set to its reference, and its sign in the effect."""
    for size in range(len(chosen) + 1):
        for subset in combinations(zip(chosen, references, strict=True), size):
            changed = dict(subset)
            yield tuple(changed.get(index, label) for index, label in enumerate(cell)), (-1) ** size
