"""Figures of the runs of arms: learning curves, confusion matrices, and the test images that most runs get wrong."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnjax.figures.style import (
    BLUE,
    DARKENING,
    GREY,
    MUTED,
    ON_LIGHT,
    PAGE_WIDTH,
    PAPER,
    SMALL,
    frame_images,
    make_panels,
    mark_log_axis,
    new_figure,
    shorten,
    styled,
    to_rgba,
    wrap_all,
)
from cnnjax.inspection.confusion import share_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CURVES, MOST_MATRICES = 24, 12
"""Largest numbers of panels with curves and with confusion matrices."""
LEAST_ERROR = 0.01
"""Smallest error in per cent that is drawn, since a logarithmic axis has no zero; smaller ones are drawn here."""
_MOST_NAMED = 10
"""Largest number of classes whose cells and classes are numbered."""
_MOST_UPRIGHT = 2
"""Most letters of the name of a class that is written upright below a confusion matrix."""
_CURVE_COLUMNS, _MATRIX_COLUMNS, _IMAGE_COLUMNS = 4, 3, 6
_TINY = 5.0


class Curve(NamedTuple):
    """Learning curve of an arm: mean error of its runs after every epoch, with its band, float (epochs,) in per cent.

    The band is nan where there is none.
    """

    name: str
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


@styled()
def draw_curves(curves: Sequence[Curve], base: Curve | None, measured: str) -> "Figure":
    """Draws learning curves, one panel per arm with common axes, each with the curve of the base in grey.

    Args:
        curves: the arms, at least one and at most `MOST_CURVES`.
        base: curve that is added to every other panel; ``None`` for none.
        measured: examples that the errors are measured on, such as ``validation``.
    """
    from matplotlib.lines import Line2D

    titles, lines = wrap_all([curve.name for curve in curves], 22)
    columns = min(len(curves), _CURVE_COLUMNS)
    rows = math.ceil(len(curves) / columns)
    figure = new_figure(max(PAGE_WIDTH * columns / _CURVE_COLUMNS, 3.6), 0.6 + rows * (1.35 + 0.13 * lines))
    panels = make_panels(figure, len(curves), columns, sharex=True, sharey=True)
    for axes, curve, title in zip(panels, curves, titles, strict=True):
        if base is not None and curve.name != base.name:
            _plot(axes, base, GREY, "--")
        _plot(axes, curve, BLUE, "-")
        axes.set_title(title, fontsize=SMALL)
        axes.grid()
    for axes in panels[-columns:]:
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


@styled()
def draw_confusions(names: Sequence[str], matrices: Sequence[np.ndarray], class_names: Sequence[str]) -> "Figure":
    """Draws the confusion matrices of arms: darker is a larger share of the true class; correct answers are grey.

    Args:
        names: names of the arms.
        matrices: int (classes, classes) each, true classes down and predicted ones across; at least one and at most
            `MOST_MATRICES`.
        class_names: names of the classes.
    """
    titles, lines = wrap_all(names, 30)
    columns = min(len(names), _MATRIX_COLUMNS)
    rows = math.ceil(len(names) / columns)
    side = 1.75 if columns > 1 else 3.6
    width = max(PAGE_WIDTH * columns / _MATRIX_COLUMNS, 4.6)
    figure = new_figure(width, 0.3 + rows * (side + 0.35 + 0.13 * lines))
    panels = make_panels(figure, len(names), columns)
    shares = [share_errors(matrix) for matrix in matrices]
    highest = max(float(np.nanmax(share, initial=0.0)) for share in shares) or 1.0
    for axes, title, matrix, share in zip(panels, titles, matrices, shares, strict=True):
        axes.set_facecolor(MUTED)
        drawn = axes.pcolormesh(np.ma.masked_invalid(share), cmap=DARKENING, vmin=0, vmax=highest)
        _number(axes, matrix, share / highest, class_names)
        axes.set_title(title, fontsize=SMALL)
    figure.supxlabel("predicted class", fontsize=SMALL + 1)
    figure.supylabel("true class", fontsize=SMALL + 1)
    figure.colorbar(drawn, ax=figure.axes, label="% of the true class\ntaken for another", shrink=min(1.0, 1.6 / rows))
    return figure


def _number(axes: "Axes", matrix: np.ndarray, darkness: np.ndarray, class_names: Sequence[str]) -> None:
    classes = len(matrix)
    axes.set_aspect("equal")
    axes.set_ylim(classes, 0)
    axes.tick_params(length=0, labelsize=_TINY + 1)
    if classes > _MOST_NAMED:
        return
    names = [shorten(name) for name in class_names]
    axes.set_xticks(np.arange(classes) + 0.5, names, rotation=90 if max(map(len, names)) > _MOST_UPRIGHT else 0)
    axes.set_yticks(np.arange(classes) + 0.5, names)
    for (row, column), count in np.ndenumerate(matrix):
        if count and row != column:
            colour = PAPER if darkness[row, column] > 0.5 else ON_LIGHT
            axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", fontsize=_TINY, color=colour)


@styled()
def draw_hardest(
    images: np.ndarray, indices: Sequence[int], labels: Sequence[str], guesses: Sequence[str], wrong: Sequence[float]
) -> "Figure":
    """Draws images with their index, true class, most frequent wrong answer, and the share of runs that miss them.

    Args:
        images: uint8 (n, height, width, channels), n >= 1.
        indices: indices of the images in the test set.
        labels: names of the true classes.
        guesses: names of the most frequent wrong answers.
        wrong: shares of the runs that are wrong.
    """
    columns = min(_IMAGE_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = new_figure(max(1.2 * columns, 2.4), 0.1 + rows * (0.55 + 1.05 * images.shape[1] / images.shape[2]))
    panels = make_panels(figure, len(images), columns)
    shown = zip(panels, to_rgba(images), indices, labels, guesses, wrong, strict=True)
    for axes, image, index, label, guess, share in shown:
        axes.imshow(image, interpolation="none")
        axes.set_title(
            f"#{index}: {shorten(label)}\ntaken for {shorten(guess)}\nwrong in {100 * share:.0f}%", fontsize=SMALL
        )
    frame_images(panels)
    return figure
