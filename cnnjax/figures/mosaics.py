"""Many small images side by side as one large one, which is drawn in one go, with their numbers on its edges."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST, _GAP = 24, 3
"""Pixels of the longer side of a tile at least, so that the gap between tiles stays narrow; and of the gap."""


class Mosaic(NamedTuple):
    """Tiles of one size: the sheet they are on, and the middle of every column and row, in pixels of the sheet."""

    sheet: np.ndarray
    columns: list[float]
    rows: list[float]

    @property
    def aspect(self) -> float:
        """Height divided by width."""
        return float(self.sheet.shape[0] / self.sheet.shape[1])


def tile(images: np.ndarray, columns: int) -> Mosaic:
    """Returns images in reading order on one sheet; what no image covers is transparent.

    Args:
        images: float (n, height, width), or RGBA in [0, 1] (n, height, width, 4); n >= 1.
        columns: tiles in a row; the sheet has that width also where there are fewer images.
    """
    factor = max(1, math.ceil(_LEAST / max(images.shape[1:3])))
    images = images.astype(np.float64).repeat(factor, 1).repeat(factor, 2)
    count, height, width, *depth = images.shape
    rows = math.ceil(count / columns)
    size = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, *depth)
    sheet = np.full(size, 0.0 if depth else np.nan)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + _GAP), (index % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    across = [column * (width + _GAP) + (width - 1) / 2 for column in range(columns)]
    down = [row * (height + _GAP) + (height - 1) / 2 for row in range(rows)]
    return Mosaic(sheet, across, down)


def show_mosaic(axes: "Axes", mosaic: Mosaic, **shown: Any) -> Any:
    """Draws a mosaic without a frame or ticks; `shown` goes to ``imshow``, whose result is returned."""
    drawn = axes.imshow(mosaic.sheet, **shown)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return drawn


def number_tiles(axes: "Axes", mosaic: Mosaic, count: int) -> None:
    """Writes the number in its row above every column, and the number of its first tile before every row."""
    columns = len(mosaic.columns)
    shown = mosaic.columns[: min(columns, count)]
    axes.set_xticks(shown, [f"+{column}" for column in range(len(shown))])
    axes.set_yticks(mosaic.rows, [str(row * columns) for row in range(len(mosaic.rows))])
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)


def frame_images(every: "Iterable[Axes]", count: int) -> None:
    """Gives the images in axes of their own a frame and no ticks, and hides the axes beyond the first `count`."""
    for index, axes in enumerate(every):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.set_visible(index < count)


def to_rgba(images: np.ndarray) -> np.ndarray:
    """Returns images as they are looked at.

    Args:
        images: uint8 (n, height, width, channels): grey, grey and opacity, RGB, or RGBA.

    Returns:
        float64 (n, height, width, 4) in [0, 1].
    """
    channels = images.shape[-1]
    scaled = images.astype(np.float64) / 255
    colours = scaled[..., :3] if channels > 2 else scaled[..., :1].repeat(3, -1)
    opacity = scaled[..., -1:] if channels in (2, 4) else np.ones_like(scaled[..., :1])
    return np.concatenate([colours, opacity], -1)
