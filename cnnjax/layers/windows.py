"""Sliding a window over images: every position inside the window is one strided slice of the whole batch.

Activations are (height, width, batch, channels), so such a slice is made of long runs of memory, whole batches of
pixels, whatever the strides. A convolution and a pooling both look at each image through the same ``kh x kw`` slices;
they differ only in how they combine them. Slices, unlike gathers or `lax.reduce_window`, are differentiated into plain
pads and sums.
"""

import jax
from jax import lax

from cnnjax.blocks import Pair
from cnnjax.errors import InputError

MOST_SLICES = 400
"""Windows of more positions are left to XLA: each position is an operation to compile."""


def size_of(array: jax.Array) -> Pair:
    """Returns the height and width of images, or of the window of a kernel."""
    return array.shape[0], array.shape[1]


def check_window(size: Pair, window: Pair) -> None:
    """Raises `InputError` where a window fits nowhere."""
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(f"window {window[0]}x{window[1]}: must be no larger than the images, {size[0]}x{size[1]}")


def count_steps(size: Pair, window: Pair, strides: Pair = (1, 1)) -> Pair:
    """Returns how many places a window has, down and across: ``(size - window) // strides + 1``."""
    rows, columns = ((s - w) // t + 1 for s, w, t in zip(size, window, strides, strict=True))
    return rows, columns


def slice_windows(images: jax.Array, window: Pair, strides: Pair) -> list[jax.Array]:
    """Returns, for each position in the window in row-major order, what every output sees there.

    Args:
        images: (height, width, batch, channels).
        window: height and width of the window, no larger than the images.
        strides: steps of the window down and across.

    Returns:
        ``window[0] * window[1]`` arrays (rows, columns, batch, channels), with the rows and columns of `count_steps`.
    """
    height, width, batch, channels = images.shape
    rows, columns = count_steps((height, width), window, strides)
    return [
        lax.slice(
            images,
            (top, left, 0, 0),
            (top + (rows - 1) * strides[0] + 1, left + (columns - 1) * strides[1] + 1, batch, channels),
            (*strides, 1, 1),
        )
        for top in range(window[0])
        for left in range(window[1])
    ]
