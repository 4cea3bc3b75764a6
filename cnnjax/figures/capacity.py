"""Accuracy against size: which networks no smaller one beats."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnjax.figures.labels import mark_log_axis, wrap
from cnnjax.figures.style import COLOURS, INK, MARKERS, SMALL, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GROUPS = 6
"""Groups that have a colour and a marker of their own."""
_KEY_WIDTH = 84


class Point(NamedTuple):
    """An arm: its parameters, mean accuracy with interval as fractions, group, and whether it is on the front."""

    name: str
    parameters: int
    mean: float
    low: float | None
    high: float | None
    group: str
    on_front: bool


@styled()
def draw_capacity(points: Sequence[Point], grouped_by: str) -> "Figure":
    """Draws the mean accuracy of arms over the logarithm of their parameters, and the front of those that none beats.

    The arms on the front are numbered, and named below.

    Args:
        points: the arms, at least one.
        grouped_by: what their groups are; at most `MOST_GROUPS` groups, or all are drawn alike.
    """
    groups = list(dict.fromkeys(point.group for point in points))
    front = sorted((point for point in points if point.on_front), key=lambda point: point.parameters)
    keys = [wrap(f"{number}  {point.name}", _KEY_WIDTH, 2) for number, point in enumerate(front, 1)]
    figure = new_figure(7.2, 4.3 + 0.15 * sum(key.count("\n") + 1 for key in keys))
    axes = figure.subplots()
    _draw_front(axes, front)
    for index, group in enumerate(groups):
        style = {"color": COLOURS[index % MOST_GROUPS], "marker": MARKERS[index % MOST_GROUPS]}
        _draw_points(axes, [point for point in points if point.group == group], style, wrap(group, 24, 1))
    smallest, largest = (limit(point.parameters for point in points) for limit in (min, max))
    axes.set_xscale("log")
    low, high = smallest / 1.25, largest * 1.25
    axes.set_xlim(low, high)
    mark_log_axis(axes.xaxis, low, high, ",.0f")
    axes.margins(y=0.1)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid()
    axes.set_ylabel("accuracy in %")
    below = "\n".join(["parameters (logarithmic)", "", "On the front:", *keys])
    axes.set_xlabel(below, ha="left", x=0, linespacing=1.35)
    if grouped_by:
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "alignment": "left"}
        axes.legend(title=wrap(grouped_by, 30, 1), title_fontsize=SMALL, **above)
    return figure


def _draw_front(axes: "Axes", front: Sequence[Point]) -> None:
    sizes, means = [point.parameters for point in front], [100 * point.mean for point in front]
    axes.step(sizes, means, where="post", color=INK, linewidth=1, linestyle=":")
    for number, (size, mean) in enumerate(zip(sizes, means, strict=True), 1):
        place: dict[str, Any] = {"xytext": (-5, 5), "textcoords": "offset points"}
        axes.annotate(str(number), (size, mean), ha="right", va="bottom", fontweight="bold", **place)


def _draw_points(axes: "Axes", points: Sequence[Point], style: dict[str, Any], label: str) -> None:
    for point in points:
        if point.low is not None and point.high is not None:
            axes.vlines(point.parameters, 100 * point.low, 100 * point.high, style["color"], linewidth=1)
    sizes, means = [point.parameters for point in points], [100 * point.mean for point in points]
    axes.plot(sizes, means, linestyle="none", label=label, **style)
