"""Figures that compare arms: forest plot of differences, pairs of seeds, accuracy against size, and ranks.

Shares such as accuracies, and their margins, come in as fractions and are drawn in per cent or percentage points.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.figures.style import (
    BAND,
    BLUE,
    COLOURS,
    GREY,
    INK,
    MARKERS,
    MARKS,
    PAGE_WIDTH,
    SMALL,
    VERMILLION,
    explain_marks,
    make_panels,
    mark_log_axis,
    new_figure,
    styled,
    wrap,
    wrap_all,
)
from cnnjax.statistics import Contrast, Criteria, Measure
from cnnjax.statistics.measures import ACCURACY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PAIRS = 24
"""Largest number of panels of pairs."""
MOST_GROUPS = 6
"""Largest number of groups that each have their own colour and marker."""
_FAR = 4.0
"""A row is cut off if it extends this many times as far as three quarters of the rows, so that those stay readable."""
_COLUMNS = 4
"""Panels of pairs in a row."""
_RISE, _FALL, _LEVEL = (BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREY, ":", "D")
"""Colour, line and marker of a pair whose first arm is higher, lower, or equal."""


@styled()
def draw_forest(names: Sequence[str], contrasts: Sequence[Contrast], criteria: Criteria) -> "Figure":
    """Draws a forest plot: one row per contrast, with its difference and interval, of shares in percentage points.

    A row shows the difference of every seed as a tick, the mean with its interval, and the numbers and the verdict in
    words. The grey band is the margin of equivalence.

    Args:
        names: names of the rows, from top to bottom.
        contrasts: contrasts of the rows.
        criteria: margin of equivalence, and what is compared.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    measure, margin = criteria.measure, criteria.measure.scale * criteria.margin
    labels, name_lines = wrap_all(names, 34)
    verdicts, verdict_lines = wrap_all([contrast.verdict.label for contrast in contrasts], 30)
    lines = max(name_lines, verdict_lines + (verdict_lines > 1))
    figure = new_figure(PAGE_WIDTH, 1.1 + len(names) * (lines * 0.135 + 0.12))
    axes = figure.subplots()
    limit = _find_limit(contrasts, margin, measure.scale)
    axes.axvspan(-margin, margin, **BAND)
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, (contrast, verdict) in enumerate(zip(contrasts, verdicts, strict=True)):
        _draw_row(axes, row, contrast, limit, measure.scale)
        text = describe_difference(contrast, measure) + ("\n" if "\n" in verdict else "  ") + verdict
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(f"difference of {measure.name} in {measure.unit_of_differences}")
    seed = Line2D([], [], color=GREY, marker="|", linestyle="none", label="one seed")
    band = Patch(**BAND, label=f"within ±{measure.write_margin(criteria.margin)}")
    explain_marks(figure, [contrast.verdict for contrast in contrasts], seed, band)
    return figure


def describe_difference(contrast: Contrast, measure: Measure = ACCURACY) -> str:
    """Returns the difference with its interval, if any: ``+0.12 [-0.04, +0.28]``."""
    mean, write = measure.write_difference(contrast.comparison.mean), measure.write_difference
    low, high = contrast.decisive_interval
    return mean if low is None or high is None else f"{mean} [{write(low)}, {write(high)}]"


def _draw_row(axes: "Axes", row: int, contrast: Contrast, limit: float, scale: int) -> None:
    mark, mean = MARKS[contrast.verdict.word], scale * contrast.comparison.mean
    differences = scale * np.array(contrast.comparison.differences)
    seen = differences[np.abs(differences) <= limit]
    axes.plot(seen, np.full(len(seen), row + 0.22), "|", color=GREY, markersize=4, markeredgewidth=0.8)
    low, high = contrast.decisive_interval
    if low is not None and high is not None:
        axes.hlines(row, scale * low, scale * high, mark.colour, linewidth=1.8)
    if abs(mean) <= limit:
        axes.plot(mean, row, linestyle="none", **mark.style)
    else:
        side = 1 if mean > 0 else -1
        arrow = {"arrowstyle": "-|>", "color": mark.colour, "linewidth": 1.8}
        axes.annotate("", (side * limit, row), (side * 0.88 * limit, row), arrowprops=arrow)


def _find_limit(contrasts: Sequence[Contrast], margin: float, scale: int) -> float:
    """Returns the end of the axis: beyond the margin and all rows except those far beyond the others."""
    reach = [
        scale * max(abs(end) for end in (c.comparison.mean, *c.decisive_interval) if end is not None) for c in contrasts
    ]
    far = max(reach)
    most = float(np.quantile(reach, 0.75, method="higher")) if len(reach) > 3 else far
    return 1.05 * max(1.5 * margin, far if far <= _FAR * most else 1.5 * most)


class Pair(NamedTuple):
    """Two arms: their names, and their scores by seed."""

    first: str
    second: str
    first_values: Mapping[int, float]
    second_values: Mapping[int, float]


@styled()
def draw_pairs(pairs: Sequence[Pair], against_base: bool, measure: Measure = ACCURACY) -> "Figure":
    """Draws a panel per pair of arms: lines from the second arm on the left to the first on the right, one per seed.

    Args:
        pairs: the pairs, at most `MOST_PAIRS`.
        against_base: whether the second arm of every pair is the same base, which the titles then leave out.
        measure: what the scores are.
    """
    from matplotlib.lines import Line2D

    named = [pair.first if against_base else f"{pair.first} against {pair.second}" for pair in pairs]
    titles, lines = wrap_all(named, 22, 4)
    columns = min(len(pairs), _COLUMNS)
    rows = math.ceil(len(pairs) / columns)
    figure = new_figure(max(PAGE_WIDTH * columns / _COLUMNS, 3.6), 0.5 + rows * (1.75 + 0.13 * lines))
    panels = make_panels(figure, len(pairs), columns)
    for axes, pair, title in zip(panels, pairs, titles, strict=True):
        _draw_pair(axes, pair, measure.scale)
        axes.set_title(title, fontsize=SMALL)
        axes.set_xticks([0, 1], ["base", "arm"] if against_base else ["second", "first"])
    for axes in panels[::columns]:
        axes.set_ylabel(f"{measure.name}{measure.percent}")
    kinds = {"higher than its pair": _RISE, "lower": _FALL, "equal": _LEVEL}
    found = {_classify(pair, seed) for pair in pairs for seed in pair.first_values.keys() & pair.second_values.keys()}
    handles = [
        Line2D([], [], color=colour, linestyle=line, marker=marker, markersize=4, label=label)
        for label, (colour, line, marker) in kinds.items()
        if (colour, line, marker) in found
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_pair(axes: "Axes", pair: Pair, scale: int) -> None:
    seeds = sorted(pair.first_values.keys() & pair.second_values.keys())
    higher = 0
    for seed in seeds:
        before, after = scale * pair.second_values[seed], scale * pair.first_values[seed]
        colour, line, marker = _classify(pair, seed)
        axes.plot([0, 1], [before, after], line, color=colour, marker=marker, markersize=3.5, linewidth=1.1)
        higher += after > before
    axes.set_xlim(-0.35, 1.35)
    axes.margins(y=0.12)
    axes.set_xlabel(f"{higher} of {len(seeds)} seeds higher", fontsize=SMALL)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.locator_params(axis="y", nbins=4)


def _classify(pair: Pair, seed: int) -> tuple[str, str, str]:
    before, after = pair.second_values[seed], pair.first_values[seed]
    return _LEVEL if before == after else _RISE if after > before else _FALL


class Point(NamedTuple):
    """An arm: its number of parameters, mean score with interval, group, and whether it is on the Pareto front."""

    name: str
    parameters: int
    mean: float
    low: float | None
    high: float | None
    group: str
    on_front: bool


@styled()
def draw_capacity(points: Sequence[Point], grouped_by: str, measure: Measure = ACCURACY) -> "Figure":
    """Draws the mean score of arms against their parameters (logarithmic), and the Pareto front as a dotted line.

    The arms on the front are numbered, and named below.

    Args:
        points: the arms, at least one.
        grouped_by: name of the groups; colours repeat beyond `MOST_GROUPS` groups. Empty for no legend.
        measure: what the scores are.
    """
    groups = list(dict.fromkeys(point.group for point in points))
    front = sorted((point for point in points if point.on_front), key=lambda point: point.parameters)
    keys = [wrap(f"{number}  {point.name}", 84, 2) for number, point in enumerate(front, 1)]
    figure = new_figure(PAGE_WIDTH, 4.3 + 0.15 * sum(key.count("\n") + 1 for key in keys))
    axes = figure.subplots()
    _draw_front(axes, front, measure.scale)
    for index, group in enumerate(groups):
        style = {"color": COLOURS[index % MOST_GROUPS], "marker": MARKERS[index % MOST_GROUPS]}
        _draw_points(
            axes, [point for point in points if point.group == group], style, wrap(group, 24, 1), measure.scale
        )
    smallest, largest = (limit(point.parameters for point in points) for limit in (min, max))
    axes.set_xscale("log")
    low, high = smallest / 1.25, largest * 1.25
    axes.set_xlim(low, high)
    mark_log_axis(axes.xaxis, low, high, ",.0f")
    axes.margins(y=0.1)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid()
    axes.set_ylabel(f"{measure.name}{measure.percent}")
    below = "\n".join(["parameters (logarithmic)", "", "On the front:", *keys])
    axes.set_xlabel(below, ha="left", x=0, linespacing=1.35)
    if grouped_by:
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "alignment": "left"}
        axes.legend(title=wrap(grouped_by, 30, 1), title_fontsize=SMALL, **above)
    return figure


def _draw_front(axes: "Axes", front: Sequence[Point], scale: int) -> None:
    sizes, means = [point.parameters for point in front], [scale * point.mean for point in front]
    axes.step(sizes, means, where="post", color=INK, linewidth=1, linestyle=":")
    for number, (size, mean) in enumerate(zip(sizes, means, strict=True), 1):
        place: dict[str, Any] = {"xytext": (-5, 5), "textcoords": "offset points"}
        axes.annotate(str(number), (size, mean), ha="right", va="bottom", fontweight="bold", **place)


def _draw_points(axes: "Axes", points: Sequence[Point], style: dict[str, Any], label: str, scale: int) -> None:
    for point in points:
        if point.low is not None and point.high is not None:
            axes.vlines(point.parameters, scale * point.low, scale * point.high, style["color"], linewidth=1)
    sizes, means = [point.parameters for point in points], [scale * point.mean for point in points]
    axes.plot(sizes, means, linestyle="none", label=label, **style)


@styled()
def draw_ranks(names: Sequence[str], means: Sequence[float], critical_difference: float | None) -> "Figure":
    """Draws mean ranks, the best at the top, with bars of half the critical difference to both sides.

    Two arms differ if their bars do not overlap.

    Args:
        names: names of the arms.
        means: mean ranks; 1 is best.
        critical_difference: critical difference of two mean ranks; ``None`` draws no bars.
    """
    order = sorted(range(len(names)), key=lambda index: means[index])
    labels, lines = wrap_all([names[index] for index in order], 40)
    figure = new_figure(PAGE_WIDTH, 0.7 + len(names) * (0.135 * lines + 0.13))
    axes = figure.subplots()
    half = (critical_difference or 0.0) / 2
    for row, index in enumerate(order):
        axes.hlines(row, means[index] - half, means[index] + half, BLUE, linewidth=2)
        axes.plot(means[index], row, "o", color=BLUE)
        place: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points"}
        axes.annotate(f"{means[index]:.2f}", (means[index], row), ha="center", va="bottom", fontsize=SMALL, **place)
    axes.set_yticks(range(len(names)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.grid(axis="x")
    axes.set_xlabel("mean rank over the datasets; 1 is best")
    return figure
