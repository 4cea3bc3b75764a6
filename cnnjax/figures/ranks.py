"""Arms by their mean rank over datasets, with the difference that two must have to be told apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnnjax.figures.labels import wrap_all
from cnnjax.figures.style import BLUE, INK, SMALL, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled()
def draw_ranks(names: Sequence[str], means: Sequence[float], critical_difference: float | None) -> "Figure":
    """Draws mean ranks, the best first, each with half the critical difference to both sides.

    Two arms whose bars do not overlap differ.

    Args:
        names: of the arms.
        means: mean ranks, 1 being best.
        critical_difference: of two mean ranks; ``None`` where no two are compared.
    """
    order = sorted(range(len(names)), key=lambda index: means[index])
    labels, lines = wrap_all([names[index] for index in order], 40)
    figure = new_figure(7.2, 0.7 + len(names) * (0.135 * lines + 0.13))
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
