"""How arms are judged: the rules of a comparison, checked as they are given in Python or typed as options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from cnnjax.errors import InputError
from cnnjax.reports.arms import ACCURACIES
from cnnjax.settings.checking import Interval, check
from cnnjax.statistics import Criteria, Measure
from cnnjax.statistics.measures import LOSS
from cnnjax.statistics.verdicts import MARGIN

Unit = Literal["percent", "own"]


@dataclass(frozen=True)
class Rules(Criteria):
    """The rules of a comparison: the criteria of verdicts, and the planned looks.

    Attributes:
        looks: the numbers of seeds at which arms are compared, if undecided arms get more seeds; otherwise empty.
        at_any_time: whether the looks are by tests that hold at any time.
    """

    looks: tuple[int, ...] = ()
    at_any_time: bool = False


def make_rules(
    *,
    by: str = "test",
    unit: Unit = "percent",
    lower_is_better: bool = False,
    chance: float | None = None,
    alpha: float = 0.05,
    margin: float | None = None,
    power: float = 0.8,
    score: str | None = None,
    looks: tuple[int, ...] = (),
    called: Callable[[str], str] = str,
) -> Rules:
    """Returns the rules of a comparison.

    Args:
        by: what is compared of stored runs: ``test`` or ``validation``, the accuracy on these examples; ``loss``, the
            test loss, in its own unit and lower is better; or the name of a metric.
        unit: of a metric or score: ``percent``, from 0 to 1 like an accuracy, or ``own``, any number.
        lower_is_better: of a metric or score: whether lower is better, as of a loss.
        chance: of a metric or score: what guessing reaches, which a lost run counts as in the worst case.
        alpha: the probability of any false claim of a difference, and likewise of equivalence.
        margin: smaller differences count as none: in percentage points, by default 0.2, or in the own unit.
        power: the probability with which the seeds that are planned decide.
        score: the name of the scores of another framework; left out, stored runs are compared.
        looks: as in `Rules`.
        called: returns what an error calls an argument: by default its name, or that of an option.

    Raises:
        InputError: an argument is out of range, or one that describes a metric is given for an accuracy.

    Example:
        >>> make_rules(by="loss", margin=0.01).margin, make_rules().margin
        (0.01, 0.002)
    """
    check(by, str, called("by"))
    check(lower_is_better, bool, called("lower_is_better"))
    name, split = (by, "test") if score is None else (score, "")
    if not name:
        raise InputError("the name of a score must not be empty")
    check(unit, Unit, called("unit"))
    if score is None and by == LOSS.name and not lower_is_better:
        unit, lower_is_better = "own", True
    measure = Measure(name, split, unit == "percent", not lower_is_better, chance=chance)
    check(chance, (Annotated[float, Interval(0, 1)] if measure.is_share else float) | None, called("chance"))
    if score is None and by in ACCURACIES:
        given = {"unit": unit != "percent", "lower_is_better": lower_is_better, "chance": chance is not None}
        if any(given.values()):
            first = next(argument for argument, is_given in given.items() if is_given)
            raise InputError(f"{called(first)}: describes a metric; give its name with {called('by')}")
        measure = ACCURACIES[by]
    check(alpha, Annotated[float, Interval(0.0001, 0.5, open_high=True)], called("alpha"))
    most = Interval(0, 100, open_low=True, open_high=True) if measure.is_share else Interval(0, open_low=True)
    check(margin, Annotated[float, most] | None, called("margin"))
    if margin is None and not measure.is_share:
        raise InputError(
            f"{called('margin')}: must be given, in the unit of {measure.name}: smaller differences of it count as none"
        )
    if not alpha < check(power, float, called("power")) < 1:
        raise InputError(f"{called('power')} {power}: must be > {called('alpha')} ({alpha}) and < 1")
    return Rules(alpha, MARGIN if margin is None else margin / measure.scale, power, measure, looks)
