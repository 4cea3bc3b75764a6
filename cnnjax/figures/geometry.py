"""Figures of a network's geometry, without weights: a sliding window, pooling, and the stack of tensors."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnjax.figures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ON_LIGHT,
    ORANGE,
    PAPER,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    blend,
    choose_ink,
    new_figure,
    styled,
)
from cnnjax.inspection.sliding import Pooling, Sliding
from cnnjax.models.cnn import NORM_LAYERS, POOL_LAYERS
from cnnjax.models.network import Layer, Shape
from cnnjax.settings.blocks import Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_WINDOWS, MOST_BLOCKS = 4, 60
"""Largest number of windows shown per side, and of tensors shown of a network."""
_MOST_NUMBERED, _MOST_NUMBERED_SMALL = 16, 8
"""Cells per side up to which a large grid, and a small one, shows the number of every cell."""
_SLOT, _ROW, _IN_A_ROW = 1.5, 2.6, 7
"""Width and height in inches for a block with its text; blocks in a row."""
_TALLEST, _THICKEST, _THINNEST = 1.2, 0.55, 0.07
"""Height of the tallest block, and thickness of the thickest and of the thinnest one, in inches."""
_COLOURS = {
    **{"Input": BLUE, "Conv": SKY, "Shortcut": SKY, "Dense": GREEN},
    **dict.fromkeys([*POOL_LAYERS.values(), *(f"Global{kind}" for kind in POOL_LAYERS.values())], ORANGE),
    **dict.fromkeys(NORM_LAYERS.values(), PURPLE),
}


@styled()
def draw_window(sliding: Sliding) -> "Figure":
    """Draws an image with its first two windows, the pixels of each window, and the output with a letter per window."""
    rows, columns = (min(size, MOST_WINDOWS) for size in sliding.output)
    image_side, output_side = (_side(size) for size in (sliding.padded.shape, sliding.output))
    small = 1.05 if max(sliding.padded.shape) <= 5 else 1.4
    widths = (image_side + 0.3, columns * (small + 0.15) + 0.2, output_side + 0.3)
    height = max(image_side + 0.9, rows * (small + 0.35) + 0.5, output_side + 0.5, 2.4)
    figure = new_figure(sum(widths), height + 0.35, sliding.describe())
    left, middle, right = figure.subfigures(1, 3, squeeze=False, width_ratios=widths)[0]
    _draw_image(left.subplots(), sliding)
    shown = f" (the first {rows} x {columns})" if (rows, columns) != sliding.output else ""
    middle.suptitle(f"what each window sees{shown}", fontsize="medium")
    for (row, column), axes in np.ndenumerate(middle.subplots(rows, columns, squeeze=False)):
        _draw_one_window(axes, sliding, (row, column))
    _draw_output(right.subplots(), sliding)
    return figure


@styled()
def draw_pooling(pooling: Pooling) -> "Figure":
    """Draws a picture, divided into the windows of the pooling, and the pooled picture; darker is larger."""
    sides = [_side(each.shape) for each in (pooling.picture, pooling.pooled)]
    figure = new_figure(sum(sides) + 1.0, max(sides) + 0.9, pooling.describe())
    left, right = figure.subplots(1, 2, width_ratios=sides)
    for axes, values, name in ((left, pooling.picture, "picture"), (right, pooling.pooled, "pooled")):
        colours = np.array([[blend(PAPER, BLUE, value) for value in row] for row in values])
        texts = [[f"{value:.2g}".replace("0.", ".") for value in row] for row in values]
        _draw_cells(axes, texts, colours, _MOST_NUMBERED)
        axes.set_title(f"{name}: {values.shape[0]} x {values.shape[1]}")
    if pooling.strides == pooling.window:
        (height, width), (down, across) = pooling.picture.shape, pooling.window
        tiled_height, tiled_width = height - height % down, width - width % across
        left.hlines(np.arange(0, tiled_height + 1, down) - 0.5, -0.5, tiled_width - 0.5, ON_LIGHT, linewidth=1.6)
        left.vlines(np.arange(0, tiled_width + 1, across) - 0.5, -0.5, tiled_height - 0.5, ON_LIGHT, linewidth=1.6)
    else:
        _outline(left, (0, 0), pooling.window, BLUE, "-", "first window")
    return figure


def _draw_image(axes: "Axes", sliding: Sliding) -> None:
    _draw_cells(axes, _numbers(sliding.padded), _colour_padding(sliding), _MOST_NUMBERED)
    padding = " with its padding of zeros" if sliding.padded.shape != sliding.image.shape else ""
    axes.set_title(f"image{padding}")
    positions = [(row, column) for row in range(sliding.output[0]) for column in range(sliding.output[1])]
    styles = ((BLUE, "-"), (VERMILLION, "--"))
    for position, (colour, line) in zip(positions, styles, strict=False):
        name = f"window {sliding.letters[position[0]][position[1]]}"
        _outline(axes, sliding.find_corner(position), sliding.window, colour, line, name)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, handlelength=2.6)


def _draw_one_window(axes: "Axes", sliding: Sliding, position: Pair) -> None:
    colours = _colour_padding(sliding)
    (top, left), (height, width) = sliding.find_corner(position), sliding.window
    colours[top : top + height, left : left + width] = blend(SKY, PAPER, 0.35)
    _draw_cells(axes, _numbers(sliding.padded), colours, _MOST_NUMBERED_SMALL)
    _outline(axes, (top, left), sliding.window, BLUE, "-", "")
    axes.set_title(sliding.letters[position[0]][position[1]], fontweight="bold", pad=3)


def _draw_output(axes: "Axes", sliding: Sliding) -> None:
    rows, columns = sliding.output
    colours = np.full((rows, columns, 3), blend(SKY, PAPER, 0.35))
    _draw_cells(axes, sliding.letters, colours, _MOST_NUMBERED, fontweight="bold")
    axes.set_title(f"output: {rows} x {columns}")


def _draw_cells(axes: "Axes", texts: Sequence[Sequence[str]], colours: np.ndarray, most: int, **text: Any) -> None:
    """Draws a grid of cells in `colours`, RGB (rows, columns, 3), with texts if no side has more than `most` cells."""
    rows, columns = colours.shape[:2]
    axes.imshow(colours)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    width = 0.5 if max(rows, columns) <= most else 0.2
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, ON_LIGHT, linewidth=width)
    axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, ON_LIGHT, linewidth=width)
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(rows - 0.4, -0.6)
    if max(rows, columns) > most:
        return
    size = 9 if most == _MOST_NUMBERED else 6.5
    for row, line in enumerate(texts):
        for column, word in enumerate(line):
            ink = choose_ink(colours[row, column])
            axes.text(column, row, word, ha="center", va="center", fontsize=size, color=ink, **text)


def _outline(axes: "Axes", corner: Pair, window: Pair, colour: str, line: str, label: str) -> None:
    from matplotlib.patches import Rectangle

    place = (corner[1] - 0.5, corner[0] - 0.5)
    shape = Rectangle(
        place, window[1], window[0], fill=False, edgecolor=colour, linestyle=line, linewidth=2.2, zorder=3
    )
    shape.set_label(label)
    axes.add_patch(shape)


def _colour_padding(sliding: Sliding) -> np.ndarray:
    colours = np.ones((*sliding.padded.shape, 3))
    colours[sliding.padded == 0] = blend(MUTED, PAPER, 0.2)
    return colours


def _numbers(values: np.ndarray) -> list[list[str]]:
    return [[str(value) for value in row] for row in values]


def _side(shape: Sequence[int]) -> float:
    return min(max(0.38 * max(shape), 1.4), 6.8)


@styled()
def draw_stack(input_shape: Shape, layers: Sequence[Layer], title: str) -> "Figure":
    """Draws the tensors of a network as blocks, from the image to the output of the last layer.

    Args:
        input_shape: (height, width, channels) of the image.
        layers: layers in order.
        title: description of the network.
    """
    tensors = [Layer("image", "Input", input_shape), *layers]
    if len(tensors) > MOST_BLOCKS:
        title += f"\nthe first {MOST_BLOCKS - 1} of {len(layers)} layers"
        tensors = tensors[:MOST_BLOCKS]
    rows, columns = math.ceil(len(tensors) / _IN_A_ROW), min(len(tensors), _IN_A_ROW)
    figure = new_figure(_SLOT * columns + 0.3, _ROW * rows + 0.5, title)
    axes = figure.subplots()
    axes.set_xlim(0, _SLOT * columns)
    axes.set_ylim(-_ROW * rows, 0)
    axes.set_aspect("equal")
    axes.axis("off")
    largest = _Largest.of([tensor.output_shape for tensor in tensors])
    for index, tensor in enumerate(tensors):
        row, column = divmod(index, _IN_A_ROW)
        middle, floor = _SLOT * (column + 0.5), -_ROW * row - 1.75
        _draw_block(axes, largest.size_block(tensor.output_shape), middle, floor, _COLOURS.get(tensor.kind, MUTED))
        _write(axes, tensor, middle, floor)
        if index + 1 < len(tensors):
            _point(axes, middle + _SLOT / 2, floor + 0.3)
    return figure


class _Box(NamedTuple):
    """Inches of the block of a tensor: height, thickness, and the shift of its back to the right and up."""

    height: float
    thickness: float
    offset: float


class _Largest(NamedTuple):
    """The largest sizes among the tensors of a figure, which have the largest blocks."""

    side: int
    channels: int
    features: int

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> "_Largest":
        maps = [shape for shape in shapes if len(shape) == 3]
        return cls(
            max(max(shape[:2]) for shape in maps),
            max(shape[2] for shape in maps),
            max((shape[0] for shape in shapes if len(shape) == 1), default=1),
        )

    def size_block(self, shape: Shape) -> _Box:
        """Returns the size of the block of a tensor."""
        if len(shape) == 1:
            return _Box(max(_TALLEST * math.sqrt(shape[0] / self.features), 0.12), 0.12, 0.0)
        height, width, channels = shape
        thickness = max(_THICKEST * math.sqrt(channels / self.channels), _THINNEST)
        return _Box(max(_TALLEST * height / self.side, 0.06), thickness, 0.35 * max(width / self.side, 0.05))


def _draw_block(axes: "Axes", block: _Box, middle: float, floor: float, colour: str) -> None:
    from matplotlib.patches import Polygon

    height, thickness, offset = block
    left = middle - (thickness + offset) / 2
    right, top = left + thickness, floor + height
    front = [(left, floor), (right, floor), (right, top), (left, top)]
    roof = [(left, top), (right, top), (right + offset, top + offset), (left + offset, top + offset)]
    side = [(right, floor), (right + offset, floor + offset), (right + offset, top + offset), (right, top)]
    for corners, shade in ((front, blend(colour, PAPER, 0.1)), (roof, blend(colour, PAPER, 0.5))):
        axes.add_patch(Polygon(corners, facecolor=shade, edgecolor=INK, linewidth=0.8))
    axes.add_patch(Polygon(side, facecolor=blend(colour, INK, 0.3), edgecolor=INK, linewidth=0.8))


def _write(axes: "Axes", tensor: Layer, middle: float, floor: float) -> None:
    shape = " x ".join(map(str, tensor.output_shape))
    axes.text(middle, floor - 0.12, tensor.name, ha="center", va="top", fontweight="bold")
    parameters = f"\n{tensor.parameters:,} parameters" if tensor.parameters else ""
    axes.text(middle, floor - 0.31, f"{shape}{parameters}", ha="center", va="top", fontsize=SMALL, linespacing=1.4)


def _point(axes: "Axes", middle: float, height: float) -> None:
    arrow = {"arrowstyle": "->", "color": INK, "linewidth": 1}
    axes.annotate("", xy=(middle + 0.1, height), xytext=(middle - 0.1, height), arrowprops=arrow)
