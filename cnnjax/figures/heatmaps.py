"""One factor against another: the accuracy of every cell as a number on a colour."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.figures.labels import wrap, wrap_all
from cnnjax.figures.style import INK, ON_LIGHT, PAPER, SEQUENTIAL, SMALL, new_figure, styled
from cnnjax.figures.verdict_marks import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDEST = 7.2


class HeatMap(NamedTuple):
    """The cells of two factors: percentages, float (rows, columns), nan without one; and what is written into each."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    texts: Sequence[Sequence[str]]


@styled()
def draw_heat_maps(maps: Sequence[HeatMap], row_factor: str, column_factor: str) -> "Figure":
    """Draws tables of two factors beside each other, in the colours of one scale.

    Args:
        maps: of equal rows and columns, at least one.
        row_factor: down.
        column_factor: across.
    """
    rows, columns = maps[0].values.shape
    labels, lines = wrap_all(maps[0].rows, 18)
    cell = max(0.34, 0.16 * lines + 0.08)
    across = max(1, min(len(maps), int(_WIDEST / (1.2 + 0.75 * columns))))
    down = math.ceil(len(maps) / across)
    width = max(4.2, min(_WIDEST, 1.6 + across * (0.4 + 0.75 * columns)))
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
    figure.colorbar(drawn, ax=list(every), label="accuracy in %", shrink=0.9)
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
