"""Lost runs, which collapsed or failed, and how much they could change a comparison.

No test of means is right about an arm that collapses in one run of ten: in a handful of seeds it often shows no
collapse. So the result has parts. The typical run is compared over the seeds at which both arms trained. The rates of
runs that collapsed, because they diverged or are not shown to do better than guessing, are compared by themselves. And
every claim is checked in its worst case: lost runs of the arm that it favours count as guessing, lost runs of the other
arm as the best accuracy of either arm. A claim that fails in the worst case is labelled as holding only for the runs
that trained, or, if none collapsed, for those that completed. So is every claim about a measure without a worst value.

References:
    Bahadur and Savage, "The nonexistence of certain statistical procedures in nonparametric problems", 1956;
    ICH E9(R1), "Estimands and sensitivity analysis in clinical trials", 2019; Horowitz and Manski, "Nonparametric
    analysis of randomized experiments with missing covariate and outcome data", 2000.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cnnjax.statistics.measures import Measure
from cnnjax.statistics.rates import RateComparison, compare_rates

CHANCE_LEVEL = 0.001
"""Level of the test of a run against guessing: one in a thousand runs that guess passes it."""
Outcomes = Mapping[int, float | None]
"""Value of the measure by seed of every run that has ended: not a number if it collapsed, as by diverging; ``None`` if
it is lost for another reason."""


@dataclass(frozen=True)
class RunCounts:
    """Counts of the runs on one side of a comparison.

    Attributes:
        completed: runs that have a value and are compared.
        lost: other runs that have ended: collapsed, failed, or without this metric.
        at_chance: runs among `completed` that are not shown to do better than guessing. They are compared only where no
            run of the arm trained, as its typical run then is one that collapsed.
        collapsed: runs that collapsed: those of `completed` that are at chance, and those of `lost` that diverged or
            are at chance.
    """

    completed: int
    lost: int
    at_chance: int = 0
    collapsed: int = 0

    @property
    def trained(self) -> int:
        """Runs that completed and are shown to do better than guessing."""
        return self.completed - self.at_chance

    @property
    def failed(self) -> int:
        """Lost runs that did not collapse: whether they would have trained is not known."""
        return self.lost - (self.collapsed - self.at_chance)

    def __str__(self) -> str:
        return f"{self.completed} of {self.completed + self.lost}"


@dataclass(frozen=True)
class Losses:
    """The runs of both sides of a comparison, and how far the lost runs could move it.

    Attributes:
        first, second: counts of the runs of each side.
        lowest, highest: differences by seed, first minus second, in the worst and in the best case for the first side;
            ``None`` if no run was lost, empty if the cases cannot be computed.
        rates: how often the runs of the two arms collapse; ``None`` for sides of several arms.
    """

    first: RunCounts
    second: RunCounts
    lowest: tuple[float, ...] | None = None
    highest: tuple[float, ...] | None = None
    rates: RateComparison | None = None

    @property
    def both_at_chance(self) -> bool:
        """Whether no run of either side is shown to do better than guessing."""
        return all(side.at_chance == side.completed for side in (self.first, self.second))


def name_compared(first: RunCounts, second: RunCounts) -> str:
    """Returns what the compared runs of both sides did, and lost ones did not: ``trained`` or ``completed``."""
    has_collapsed = first.collapsed > first.at_chance or second.collapsed > second.at_chance
    return "trained" if has_collapsed and first.trained and second.trained else "completed"


def complete(outcomes: Outcomes) -> dict[int, float]:
    """Returns the values of the runs that have one, by seed.

    Example:
        >>> complete({0: 0.97, 1: None, 2: math.nan})
        {0: 0.97}
    """
    return {seed: value for seed, value in outcomes.items() if value is not None and not math.isnan(value)}


def mark_collapsed(outcomes: Outcomes, measure: Measure) -> Outcomes:
    """Returns the outcomes with ``nan`` for every run that collapsed, so that what completed is the typical run.

    A run that has a value collapsed if it is not shown to do better than guessing: a one-sided binomial test of its
    accuracy on the test images against that of guessing is not significant at `CHANCE_LEVEL`. Of an arm in which no run
    trained, the typical run is one that collapsed, so its values are kept.

    Args:
        outcomes: outcomes of an arm.
        measure: what the outcomes are. Without a resolution there is no test: a run is at chance unless its value is
            better than that of guessing. Without what guessing reaches, only runs that diverged collapse.

    Example:
        >>> mark_collapsed({0: 0.97, 1: 0.1135}, Measure("accuracy", resolution=1e-4, chance=0.1135))
        {0: 0.97, 1: nan}
    """
    values = complete(outcomes)
    stuck = {seed for seed, value in values.items() if is_at_chance(value, measure)}
    if len(stuck) == len(values):
        return outcomes
    return {seed: math.nan if seed in stuck else value for seed, value in outcomes.items()}


def find_collapsed(outcomes: Outcomes, measure: Measure) -> dict[int, bool]:
    """Returns whether each run collapsed, by seed; of runs that failed it is not known, so they are left out."""
    return {
        seed: math.isnan(value) or is_at_chance(value, measure) for seed, value in outcomes.items() if value is not None
    }


def count_runs(sides: Iterable[Outcomes], measure: Measure) -> RunCounts:
    """Returns how many runs of several arms completed, how many were lost, are at chance, and collapsed.

    Args:
        sides: outcomes of the arms, from `mark_collapsed`.
        measure: what the outcomes are.
    """
    sides = list(sides)
    completed = [value for outcomes in sides for value in complete(outcomes).values()]
    at_chance = sum(is_at_chance(value, measure) for value in completed)
    collapsed = sum(sum(find_collapsed(outcomes, measure).values()) for outcomes in sides)
    return RunCounts(len(completed), sum(map(len, sides)) - len(completed), at_chance, collapsed)


def is_at_chance(value: float, measure: Measure) -> bool:
    """Returns whether a run with this value is not shown to do better than guessing, as `mark_collapsed` says."""
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
        first, second: outcomes of the arms, from `mark_collapsed`; at least one run of either completed.
        measure: what the outcomes are; guessing is the worst case of a lost run.

    Example:
        >>> losses = find_losses({0: 0.97, 1: None}, {0: 0.96, 1: 0.98}, Measure("accuracy", chance=0.1))
        >>> str(losses.first), [round(difference, 2) for difference in losses.lowest]
        ('1 of 2', [0.01, -0.88])
    """
    runs = count_runs([first], measure), count_runs([second], measure)
    rates = compare_rates(find_collapsed(first, measure), find_collapsed(second, measure))
    values = complete(first), complete(second)
    if not runs[0].lost + runs[1].lost:
        return Losses(*runs, rates=rates)
    ends = measure.bound_lost([*values[0].values(), *values[1].values()])
    if ends is None:
        return Losses(*runs, (), (), rates)
    low, high = ends
    seeds = sorted(first.keys() & second.keys())

    def subtract(lost_first: float, lost_second: float) -> tuple[float, ...]:
        return tuple(values[0].get(seed, lost_first) - values[1].get(seed, lost_second) for seed in seeds)

    return Losses(*runs, subtract(low, high), subtract(high, low), rates)
