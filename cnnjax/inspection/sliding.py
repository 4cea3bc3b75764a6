"""A window sliding over an image, in numbers: what it sees at every place, and what pooling makes of it. No JAX here.

The pixels of the image are numbered from 1 in reading order, zeros are padding, and every place of the window has a
letter: the output of a convolution is a grid of these letters. How many places there are is the layer table's
arithmetic.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnjax.models.blocks import Padding, Pair, Pixels, Pool, Size, pad_pixels
from cnnjax.models.cnn import ModelConfig

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
"""A 7 of ones, int (12, 12)."""


@dataclass(frozen=True, eq=False)
class Sliding:
    """A window at all its places.

    Attributes:
        image: numbers of the pixels, int (height, width).
        padded: the image with its padding of zeros, int (padded height, padded width).
        window: height and width of the window.
        strides: steps of the window down and across.
        padding: as it was asked for.
        output: places down and across.
    """

    image: np.ndarray
    padded: np.ndarray
    window: Pair
    strides: Pair
    padding: str | Pixels
    output: Pair

    @property
    def letters(self) -> list[list[str]]:
        """The letter of every place, row by row."""
        rows, columns = self.output
        return [[name_window(row * columns + column) for column in range(columns)] for row in range(rows)]

    def find_corner(self, position: Pair) -> Pair:
        """Returns the row and column, in the padded image, of the upper left pixel of the window at a place."""
        return position[0] * self.strides[0], position[1] * self.strides[1]

    def see(self, position: Pair) -> np.ndarray:
        """Returns what the window sees at a place, int (window height, window width)."""
        top, left = self.find_corner(position)
        return self.padded[top : top + self.window[0], left : left + self.window[1]]

    def describe(self) -> str:
        """Returns one line that names the sizes."""
        sizes = f"{_times(self.image.shape)} image, {_times(self.window)} window, {_name_strides(self.strides)}"
        return f"{sizes}, {_name_padding(self.padding)}: {_times(self.output)} output"


@dataclass(frozen=True, eq=False)
class Pooling:
    """A picture and what pooling makes of it.

    Attributes:
        picture: float (height, width), in [0, 1].
        pooled: float (rows, columns).
        kind: ``max`` or ``avg``.
        window: height and width of the window.
        strides: steps of the window down and across.
    """

    picture: np.ndarray
    pooled: np.ndarray
    kind: str
    window: Pair
    strides: Pair

    def describe(self) -> str:
        """Returns one line that names the sizes."""
        strides = "" if self.strides == self.window else f", {_name_strides(self.strides)}"
        return f"{self.kind}-pooling, {_times(self.window)} window{strides}"


def slide(size: Pair, kernel_size: Size, strides: Size = 1, padding: Padding = "valid") -> Sliding:
    """Slides a window over a numbered image.

    Args:
        size: height and width of the image.
        kernel_size: of the window: one number, or height and width.
        strides: of the window, written likewise.
        padding: ``valid``, ``same``, pixels on every side, or ``((top, bottom), (left, right))``.

    Raises:
        InputError: the window is larger than its input, or a value is not legal.

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
        pool_size: of the window: one number, or height and width.
        pool_strides: steps of the window; ``None`` takes the size of the window.

    Raises:
        InputError: the window is larger than the picture, or a value is not legal.
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
    everywhere = np.lib.stride_tricks.sliding_window_view(picture.astype(np.float64), block.pool_size)
    windows = everywhere[::down, ::across]
    pooled = windows.max((2, 3)) if kind == "max" else windows.mean((2, 3))
    assert pooled.shape == (rows, columns)
    return Pooling(picture.astype(np.float64), pooled, kind, block.pool_size, block.pool_strides)


def name_window(index: int) -> str:
    """Returns ``A`` to ``Z``, then ``AA``, ``AB`` and so on, as the columns of a spreadsheet go."""
    name = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        name = chr(ord("A") + letter) + name
    return name


def _for_one_block(value: Any) -> Any:
    """A list would mean one entry per block, so what is one entry goes into a list of one."""
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
