"""What is taken for what, arm by arm: confusion matrices beside each other on one scale."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.figures.labels import wrap_all
from cnnjax.figures.style import DARKENING, MUTED, ON_LIGHT, PAPER, SMALL, new_figure, styled
from cnnjax.inspection.mistakes import share_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_MATRICES = 12
MOST_NAMED = 10
"""Classes up to which cells have numbers and every class its own."""
_COLUMNS, _WIDTH, _TINY = 3, 7.2, 5.0


@styled()
def draw_confusions(names: Sequence[str], matrices: Sequence[np.ndarray]) -> "Figure":
    """Draws the errors of arms: darker is a larger share of the true class, right answers are grey.

    Args:
        names: of the arms.
        matrices: int (classes, classes) each, true classes down and predicted ones across; at least one, at most
            `MOST_MATRICES`.
    """
    titles, lines = wrap_all(names, 30)
    columns = min(len(names), _COLUMNS)
    rows = math.ceil(len(names) / columns)
    side = 1.75 if columns > 1 else 3.6
    figure = new_figure(max(_WIDTH * columns / _COLUMNS, 4.6), 0.3 + rows * (side + 0.35 + 0.13 * lines))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    shares = [share_errors(matrix) for matrix in matrices]
    highest = max(float(np.nanmax(share, initial=0.0)) for share in shares) or 1.0
    for axes, title, matrix, share in zip(panels, titles, matrices, shares, strict=False):
        axes.set_facecolor(MUTED)
        drawn = axes.pcolormesh(np.ma.masked_invalid(share), cmap=DARKENING, vmin=0, vmax=highest)
        _number(axes, matrix, share / highest)
        axes.set_title(title, fontsize=SMALL)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("predicted class", fontsize=SMALL + 1)
    figure.supylabel("true class", fontsize=SMALL + 1)
    figure.colorbar(drawn, ax=list(panels), label="% of the true class taken for another", shrink=min(1.0, 1.6 / rows))
    return figure


def _number(axes: "Axes", matrix: np.ndarray, darkness: np.ndarray) -> None:
    classes = len(matrix)
    axes.set_aspect("equal")
    axes.set_ylim(classes, 0)
    axes.tick_params(length=0, labelsize=_TINY + 1)
    if classes > MOST_NAMED:
        return
    axes.set_xticks(np.arange(classes) + 0.5, map(str, range(classes)))
    axes.set_yticks(np.arange(classes) + 0.5, map(str, range(classes)))
    for (row, column), count in np.ndenumerate(matrix):
        if count and row != column:
            colour = PAPER if darkness[row, column] > 0.5 else ON_LIGHT
            axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", fontsize=_TINY, color=colour)
