"""The effect of a level of a factor, over all cells that have it; and whether it depends on another factor.

A main effect is a mean of paired differences: within a seed, over the combinations of the other factors in which both
levels exist, the cell with the one level less the cell with the other. An interaction is the difference of two such
differences. Each seed gives one number, so that intervals and tests are those of paired comparisons.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cnnjax.comparison.anova import Cells
from cnnjax.comparison.criteria import Criteria
from cnnjax.comparison.families import DEFAULT, Contrast, contrast_all
from cnnjax.comparison.paired import compare_paired

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Effect:
    """The effect of levels, against the reference of each factor.

    Attributes:
        factors: one, or the two that interact.
        labels: of the levels, one for each factor.
        references: of the factors.
        combinations: of the other factors, over which the mean is taken.
        unpaired: seeds that some of its cells have no value for, which are left out.
        contrast: with the effect as its difference, as one of all effects of its kind.
    """

    factors: tuple[str, ...]
    labels: tuple[str, ...]
    references: tuple[str, ...]
    combinations: int
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
) -> tuple[Effect, ...]:
    """Returns the effects of all levels, or of all pairs of levels of two factors, with verdicts by Holm's procedure.

    Args:
        factors: their names.
        cells: values of the cells by seed.
        order: 1 for main effects, 2 for interactions.
        references: the label that the others of a factor are compared with; left out, the first that occurs.
        criteria: of all effects together.
        resolution: the step of the values.

    Returns:
        Those that some combination of the other factors, with a seed in common, can tell.
    """
    if not cells:
        return ()
    first = {factor: next(iter(cells))[index] for index, factor in enumerate(factors)}
    base = {**first, **(references or {})}
    found = []
    for chosen in combinations(range(len(factors)), order):
        for labels in _list_levels(cells, chosen, [base[factors[index]] for index in chosen]):
            rest, values, unpaired = _average(cells, chosen, labels, [base[factors[index]] for index in chosen])
            if values:
                step = resolution and resolution / rest
                # An effect is a mean over `rest` sums of 2**order values, each rounded with a variance of step**2 / 12.
                least = resolution and resolution * math.sqrt(2**order / (12 * rest))
                compared = compare_paired(values, dict.fromkeys(values, 0.0), resolution=step, least=least)
                found.append((chosen, labels, rest, unpaired, compared))
    names = [(" x ".join(factors[index] for index in chosen), "0") for chosen, *_ in found]
    contrasts = contrast_all(names, [comparison for *_, comparison in found], criteria)
    return tuple(
        Effect(
            tuple(factors[index] for index in chosen),
            labels,
            tuple(base[factors[index]] for index in chosen),
            rest,
            unpaired,
            contrast,
        )
        for (chosen, labels, rest, unpaired, _), contrast in zip(found, contrasts, strict=True)
    )


def _list_levels(cells: Cells, chosen: Sequence[int], references: Sequence[str]) -> Iterator[Labels]:
    """Yields the combinations of labels of the chosen factors in which none is the reference."""
    for labels in dict.fromkeys(tuple(cell[index] for index in chosen) for cell in cells):
        if all(label != reference for label, reference in zip(labels, references, strict=True)):
            yield labels


def _average(
    cells: Cells, chosen: Sequence[int], labels: Labels, references: Sequence[str]
) -> tuple[int, dict[int, float], tuple[int, ...]]:
    """Returns over how many combinations of the other factors the mean is, the effect by seed, and seeds left out."""
    effects, known = [], set()
    for cell in cells:
        if tuple(cell[index] for index in chosen) == labels:
            corners = list(_list_corners(cell, chosen, references))
            if all(corner in cells for corner, _ in corners):
                known |= set.union(*(set(cells[corner]) for corner, _ in corners))
                seeds = set.intersection(*(set(cells[corner]) for corner, _ in corners))
                effects.append({seed: sum(sign * cells[corner][seed] for corner, sign in corners) for seed in seeds})
    common = set.intersection(*(set(effect) for effect in effects)) if effects else set()
    values = {seed: float(np.mean([effect[seed] for effect in effects])) for seed in sorted(common)}
    return len(effects), values, tuple(sorted(known - common))


def _list_corners(cell: Labels, chosen: Sequence[int], references: Sequence[str]) -> Iterator[tuple[Labels, int]]:
    """Yields the cell with every subset of the chosen factors at its reference, and the sign it enters with."""
    for size in range(len(chosen) + 1):
        for subset in combinations(zip(chosen, references, strict=True), size):
            changed = dict(subset)
            yield tuple(changed.get(index, label) for index, label in enumerate(cell)), (-1) ** size
