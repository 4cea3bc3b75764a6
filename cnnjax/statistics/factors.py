"""Analysis of the factors of a study: shares of the variance, effects of levels, and interactions.

The shares come from an analysis of variance with a mean for every seed (runs with the same seed share their batches),
main effects, and interactions of two factors. Sums of squares are of type II: a term is tested by how much it improves
the model of all terms that do not contain it. So the design may be unbalanced or incomplete, but then these shares
overlap; those of `split_variance` add up to one. Effects are paired differences between levels, averaged over those
combinations of the other factors that all levels have.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cnnjax.errors import InputError
from cnnjax.statistics.families import DEFAULT, Contrast, contrast_all, holm
from cnnjax.statistics.losses import Losses, Outcomes, complete, count_runs, mark_collapsed
from cnnjax.statistics.measures import Measure
from cnnjax.statistics.paired import PairedComparison, compare_paired, round_off
from cnnjax.statistics.verdicts import DEPENDENCE, LEAST_SEEDS, Criteria

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
MOST_FACTORS = 8
"""Largest number of factors among which the variance is divided: every set of them is a model to fit."""


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


@dataclass(frozen=True)
class VarianceSplit:
    """The variance between runs, divided among its sources; the shares add up to 1.

    Attributes:
        factors: share of each factor, by its name, with its part of the interactions.
        seeds: share of the seed: what all cells have in common at a seed.
        rest: share of what neither explains, such as what a seed does in one cell alone.
    """

    factors: Mapping[str, float]
    seeds: float
    rest: float


def split_variance(factors: Sequence[str], cells: Accuracies) -> VarianceSplit | None:
    """Divides the variance between runs among the factors, the seed and the rest, by Shapley's value.

    How much a source explains depends on which others came before it, unless the design is balanced. So its share is
    the mean, over all orders of the sources, of what it adds to those before it; a set of factors explains what their
    main effects and interactions of two do. In a full grid with equal seeds, a share is the sum of squares of the
    factor plus half of those of its interactions, divided by the total.

    The shares describe the runs that were made. Noise counts as explained where it can be, so a factor without any
    effect has a share of about its degrees of freedom divided by the number of runs, less one.

    Args:
        factors: names of the factors, distinct.
        cells: accuracies of the cells, by seed; all of them count, also where other cells lack a seed.

    Returns:
        The shares; ``None`` if the values are all equal, or for more than `MOST_FACTORS` factors.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968}, {0: 0.980, 1: 0.982, 2: 0.979}
        >>> split = split_variance(["padding"], {("valid",): valid, ("same",): same})
        >>> f"{split.factors['padding']:.1%} + {split.seeds:.1%} + {split.rest:.1%}"
        '94.8% + 5.0% + 0.2%'

    References:
        Lindeman, Merenda and Gold, Introduction to Bivariate and Multivariate Analysis, 1980; Groemping, "Relative
        importance for linear regression in R: the package relaimpo", 2006; Shapley, "A value for n-person games", 1953.
    """
    if len(factors) > MOST_FACTORS or not any(cells.values()):
        return None
    design = _Design(cells)
    centred = design.values - design.values.mean()
    total = float(centred @ centred)
    if total <= 1e-24 * float(design.values @ design.values):
        return None
    count = len(factors)
    seeds, sources = count, range(count + 1)
    terms: list[Term] = [(index,) for index in range(count)] + list(combinations(range(count), 2))
    columns = [_indicate([tuple(labels[index] for index in term) for labels in design.labels]) for term in terms]
    matrix = np.hstack([*columns, design.seeds])
    owners = [frozenset(term) for term, block in zip(terms, columns, strict=True) for _ in range(block.shape[1])]
    owners += [frozenset([seeds])] * design.seeds.shape[1]
    products, targets = matrix.T @ matrix, matrix.T @ centred
    explained = {
        chosen: _explain(products, targets, [owner <= chosen for owner in owners]) / total
        for size in range(count + 2)
        for chosen in map(frozenset, combinations(sources, size))
    }
    shares = dict.fromkeys(sources, 0.0)
    for chosen, part in explained.items():
        for source in sources:
            if source not in chosen:
                weight = 1 / ((count + 1) * math.comb(count, len(chosen)))
                shares[source] += weight * (explained[chosen | {source}] - part)
    rest = max(1 - explained[frozenset(sources)], 0.0)
    return VarianceSplit({name: shares[index] for index, name in enumerate(factors)}, shares[seeds], rest)


def _explain(products: np.ndarray, targets: np.ndarray, chosen: Sequence[bool]) -> float:
    """Returns the sum of squares that the chosen columns explain, from their products with each other and the target.

    The columns are indicators, so their products are whole numbers, and an eigenvalue is far from zero or is zero.
    """
    if not any(chosen):
        return 0.0
    kept = np.flatnonzero(chosen)
    values, vectors = np.linalg.eigh(products[np.ix_(kept, kept)])
    along = vectors.T @ targets[kept]
    is_determined = values > 1e-9 * values[-1]
    return float(np.sum(along[is_determined] ** 2 / values[is_determined]))


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
class LogOdds:
    """An interaction of shares, such as accuracies, on the scale of their log-odds.

    Near 100% a change has little room, so what one factor does depends on the other in percentage points, even if both
    multiply the odds of a right answer by the same everywhere. Such an interaction is none in log-odds.

    Attributes:
        difference: the interaction in log-odds.
        level: level of its test, by Holm's procedure over the interactions of the study in log-odds.
        low, high: Student's interval with confidence ``1 - level``; ``None`` without a spread.
        word: ``depends`` if the interval leaves zero out, ``reversed`` if it does on the other side than an interaction
            that was found in points, else ``undecided``.
    """

    difference: float
    level: float
    low: float | None
    high: float | None
    word: str


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
        log_odds: the interaction in log-odds; ``None`` for main effects, and where the measure is no share.
    """

    factors: tuple[str, ...]
    labels: tuple[str, ...]
    references: tuple[str, ...]
    combinations: int
    possible: int
    is_common: bool
    unpaired: tuple[int, ...]
    contrast: Contrast
    log_odds: LogOdds | None = None

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
        factors' levels. A combination whose cells have fewer than three seeds in common is left out where others have
        more, as it would take the seeds from all. Interactions of shares have their `LogOdds` too.

    Example:
        >>> valid, same = {0: 0.970, 1: 0.971, 2: 0.968, 3: 0.969}, {0: 0.980, 1: 0.982, 2: 0.979, 3: 0.978}
        >>> (effect,) = estimate_effects(["padding"], {("valid",): valid, ("same",): same})
        >>> effect.name, f"{effect.contrast.comparison.mean:.3f}", effect.contrast.verdict.word
        ('padding: same - valid', '0.010', 'better')

    References:
        Loftus, "On interpretation of interactions", 1978 (the scale of an interaction).
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
    contrasts = contrast_all(
        [(" x ".join(factors[index] for index in plan.chosen), "0") for plan, _ in told],
        [compared for _, compared in told],
        [_find_losses(plan.blocks, cells, measure) for plan, _ in told],
        len(planned),
        criteria,
        labels=DEPENDENCE if order > 1 else None,
    )
    effects = tuple(
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
    if order == 1 or not measure.is_share:
        return effects
    scaled = _compare_log_odds([plan.used for plan, _ in told], cells, measure.resolution)
    return _add_log_odds(effects, scaled, len(planned), criteria.alpha) if scaled else effects


def _compare_log_odds(
    plans: Sequence[Sequence[Block]], cells: Cells, resolution: float | None
) -> list[PairedComparison] | None:
    """Compares interactions with zero in log-odds; ``None`` if a value is 0 or 1 and its number of images is unknown.

    With `k` of `n` images right, the log-odds are ``log((k + 1/2) / (n - k + 1/2))``, which exist for 0 and `n`, too
    (Haldane 1956; Anscombe 1956).
    """
    values = {cell: complete(outcomes) for cell, outcomes in cells.items()}
    if resolution is None and not all(0 < value < 1 for known in values.values() for value in known.values()):
        return None
    half = (resolution or 0.0) / 2
    odds: Cells = {
        cell: {seed: math.log((value + half) / (1 - value + half)) for seed, value in known.items()}
        for cell, known in values.items()
    }
    # A value is rounded with a variance of resolution**2 / 12, which the slope of the log-odds multiplies.
    hidden = {
        cell: float(np.mean([(1 / (value + half) + 1 / (1 - value + half)) ** 2 for value in known.values()]))
        for cell, known in values.items()
        if known
    }
    compared = []
    for blocks in plans:
        found = _combine(blocks, odds)
        largest = max(abs(v) for block in blocks for cell, _ in block for v in complete(odds[cell]).values())
        rounded = round_off(np.array([*found.values()]), largest).tolist()
        least = half * math.sqrt(sum(hidden[cell] for block in blocks for cell, _ in block) / 3) / len(blocks)
        zeros = dict.fromkeys(found, 0.0)
        compared.append(compare_paired(dict(zip(found, rounded, strict=True)), zeros, least=least or None))
    return compared


def _add_log_odds(
    effects: Sequence[Effect], scaled: Sequence[PairedComparison], k: int, alpha: float
) -> tuple[Effect, ...]:
    levels, _ = holm([*(each.t_p for each in scaled), *[None] * (k - len(scaled))], alpha)
    added = []
    for effect, compared, level in zip(effects, scaled, levels[: len(scaled)], strict=True):
        low, high = compared.interval(1 - level)
        word = "undecided"
        if low is not None and high is not None and compared.n >= LEAST_SEEDS and (low > 0 or high < 0):
            is_found = effect.contrast.verdict.word in ("better", "worse")
            is_above = effect.contrast.comparison.mean > 0
            word = "reversed" if is_found and is_above != (low > 0) else "depends"
        added.append(replace(effect, log_odds=LogOdds(compared.mean, level, low, high, word)))
    return tuple(added)


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
    used = {labels: _choose_blocks(found, cells) for labels, found in blocks.items()}
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


def _choose_blocks(blocks: Mapping[Labels, Block], cells: Cells) -> dict[Labels, Block]:
    """Returns the blocks that tell of the effect: with enough common seeds for a verdict, or else with any.

    The seeds of an effect are those that all its blocks have, so one that lost nearly all its runs would take the seeds
    from the others.
    """
    seeds = {rest: len(_combine([block], cells)) for rest, block in blocks.items()}
    least = LEAST_SEEDS if max(seeds.values()) >= LEAST_SEEDS else 1
    return {rest: block for rest, block in blocks.items() if seeds[rest] >= least}


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
