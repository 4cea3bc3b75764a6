"""How arms learn: the error after every epoch, the mean over seeds with a band."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnjax.figures.labels import mark_log_axis, wrap_all
from cnnjax.figures.style import BLUE, SMALL, new_figure, styled
from cnnjax.figures.verdict_marks import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CURVES = 24
LEAST_ERROR = 0.01
"""Per cent below which errors are drawn as this, since a logarithm has no place for zero."""
_COLUMNS, _WIDTH = 4, 7.2


class Curve(NamedTuple):
    """An arm: the mean error of its runs after every epoch in %, and its band, float (epochs,); nan without a band."""

    name: str
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


@styled()
def draw_curves(curves: Sequence[Curve], base: Curve | None, measured: str) -> "Figure":
    """Draws a panel for every arm, on common axes, with the base's curve in grey for comparison.

    Args:
        curves: at most `MOST_CURVES`, at least one.
        base: drawn into every panel; ``None`` where there is none.
        measured: what the errors are of, such as ``validation``.
    """
    from matplotlib.lines import Line2D

    titles, lines = wrap_all([curve.name for curve in curves], 22)
    columns = min(len(curves), _COLUMNS)
    rows = math.ceil(len(curves) / columns)
    figure = new_figure(max(_WIDTH * columns / _COLUMNS, 3.6), 0.6 + rows * (1.35 + 0.13 * lines))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, curve, title in zip(panels, curves, titles, strict=False):
        if base is not None and curve.name != base.name:
            _plot(axes, base, GREY, "--")
        _plot(axes, curve, BLUE, "-")
        axes.set_title(title, fontsize=SMALL)
        axes.grid()
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes in panels[max(len(curves) - columns, 0) : len(curves)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("epoch")
    _scale(panels[0], [*curves, *([base] if base is not None else [])])
    figure.supylabel(f"{measured} error in % (logarithmic)", fontsize=SMALL + 1)
    if base is not None:
        kinds = (("this arm", BLUE, "-"), ("base", GREY, "--"))
        handles = [Line2D([], [], color=colour, linestyle=line, label=label) for label, colour, line in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _plot(axes: "Axes", curve: Curve, colour: str, line: str) -> None:
    epochs = np.arange(1, len(curve.error) + 1)
    error, low, high = (np.maximum(part, LEAST_ERROR) for part in (curve.error, curve.low, curve.high))
    if len(epochs) > 1:
        axes.fill_between(epochs, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(epochs, error, line, color=colour, marker="o", markersize=2.5, linewidth=1.3)


def _scale(axes: "Axes", curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = np.concatenate([np.concatenate([curve.error, curve.low, curve.high]) for curve in curves])
    low, high = max(float(np.nanmin(ends)), LEAST_ERROR) / 1.1, min(max(float(np.nanmax(ends)), LEAST_ERROR) * 1.1, 110)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    mark_log_axis(axes.yaxis, low, high, "g")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlim(0.5, max(len(curve.error) for curve in curves) + 0.5)
