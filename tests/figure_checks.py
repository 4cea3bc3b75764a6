"""Checks that every figure passes (no text is cut off or covered), and the marks that a figure shows."""

from itertools import combinations

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
