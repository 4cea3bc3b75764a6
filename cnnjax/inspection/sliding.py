"""A window that slides over an image: which pixels it covers at every position, and what pooling returns. No JAX here.

The pixels of the image are numbered from 1 in reading order; padding is 0. Every position of the window has a letter,
so the output of a convolution is a grid of letters. The layer table computes the number of positions.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnjax.models.cnn import ModelConfig
from cnnjax.settings.blocks import Padding, Pair, Pixels, Pool, Size, pad_pixels

SEVEN = np.array(
    [
        [int(mark == "#") for mark in line]
        for line in (
            "............",
            "..########..",
            ".........#..",
            ".........#..",
            "........#...",
            ".......#....",
            ".......#....",
            "......#.....",
            "......#.....",
            "......#.....",
            "......#.....",
            "............",
        )
    ]
)
"""An image of the digit 7: int (12, 12), 1 where the digit is, else 0."""


@dataclass(frozen=True, eq=False)
class Sliding:
    """A window at all its positions over a numbered image.

    Attributes:
        image: numbers of the pixels, int (height, width).
        padded: the image with its padding of zeros, int (padded height, padded width).
        window: height and width of the window, in pixels.
        strides: vertical and horizontal step of the window, in pixels.
        padding: the padding that was asked for.
        output: number of positions down and across.
    """

    image: np.ndarray
    padded: np.ndarray
    window: Pair
    strides: Pair
    padding: str | Pixels
    output: Pair

    @property
    def letters(self) -> list[list[str]]:
        """The letter of every position, row by row."""
        rows, columns = self.output
        return [[name_window(row * columns + column) for column in range(columns)] for row in range(rows)]

    def find_corner(self, position: Pair) -> Pair:
        """Returns the row and column, in the padded image, of the window's upper left pixel at a position."""
        return position[0] * self.strides[0], position[1] * self.strides[1]

    def see(self, position: Pair) -> np.ndarray:
        """Returns the pixels that the window covers at a position, int (window height, window width)."""
        top, left = self.find_corner(position)
        return self.padded[top : top + self.window[0], left : left + self.window[1]]

    def describe(self) -> str:
        """Returns one line with the sizes of image, window and output, the stride and the padding."""
        sizes = f"{_times(self.image.shape)} image, {_times(self.window)} window, {_name_strides(self.strides)}"
        return f"{sizes}, {_name_padding(self.padding)}: {_times(self.output)} output"


@dataclass(frozen=True, eq=False)
class Pooling:
    """A picture before and after pooling.

    Attributes:
        picture: float (height, width), in [0, 1].
        pooled: float (rows, columns).
        kind: ``max`` or ``avg``.
        window: height and width of the window, in pixels.
        strides: vertical and horizontal step of the window, in pixels.
    """

    picture: np.ndarray
    pooled: np.ndarray
    kind: str
    window: Pair
    strides: Pair

    def describe(self) -> str:
        """Returns one line with the kind of pooling, the window and the stride."""
        strides = "" if self.strides == self.window else f", {_name_strides(self.strides)}"
        return f"{self.kind}-pooling, {_times(self.window)} window{strides}"


def slide(size: Pair, kernel_size: Size, strides: Size = 1, padding: Padding = "valid") -> Sliding:
    """Slides a window over a numbered image.

    Args:
        size: height and width of the image.
        kernel_size: size of the window: one number, or height and width.
        strides: step of the window: one number, or vertical and horizontal.
        padding: ``valid``, ``same``, pixels on every side, or ``((top, bottom), (left, right))``.

    Raises:
        InputError: the window is larger than the padded image, or a value is not valid.

    Example:
        >>> slide((5, 5), 3, 2).letters
        [['A', 'B'], ['C', 'D']]
        >>> slide((5, 5), 3, 2).see((0, 1)).tolist()
        [[3, 4, 5], [8, 9, 10], [13, 14, 15]]
    """
    config = ModelConfig(
        filters=(1,),
        kernel_size=_for_one_block(kernel_size),
        strides=_for_one_block(strides),
        padding=_for_one_block(padding),
        pool="none",
    )
    block, layer = config.blocks[0], config.list_layers((*size, 1), None)[0]
    pixels = pad_pixels(block.padding, size, block.kernel_size, block.strides)
    image = np.arange(1, math.prod(size) + 1).reshape(size)
    rows, columns, _ = layer.output_shape
    return Sliding(image, np.pad(image, pixels), block.kernel_size, block.strides, block.padding, (rows, columns))


def pool(picture: np.ndarray, kind: Pool = "max", pool_size: Size = 2, pool_strides: Size | None = None) -> Pooling:
    """Pools a picture.

    Args:
        picture: numbers in [0, 1], (height, width).
        kind: ``max`` or ``avg``.
        pool_size: size of the window: one number, or height and width.
        pool_strides: step of the window; ``None`` takes the size of the window.

    Raises:
        InputError: the window is larger than the picture, or a value is not valid.

    Example:
        >>> pool(np.array([[0.0, 0.5], [0.25, 1.0]])).pooled.tolist()
        [[1.0]]
    """
    strides = pool_size if pool_strides is None else pool_strides
    config = ModelConfig(
        filters=(1,),
        kernel_size=1,
        pool=kind,
        pool_size=_for_one_block(pool_size),
        pool_strides=_for_one_block(strides),
    )
    block, layer = config.blocks[0], config.list_layers((*picture.shape, 1), None)[-1]
    rows, columns, _ = layer.output_shape
    down, across = block.pool_strides
    windows = np.lib.stride_tricks.sliding_window_view(picture.astype(np.float64), block.pool_size)[::down, ::across]
    pooled = windows.max((2, 3)) if kind == "max" else windows.mean((2, 3))
    assert pooled.shape == (rows, columns)
    return Pooling(picture.astype(np.float64), pooled, kind, block.pool_size, block.pool_strides)


def name_window(index: int) -> str:
    """Returns the name of the window at an index from 0: ``A`` to ``Z``, then ``AA``, ``AB``, as in a spreadsheet.

    Example:
        >>> [name_window(index) for index in (0, 25, 26)]
        ['A', 'Z', 'AA']
    """
    name = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        name = chr(ord("A") + letter) + name
    return name


def _for_one_block(value: Any) -> Any:
    """Returns a setting for one block: in a list of one entry, since a plain list means one entry per block."""
    return (value,)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _name_strides(strides: Pair) -> str:
    return f"stride {strides[0] if strides[0] == strides[1] else _times(strides)}"


def _name_padding(padding: str | Pixels) -> str:
    if isinstance(padding, str):
        return f"padding {padding}"
    (top, bottom), (left, right) = padding
    if len({top, bottom, left, right}) == 1:
        return f"padding {top} on all sides"
    return f"padding {top} above, {bottom} below, {left} left, {right} right"
