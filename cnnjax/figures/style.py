"""The one style of all pictures: colours that survive colour blindness and greyscale, sizes, and how files are made.

Text, axes and ticks are drawn in `INK` alone and the background is left out, so an SVG is recoloured for a dark page by
replacing one colour. PNG files get a white background. What is drawn does not depend on the user's own matplotlib
settings, and the same picture gives the same bytes.
"""

import contextlib
import io
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.errors import InputError, UnavailableError, printable
from cnnjax.machine.files import replace_file
from cnnjax.statistics.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
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


_WIDE, _NARROW = 1000.0, 10.0
"""Ratios of the ends of an axis from which on powers of ten alone are labelled, and up to which even steps are."""


def wrap(text: str, width: int, most_lines: int = 3) -> str:
    """Returns a name as lines of at most `width` characters, cut between its words where it can be.

    Args:
        text: of any characters; none is taken for a formula.
        width: of a line, in characters.
        most_lines: after which the rest is left out, which three dots say.
    """
    lines = textwrap.wrap(printable(text), width, max_lines=most_lines, placeholder="…", break_on_hyphens=False)
    return "\n".join(lines).replace("$", r"\$")


def wrap_all(texts: Sequence[str], width: int, most_lines: int = 3) -> tuple[list[str], int]:
    """Returns names in lines, and the number of lines of the longest."""
    wrapped = [wrap(text, width, most_lines) for text in texts]
    return wrapped, max((text.count("\n") + 1 for text in wrapped), default=1)


def mark_log_axis(axis: "Axis", low: float, high: float, form: str) -> None:
    """Labels a logarithmic axis from `low` to `high` with plain numbers.

    Args:
        axis: to be labelled.
        low, high: its ends, > 0.
        form: of the numbers, as for ``format()``.
    """
    from matplotlib.ticker import MaxNLocator

    if high / low <= _NARROW:
        ticks = [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)]
    else:
        steps = (1, 2, 5) if high / low < _WIDE else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = [step * 10.0**power for power in powers for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(shown, [format(tick, form) for tick in shown])
    axis.set_ticks([], minor=True)


GREY = "#808080"
"""Of what is undecided or in the background; seen on white and on black."""
BAND: dict[str, Any] = {"color": GREY, "alpha": 0.2, "linewidth": 0}
"""How the margin looks within which differences make none."""


class Mark(NamedTuple):
    """A marker, its colour, and whether it is filled."""

    marker: str
    colour: str
    filled: bool = True

    @property
    def style(self) -> dict[str, Any]:
        """Keyword arguments of `matplotlib.lines.Line2D`."""
        face = self.colour if self.filled else "none"
        return {"marker": self.marker, "color": self.colour, "markerfacecolor": face}


MARKS = {
    "better": Mark("^", BLUE),
    "worse": Mark("v", VERMILLION),
    "equivalent": Mark("s", GREEN),
    "undecided": Mark("o", GREY, False),
}
"""By the word of a verdict."""


def explain_marks(figure: "Figure", verdicts: Iterable[Verdict], *others: Any) -> None:
    """Puts a legend of the verdicts that occur below a figure, then of `others`, which are artists with labels."""
    from matplotlib.lines import Line2D

    found = {verdict.word: verdict.label_word for verdict in verdicts}
    handles = [Line2D([], [], label=found[word], **mark.style) for word, mark in MARKS.items() if word in found]
    every = [*handles, *others]
    figure.legend(handles=every, loc="outside lower center", ncols=min(len(every), 6))


_LEAST, _GAP = 24, 3
"""Pixels of the longer side of a tile at least, so that the gap between tiles stays narrow; and of the gap."""


class Mosaic(NamedTuple):
    """Tiles of one size: the sheet they are on, and the middle of every column and row, in pixels of the sheet."""

    sheet: np.ndarray
    columns: list[float]
    rows: list[float]

    @property
    def aspect(self) -> float:
        """Height divided by width."""
        return float(self.sheet.shape[0] / self.sheet.shape[1])


def tile(images: np.ndarray, columns: int) -> Mosaic:
    """Returns images in reading order on one sheet; what no image covers is transparent.

    Args:
        images: float (n, height, width), or RGBA in [0, 1] (n, height, width, 4); n >= 1.
        columns: tiles in a row; the sheet has that width also where there are fewer images.
    """
    factor = max(1, math.ceil(_LEAST / max(images.shape[1:3])))
    images = images.astype(np.float64).repeat(factor, 1).repeat(factor, 2)
    count, height, width, *depth = images.shape
    rows = math.ceil(count / columns)
    size = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, *depth)
    sheet = np.full(size, 0.0 if depth else np.nan)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + _GAP), (index % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    across = [column * (width + _GAP) + (width - 1) / 2 for column in range(columns)]
    down = [row * (height + _GAP) + (height - 1) / 2 for row in range(rows)]
    return Mosaic(sheet, across, down)


def show_mosaic(axes: "Axes", mosaic: Mosaic, **shown: Any) -> Any:
    """Draws a mosaic without a frame or ticks; `shown` goes to ``imshow``, whose result is returned."""
    drawn = axes.imshow(mosaic.sheet, **shown)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return drawn


def number_tiles(axes: "Axes", mosaic: Mosaic, count: int) -> None:
    """Writes the number in its row above every column, and the number of its first tile before every row."""
    columns = len(mosaic.columns)
    shown = mosaic.columns[: min(columns, count)]
    axes.set_xticks(shown, [f"+{column}" for column in range(len(shown))])
    axes.set_yticks(mosaic.rows, [str(row * columns) for row in range(len(mosaic.rows))])
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)


def frame_images(every: "Iterable[Axes]", count: int) -> None:
    """Gives the images in axes of their own a frame and no ticks, and hides the axes beyond the first `count`."""
    for index, axes in enumerate(every):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.set_visible(index < count)


def to_rgba(images: np.ndarray) -> np.ndarray:
    """Returns images as they are looked at.

    Args:
        images: uint8 (n, height, width, channels): grey, grey and opacity, RGB, or RGBA.

    Returns:
        float64 (n, height, width, 4) in [0, 1].
    """
    channels = images.shape[-1]
    scaled = images.astype(np.float64) / 255
    colours = scaled[..., :3] if channels > 2 else scaled[..., :1].repeat(3, -1)
    opacity = scaled[..., -1:] if channels in (2, 4) else np.ones_like(scaled[..., :1])
    return np.concatenate([colours, opacity], -1)
