"""By what comparisons are decided."""

from dataclasses import dataclass

MARGIN = 0.002
"""Differences of accuracy below 0.2 points are taken to make no difference where nobody says otherwise."""


@dataclass(frozen=True)
class Criteria:
    """By what comparisons are decided.

    Attributes:
        alpha: probability of any false claim of a difference, and of any false claim of equivalence.
        margin: differences of accuracy below it make no difference.
        power: with which the seeds that are planned decide.
    """

    alpha: float = 0.05
    margin: float = MARGIN
    power: float = 0.8
