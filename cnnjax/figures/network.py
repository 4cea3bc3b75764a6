"""Figures of a trained network: filters, feature maps, saliency, class probabilities, and mistakes."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.figures.style import (
    BLUE,
    DARKENING,
    MUTED,
    PAGE_WIDTH,
    SEQUENTIAL,
    SIGNED,
    SMALL,
    choose_ink,
    frame_images,
    make_panels,
    new_figure,
    number_tiles,
    shorten,
    show_mosaic,
    styled,
    tile,
    to_rgba,
)
from cnnjax.inspection.confusion import Answer, share_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MOST_FILTERS, MOST_INPUTS = 64, 12
"""Filters shown of the first layer; filters, and input channels of each, shown of a deeper layer."""
MOST_MAPS, MOST_MAPS_OF_A_ROW, MOST_UNITS, MOST_LAYERS = 64, 8, 128, 40
"""Feature maps shown of one layer alone, and of a layer among others; units shown of a dense layer; layers shown."""
MOST_CLASSES = 10
"""Number of the most probable classes whose probability is shown."""
_MOST_NAMED = 25
"""Largest number of classes whose cells are numbered and whose names are shown in a confusion matrix."""
_TILE_COLUMNS, _ANSWER_COLUMNS = 8, 6
_SHEET_WIDTH = 6.4
"""Width in inches of a figure with one mosaic."""


@styled()
def draw_filters(name: str, kernel: np.ndarray) -> "Figure":
    """Draws the weights of a layer's filters as small images; middle grey is zero.

    With one input channel, every filter is a grey image. With three, it is a colour image, in the colours that increase
    the output. Otherwise each row is a filter and each column an input channel.

    Args:
        name: name of the layer.
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
    mosaic = tile(images, _TILE_COLUMNS)
    meaning = "\nred, green and blue as they raise the output; grey is zero" if in_colour else ""
    title = f"{name}: {_count(len(images), filters, 'filters')} of {images.shape[1]} x {images.shape[2]}{meaning}"
    figure = new_figure(_SHEET_WIDTH, (1.25 if in_colour else 1.0) + 5.2 * mosaic.aspect, title)
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
    counts = f"{_count(rows, filters, 'filters')}, {_count(columns, inputs, 'inputs')}"
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


def _count(shown: int, total: int, what: str) -> str:
    """Returns ``32 filters``, or ``the first 64 of 128 filters`` if some are left out."""
    return f"{total} {what}" if shown == total else f"the first {shown} of {total} {what}"


def _signed(limit: float) -> dict[str, Any]:
    return {"cmap": SIGNED, "vmin": -limit, "vmax": limit}


@styled()
def draw_maps(name: str, maps: np.ndarray) -> "Figure":
    """Draws the feature maps of a layer, all on one scale.

    Args:
        name: name of the layer.
        maps: float (rows, columns, channels).
    """
    height, width, channels = maps.shape
    shown = maps.transpose(2, 0, 1)[:MOST_MAPS]
    mosaic = tile(shown, _TILE_COLUMNS)
    title = f"{name}: {_count(len(shown), channels, 'maps')} of {height} x {width}"
    figure = new_figure(_SHEET_WIDTH, 1.0 + 5.2 * mosaic.aspect, title)
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
    """Draws an image, the output of every layer for it (each layer on its own scale), and the probabilities.

    Args:
        image: uint8 (height, width, channels).
        outputs: outputs of the layers by name, float (rows, columns, channels) or (features,); the last are the logits.
        probabilities: probabilities of the classes, float (classes,).
        class_names: names of the classes.
        title: description of the image.
    """
    hidden = list(outputs.items())[:-1]
    shown = hidden[:MOST_LAYERS]
    if len(shown) < len(hidden):
        title += f"\nthe first {len(shown)} of {len(hidden)} layers before the classifier"
    heights = [0.75, *(_row_height(output) for _, output in shown), 0.5 + 0.15 * min(len(probabilities), 10)]
    title += "\nbrighter is larger, on a scale of its own in every layer"
    figure = new_figure(PAGE_WIDTH, 0.8 + sum(heights) + 0.12 * len(heights), title)
    rows = figure.subplots(len(heights), 1, height_ratios=heights)
    _show_input(rows[0], image)
    for axes, (name, output) in zip(rows[1:-1], shown, strict=True):
        _show_units(axes, name, output) if output.ndim == 1 else _show_row(axes, name, output)
    _plot_probabilities(rows[-1], probabilities, class_names)
    _name_row(rows[-1], f"{list(outputs)[-1]}\nprobabilities")
    return figure


def _show_input(axes: "Axes", image: np.ndarray) -> None:
    show_mosaic(axes, tile(to_rgba(image[np.newaxis]), _TILE_COLUMNS))
    _name_row(axes, f"image\n{image.shape[0]} x {image.shape[1]}")


def _show_row(axes: "Axes", name: str, maps: np.ndarray) -> None:
    height, width, channels = maps.shape
    shown = maps.transpose(2, 0, 1)[:MOST_MAPS_OF_A_ROW]
    show_mosaic(axes, tile(shown, _TILE_COLUMNS), cmap=SEQUENTIAL, **_scale(maps))
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
    return 0.45 if output.ndim == 1 else max(0.5, 5.4 / _TILE_COLUMNS * output.shape[0] / output.shape[1])


def _scale(values: np.ndarray) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    return {"vmin": min(low, 0.0), "vmax": high if high > min(low, 0.0) else min(low, 0.0) + 1.0}


@styled()
def draw_saliency(
    image: np.ndarray, saliency: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], title: str
) -> "Figure":
    """Draws an image, how strongly each of its pixels changes the largest logit, and the class probabilities.

    Args:
        image: uint8 (height, width, channels).
        saliency: gradient of the largest logit with respect to the pixels, float (height, width, channels).
        probabilities: probabilities of the classes, float (classes,).
        class_names: names of the classes.
        title: description of the image.
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
    frame_images((left, middle))
    _plot_probabilities(right, probabilities, class_names)
    right.set_title("what it answers")
    return figure


def _plot_probabilities(axes: "Axes", probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    """Plots the most probable classes as bars with their probabilities, in the order of the classes."""
    shown = np.sort(np.argsort(-probabilities, kind="stable")[:MOST_CLASSES])
    winner = int(np.argmax(probabilities))
    colours = [BLUE if index == winner else MUTED for index in shown]
    bars = axes.barh(range(len(shown)), probabilities[shown], 0.7, color=colours)
    axes.bar_label(bars, [format_probability(value) for value in probabilities[shown]], padding=3, fontsize=SMALL)
    axes.set_yticks(range(len(shown)), [shorten(class_names[index]) for index in shown])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    left_out = len(probabilities) - len(shown)
    axes.set_xlabel("probability" + (f"; {left_out} less probable classes left out" if left_out else ""))


def format_probability(value: float) -> str:
    """Returns a probability as a percentage, which is never rounded to 0% or 100%.

    Example:
        >>> [format_probability(value) for value in (0.9824, 0.0002, 0.9999, 1)]
        ['98.2%', '<0.1%', '>99.9%', '100.0%']
    """
    if 0 < value < 0.001:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{100 * value:.1f}%"


@styled()
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], title: str) -> "Figure":
    """Draws a confusion matrix: darker is a larger share of the true class; correct answers are grey and bold.

    Args:
        matrix: int (classes, classes), true classes down and predicted ones across.
        class_names: names of the classes.
        title: description of the examples.
    """
    classes = len(matrix)
    in_full = classes <= _MOST_NAMED
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


@styled()
def draw_answers(images: np.ndarray, answers: Sequence[Answer], class_names: Sequence[str], title: str) -> "Figure":
    """Draws images with their index, their true class, and the answer of a network.

    Args:
        images: uint8 (n, height, width, channels), n >= 1.
        answers: answers to these images, in the same order.
        class_names: names of the classes.
        title: what the images have in common.
    """
    rows = math.ceil(len(images) / _ANSWER_COLUMNS)
    figure = new_figure(8.4, 0.7 + rows * (0.72 + 1.25 * images.shape[1] / images.shape[2]), title)
    panels = make_panels(figure, len(images), _ANSWER_COLUMNS)
    for axes, image, answer in zip(panels, to_rgba(images), answers, strict=True):
        axes.imshow(image)
        true, predicted = (shorten(class_names[index]) for index in (answer.label, answer.predicted))
        probability = format_probability(answer.probability)
        axes.set_title(f"#{answer.index}, {probability}\nis {true}\nsaid {predicted}", fontsize=SMALL)
    frame_images(panels)
    return figure
