"""Where a network is wrong: the confusion matrix, and the images behind it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.figures.answers import format_probability, shorten
from cnnjax.figures.mosaics import frame_images, to_rgba
from cnnjax.figures.style import DARKENING, MUTED, SMALL, choose_ink, new_figure, styled
from cnnjax.inspection.mistakes import Answer, share_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MOST_NAMED = 25
"""Classes up to which every cell has its number and every class its name."""
_COLUMNS = 6


@styled()
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], title: str) -> "Figure":
    """Draws how often each class is taken for each: darker is a larger share of the true class; right answers are bold.

    Args:
        matrix: int (classes, classes), true classes down and predicted ones across.
        class_names: of the classes.
        title: what was predicted.
    """
    classes = len(matrix)
    in_full = classes <= MOST_NAMED
    side = max(4.0, 0.45 * classes) if in_full else 7.0
    figure = new_figure(side + 1.9, side + 1.0, title, w_pad=0.08)
    axes = figure.subplots()
    wrong = share_errors(matrix)
    highest = float(np.nan_to_num(wrong).max()) or 1.0
    drawn = axes.imshow(wrong, cmap=DARKENING, vmin=0, vmax=highest)
    axes.imshow(np.where(np.eye(classes, dtype=bool), 1.0, np.nan), cmap=_one_colour(MUTED))
    if in_full:
        _number_cells(axes, matrix, wrong / highest)
        names = [shorten(name) for name in class_names]
        axes.set_xticks(range(classes), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(classes), names)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class" + ("" if in_full else ", by number"))
    axes.set_ylabel("true class" + ("" if in_full else ", by number"))
    figure.colorbar(drawn, ax=axes, label="% of the true class taken for another", shrink=0.8)
    return figure


@styled()
def draw_answers(images: np.ndarray, answers: Sequence[Answer], class_names: Sequence[str], title: str) -> "Figure":
    """Draws images with their number, their true class, and what they were taken for.

    Args:
        images: uint8 (n, height, width, channels), n >= 1.
        answers: to these images, in the same order.
        class_names: of the classes.
        title: what they have in common.
    """
    rows = -(-len(images) // _COLUMNS)
    figure = new_figure(8.4, 0.7 + rows * (0.72 + 1.25 * images.shape[1] / images.shape[2]), title)
    every = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, image, answer in zip(every, to_rgba(images), answers, strict=False):
        axes.imshow(image)
        true, predicted = (shorten(class_names[index]) for index in (answer.label, answer.predicted))
        probability = format_probability(answer.probability)
        axes.set_title(f"#{answer.index}, {probability}\nis {true}\nsaid {predicted}", fontsize=SMALL)
    frame_images(every, len(images))
    return figure


def _number_cells(axes: "Axes", matrix: np.ndarray, darkness: np.ndarray) -> None:
    from matplotlib import colormaps

    colours = colormaps[DARKENING]
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = MUTED if row == column else colours(float(darkness[row, column]))
            weight = "bold" if row == column else "normal"
            text = axes.text(column, row, str(count), ha="center", va="center", fontsize=SMALL, fontweight=weight)
            text.set_color(choose_ink(colour))


def _one_colour(colour: str) -> "Colormap":
    from matplotlib.colors import ListedColormap

    return ListedColormap([colour])
