"""How small a difference between two arms this many seeds can show."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ablations.language.grids import Grid
from cnnjax.config import RunConfig
from cnnjax.estimates import pooled_standard_deviation, smallest_detectable_difference
from cnnjax.records import Record

ASSUMED_DEVIATION = 0.0019
"""Standard deviation of the test accuracy of the default run over ten seeds (docs/accuracy.md)."""
ALPHA, POWER = 0.05, 0.8


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

    The spread over seeds is that of the grid's own cells if two of them have two completed seeds, else that of any
    configurations of the same dataset, training examples and epochs, else `ASSUMED_DEVIATION`.

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
    pooled = of_study if len(of_study) > 1 else alike
    deviation = pooled_standard_deviation(pooled)
    if deviation is None:
        return ASSUMED_DEVIATION, "an assumption: that of the default run on mnist over ten seeds"
    whose = "of this study" if pooled is of_study else "of the same dataset, training examples and epochs"
    return deviation, f"pooled over {len(pooled)} configuration{'s' * (len(pooled) != 1)} {whose}"


def _group_accuracies(records: Iterable[Record]) -> dict[RunConfig, list[float]]:
    """Returns the test accuracies of every configuration over its seeds; the configuration is given with the seed 0."""
    groups: dict[RunConfig, list[float]] = {}
    for record in records:
        if record.test_accuracy is not None:
            groups.setdefault(replace(record.config, seed=0), []).append(record.test_accuracy)
    return groups


def _find_data(config: RunConfig) -> tuple[str, int | None, int]:
    return config.data.name, config.data.train_size, config.train.epochs
