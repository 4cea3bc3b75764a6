"""Accuracy against size: the Pareto front of networks, and effects of levels adjusted to equal size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cnnjax.statistics.factors import Cells
from cnnjax.statistics.families import DEFAULT, Contrast, contrast_all
from cnnjax.statistics.losses import Losses, complete, count_runs, mark_collapsed
from cnnjax.statistics.measures import Measure
from cnnjax.statistics.paired import compare_paired, round_off
from cnnjax.statistics.verdicts import Criteria

MOST_INFLATION = 10.0
"""Largest variance inflation factor of the size for which effects are adjusted.

Above it the levels almost determine the size, so the data cannot separate the effect of the size from theirs.
"""


def pareto_front(sizes: Sequence[float], accuracies: Sequence[float]) -> tuple[int, ...]:
    """Returns the indices of the points on the Pareto front, smallest size first.

    A point is on the front unless another one dominates it: one that is at least as accurate and no larger, and is
    better in one of the two.

    Args:
        sizes: parameters or FLOPs of the points; smaller is better.
        accuracies: accuracies of the points; higher is better.

    Example:
        >>> pareto_front([100, 200, 300], [0.90, 0.95, 0.94])
        (0, 1)
    """
    front: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: (sizes[index], -accuracies[index])):
        point = sizes[index], accuracies[index]
        if not front or accuracies[index] > accuracies[front[-1]] or point == (sizes[front[-1]], accuracies[front[-1]]):
            front.append(index)
    return tuple(front)


def adjust_for_size(
    factors: Sequence[str],
    cells: Cells,
    parameters: Mapping[tuple[str, ...], int],
    *,
    references: Mapping[str, str] | None = None,
    criteria: Criteria = DEFAULT,
) -> tuple[Contrast, ...]:
    """Returns the effect of every level at equal numbers of parameters.

    Within each seed, the accuracies of the cells are fitted by least squares with an effect of every level and a slope
    of ``log10(parameters)``; the effects by seed are then compared with zero, by Holm's procedure. It assumes that the
    effects add up and that the slope is the same everywhere.

    Args:
        factors: names of the factors.
        cells: outcomes of the cells by seed. Cells without a value, and seeds that another cell lacks, are ignored.
        parameters: number of parameters of every cell.
        references: label of the reference level by factor; by default the first level that occurs.
        criteria: level, margin and power of the family of all effects, and what is compared.

    Returns:
        One contrast for every level other than the references. Empty if the levels almost determine the size, that is,
        if the variance inflation factor of the size is above `MOST_INFLATION`.

    Example:
        >>> cells = {("8",): {0: 0.960, 1: 0.962}, ("16",): {0: 0.968, 1: 0.969}}
        >>> adjust_for_size(["filters"], cells, {("8",): 1000, ("16",): 2000})  # the filters determine the size
        ()

    References:
        Fisher, The Design of Experiments, 1935 (analysis of covariance).
    """
    cells = {cell: mark_collapsed(outcomes, criteria.measure) for cell, outcomes in cells.items()}
    completed = {cell: values for cell, outcomes in cells.items() if (values := complete(outcomes))}
    labels = list(completed)
    seeds = sorted(set.intersection(*(set(values) for values in completed.values()))) if completed else []
    if not seeds:
        return ()
    references = {**{factor: labels[0][index] for index, factor in enumerate(factors)}, **(references or {})}
    levels = [
        (index, level)
        for index, factor in enumerate(factors)
        for level in dict.fromkeys(cell[index] for cell in labels)
        if level != references[factor]
    ]
    indicators = [[float(cell[index] == level) for index, level in levels] for cell in labels]
    sizes = np.log10([float(parameters[cell]) for cell in labels])
    design = np.column_stack([np.ones(len(labels)), sizes - sizes.mean(), np.array(indicators)])
    if np.linalg.matrix_rank(design, tol=1e-6) < design.shape[1] or _inflate(design) > MOST_INFLATION:
        return ()
    scores = np.array([[completed[cell][seed] for seed in seeds] for cell in labels])
    effects = round_off(np.linalg.pinv(design) @ scores, np.abs(scores).max())
    zeros = dict.fromkeys(seeds, 0.0)
    measure = criteria.measure
    compared = [
        compare_paired(dict(zip(seeds, map(float, row), strict=True)), zeros, higher_is_better=measure.higher_is_better)
        for row in effects[2:]
    ]
    names = [(f"{factors[index]}={level}", f"{factors[index]}={references[factors[index]]}") for index, level in levels]
    losses = [_find_losses(cells, index, level, references[factors[index]], measure) for index, level in levels]
    return contrast_all(names, compared, losses, len(names), criteria)


def _find_losses(cells: Cells, index: int, level: str, reference: str, measure: Measure) -> Losses:
    """Returns the runs at a level and at its reference; how far lost runs could move the fit is left unknown."""
    first, second = (
        count_runs(
            (outcomes for cell, outcomes in cells.items() if cell[index] == label),
            replace(measure, chance=None, resolution=None),
        )
        for label in (level, reference)
    )
    return Losses(first, second, (), ()) if first.lost + second.lost else Losses(first, second)


def _inflate(design: np.ndarray) -> float:
    """Returns the variance inflation factor of the size, which is the second column of the design.

    It is the variance of the size divided by the part of it that the other columns do not explain.
    """
    size, others = design[:, 1], np.delete(design, 1, axis=1)
    left = size - others @ np.linalg.lstsq(others, size, rcond=None)[0]
    return float(np.sum((size - size.mean()) ** 2) / max(np.sum(left**2), np.finfo(float).tiny))
