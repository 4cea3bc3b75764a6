"""How small a difference between two arms this many seeds can show."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ablations.language.grids import Grid
from cnnjax.config import RunConfig
from cnnjax.estimates import smallest_detectable_difference, typical_standard_deviation
from cnnjax.records import Record

ASSUMED_DEVIATION = 0.0019
"""Standard deviation of the test accuracy of the default run over ten seeds (docs/accuracy.md)."""
ALPHA, POWER = 0.05, 0.8
LEAST_FREEDOM = 8
"""Degrees of freedom that a spread must have to take the place of the assumed one, which has 9."""


@dataclass(frozen=True)
class Sensitivity:
    """What a paired two-sided t test of two arms would find.

    Attributes:
        standard_deviation: of the test accuracy over seeds, in one cell.
        basis: where this is from.
        seeds: of every cell.
        difference: of the mean test accuracies, found with probability `POWER` at the level `ALPHA` if the seeds of two
            arms have nothing in common; ``None`` for one seed.
    """

    standard_deviation: float
    basis: str
    seeds: int
    difference: float | None


def find_sensitivity(grid: Grid, records: Mapping[str, Record]) -> Sensitivity:
    """Returns the smallest difference that a grid would find.

    The spread over seeds is the typical one of the grid's own cells if their completed seeds tell enough of it, else
    that of any configurations with the same dataset, training examples and epochs, else `ASSUMED_DEVIATION`.

    Args:
        grid: of the study.
        records: what is stored, of the grid or not, by run key.
    """
    deviation, basis = _find_spread(grid, records.values())
    n = len(grid.seeds)
    difference = smallest_detectable_difference(math.sqrt(2) * deviation, n, ALPHA, POWER)
    return Sensitivity(deviation, basis, n, difference)


def _find_spread(grid: Grid, records: Iterable[Record]) -> tuple[float, str]:
    own = {replace(cell.config, seed=0).key for cell in grid.cells}
    likes = {_find_data(cell.config) for cell in grid.cells}
    repeated = {config: values for config, values in _group_accuracies(records).items() if len(values) > 1}
    of_study = [values for config, values in repeated.items() if config.key in own]
    alike = [values for config, values in repeated.items() if _find_data(config) in likes]
    for groups, whose in ((of_study, "of this study"), (alike, "of the same dataset, training examples and epochs")):
        freedom = sum(len(values) - 1 for values in groups)
        deviation = typical_standard_deviation(groups)
        if deviation is not None and freedom >= LEAST_FREEDOM:
            spreads = [statistics.stdev(values) for values in groups]
            reach = f", {min(spreads):.4f} to {max(spreads):.4f}" if len(groups) > 1 else ""
            cells = f"{len(groups)} configuration{'s' * (len(groups) != 1)} {whose}"
            return deviation, f"typical of {cells}{reach}, {freedom} degrees of freedom"
    return ASSUMED_DEVIATION, (
        "an assumption: that of the default run on mnist over ten seeds; small networks and short training vary more"
    )


def _group_accuracies(records: Iterable[Record]) -> dict[RunConfig, list[float]]:
    """Returns the test accuracies of every configuration over its seeds; the configuration is given with the seed 0."""
    groups: dict[RunConfig, list[float]] = {}
    for record in records:
        if record.test_accuracy is not None:
            groups.setdefault(replace(record.config, seed=0), []).append(record.test_accuracy)
    return groups


def _find_data(config: RunConfig) -> tuple[str, int | None, float, int]:
    return config.data.name, config.data.train_size, config.train.validation_split, config.train.epochs
