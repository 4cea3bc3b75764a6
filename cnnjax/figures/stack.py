"""The tensors that layers pass on, as blocks: as high and deep as their maps, as thick as they have channels."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cnnjax.architecture import Layer, Shape
from cnnjax.figures.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, SKY, SMALL, blend, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BLOCKS = 60
"""Tensors that are drawn; a deeper network is cut off."""
_SLOT, _ROW, _IN_A_ROW = 1.5, 2.6, 7
"""Inches that a block has across and down, with its text; blocks before a new row begins."""
_TALLEST, _THICKEST, _THINNEST = 1.2, 0.55, 0.07
_COLOURS = {"Conv": SKY, "MaxPool": ORANGE, "AvgPool": ORANGE, "BatchNorm": PURPLE, "Dense": GREEN, "Input": BLUE}


class _Block(NamedTuple):
    """Inches of a block: height, thickness, and the offset of its back, right and up."""

    height: float
    thickness: float
    offset: float


@styled()
def draw_stack(input_shape: Shape, layers: Sequence[Layer], title: str) -> "Figure":
    """Draws the tensors from the image to the last layer.

    Args:
        input_shape: (height, width, channels) of the image.
        layers: that follow.
        title: what the network is.
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
    scale = _Scale.of([tensor.output_shape for tensor in tensors])
    for index, tensor in enumerate(tensors):
        row, column = divmod(index, _IN_A_ROW)
        middle, floor = _SLOT * (column + 0.5), -_ROW * row - 1.75
        _draw_block(axes, scale.measure(tensor.output_shape), middle, floor, _COLOURS.get(tensor.kind, MUTED))
        _write(axes, tensor, middle, floor)
        if index + 1 < len(tensors):
            _point(axes, middle + _SLOT / 2, floor + 0.3)
    return figure


class _Scale(NamedTuple):
    """The largest tensor of each kind, in whose terms the others are measured."""

    side: int
    channels: int
    features: int

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> "_Scale":
        maps = [shape for shape in shapes if len(shape) == 3]
        return cls(
            max(max(shape[:2]) for shape in maps),
            max(shape[2] for shape in maps),
            max((shape[0] for shape in shapes if len(shape) == 1), default=1),
        )

    def measure(self, shape: Shape) -> _Block:
        if len(shape) == 1:
            return _Block(max(_TALLEST * math.sqrt(shape[0] / self.features), 0.12), 0.12, 0.0)
        height, width, channels = shape
        thickness = max(_THICKEST * math.sqrt(channels / self.channels), _THINNEST)
        return _Block(max(_TALLEST * height / self.side, 0.06), thickness, 0.35 * max(width / self.side, 0.05))


def _draw_block(axes: "Axes", block: _Block, middle: float, floor: float, colour: str) -> None:
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
