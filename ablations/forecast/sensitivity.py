"""The sensitivity of a grid: the smallest difference between two cells that its seeds would find."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ablations.study.grid import Grid
from cnnjax.reports.arms import find_resolution
from cnnjax.runs.config import RunConfig
from cnnjax.runs.record import Record
from cnnjax.settings.checking import write_count
from cnnjax.statistics.estimates import rounding_deviation, smallest_detectable_difference, typical_standard_deviation
from cnnjax.statistics.families import sidak
from cnnjax.statistics.verdicts import LEAST_SEEDS

ASSUMED_DEVIATION = 0.0019
"""Standard deviation of the test accuracy of the default run over ten seeds (docs/accuracy.md)."""
ALPHA, POWER = 0.05, 0.8
LEAST_FREEDOM = 8
"""Degrees of freedom that a measured deviation needs to replace the assumed one, which has 9."""


@dataclass(frozen=True)
class Sensitivity:
    """What paired two-sided t tests of all cells against a baseline would find.

    Attributes:
        standard_deviation: the standard deviation of the accuracy over the seeds of a cell; ``None`` if it is not
            known, as of a trial function with too few stored runs.
        basis: the source of the standard deviation; ``None`` if it is not known.
        seeds: the number of seeds of every cell.
        comparisons: the number of comparisons, of the cells that can exist with one of them.
        difference: the smallest difference of mean test accuracies that each comparison finds with probability `POWER`,
            if all together make an error with probability at most `ALPHA` and cells are uncorrelated over seeds;
            ``None`` with fewer than `LEAST_SEEDS` seeds, nothing to compare, or an unknown standard deviation.
    """

    standard_deviation: float | None
    basis: str | None
    seeds: int
    comparisons: int
    difference: float | None


def find_sensitivity(grid: Grid, records: Mapping[str, Record]) -> Sensitivity:
    """Returns the smallest difference that a grid would find.

    The deviation over seeds is the typical one of the grid's cells if enough of their seeds are stored, else that of
    all configurations with the same dataset, training examples and epochs, or of the same trial function, else
    `ASSUMED_DEVIATION`, which says nothing of a trial function; it is at least the deviation that rounding to whole
    test images hides. The level of a comparison is Sidak's.

    Args:
        grid: the expanded study.
        records: stored runs, also outside the grid, by run key.
    """
    deviation, basis = _find_spread(grid, records.values())
    configs = [cell.config for cell in grid.cells if cell.problem is None]
    n, comparisons = len(grid.seeds), max(len(configs) - 1, 0)
    difference = None
    if n >= LEAST_SEEDS and comparisons and deviation is not None:
        spread = math.sqrt(2) * max(deviation, rounding_deviation(find_resolution(configs, "test")))
        difference = smallest_detectable_difference(spread, n, sidak(ALPHA, comparisons), POWER)
    return Sensitivity(deviation, basis, n, comparisons, difference)


def _find_spread(grid: Grid, records: Iterable[Record]) -> tuple[float, str] | tuple[None, None]:
    is_function = any(cell.config.trial for cell in grid.cells)
    own = {replace(cell.config, seed=0).key for cell in grid.cells}
    likes = {_find_data(cell.config) for cell in grid.cells}
    repeated = {config: values for config, values in _group_accuracies(records).items() if len(values) > 1}
    of_study = [values for config, values in repeated.items() if config.key in own]
    alike = [values for config, values in repeated.items() if _find_data(config) in likes]
    same = "of the same function" if is_function else "of the same dataset, training examples and epochs"
    for groups, whose in ((of_study, "of this study"), (alike, same)):
        freedom = sum(len(values) - 1 for values in groups)
        deviation = typical_standard_deviation(groups)
        if deviation is not None and freedom >= LEAST_FREEDOM:
            spreads = [statistics.stdev(values) for values in groups]
            reach = f", {min(spreads):.4f} to {max(spreads):.4f}" if len(groups) > 1 else ""
            cells = f"{write_count(len(groups), 'configuration')} {whose}"
            return deviation, f"typical of {cells}{reach}, {freedom} degrees of freedom"
    if is_function:
        return None, None
    return ASSUMED_DEVIATION, (
        "an assumption: that of the default run on mnist over ten seeds; small networks and short training vary more"
    )


def _group_accuracies(records: Iterable[Record]) -> dict[RunConfig, list[float]]:
    """Returns the accuracies over seeds of every configuration, which is given with seed 0."""
    groups: dict[RunConfig, list[float]] = {}
    for record in records:
        if record.test_accuracy is not None:
            groups.setdefault(replace(record.config, seed=0), []).append(record.test_accuracy)
    return groups


def _find_data(config: RunConfig) -> tuple[tuple[str, str | None], int | None, float, int]:
    if config.trial:
        return (config.trial.function, config.trial.source), None, 0.0, 0
    return config.data.source, config.data.train_size, config.train.validation_split, config.train.epochs
