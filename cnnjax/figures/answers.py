"""What a network answers to one image: the probabilities of the classes, and the pixels that its answer hangs on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.figures.mosaics import to_rgba
from cnnjax.figures.style import BLUE, MUTED, SEQUENTIAL, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 10
"""Classes whose probability is shown: the most probable ones."""
_LONGEST = 14


@styled()
def draw_saliency(
    image: np.ndarray, saliency: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], title: str
) -> "Figure":
    """Draws an image, how strongly each of its pixels changes the winning logit, and the probabilities.

    Args:
        image: uint8 (height, width, channels).
        saliency: gradient of the winning logit by the pixels, float (height, width, channels).
        probabilities: of the classes, float (classes,).
        class_names: of the classes.
        title: what the image is.
    """
    figure = new_figure(9.6, 3.2, title, wspace=0.05)
    left, middle, right = figure.subplots(1, 3, width_ratios=(0.9, 1.3, 1.1))
    left.imshow(to_rgba(image[np.newaxis])[0])
    left.set_title("what the network is given")
    strength = np.abs(saliency).max(-1)
    drawn = middle.imshow(strength, cmap=SEQUENTIAL, vmin=0, vmax=float(strength.max()) or 1.0)
    winner = shorten(class_names[int(np.argmax(probabilities))])
    middle.set_title(f"what the answer {winner} hangs on")
    figure.colorbar(drawn, ax=middle, label="change of the logit by a pixel", shrink=0.85)
    for axes in (left, middle):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
    plot_probabilities(right, probabilities, class_names)
    right.set_title("what it answers")
    return figure


def plot_probabilities(axes: "Axes", probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    """Plots the most probable classes as bars with their numbers, in the order of the classes.

    Args:
        axes: to plot on.
        probabilities: float (classes,), which sum to one.
        class_names: of the classes.
    """
    shown = np.sort(np.argsort(-probabilities, kind="stable")[:MOST_CLASSES])
    winner = int(np.argmax(probabilities))
    colours = [BLUE if index == winner else MUTED for index in shown]
    bars = axes.barh(range(len(shown)), probabilities[shown], 0.7, color=colours)
    axes.bar_label(bars, [format_probability(value) for value in probabilities[shown]], padding=3, fontsize=7.5)
    axes.set_yticks(range(len(shown)), [shorten(class_names[index]) for index in shown])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    left_out = len(probabilities) - len(shown)
    axes.set_xlabel("probability" + (f"; {left_out} less probable classes left out" if left_out else ""))


def format_probability(value: float) -> str:
    """Returns a probability as a percentage that is neither 0% nor 100% unless it is: ``98.2%``, ``<0.1%``."""
    if 0 < value < 0.001:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{100 * value:.1f}%"


def shorten(name: str) -> str:
    """Returns a name that fits where a label is."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
