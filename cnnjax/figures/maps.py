"""What every layer gives for one image: the feature maps of a layer, and all layers below each other."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.figures.answers import plot_probabilities
from cnnjax.figures.filters import count_shown
from cnnjax.figures.mosaics import number_tiles, show_mosaic, tile, to_rgba
from cnnjax.figures.style import SEQUENTIAL, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_MAPS, MOST_MAPS_OF_A_ROW, MOST_UNITS, MOST_LAYERS = 64, 8, 128, 40
"""Maps of one layer; maps of a layer among others; units of a dense layer; layers below each other."""
_COLUMNS = 8
_WIDTH = 6.4


@styled()
def draw_maps(name: str, maps: np.ndarray) -> "Figure":
    """Draws the feature maps of a layer, all on one scale.

    Args:
        name: of the layer.
        maps: float (rows, columns, channels).
    """
    height, width, channels = maps.shape
    shown = maps.transpose(2, 0, 1)[:MOST_MAPS]
    mosaic = tile(shown, _COLUMNS)
    title = f"{name}: {count_shown(len(shown), channels, 'maps')} of {height} x {width}"
    figure = new_figure(_WIDTH, 1.0 + 5.2 * mosaic.aspect, title)
    axes = figure.subplots()
    drawn = show_mosaic(axes, mosaic, cmap=SEQUENTIAL, **_scale(maps))
    number_tiles(axes, mosaic, len(shown))
    axes.set_xlabel("map: the row's number + the column's")
    axes.xaxis.set_label_position("bottom")
    figure.colorbar(drawn, ax=axes, label="output", shrink=0.9)
    return figure


@styled()
def draw_layers(
    image: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> "Figure":
    """Draws an image, what every layer makes of it, and the answer; every layer has a scale of its own.

    Args:
        image: uint8 (height, width, channels).
        outputs: of every layer by name, float (rows, columns, channels) or (features,), the classifier's logits last.
        probabilities: of the classes, float (classes,).
        class_names: of the classes.
        title: what the image is.
    """
    hidden = list(outputs.items())[:-1]
    shown = hidden[:MOST_LAYERS]
    if len(shown) < len(hidden):
        title += f"\nthe first {len(shown)} of {len(hidden)} layers before the classifier"
    heights = [0.75, *(_row_height(output) for _, output in shown), 0.5 + 0.15 * min(len(probabilities), 10)]
    title += "\nbrighter is larger, on a scale of its own in every layer"
    figure = new_figure(7.2, 0.8 + sum(heights) + 0.12 * len(heights), title)
    rows = figure.subplots(len(heights), 1, height_ratios=heights)
    _show_input(rows[0], image)
    for axes, (name, output) in zip(rows[1:-1], shown, strict=True):
        _show_units(axes, name, output) if output.ndim == 1 else _show_row(axes, name, output)
    plot_probabilities(rows[-1], probabilities, class_names)
    _name_row(rows[-1], f"{list(outputs)[-1]}\nprobabilities")
    return figure


def _show_input(axes: "Axes", image: np.ndarray) -> None:
    show_mosaic(axes, tile(to_rgba(image[np.newaxis]), _COLUMNS))
    _name_row(axes, f"image\n{image.shape[0]} x {image.shape[1]}")


def _show_row(axes: "Axes", name: str, maps: np.ndarray) -> None:
    height, width, channels = maps.shape
    shown = maps.transpose(2, 0, 1)[:MOST_MAPS_OF_A_ROW]
    show_mosaic(axes, tile(shown, _COLUMNS), cmap=SEQUENTIAL, **_scale(maps))
    _name_row(axes, f"{name}\n{height} x {width}\n{len(shown)} of {channels} maps")


def _show_units(axes: "Axes", name: str, units: np.ndarray) -> None:
    shown = units[:MOST_UNITS]
    axes.imshow(shown[np.newaxis], aspect="auto", cmap=SEQUENTIAL, **_scale(units))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    _name_row(axes, f"{name}\n{len(shown)} of {len(units)} units")


def _name_row(axes: "Axes", name: str) -> None:
    axes.set_anchor("W")
    axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6)


def _row_height(output: np.ndarray) -> float:
    return 0.45 if output.ndim == 1 else max(0.5, 5.4 / _COLUMNS * output.shape[0] / output.shape[1])


def _scale(values: np.ndarray) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    return {"vmin": min(low, 0.0), "vmax": high if high > min(low, 0.0) else min(low, 0.0) + 1.0}
