"""The style of all figures: colours, sizes, panels, labels, mosaics of images, and files.

The colours can be told apart by colour-blind readers and in greyscale. Text, axes and ticks are drawn in `INK` alone,
on no background, so replacing one colour adapts an SVG to a dark page. PNG files get a white background. The user's own
matplotlib settings have no influence, and the same picture gives the same bytes.
"""

import contextlib
import io
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.errors import UnavailableError, printable
from cnnjax.machine.files import check_output, replace_file
from cnnjax.statistics.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#1b1b1c"
"""All text, axes, ticks and grids on the page itself, and nothing else."""
PAPER = "#ffffff"
"""The background of a PNG, and text on dark colours."""
ON_LIGHT = "#000000"
"""Text and lines on light colours, which stay light on a dark page."""
MUTED = "#d9d9d9"
"""Parts that the figure is not about."""
GREY = "#808080"
"""Undecided results and the background; visible on white and on black."""
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW)
"""The palette of Okabe and Ito (2008), in the order of the series."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Markers of the same series, so that colour is never the only difference."""
SEQUENTIAL = "viridis"
"""Colour map of amounts, dark to light and perceptually uniform; it has no grey, which stands for missing values."""
DARKENING = "Blues"
"""Colour map of amounts, light to dark, with zero close to white."""
SIGNED = "gray"
"""Colour map of signed values with zero in the middle grey, ordered also in greyscale."""
FORMATS = (".png", ".svg")
PAGE_WIDTH = 7.2
"""Width in inches of a figure that fills a page of text."""
SMALL, NORMAL, LARGE = 7.5, 8.5, 10.5
"""Sizes of text, in points."""
BAND: dict[str, Any] = {"color": GREY, "alpha": 0.2, "linewidth": 0}
"""Style of the band of differences within the margin of equivalence."""
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
    """Applies this style within a ``with`` block or a decorated function."""
    matplotlib = _import_matplotlib()
    from cycler import cycler

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_SETTINGS, "axes.prop_cycle": cycler(color=COLOURS)})
        yield


def _import_matplotlib() -> Any:
    """Returns matplotlib, imported even if `MPLBACKEND` names a backend that is not installed.

    Our pictures are only written to files. A notebook sets that variable for every command that it starts, which may
    run in another environment. An installed backend is kept, so the notebook still shows its own pictures.

    Raises:
        UnavailableError: matplotlib cannot start, for example because a file of its settings cannot be read.
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
    """Returns an empty figure whose parts do not overlap.

    Args:
        width: width in inches.
        height: height in inches.
        title: title of the whole figure; may have several lines.
        layout: paddings that replace the defaults of `matplotlib.layout_engine.ConstrainedLayoutEngine`.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**layout))
    if title:
        figure.suptitle(title)
    return figure


def make_panels(figure: "Figure", count: int, columns: int, **shared: Any) -> list["Axes"]:
    """Returns the axes of `count` panels in reading order; the rest of the last row stays empty.

    Args:
        figure: the figure that holds them.
        count: number of panels.
        columns: panels in a row.
        shared: ``sharex`` and ``sharey``, as for ``Figure.subplots``.
    """
    every = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False, **shared).ravel())
    for axes in every[count:]:
        axes.set_visible(False)
    return every[:count]


@styled()
def encode_figure(figure: "Figure", suffix: str) -> bytes:
    """Returns a figure as the bytes of a file.

    Args:
        figure: the figure.
        suffix: ``.png`` (150 dots per inch, on white) or ``.svg`` (without a background).
    """
    content = io.BytesIO()
    if suffix == ".svg":
        figure.savefig(content, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    else:
        figure.savefig(content, format="png", facecolor=PAPER, dpi=_DPI, metadata={"Software": None})
    return content.getvalue()


def save_figures(
    figures: Mapping[str, "Figure"], folder: Path, formats: Sequence[str] = FORMATS, option: str = "--figures"
) -> list[Path]:
    """Writes figures into a folder, and returns the paths of the files; checks first that every one can be written.

    Args:
        figures: the figures by the name of their file, without its suffix.
        folder: the folder, made if it does not exist; files of the same names are replaced.
        formats: the suffixes of the files of each figure, from `FORMATS`.
        option: command-line option that gave the folder, for error messages.

    Raises:
        InputError: a path is a folder, or the file there is a database.
        UnavailableError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"{option} {folder}: {error.strerror}") from None
    files = {folder / f"{name}{suffix}": figure for name, figure in figures.items() for suffix in formats}
    targets = [check_output(path, option) for path in files]
    contents = [encode_figure(figure, path.suffix) for path, figure in files.items()]
    for target, content in zip(targets, contents, strict=True):
        replace_file(target, content, option)
    return list(files)


def choose_ink(colour: Any) -> str:
    """Returns the colour of readable text on a background: `ON_LIGHT` or `PAPER`.

    Example:
        >>> choose_ink(BLUE) == PAPER, choose_ink(YELLOW) == ON_LIGHT
        (True, True)
    """
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return ON_LIGHT if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else PAPER


def blend(colour: Any, other: Any, share: float) -> tuple[float, float, float]:
    """Returns the RGB mixture of `colour` and `other`, where `share` in [0, 1] is the part of `other`.

    Example:
        >>> blend("black", "white", 0.25)
        (0.25, 0.25, 0.25)
    """
    from matplotlib.colors import to_rgb

    red, green, blue = (a + (b - a) * share for a, b in zip(to_rgb(colour), to_rgb(other), strict=True))
    return red, green, blue


_LONGEST_NAME = 14


def shorten(name: str) -> str:
    """Returns a name that is short enough for a label.

    Example:
        >>> shorten("a very long class name")
        'a very long c…'
    """
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def wrap(text: str, width: int, most_lines: int = 3) -> str:
    """Returns a name as lines of at most `width` characters, broken between words if possible.

    Args:
        text: any text; dollar signs start no formula.
        width: longest line, in characters.
        most_lines: largest number of lines; an ellipsis replaces the rest.

    Example:
        >>> wrap("model.padding=same, model.strides=2", 20)
        'model.padding=same,\\nmodel.strides=2'
    """
    lines = textwrap.wrap(printable(text), width, max_lines=most_lines, placeholder="…", break_on_hyphens=False)
    return "\n".join(lines).replace("$", r"\$")


def wrap_all(texts: Sequence[str], width: int, most_lines: int = 3) -> tuple[list[str], int]:
    """Returns wrapped names, and the largest number of lines among them."""
    wrapped = [wrap(text, width, most_lines) for text in texts]
    return wrapped, max((text.count("\n") + 1 for text in wrapped), default=1)


_WIDE, _NARROW = 1000.0, 10.0
"""Ratio of the ends of an axis from which only powers of ten are labelled, and up to which ticks are evenly spaced."""


def mark_log_axis(axis: "Axis", low: float, high: float, form: str) -> None:
    """Labels a logarithmic axis from `low` to `high` with plain numbers.

    Args:
        axis: the axis.
        low, high: its ends, > 0.
        form: format of the numbers, as for ``format()``.
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
"""Mark of each verdict, by its word."""


def explain_marks(figure: "Figure", verdicts: Iterable[Verdict], *others: Any) -> None:
    """Adds a legend below a figure: the verdicts that occur, then `others`, which are artists with labels."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D

    found = {verdict.word: verdict.label_word for verdict in verdicts}
    marks: dict[str, list[Any]] = {}
    for word, mark in MARKS.items():
        if word in found:  # an interaction above zero and one below have one label
            marks.setdefault(found[word], []).append(Line2D([], [], **mark.style))
    handles = [*map(tuple, marks.values()), *others]
    labels = [*marks, *(other.get_label() for other in others)]
    figure.legend(
        handles,
        labels,
        handler_map={tuple: HandlerTuple(ndivide=None)},
        loc="outside lower center",
        ncols=min(len(handles), 6),
    )


_LEAST_SIDE, _TILE_GAP = 24, 3
"""Pixels of the longer side of a tile, at least, so that the gap looks narrow; pixels of the gap between tiles."""


class Mosaic(NamedTuple):
    """Images of one size on a sheet.

    Attributes:
        sheet: pixels, as ``imshow`` takes them.
        columns: centre of every column of tiles, in pixels of the sheet.
        rows: centre of every row of tiles, likewise.
    """

    sheet: np.ndarray
    columns: list[float]
    rows: list[float]

    @property
    def aspect(self) -> float:
        """Height divided by width."""
        return float(self.sheet.shape[0] / self.sheet.shape[1])


def tile(images: np.ndarray, columns: int) -> Mosaic:
    """Returns images in reading order on one sheet, small ones enlarged by whole pixels; gaps are nan or transparent.

    Args:
        images: float (n, height, width), or RGBA in [0, 1] (n, height, width, 4); n >= 1.
        columns: tiles in a row, also if there are fewer images.

    Example:
        >>> mosaic = tile(np.zeros((3, 30, 40)), columns=2)
        >>> mosaic.sheet.shape, mosaic.columns, mosaic.rows
        ((63, 83), [19.5, 62.5], [14.5, 47.5])
    """
    factor = max(1, math.ceil(_LEAST_SIDE / max(images.shape[1:3])))
    images = images.astype(np.float64).repeat(factor, 1).repeat(factor, 2)
    count, height, width, *depth = images.shape
    rows = math.ceil(count / columns)
    size = (rows * (height + _TILE_GAP) - _TILE_GAP, columns * (width + _TILE_GAP) - _TILE_GAP, *depth)
    sheet = np.full(size, 0.0 if depth else np.nan)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + _TILE_GAP), (index % columns) * (width + _TILE_GAP)
        sheet[top : top + height, left : left + width] = image
    across = [column * (width + _TILE_GAP) + (width - 1) / 2 for column in range(columns)]
    down = [row * (height + _TILE_GAP) + (height - 1) / 2 for row in range(rows)]
    return Mosaic(sheet, across, down)


def show_mosaic(axes: "Axes", mosaic: Mosaic, **shown: Any) -> Any:
    """Draws a mosaic without a frame or ticks, and returns the image; `shown` goes to ``imshow``."""
    drawn = axes.imshow(mosaic.sheet, **shown)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return drawn


def number_tiles(axes: "Axes", mosaic: Mosaic, count: int) -> None:
    """Numbers the tiles: the first tile of every row on the left, and the offset of every column above."""
    columns = len(mosaic.columns)
    shown = mosaic.columns[: min(columns, count)]
    axes.set_xticks(shown, [f"+{column}" for column in range(len(shown))])
    axes.set_yticks(mosaic.rows, [str(row * columns) for row in range(len(mosaic.rows))])
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)


def frame_images(every: "Iterable[Axes]") -> None:
    """Draws a frame and no ticks around every image that has axes to itself."""
    for axes in every:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)


def to_rgba(images: np.ndarray) -> np.ndarray:
    """Returns images as RGBA colours.

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
