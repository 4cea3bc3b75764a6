"""The sensitivity of a grid: what its seeds would find, before it is run, at the level of its comparisons.

All cells are compared with one of them, so there is one comparison fewer than there are cells, and each has the level
at which all together err with the probability that was asked for.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablations.study.grid import Grid
from cnnjax.reports.arms import find_resolution
from cnnjax.runs.config import RunConfig
from cnnjax.runs.record import Record
from cnnjax.settings.checking import write_count
from cnnjax.statistics.estimates import rounding_deviation, smallest_detectable_difference
from cnnjax.statistics.families import DEFAULT, sidak
from cnnjax.statistics.planning import (
    PowerPoint,
    Spread,
    estimate_spread,
    plan_equivalence,
    plan_seeds_between,
    squeeze_groups,
    trace_power,
)
from cnnjax.statistics.verdicts import LEAST_SEEDS, Criteria, plan_detection

ASSUMED = Spread(0.0019, 9)
"""Spread of the test accuracy of the default run over ten seeds (docs/accuracy.md)."""
LEAST_FREEDOM = 8
"""Degrees of freedom that a measured spread needs to replace the assumed one."""
POINTS = 8
"""Largest number of differences in a power curve; at least half as many."""


@dataclass(frozen=True)
class SeedCount:
    """The seeds that a cell needs for a purpose.

    Attributes:
        seeds: the number, if the spread is the true one; ``None`` if `MOST_SEEDS` are too few.
        low, high: the numbers at the ends of the 80% interval of the spread, likewise.
    """

    seeds: int | None
    low: int | None
    high: int | None


@dataclass(frozen=True)
class Sensitivity:
    """What paired two-sided t tests of all cells against a baseline would find.

    Attributes:
        standard_deviation: the standard deviation of the accuracy over the seeds of a cell; ``None`` if it is not
            known, as of a trial function with too few stored runs.
        freedom: its degrees of freedom; ``None`` if it is not known.
        basis: the source of the standard deviation; ``None`` if it is not known.
        seeds: the number of seeds of every cell.
        comparisons: the number of comparisons, of the cells that can exist with one of them.
        alpha: the probability with which all comparisons together make an error at most.
        level: the level of each comparison, which is Sidak's.
        power: the probability with which differences are to be found.
        margin: the margin of equivalence.
        difference: the smallest difference of mean test accuracies that each comparison finds with this power, if cells
            are uncorrelated over seeds; ``None`` with fewer than `LEAST_SEEDS` seeds, nothing to compare, or an unknown
            standard deviation.
        difference_low, difference_high: the same at the ends of the 80% interval of the standard deviation.
        curve: the power curve of a comparison with these seeds; empty where `difference` is ``None``.
        equivalence: the seeds that show two equal cells equivalent with this power, each at its share of `alpha`;
            ``None`` with nothing to compare, or an unknown standard deviation.
    """

    standard_deviation: float | None
    freedom: float | None
    basis: str | None
    seeds: int
    comparisons: int
    alpha: float
    level: float
    power: float
    margin: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    curve: tuple[PowerPoint, ...] = ()
    equivalence: SeedCount | None = None

    @property
    def spread(self) -> Spread | None:
        """The spread of a difference of two cells that are uncorrelated over seeds; ``None`` if it is not known."""
        if self.standard_deviation is None or self.freedom is None:
            return None
        return Spread(math.sqrt(2) * self.standard_deviation, self.freedom)

    def find(self, difference: float) -> tuple[SeedCount, PowerPoint | None]:
        """Returns the seeds that find a true difference, and what the study as it is would do with it.

        The latter is ``None`` with fewer than `LEAST_SEEDS` seeds. The spread must be known.
        """
        assert self.spread is not None

        def plan(spread: float) -> int | None:
            return plan_detection(spread, difference, self.level, self.power)

        count = SeedCount(plan(self.spread.deviation), *plan_seeds_between(self.spread, plan))
        if self.seeds < LEAST_SEEDS:
            return count, None
        return count, trace_power([difference], self.spread.deviation, self.seeds, self.level)[0]


def find_sensitivity(grid: Grid, records: Mapping[str, Record], criteria: Criteria = DEFAULT) -> Sensitivity:
    """Returns what a grid would find.

    The deviation over seeds is the typical one of the grid's cells if enough of their seeds are stored, else that of
    all configurations with the same dataset, training examples and epochs, or of the same trial function, else
    `ASSUMED`, which says nothing of a trial function; it is at least the deviation that rounding to whole test images
    hides.

    Args:
        grid: the expanded study.
        records: stored runs, also outside the grid, by run key.
        criteria: the level, the margin and the power of the study.
    """
    configs = [cell.config for cell in grid.cells if cell.problem is None]
    n, comparisons = len(grid.seeds), max(len(configs) - 1, 0)
    least = rounding_deviation(find_resolution(configs, "test")) if configs else 0.0
    known, basis = _find_spread(grid, records.values(), least)
    found = Sensitivity(
        standard_deviation=known.deviation if known else None,
        freedom=known.freedom if known else None,
        basis=basis,
        seeds=n,
        comparisons=comparisons,
        alpha=criteria.alpha,
        level=sidak(criteria.alpha, comparisons),
        power=criteria.power,
        margin=criteria.margin,
    )
    spread = found.spread
    if spread is None or not comparisons:
        return found
    low, high = spread.interval()

    def plan(true: float) -> int | None:
        return plan_equivalence(true, criteria.margin, criteria.alpha / comparisons, criteria.power)

    found = replace(found, equivalence=SeedCount(plan(spread.deviation), plan(low), plan(high)))
    if n < LEAST_SEEDS:
        return found
    detected = smallest_detectable_difference(1.0, n, found.level, criteria.power)
    assert detected is not None
    difference = detected * spread.deviation
    return replace(
        found,
        difference=difference,
        difference_low=detected * low,
        difference_high=detected * high,
        curve=trace_power(space_evenly(difference), spread.deviation, n, found.level),
    )


def space_evenly(difference: float) -> list[float]:
    """Returns differences for a power curve: multiples of a round step, the last at or just above `difference`.

    Example:
        >>> [f"{each:g}" for each in space_evenly(0.0101)]
        ['0.002', '0.004', '0.006', '0.008', '0.01', '0.012']
    """
    scale: float = 10.0 ** math.floor(math.log10(difference))
    step = next(step for step in (0.2 * scale, 0.5 * scale, scale, 2 * scale) if difference <= POINTS * step)
    return [step * times for times in range(1, math.ceil(difference / step - 1e-9) + 1)]


def _find_spread(grid: Grid, records: Iterable[Record], least: float) -> tuple[Spread, str] | tuple[None, None]:
    is_function = any(cell.config.trial for cell in grid.cells)
    own = {replace(cell.config, seed=0).key for cell in grid.cells}
    likes = {_find_data(cell.config) for cell in grid.cells}
    repeated = {config: values for config, values in _group_accuracies(records).items() if len(values) > 1}
    of_study = [values for config, values in repeated.items() if config.key in own]
    alike = [values for config, values in repeated.items() if _find_data(config) in likes]
    same = "of the same function" if is_function else "of the same dataset, training examples and epochs"
    for groups, whose in ((of_study, "of this study"), (alike, same)):
        freedom = sum(len(values) - 1 for values in groups)
        spread, squeezed = estimate_spread(groups, least), squeeze_groups(groups, least)
        if spread is not None and squeezed is not None and freedom >= LEAST_FREEDOM:
            ends = (math.sqrt(variance) for variance in (min(squeezed.variances), max(squeezed.variances)))
            reach = ", {:.4f} to {:.4f} by empirical Bayes".format(*ends) if len(groups) > 1 else ""
            cells = f"{write_count(len(groups), 'configuration')} {whose}"
            return spread, f"typical of {cells}{reach}, {freedom} degrees of freedom"
    if is_function:
        return None, None
    return replace(ASSUMED, deviation=max(ASSUMED.deviation, least)), (
        "an assumption: that of the default run on mnist over ten seeds; small networks and short training vary more"
    )


def _group_accuracies(records: Iterable[Record]) -> dict[RunConfig, list[float]]:
    """Returns the accuracies over seeds of every configuration, which is given with seed 0."""
    groups: dict[RunConfig, list[float]] = {}
    for record in records:
        if record.test_accuracy is not None:
            groups.setdefault(replace(record.config, seed=0), []).append(record.test_accuracy)
    return groups


def _find_data(config: RunConfig) -> tuple[Any, ...]:
    if config.trial:
        return config.trial.function, config.trial.source
    data, train = config.data, config.train
    return *data.source, data.train_size, data.resample, train.validation_split, train.epochs
