"""Two arms compared as one of a family: levels, intervals, what became of the runs, and the verdict."""

from dataclasses import dataclass
from typing import Any

from cnnjax.comparison.criteria import Criteria
from cnnjax.comparison.losses import Losses, Runs
from cnnjax.comparison.paired import PairedComparison
from cnnjax.comparison.verdicts import Verdict, decide, equivalence_p


@dataclass(frozen=True)
class Contrast:
    """Two arms of a family.

    Attributes:
        first, second: their names.
        first_runs, second_runs: how many of their runs completed, and how many were lost.
        comparison: first less second, of the runs that completed.
        level: at which a difference is tested.
        low, high: Student's interval of the mean difference with confidence ``1 - level``; ``None`` without a spread.
        equivalence_level: at which each of the two one-sided tests of equivalence is made.
        equivalence_low, equivalence_high: Student's interval with confidence ``1 - 2 * equivalence_level``, which must
            lie within the margin for arms to be equivalent; ``None`` without a spread.
        adjusted_p: of the difference, to be held against the level of the family; ``None`` without a spread.
        equivalence_p: of the two one-sided tests, by themselves; ``None`` without a spread.
        verdict: of the first against the second, as one of the family.
    """

    first: str
    second: str
    first_runs: Runs
    second_runs: Runs
    comparison: PairedComparison
    level: float
    low: float | None
    high: float | None
    equivalence_level: float
    equivalence_low: float | None
    equivalence_high: float | None
    adjusted_p: float | None
    equivalence_p: float | None
    verdict: Verdict

    @property
    def decisive_interval(self) -> tuple[float | None, float | None]:
        """The interval that the verdict rests on: that of equivalence where this is the verdict, else `low`, `high`."""
        if self.verdict.word == "equivalent":
            return self.equivalence_low, self.equivalence_high
        return self.low, self.high


def make_contrast(
    pair: tuple[str, str],
    compared: PairedComparison,
    losses: Losses,
    levels: tuple[float, float],
    adjusted_p: float | None,
    criteria: Criteria,
    **options: Any,
) -> Contrast:
    """Returns a comparison with its verdict.

    Args:
        pair: names of the two sides.
        compared: the comparison.
        losses: of its runs.
        levels: of a difference, and of each of the one-sided tests of equivalence.
        adjusted_p: p value of the difference as one of its family.
        criteria: of the family.
        options: further ones of `decide`.
    """
    level, narrow = levels
    low, high = compared.interval(1 - level)
    narrow_low, narrow_high = compared.interval(1 - 2 * narrow)
    verdict = decide(
        compared, level, criteria.margin, criteria.power, equivalence_alpha=narrow, losses=losses, **options
    )
    return Contrast(
        first=pair[0],
        second=pair[1],
        first_runs=losses.first,
        second_runs=losses.second,
        comparison=compared,
        level=level,
        low=low,
        high=high,
        equivalence_level=narrow,
        equivalence_low=narrow_low,
        equivalence_high=narrow_high,
        adjusted_p=adjusted_p,
        equivalence_p=equivalence_p(compared, criteria.margin),
        verdict=verdict,
    )
