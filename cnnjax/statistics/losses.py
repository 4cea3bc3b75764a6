"""Runs that ended without an accuracy, and what they could change.

A comparison is about the runs that completed. What the others would have reached is not known, and they may well be
those that would have ended low. So a claim is put to its worst case: every lost run of the arm that it favours counts
as chance, every lost run of the other arm as the best accuracy that either has shown. Only what is true even then is
said without a qualification.

References:
    Horowitz and Manski, "Nonparametric analysis of randomized experiments with missing covariate and outcome data",
    2000.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CHANCE_LEVEL = 0.001
"""Level of the test of a run against guessing: of a thousand runs that guess, one passes it."""
Outcomes = Mapping[int, float | None]
"""Accuracy by seed of every run that has ended; ``None`` for one that was lost, having diverged or failed."""


@dataclass(frozen=True)
class Runs:
    """What became of the runs of one side of a comparison that have ended.

    Attributes:
        completed: how many have an accuracy.
        lost: how many diverged or failed.
        at_chance: how many of those that completed are not shown to do better than guessing: a one-sided binomial test
            of their accuracy over the test images against `chance` is not significant at `CHANCE_LEVEL`.
    """

    completed: int
    lost: int
    at_chance: int = 0

    def __str__(self) -> str:
        return f"{self.completed} of {self.completed + self.lost}"


@dataclass(frozen=True)
class Losses:
    """The runs of both sides of a comparison, and how far the lost ones could move it.

    Attributes:
        first, second: the runs of each side.
        lowest, highest: the differences by seed, first less second, if lost runs count as badly and as well as they can
            for the first side; ``None`` where no run was lost, empty where it cannot be told.
    """

    first: Runs
    second: Runs
    lowest: tuple[float, ...] | None = None
    highest: tuple[float, ...] | None = None

    @property
    def both_at_chance(self) -> bool:
        """Whether no run of either side is shown to do better than guessing."""
        return all(side.at_chance == side.completed for side in (self.first, self.second))


def complete(outcomes: Outcomes) -> dict[int, float]:
    """Returns the accuracies of the runs that have one, by seed.

    Example:
        >>> complete({0: 0.97, 1: None})
        {0: 0.97}
    """
    return {seed: value for seed, value in outcomes.items() if value is not None}


def count_runs(sides: Iterable[Outcomes], chance: float, resolution: float | None = None) -> Runs:
    """Returns how many runs of several arms completed, how many were lost, and how many are at chance.

    Args:
        sides: outcomes of the arms.
        chance: the accuracy of guessing.
        resolution: one over the number of test images; left out, a run is at chance where it is not above it.
    """
    values = [value for outcomes in sides for value in outcomes.values()]
    completed = [value for value in values if value is not None]
    at_chance = sum(_is_at_chance(value, chance, resolution) for value in completed)
    return Runs(len(completed), len(values) - len(completed), at_chance)


def _is_at_chance(accuracy: float, chance: float, resolution: float | None) -> bool:
    from scipy.special import bdtrc

    if resolution is None or accuracy <= chance:
        return accuracy <= chance
    images = round(1 / resolution)
    return bool(bdtrc(round(accuracy * images) - 1, images, chance) > CHANCE_LEVEL)


def find_losses(first: Outcomes, second: Outcomes, chance: float, resolution: float | None = None) -> Losses:
    """Returns the runs of two arms, and how far the lost ones could move their difference.

    Args:
        first, second: outcomes of the arms; at least one run completed.
        chance: the accuracy of guessing, the least that a lost run counts as.
        resolution: the step of the accuracies, as for `count_runs`.

    Example:
        >>> losses = find_losses({0: 0.97, 1: None}, {0: 0.96, 1: 0.98}, chance=0.1)
        >>> str(losses.first), [round(difference, 2) for difference in losses.lowest]
        ('1 of 2', [0.01, -0.88])
    """
    runs = count_runs([first], chance, resolution), count_runs([second], chance, resolution)
    if not runs[0].lost + runs[1].lost:
        return Losses(*runs)
    best = max(*complete(first).values(), *complete(second).values(), chance)
    seeds = sorted(first.keys() & second.keys())

    def subtract(lost_first: float, lost_second: float) -> tuple[float, ...]:
        pairs = ((first[seed], second[seed]) for seed in seeds)
        return tuple((lost_first if a is None else a) - (lost_second if b is None else b) for a, b in pairs)

    return Losses(*runs, subtract(chance, best), subtract(best, chance))
