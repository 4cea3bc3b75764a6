"""The effect of a level of a factor, over all cells that have it; and whether it depends on another factor.

A main effect is a mean of paired differences: within a seed, over combinations of the other factors, the cell with the
one level less the cell with the other. An interaction is the difference of two such differences. Each seed gives one
number, so that intervals and tests are those of paired comparisons. All levels of a factor are compared over the same
combinations, those in which every level exists: means over different ones could not be set beside each other.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from cnnjax.comparison.contrasts import Contrast
from cnnjax.comparison.criteria import Criteria
from cnnjax.comparison.families import DEFAULT, contrast_all
from cnnjax.comparison.losses import Losses, Outcomes, complete, count_runs
from cnnjax.comparison.paired import PairedComparison, compare_paired
from cnnjax.comparison.verdicts import SIGNS

Labels = tuple[str, ...]
Cells = Mapping[Labels, Outcomes]
"""Outcomes by seed of every cell, a cell being the labels of its levels in the order of the factors."""
Block = Sequence[tuple[Labels, int]]
"""The cells that differ in the chosen factors alone, each with the sign that it enters an effect with."""


@dataclass(frozen=True)
class Effect:
    """The effect of levels, against the reference of each factor.

    Attributes:
        factors: one, or the two that interact.
        labels: of the levels, one for each factor.
        references: of the factors.
        combinations: of the other factors, over which the mean is taken.
        possible: combinations of the other factors that the study has: where it is more than `combinations`, the
            factors were tried, or have results, in a part of the study only.
        is_common: whether the other levels of these factors are compared over the same combinations.
        unpaired: seeds that some of its cells have no value for, which are left out.
        contrast: with the effect as its difference, as one of all effects of its kind; its first runs are those of the
            cells that enter with a plus.
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
        """Such as ``model.padding: same - valid``."""
        changes = (f"{a}: {b} - {c}" for a, b, c in zip(self.factors, self.labels, self.references, strict=True))
        return " x ".join(changes)


def estimate_effects(
    factors: Sequence[str],
    cells: Cells,
    order: int = 1,
    *,
    references: Mapping[str, str] | None = None,
    criteria: Criteria = DEFAULT,
    resolution: float | None = None,
    chance: float = 0.0,
) -> tuple[Effect, ...]:
    """Returns the effects of all levels, or of all pairs of levels of two factors, with verdicts by Holm's procedure.

    Args:
        factors: their names.
        cells: outcomes of the cells by seed; one without any counts in the size of the family all the same.
        order: 1 for main effects, 2 for interactions.
        references: the label that the others of a factor are compared with; left out, the first that occurs.
        criteria: of all effects together.
        resolution: the step of the values.
        chance: the accuracy of guessing, the least that a lost run counts as.

    Returns:
        Those that some combination of the other factors, with a seed in common, can tell.
    """
    if not cells:
        return ()
    first = {factor: next(iter(cells))[index] for index, factor in enumerate(factors)}
    base = {**first, **(references or {})}
    planned = [
        plan
        for chosen in combinations(range(len(factors)), order)
        for plan in _plan(cells, chosen, tuple(base[factors[index]] for index in chosen))
    ]
    told = [(plan, compared) for plan in planned if (compared := _compare(plan, cells, resolution)) is not None]
    contrasts = contrast_all(
        [(" x ".join(factors[index] for index in plan.chosen), "0") for plan, _ in told],
        [compared for _, compared in told],
        [_find_losses(plan.blocks, cells, chance, resolution) for plan, _ in told],
        len(planned),
        criteria,
        labels=SIGNS if order > 1 else None,
    )
    return tuple(
        Effect(
            tuple(factors[index] for index in plan.chosen),
            plan.labels,
            tuple(base[factors[index]] for index in plan.chosen),
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
    """An effect to estimate: over the blocks that the study has for it, and those of them that have results."""

    chosen: tuple[int, ...]
    labels: Labels
    blocks: tuple[Block, ...]
    used: tuple[Block, ...]
    possible: int
    is_common: bool


def _plan(cells: Cells, chosen: tuple[int, ...], references: Labels) -> Iterator[_Plan]:
    """Yields the effects of all labels of the chosen factors of which none is the reference."""
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


def _compare(plan: _Plan, cells: Cells, resolution: float | None) -> PairedComparison | None:
    """Returns the effect by seed as a comparison with zero; ``None`` where no seed has all of its cells."""
    values = _combine(plan.used, cells)
    if not values:
        return None
    count = len(plan.used)
    step = resolution and resolution / count
    # An effect is a mean over blocks of sums of 2**order values, each rounded with a variance of step**2 / 12.
    least = resolution and resolution * math.sqrt(2 ** len(plan.chosen) / (12 * count))
    return compare_paired(values, dict.fromkeys(values, 0.0), resolution=step, least=least)


def _combine(blocks: Sequence[Block], cells: Cells, fill: Mapping[int, float] | None = None) -> dict[int, float]:
    """Returns the effect by seed, over the seeds that all cells have.

    Args:
        blocks: over which the mean is taken.
        cells: outcomes of the cells.
        fill: what lost runs count as, by the sign of their cell; left out, they count as nothing.
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


def _find_losses(blocks: Sequence[Block], cells: Cells, chance: float, resolution: float | None) -> Losses:
    """Returns the runs of the cells that enter with a plus and with a minus, and how far lost ones move the effect."""
    sides = [dict.fromkeys(cell for block in blocks for cell, sign in block if sign == side) for side in (1, -1)]
    first, second = (count_runs((cells[cell] for cell in side), chance, resolution) for side in sides)
    if not first.lost + second.lost:
        return Losses(first, second)
    best = max(chance, *(value for side in sides for cell in side for value in complete(cells[cell]).values()))
    lowest, highest = (_combine(blocks, cells, fill) for fill in ({1: chance, -1: best}, {1: best, -1: chance}))
    return Losses(first, second, tuple(lowest.values()), tuple(highest.values()))


def _list_unpaired(blocks: Sequence[Block], cells: Cells, compared: PairedComparison) -> tuple[int, ...]:
    known = {seed for block in blocks for cell, _ in block for seed in complete(cells[cell])}
    return tuple(sorted(known - set(compared.seeds)))


def _list_corners(cell: Labels, chosen: Sequence[int], references: Sequence[str]) -> Iterator[tuple[Labels, int]]:
    """Yields the cell with every subset of the chosen factors at its reference, and the sign it enters with."""
    for size in range(len(chosen) + 1):
        for subset in combinations(zip(chosen, references, strict=True), size):
            changed = dict(subset)
            yield tuple(changed.get(index, label) for index, label in enumerate(cell)), (-1) ** size
