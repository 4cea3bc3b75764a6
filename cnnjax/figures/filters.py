"""What a layer has learned to look for: the weights of its filters as small images."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.figures.mosaics import number_tiles, show_mosaic, tile
from cnnjax.figures.style import SIGNED, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FILTERS, MOST_INPUTS = 64, 12
"""Filters shown of one that sees a picture; filters and inputs shown of a deeper layer."""
_COLUMNS = 8


@styled()
def draw_filters(name: str, kernel: np.ndarray) -> "Figure":
    """Draws the filters of a layer, zero being the middle grey.

    A layer that sees a grey picture has one image a filter; one that sees RGB too, in the colours that raise it; of any
    other, rows are filters and columns the inputs that they add up.

    Args:
        name: of the layer.
        kernel: float (window height, window width, inputs, filters).
    """
    inputs, filters = kernel.shape[2:]
    limit = float(np.abs(kernel).max()) or 1.0
    if inputs == 1:
        return _draw_sheet(name, kernel[:, :, 0].transpose(2, 0, 1), filters, limit)
    if inputs == 3:
        colours = 0.5 + 0.5 * kernel.transpose(3, 0, 1, 2) / limit
        opaque = np.concatenate([colours, np.ones_like(colours[..., :1])], -1)
        return _draw_sheet(name, opaque, filters, limit)
    return _draw_table(name, kernel, limit)


def _draw_sheet(name: str, images: np.ndarray, filters: int, limit: float) -> "Figure":
    images = images[:MOST_FILTERS]
    in_colour = images.ndim == 4
    mosaic = tile(images, _COLUMNS)
    meaning = "\nred, green and blue as they raise the output; grey is zero" if in_colour else ""
    title = f"{name}: {count_shown(len(images), filters, 'filters')} of {_measure(images)}{meaning}"
    figure = new_figure(6.4, (1.25 if in_colour else 1.0) + 5.2 * mosaic.aspect, title)
    axes = figure.subplots()
    drawn = show_mosaic(axes, mosaic, **({} if in_colour else _signed(limit)))
    number_tiles(axes, mosaic, len(images))
    axes.set_xlabel("filter: the row's number + the column's")
    axes.xaxis.set_label_position("bottom")
    if not in_colour:
        figure.colorbar(drawn, ax=axes, label="weight", shrink=0.9)
    return figure


def _draw_table(name: str, kernel: np.ndarray, limit: float) -> "Figure":
    inputs, filters = kernel.shape[2:]
    shown = kernel[:, :, :MOST_INPUTS, :MOST_INPUTS].transpose(3, 2, 0, 1)
    rows, columns, height, width = shown.shape
    mosaic = tile(shown.reshape(-1, height, width), columns)
    counts = f"{count_shown(rows, filters, 'filters')}, {count_shown(columns, inputs, 'inputs')}"
    figure = new_figure(1.6 + 0.45 * columns, 1.0 + 0.45 * columns * mosaic.aspect, f"{name}: {counts}")
    axes = figure.subplots()
    drawn = show_mosaic(axes, mosaic, **_signed(limit))
    axes.set_xticks(mosaic.columns, [*map(str, range(columns))])
    axes.set_yticks(mosaic.rows, [*map(str, range(rows))])
    axes.tick_params(length=0)
    axes.set_xlabel("input")
    axes.set_ylabel("filter")
    figure.colorbar(drawn, ax=axes, label="weight", shrink=0.9)
    return figure


def count_shown(shown: int, there: int, what: str) -> str:
    """Returns ``32 filters``, or ``the first 64 of 128 filters`` where some are left out."""
    return f"{there} {what}" if shown == there else f"the first {shown} of {there} {what}"


def _measure(images: np.ndarray) -> str:
    return f"{images.shape[1]} x {images.shape[2]}"


def _signed(limit: float) -> dict[str, Any]:
    return {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
