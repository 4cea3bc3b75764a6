"""What comparisons share on the command line: by what arms are judged, and how the findings are written."""

from dataclasses import dataclass, fields
from typing import Annotated

from cnnjax.errors import InputError
from cnnjax.reports.arms import Measure
from cnnjax.reports.findings import Rules
from cnnjax.rules import Interval, check


@dataclass(frozen=True)
class JudgingArguments:
    """By what arms are judged."""

    by: Measure = "test"
    """The accuracy that is compared: on the test set, or after the last epoch on validation examples."""
    alpha: float = 0.05
    """Probability of any false claim of a difference among all comparisons, and likewise of equivalence."""
    margin: float = 0.2
    """Percentage points of accuracy below which a difference makes none."""
    power: float = 0.8
    """Probability with which the seeds that are planned decide."""


def read_rules(arguments: JudgingArguments, looks: tuple[int, ...] = ()) -> Rules:
    """Returns the rules of the arguments.

    Raises:
        InputError: one is out of range.
    """
    check(arguments.alpha, Annotated[float, Interval(0.0001, 0.5, open_high=True)], "--alpha")
    check(arguments.margin, Annotated[float, Interval(0, 100, open_low=True, open_high=True)], "--margin")
    if not arguments.alpha < arguments.power < 1:
        raise InputError(f"--power {arguments.power}: must be > --alpha ({arguments.alpha}) and < 1")
    return Rules(arguments.alpha, arguments.margin / 100, arguments.power, arguments.by, looks)


def refuse_rules(arguments: JudgingArguments, needed: str) -> None:
    """Raises `InputError` where a rule is given although nothing is judged for want of the options `needed`."""
    for field in fields(JudgingArguments):
        value = getattr(arguments, field.name)
        if value != field.default:
            raise InputError(f"--{field.name} {value}: judges a comparison; give {needed}")
