"""Figures of the factors of a study: shares of the variance, effects of levels, and heat maps of two factors."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.figures.style import (
    BAND,
    BLUE,
    GREY,
    INK,
    MARKS,
    ON_LIGHT,
    PAGE_WIDTH,
    PAPER,
    SEQUENTIAL,
    SMALL,
    explain_marks,
    make_panels,
    new_figure,
    styled,
    wrap,
    wrap_all,
)
from cnnjax.statistics import Contrast, Criteria, Measure, Share
from cnnjax.statistics.measures import ACCURACY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
"""Panels of factors in a row."""


class FactorEffects(NamedTuple):
    """Effects of the levels of one factor, by label in the order of the study; ``None`` for the reference level."""

    factor: str
    levels: Mapping[str, Contrast | None]


@styled()
def draw_shares(names: Sequence[str], shares: Sequence[Share]) -> "Figure":
    """Draws partial shares of the variance with their intervals, from top to bottom.

    Args:
        names: names of the terms: factors and interactions.
        shares: shares of the terms.
    """
    labels, lines = wrap_all(names, 40)
    figure = new_figure(PAGE_WIDTH, 0.8 + len(names) * (0.14 * lines + 0.14))
    axes = figure.subplots()
    rows = range(len(names))
    axes.barh(rows, [100 * share.partial for share in shares], 0.62, color=BLUE, alpha=0.85)
    axes.hlines(rows, [100 * share.low for share in shares], [100 * share.high for share in shares], INK, linewidth=1)
    for row, share in enumerate(shares):
        axes.text(max(100 * share.high, 0) + 1.5, row, f"{100 * share.partial:.0f}%", va="center", fontsize=SMALL)
    axes.set_xlim(0, 110)
    axes.set_xticks(range(0, 101, 20))
    axes.set_yticks(rows, labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel("% of the variance that the other terms leave")
    return figure


@styled()
def draw_main_effects(factors: Sequence[FactorEffects], criteria: Criteria) -> "Figure":
    """Draws the effect of every level against the reference level, one panel per factor, all on one scale.

    Args:
        factors: the factors, at least one.
        criteria: margin of equivalence, and what is compared.
    """
    from matplotlib.patches import Patch

    scale, margin = criteria.measure.scale, criteria.measure.scale * criteria.margin

    columns = min(len(factors), _COLUMNS)
    figure = new_figure(PAGE_WIDTH if columns > 1 else 4.8, 0.4 + 2.5 * math.ceil(len(factors) / columns))
    panels = make_panels(figure, len(factors), columns, sharey=True)
    for axes, factor in zip(panels, factors, strict=True):
        axes.axhspan(-margin, margin, **BAND)
        axes.axhline(0, color=INK, linewidth=0.8)
        means = [0.0 if each is None else scale * each.comparison.mean for each in factor.levels.values()]
        axes.plot(means, color=INK, linewidth=0.8, linestyle=":")
        for place, contrast in enumerate(factor.levels.values()):
            if contrast is None:
                axes.plot(place, 0, "D", color=INK, markersize=4)
                continue
            mark = MARKS[contrast.verdict.word]
            low, high = contrast.decisive_interval
            if low is not None and high is not None:
                axes.vlines(place, scale * low, scale * high, mark.colour, linewidth=1.8)
            axes.plot(place, means[place], linestyle="none", **mark.style)
        _name_levels(axes, list(factor.levels))
        axes.set_title(wrap(factor.factor, 40, 2))
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel(f"effect in {criteria.measure.unit_of_differences}")
    verdicts = [each.verdict for factor in factors for each in factor.levels.values() if each is not None]
    explain_marks(figure, verdicts, Patch(**BAND, label=f"within ±{criteria.measure.write_margin(criteria.margin)}"))
    return figure


def _name_levels(axes: "Axes", labels: Sequence[str]) -> None:
    steep = len(labels) * max(map(len, labels)) > 40 or len(labels) > 8
    turned: dict[str, Any] = {"rotation": 90, "ha": "center"} if len(labels) > 8 else {"rotation": 30, "ha": "right"}
    wrapped, _ = wrap_all(labels, 18 if steep else max(6, 40 // len(labels)), 2)
    axes.set_xticks(range(len(labels)), wrapped, **(turned if steep else {}))
    axes.set_xlim(-0.5, len(labels) - 0.5)


class HeatMap(NamedTuple):
    """The cells of two factors: means as they are drawn, float (rows, columns) with nan if missing, and their texts."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    texts: Sequence[Sequence[str]]


@styled()
def draw_heat_maps(
    maps: Sequence[HeatMap], row_factor: str, column_factor: str, measure: Measure = ACCURACY
) -> "Figure":
    """Draws heat maps of two factors beside each other, in one colour scale; missing cells are hatched.

    Args:
        maps: at least one; all have the same rows and columns.
        row_factor: name of the factor down.
        column_factor: name of the factor across.
        measure: what the means are of.
    """
    rows, columns = maps[0].values.shape
    labels, lines = wrap_all(maps[0].rows, 18)
    cell = max(0.34, 0.16 * lines + 0.08)
    across = max(1, min(len(maps), int(PAGE_WIDTH / (1.2 + 0.75 * columns))))
    down = math.ceil(len(maps) / across)
    width = max(4.2, min(PAGE_WIDTH, 1.6 + across * (0.4 + 0.75 * columns)))
    figure = new_figure(width, 0.5 + down * (1.0 + cell * rows))
    every = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in every[len(maps) :]:
        axes.set_visible(False)
    shown = np.concatenate([each.values.ravel() for each in maps])
    scale = {"vmin": float(np.nanmin(shown)), "vmax": float(np.nanmax(shown))}
    for axes, each in zip(every, maps, strict=False):
        drawn = axes.pcolormesh(each.values, cmap=SEQUENTIAL, edgecolors=PAPER, linewidth=0.8, **scale)
        axes.set_title(wrap(each.title, 40, 2))
        _write_cells(axes, each, drawn)
    first = every[0]
    first.set_ylim(rows, 0)
    first.set_xticks(np.arange(columns) + 0.5, wrap_all(maps[0].columns, 14)[0], rotation=30 if columns > 5 else 0)
    first.set_yticks(np.arange(rows) + 0.5, labels)
    for index, axes in enumerate(every):
        axes.tick_params(length=0, labelbottom=index + across >= len(maps))
        axes.spines[:].set_visible(False)
        if index % across == 0:
            axes.set_ylabel(wrap(row_factor, 40, 1))
        if index + across >= len(maps):
            axes.set_xlabel(wrap(column_factor, 40, 1))
    figure.colorbar(drawn, ax=list(every), label=f"{measure.name}{measure.percent}", shrink=0.9)
    return figure


def _write_cells(axes: "Axes", heat_map: HeatMap, drawn: Any) -> None:
    size = SMALL if heat_map.values.shape[1] <= 8 else 5.5
    for (row, column), value in np.ndenumerate(heat_map.values):
        colour = INK if not np.isfinite(value) else PAPER if drawn.norm(value) < 0.5 else ON_LIGHT
        text = heat_map.texts[row][column]
        if not np.isfinite(value):
            corners = [column, column + 1, column + 1, column], [row, row, row + 1, row + 1]
            axes.fill(*corners, facecolor="none", edgecolor=GREY, hatch="////", linewidth=0.8)
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=colour)
