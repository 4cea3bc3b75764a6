"""Measures: what is compared of a run, such as its accuracy, and how its values and differences are written."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number that every completed run has, and by which arms are compared.

    Attributes:
        name: such as ``accuracy``, ``macro_f1`` or ``loss``.
        split: the examples that it is computed on, such as ``test``; empty if that is not known.
        is_share: whether it is a share, from 0 to 1, which is written in % and percentage points.
        higher_is_better: whether a higher value is better.
        resolution: step between possible values, such as one over the number of test images; ``None`` if not known.
        chance: the value of guessing; ``None`` if not known.
        is_accuracy: whether it is the accuracy that runs are stored with, and no metric, even one of that name.

    Example:
        >>> loss = Measure("loss", is_share=False, higher_is_better=False)
        >>> ACCURACY.write_difference(0.0031), loss.write_difference(0.0031)
        ('+0.31', '+0.0031')
    """

    name: str
    split: str = "test"
    is_share: bool = True
    higher_is_better: bool = True
    resolution: float | None = None
    chance: float | None = None
    is_accuracy: bool = False

    @property
    def title(self) -> str:
        """The name with the examples: ``test accuracy``."""
        return f"{self.split} {self.name}".strip()

    @property
    def sign(self) -> int:
        """Factor that makes higher better: 1 or -1."""
        return 1 if self.higher_is_better else -1

    @property
    def worst(self) -> float | None:
        """The value that a lost run counts as in the worst case: that of guessing; ``None`` if there is no bound."""
        if self.chance is None and self.is_share:
            return 0.0 if self.higher_is_better else 1.0
        return self.chance

    @property
    def scale(self) -> int:
        """What values are multiplied by to be written in the unit of margins: 100 for percentage points."""
        return 100 if self.is_share else 1

    @property
    def points(self) -> str:
        """The unit after a difference in a sentence, with a blank before it; empty in the unit of the values."""
        return " points" if self.is_share else ""

    @property
    def percent(self) -> str:
        """The unit after the name of a value, such as that of an axis."""
        return " in %" if self.is_share else ""

    @property
    def unit_of_differences(self) -> str:
        """The unit of differences, as headings say it."""
        return "percentage points" if self.is_share else f"units of {self.name}"

    @property
    def digits(self) -> str:
        """The format of a value."""
        return ".4f" if self.is_share else ".5g"

    def choose_best(self, values: Iterable[float]) -> float:
        """Returns the best of the values."""
        return max(values) if self.higher_is_better else min(values)

    def bound_lost(self, values: Iterable[float]) -> tuple[float, float] | None:
        """Returns the lowest and the highest value that a lost run may have had; ``None`` if there is no bound.

        They are the value of guessing, and the best of the values that completed runs have.
        """
        if self.worst is None:
            return None
        best = self.choose_best((*values, self.worst))
        return min(best, self.worst), max(best, self.worst)

    def write_difference(self, difference: float, decimals: int = 2) -> str:
        """Returns a difference with its sign; percentage points have this many decimals."""
        return f"{100 * difference:+.{decimals}f}" if self.is_share else f"{difference:+.4g}"

    def write_short(self, value: float) -> str:
        """Returns a value for a narrow place: in % with two decimals, ``97.31``, or with four digits."""
        return f"{100 * value:.2f}" if self.is_share else f"{value:.4g}"

    def write_margin(self, margin: float) -> str:
        """Returns a margin in the unit of differences: ``0.2``."""
        return f"{self.scale * margin:g}"


ACCURACY = Measure("accuracy", is_accuracy=True)
"""Test accuracy, without its resolution and what guessing reaches."""
LOSS = Measure("loss", is_share=False, higher_is_better=False)
"""The test loss: the mean of the training loss over the test images, without label smoothing."""
