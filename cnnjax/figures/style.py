"""The one style of all pictures: colours that survive colour blindness and greyscale, sizes, and how files are made.

Text, axes and ticks are drawn in `INK` alone and the background is left out, so an SVG is recoloured for a dark page by
replacing one colour. PNG files get a white background. What is drawn does not depend on the user's own matplotlib
settings, and the same picture gives the same bytes.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnjax.errors import InputError, UnavailableError
from cnnjax.outputs import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1b1c"
"""Of all text, axes, ticks and grids on the page itself, and of nothing else."""
PAPER = "#ffffff"
"""Behind a PNG, and of text on dark colours."""
ON_LIGHT = "#000000"
"""Of text and lines on light colours, which stay light when a page turns dark."""
MUTED = "#d9d9d9"
"""Of what is there but not meant."""
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW)
"""Of Okabe and Ito (2008), in the order in which series take them."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""For the same series: colour is never the only thing that tells two apart."""
SEQUENTIAL = "viridis"
"""Colour map of amounts, dark to light, equal to all eyes; without a grey, which stands for what is not there."""
DARKENING = "Blues"
"""Colour map of amounts, light to dark, none being nearly the white of paper."""
SIGNED = "gray"
"""Colour map of signed values, where zero is the middle grey: it has an order also without colour."""
FORMATS = (".png", ".svg")
SMALL, NORMAL, LARGE = 7.5, 8.5, 10.5
"""Sizes of text, in points."""
_DPI = 150
_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": NORMAL,
    "figure.titlesize": LARGE,
    "axes.titlesize": NORMAL,
    "axes.labelsize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "image.interpolation": "nearest",
    "svg.fonttype": "none",  # text stays text: to be searched, read aloud and recoloured
    "svg.hashsalt": "cnnjax",
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draws in this style within a ``with`` block, or within the function that it decorates."""
    matplotlib = _import_matplotlib()
    from cycler import cycler

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_SETTINGS, "axes.prop_cycle": cycler(color=COLOURS)})
        yield


def _import_matplotlib() -> Any:
    """Returns matplotlib, imported even if `MPLBACKEND` names a way of showing pictures that is unknown here.

    Our pictures are only written to files. A notebook sets that variable for all the commands that it starts, which may
    run in another environment; where the name is known, the notebook's own pictures are still shown by it.

    Raises:
        UnavailableError: matplotlib cannot start, as where a file of its settings cannot be read.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except Exception as error:
        raise UnavailableError(f"matplotlib cannot start: {error}") from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


def new_figure(width: float, height: float, title: str = "", **layout: Any) -> "Figure":
    """Returns an empty figure whose parts are laid out so that they do not overlap.

    Args:
        width: in inches.
        height: in inches.
        title: above everything; may have several lines.
        layout: other spaces than the usual ones, as for `matplotlib.layout_engine.ConstrainedLayoutEngine`.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**layout))
    if title:
        figure.suptitle(title)
    return figure


def check_format(path: Path) -> None:
    """Raises `InputError` where a file's name says of no format that pictures have."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: must end in {' or '.join(FORMATS)}")


@styled()
def encode_figure(figure: "Figure", suffix: str) -> bytes:
    """Returns a figure as the bytes of a file.

    Args:
        figure: what to encode.
        suffix: ``.png``, 150 dots an inch on white, or ``.svg``, without a background.
    """
    content = io.BytesIO()
    if suffix == ".svg":
        figure.savefig(content, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    else:
        figure.savefig(content, format="png", facecolor=PAPER, dpi=_DPI, metadata={"Software": None})
    return content.getvalue()


def save_figure(figure: "Figure", path: Path, option: str = "--figures") -> None:
    """Writes a figure as PNG or SVG, by the suffix of the file, all of it or nothing.

    Args:
        figure: what to write.
        path: of the file, which is replaced.
        option: through which the path was given, for the error.

    Raises:
        InputError: the suffix is neither ``.png`` nor ``.svg``.
        UnavailableError: the file cannot be written.
    """
    check_format(path)
    replace_file(path, encode_figure(figure, path.suffix), option)


def choose_ink(colour: Any) -> str:
    """Returns the colour of text that is readable on a colour of matplotlib's: `ON_LIGHT` or `PAPER`."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return ON_LIGHT if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else PAPER


def blend(colour: Any, other: Any, share: float) -> tuple[float, float, float]:
    """Returns `colour` with a `share`, in [0, 1], of another one mixed in."""
    from matplotlib.colors import to_rgb

    red, green, blue = (a + (b - a) * share for a, b in zip(to_rgb(colour), to_rgb(other), strict=True))
    return red, green, blue
