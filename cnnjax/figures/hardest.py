"""The images that most runs get wrong."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.figures.mosaics import frame_images, to_rgba
from cnnjax.figures.style import SMALL, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6


@styled()
def draw_hardest(
    images: np.ndarray, indices: Sequence[int], labels: Sequence[int], guesses: Sequence[int], wrong: Sequence[float]
) -> "Figure":
    """Draws images with their number, their true class, what they are taken for, and by how many runs they are missed.

    Args:
        images: uint8 (n, height, width, channels), n >= 1.
        indices: of the images in the test set.
        labels: true classes.
        guesses: the wrong classes that they are most often taken for.
        wrong: shares of the runs that get them wrong.
    """
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = new_figure(max(1.2 * columns, 2.4), 0.1 + rows * (0.55 + 1.05 * images.shape[1] / images.shape[2]))
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, image, index, label, guess, share in zip(
        every, to_rgba(images), indices, labels, guesses, wrong, strict=False
    ):
        axes.imshow(image, interpolation="none")
        axes.set_title(f"#{index}: {label}\ntaken for {guess}\nwrong in {100 * share:.0f}%", fontsize=SMALL)
    frame_images(every, len(images))
    return figure
