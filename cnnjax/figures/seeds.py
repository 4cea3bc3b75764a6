"""Pairs of runs with one seed, joined by lines: whether an arm is better at every seed, or for some by chance."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cnnjax.figures.labels import wrap_all
from cnnjax.figures.style import BLUE, SMALL, VERMILLION, new_figure, styled
from cnnjax.figures.verdict_marks import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PAIRS = 24
_COLUMNS, _WIDTH = 4, 7.2
_RISE, _FALL, _LEVEL = (BLUE, "-", "o"), (VERMILLION, "--", "s"), (GREY, ":", "D")
"""Colour, line and marker of a pair that goes up, down, or neither."""


class Pair(NamedTuple):
    """Two arms: their names, and their accuracies by seed as fractions."""

    first: str
    second: str
    first_values: Mapping[int, float]
    second_values: Mapping[int, float]


@styled()
def draw_pairs(pairs: Sequence[Pair], against_base: bool) -> "Figure":
    """Draws a panel for every pair of arms, from the second of a pair on the left to the first on the right.

    Args:
        pairs: at most `MOST_PAIRS`.
        against_base: whether the second of each is one and the same base, which need not be named.
    """
    from matplotlib.lines import Line2D

    named = [pair.first if against_base else f"{pair.first} against {pair.second}" for pair in pairs]
    titles, lines = wrap_all(named, 22, 4)
    columns = min(len(pairs), _COLUMNS)
    rows = math.ceil(len(pairs) / columns)
    figure = new_figure(max(_WIDTH * columns / _COLUMNS, 3.6), 0.5 + rows * (1.75 + 0.13 * lines))
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, pair, title in zip(every, pairs, titles, strict=False):
        _draw_pair(axes, pair)
        axes.set_title(title, fontsize=SMALL)
        axes.set_xticks([0, 1], ["base", "arm"] if against_base else ["second", "first"])
    for axes in every[len(pairs) :]:
        axes.set_visible(False)
    for axes in every[::columns]:
        axes.set_ylabel("accuracy in %")
    kinds = {"higher than its pair": _RISE, "lower": _FALL, "equal": _LEVEL}
    found = {_classify(pair, seed) for pair in pairs for seed in pair.first_values.keys() & pair.second_values.keys()}
    handles = [
        Line2D([], [], color=colour, linestyle=line, marker=marker, markersize=4, label=label)
        for label, (colour, line, marker) in kinds.items()
        if (colour, line, marker) in found
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_pair(axes: "Axes", pair: Pair) -> None:
    seeds = sorted(pair.first_values.keys() & pair.second_values.keys())
    higher = 0
    for seed in seeds:
        before, after = 100 * pair.second_values[seed], 100 * pair.first_values[seed]
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
