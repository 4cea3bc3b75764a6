"""Checks that every figure passes (no text is cut off or covered), and the marks that a figure shows."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text

SLACK = 1.0
"""Pixels by which the boxes of texts may touch, at 100 dots an inch."""


def list_texts(figure):
    """Returns the visible texts, each with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    axes = [each for each in figure.axes if each.get_visible()]
    hidden = {label for each in axes for axis in (each.xaxis, each.yaxis) for label in _list_hidden(axis)}
    every = [text for text in figure.findobj(_is_text) if text not in hidden]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in every]


def check_figure(figure):
    """Fails if a text is cut off or covered by another one, or if axes have no name."""
    texts = list_texts(figure)
    width, height = figure.canvas.get_width_height()
    for text, box in texts:
        inside = box.x0 >= -SLACK and box.y0 >= -SLACK and box.x1 <= width + SLACK and box.y1 <= height + SLACK
        assert inside, f"{text!r} is cut off: {box.extents} of {width} x {height}"
    for (text, box), (other, other_box) in combinations(texts, 2):
        across = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        down = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert across <= SLACK or down <= SLACK, f"{text!r} and {other!r} overlap by {across:.1f} x {down:.1f}"
    assert texts, "nothing is named"
    for axes in figure.axes:
        if axes.get_visible() and axes.axison:
            names = (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())
            assert any(names), "axes without a title or a label"


def _is_text(artist):
    if not isinstance(artist, Text) or not artist.get_visible() or not artist.get_text().strip():
        return False
    return artist.axes is None or artist.axes.get_visible()


def _list_hidden(axis):
    """Returns the labels of ticks beyond the ends of an axis, which matplotlib keeps but does not draw."""
    low, high = sorted(axis.get_view_interval())
    beyond = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return [label for tick in beyond for label in (tick.label1, tick.label2)]


def find_points(axes, marker):
    """Returns the points that are drawn with a marker, in the order of drawing."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata()]


def find_bars(axes):
    """Returns the ends of the straight bars, ((x, y), (x, y)) each, in the order of drawing."""
    collections = [each for each in axes.collections if isinstance(each, LineCollection)]
    return [tuple(map(tuple, segment)) for each in collections for segment in each.get_segments()]


def find_cell_texts(axes):
    """Returns the texts by their position (x, y)."""
    return {text.get_position(): text.get_text() for text in axes.texts}


def is_upside_down(axes):
    """Whether the y axis grows downwards, so that row 0 is at the top."""
    bottom, top = axes.get_ylim()
    return bottom > top


def name_ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def find_place(axes):
    """Returns the row and the column of axes among their neighbours."""
    spec = axes.get_subplotspec()
    return spec.rowspan.start, spec.colspan.start


def read_pixels(axes, index=0):
    """Returns the values or colours of an image of axes as they are seen, the upper left pixel first; nan is empty."""
    image = axes.images[index]
    pixels = np.ma.filled(image.get_array(), np.nan)
    rows, columns = pixels.shape[:2]
    assert tuple(image.get_extent()) == (-0.5, columns - 0.5, rows - 0.5, -0.5)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left <= -0.5 < columns - 0.5 <= right
    assert top <= -0.5 < rows - 0.5 <= bottom
    return pixels


def read_tiles(axes, columns, shape):
    """Returns the images of a mosaic in reading order; every place has one, nan or transparent where there is none.

    An image with a side of 24 pixels or more is as it is, a smaller one is enlarged by whole pixels; gaps have three.
    """
    sheet, factor, gap = read_pixels(axes), -(-24 // max(shape)), 3
    height, width = (factor * size for size in shape)
    rows = (sheet.shape[0] + gap) // (height + gap)
    assert sheet.shape[:2] == (rows * (height + gap) - gap, columns * (width + gap) - gap)
    tiles = []
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            enlarged = sheet[top : top + height, left : left + width]
            tiles.append(enlarged[::factor, ::factor])
            np.testing.assert_array_equal(tiles[-1].repeat(factor, 0).repeat(factor, 1), enlarged)
    return tiles


def read_bars(axes):
    """Returns the bars that start at the left: (middle, length, colour) each, in the order of drawing."""
    assert all(bar.get_x() == 0 for bar in axes.patches)
    return [(bar.get_y() + bar.get_height() / 2, bar.get_width(), bar.get_facecolor()) for bar in axes.patches]
