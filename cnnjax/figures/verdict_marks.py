"""How a verdict looks: a marker and a colour of its own, so that it is read without colours, too."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnjax.comparison.verdicts import Verdict
from cnnjax.figures.style import BLUE, GREEN, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#808080"
"""Of what is undecided or in the background; seen on white and on black."""
BAND: dict[str, Any] = {"color": GREY, "alpha": 0.2, "linewidth": 0}
"""How the margin looks within which differences make none."""


class Mark(NamedTuple):
    """A marker, its colour, and whether it is filled."""

    marker: str
    colour: str
    filled: bool = True

    @property
    def style(self) -> dict[str, Any]:
        """Keyword arguments of `matplotlib.lines.Line2D`."""
        face = self.colour if self.filled else "none"
        return {"marker": self.marker, "color": self.colour, "markerfacecolor": face}


MARKS = {
    "better": Mark("^", BLUE),
    "worse": Mark("v", VERMILLION),
    "equivalent": Mark("s", GREEN),
    "undecided": Mark("o", GREY, False),
}
"""By the word of a verdict."""


def explain_marks(figure: "Figure", verdicts: Iterable[Verdict], *others: Any) -> None:
    """Puts a legend of the verdicts that occur below a figure, then of `others`, which are artists with labels."""
    from matplotlib.lines import Line2D

    found = {verdict.word: verdict.label_word for verdict in verdicts}
    handles = [Line2D([], [], label=found[word], **mark.style) for word, mark in MARKS.items() if word in found]
    every = [*handles, *others]
    figure.legend(handles=every, loc="outside lower center", ncols=min(len(every), 6))
