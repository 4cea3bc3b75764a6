"""Differences between arms, one below the other: the forest plot.

A row has the name of its arm, the difference of every seed as a tick, the mean with its interval, and the numbers and
the verdict in words. The grey band is the margin within which a difference makes none.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.comparison import Contrast
from cnnjax.figures.labels import wrap_all
from cnnjax.figures.style import INK, SMALL, new_figure, styled
from cnnjax.figures.verdict_marks import BAND, GREY, MARKS, explain_marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _LINE, _GAP = 7.2, 0.135, 0.12
"""Inches of the figure across, of a line of text, and between rows."""
_FAR = 4.0
"""Rows that reach so many times as far as most are cut off, so that the others can be told apart."""


@styled()
def draw_forest(names: Sequence[str], contrasts: Sequence[Contrast], margin: float) -> "Figure":
    """Draws differences of accuracies with their intervals, in percentage points.

    Args:
        names: of the rows.
        contrasts: of the rows.
        margin: within which differences make none, as a fraction.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    labels, name_lines = wrap_all(names, 34)
    verdicts, verdict_lines = wrap_all([contrast.verdict.label for contrast in contrasts], 30)
    lines = max(name_lines, verdict_lines + (verdict_lines > 1))
    figure = new_figure(_WIDTH, 1.1 + len(names) * (lines * _LINE + _GAP))
    axes = figure.subplots()
    limit = _find_limit(contrasts, margin)
    axes.axvspan(-100 * margin, 100 * margin, **BAND)
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, (contrast, verdict) in enumerate(zip(contrasts, verdicts, strict=True)):
        _draw_row(axes, row, contrast, limit)
        text = describe_difference(contrast) + ("\n" if "\n" in verdict else "  ") + verdict
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("difference of accuracy in percentage points")
    seed = Line2D([], [], color=GREY, marker="|", linestyle="none", label="one seed")
    explain_marks(
        figure, [contrast.verdict for contrast in contrasts], seed, Patch(**BAND, label=f"within ±{100 * margin:g}")
    )
    return figure


def describe_difference(contrast: Contrast) -> str:
    """Returns the difference in points, with its interval where it has one: ``+0.12 [-0.04, +0.28]``."""
    mean = f"{100 * contrast.comparison.mean:+.2f}"
    low, high = contrast.decisive_interval
    return mean if low is None or high is None else f"{mean} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _draw_row(axes: "Axes", row: int, contrast: Contrast, limit: float) -> None:
    mark, mean = MARKS[contrast.verdict.word], 100 * contrast.comparison.mean
    differences = 100 * np.array(contrast.comparison.differences)
    seen = differences[np.abs(differences) <= limit]
    axes.plot(seen, np.full(len(seen), row + 0.22), "|", color=GREY, markersize=4, markeredgewidth=0.8)
    low, high = contrast.decisive_interval
    if low is not None and high is not None:
        axes.hlines(row, 100 * low, 100 * high, mark.colour, linewidth=1.8)
    if abs(mean) <= limit:
        axes.plot(mean, row, linestyle="none", **mark.style)
    else:
        side = 1 if mean > 0 else -1
        arrow = {"arrowstyle": "-|>", "color": mark.colour, "linewidth": 1.8}
        axes.annotate("", (side * limit, row), (side * 0.88 * limit, row), arrowprops=arrow)


def _find_limit(contrasts: Sequence[Contrast], margin: float) -> float:
    """Returns where the axis ends, in points: beyond all rows, but for those that reach far beyond the others."""
    reach = [max(abs(end) for end in (c.comparison.mean, *c.decisive_interval) if end is not None) for c in contrasts]
    far = max(reach)
    most = float(np.quantile(reach, 0.75, method="higher")) if len(reach) > 3 else far
    return 105 * max(1.5 * margin, far if far <= _FAR * most else 1.5 * most)
