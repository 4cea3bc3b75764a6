"""All pictures of a comparison, in a fixed order, and as files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnjax.errors import UnavailableError
from cnnjax.reports.drawing_arms import draw_dataset_ranks, draw_differences, draw_seeds, draw_sizes
from cnnjax.reports.drawing_factors import draw_at_equal_size, draw_crossings, draw_effects, draw_maps, draw_variance
from cnnjax.reports.drawing_runs import draw_hardest_images, draw_learning, draw_mistaken
from cnnjax.reports.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnnjax.reports.drawing_arms import Drawn


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with what is said of it.

    Attributes:
        title: what it shows.
        caption: what its marks and bars are; where there is no figure, why.
        figure: as drawn; ``None`` where there is nothing to draw.
    """

    title: str
    caption: str
    figure: "Figure | None"


_DRAWN: dict[str, tuple[str, Callable[[Findings], "Drawn"]]] = {
    "differences": ("Differences between arms", draw_differences),
    "ranks": ("Ranks over datasets", draw_dataset_ranks),
    "seeds": ("Runs of the same seed", draw_seeds),
    "capacity": ("Accuracy against parameters", draw_sizes),
    "variance": ("Shares of the variance", draw_variance),
    "effects": ("Main effects", draw_effects),
    "interactions": ("Interactions", draw_crossings),
    "equal_size": ("Effects at equal size", draw_at_equal_size),
    "heat_maps": ("Factor against factor", draw_maps),
    "curves": ("Learning curves", draw_learning),
    "confusions": ("Confusions", draw_mistaken),
    "hardest": ("The hardest images", draw_hardest_images),
}
"""Title and drawer of every picture by its name, which its files have, too."""


def draw_all(findings: Findings) -> dict[str, Picture]:
    """Draws every picture of a comparison.

    Args:
        findings: what to draw.

    Returns:
        The pictures by name, in a fixed order; those that cannot be drawn say why, unless it goes without saying.
    """
    pictures = {}
    for name, (title, draw) in _DRAWN.items():
        figure, caption = draw(findings)
        if figure is not None or caption:
            pictures[name] = Picture(title, caption, figure)
    return pictures


def save_pictures(findings: Findings, folder: Path, option: str = "--figures") -> tuple[Path, ...]:
    """Writes every picture that can be drawn as PNG and as SVG.

    Args:
        findings: what to draw.
        folder: into which, made where it is not there; files of the same names are replaced.
        option: through which the folder was given, for the error.

    Returns:
        The files.

    Raises:
        UnavailableError: the folder or a file cannot be written.
    """
    from cnnjax.figures.style import FORMATS, save_figure

    figures = {name: picture.figure for name, picture in draw_all(findings).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"{option} {folder}: {error.strerror}") from None
    written = []
    for name, figure in figures.items():
        if figure is not None:
            for suffix in FORMATS:
                written.append(folder / f"{name}{suffix}")
                save_figure(figure, written[-1], option)
    return tuple(written)
