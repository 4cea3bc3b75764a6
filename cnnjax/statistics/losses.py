"""Lost runs, which ended without a value of the measure, and how much they could change a comparison.

A comparison uses the runs that completed. The accuracy of the lost runs is unknown, and it may have been low for the
same reason that they were lost. So every claim is checked in its worst case: lost runs of the arm that it favours count
as chance, lost runs of the other arm as the best accuracy of either arm. A claim that fails in the worst case is
labelled as holding only for the runs that completed. So is every claim about a measure without a worst value.

References:
    Horowitz and Manski, "Nonparametric analysis of randomized experiments with missing covariate and outcome data",
    2000.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cnnjax.statistics.measures import Measure

CHANCE_LEVEL = 0.001
"""Level of the test of a run against guessing: one in a thousand runs that guess passes it."""
Outcomes = Mapping[int, float | None]
"""Value of the measure by seed of every run that has ended; ``None`` for a lost run, which has no value."""


@dataclass(frozen=True)
class RunCounts:
    """Counts of the runs on one side of a comparison.

    Attributes:
        completed: runs that have a value.
        lost: runs that ended without one: diverged, failed, or without this metric.
        at_chance: completed runs that are not shown to do better than guessing: a one-sided binomial test of their
            accuracy on the test images against the accuracy of guessing is not significant at `CHANCE_LEVEL`.
    """

    completed: int
    lost: int
    at_chance: int = 0

    def __str__(self) -> str:
        return f"{self.completed} of {self.completed + self.lost}"


@dataclass(frozen=True)
class Losses:
    """The runs of both sides of a comparison, and how far the lost runs could move it.

    Attributes:
        first, second: counts of the runs of each side.
        lowest, highest: differences by seed, first minus second, in the worst and in the best case for the first side;
            ``None`` if no run was lost, empty if the cases cannot be computed.
    """

    first: RunCounts
    second: RunCounts
    lowest: tuple[float, ...] | None = None
    highest: tuple[float, ...] | None = None

    @property
    def both_at_chance(self) -> bool:
        """Whether no run of either side is shown to do better than guessing."""
        return all(side.at_chance == side.completed for side in (self.first, self.second))


def complete(outcomes: Outcomes) -> dict[int, float]:
    """Returns the values of the completed runs, by seed.

    Example:
        >>> complete({0: 0.97, 1: None})
        {0: 0.97}
    """
    return {seed: value for seed, value in outcomes.items() if value is not None}


def count_runs(sides: Iterable[Outcomes], measure: Measure) -> RunCounts:
    """Returns how many runs of several arms completed, how many were lost, and how many are at chance.

    Args:
        sides: outcomes of the arms.
        measure: what the outcomes are. Without a resolution there is no test: a run is at chance unless its value is
            better than that of guessing.
    """
    values = [value for outcomes in sides for value in outcomes.values()]
    completed = [value for value in values if value is not None]
    at_chance = sum(_is_at_chance(value, measure) for value in completed)
    return RunCounts(len(completed), len(values) - len(completed), at_chance)


def _is_at_chance(value: float, measure: Measure) -> bool:
    from scipy.special import bdtrc

    chance, sign = measure.worst, measure.sign
    if chance is None:
        return False
    if measure.resolution is None or sign * value <= sign * chance:
        return sign * value <= sign * chance
    images = round(1 / measure.resolution)
    right, guessed = (value, chance) if measure.higher_is_better else (1 - value, 1 - chance)
    return bool(bdtrc(round(right * images) - 1, images, guessed) > CHANCE_LEVEL)


def find_losses(first: Outcomes, second: Outcomes, measure: Measure) -> Losses:
    """Returns the runs of two arms, and how far the lost runs could move their difference.

    Args:
        first, second: outcomes of the arms; at least one run of either completed.
        measure: what the outcomes are; guessing is the worst case of a lost run.

    Example:
        >>> losses = find_losses({0: 0.97, 1: None}, {0: 0.96, 1: 0.98}, Measure("accuracy", chance=0.1))
        >>> str(losses.first), [round(difference, 2) for difference in losses.lowest]
        ('1 of 2', [0.01, -0.88])
    """
    runs = count_runs([first], measure), count_runs([second], measure)
    if not runs[0].lost + runs[1].lost:
        return Losses(*runs)
    ends = measure.bound_lost([*complete(first).values(), *complete(second).values()])
    if ends is None:
        return Losses(*runs, (), ())
    low, high = ends
    seeds = sorted(first.keys() & second.keys())

    def subtract(lost_first: float, lost_second: float) -> tuple[float, ...]:
        pairs = ((first[seed], second[seed]) for seed in seeds)
        return tuple((lost_first if a is None else a) - (lost_second if b is None else b) for a, b in pairs)

    return Losses(*runs, subtract(low, high), subtract(high, low))
