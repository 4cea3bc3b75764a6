"""Sliding a window over images: every position inside the window is one strided slice of the whole batch.

A convolution and a pooling both look at each image through the same ``kh x kw`` slices; they differ only in how they
combine them. Slices, unlike gathers or `lax.reduce_window`, are differentiated into plain pads and sums.
"""

import jax
from jax import lax

MOST_SLICES = 400
"""Windows of more positions are left to XLA: each position is an operation to compile."""


def slice_windows(images: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> list[jax.Array]:
    """Returns, for each position in the window in row-major order, what every output sees there.

    Args:
        images: (batch, height, width, channels).
        window: height and width of the window, no larger than the images.
        strides: steps of the window down and across.

    Returns:
        ``window[0] * window[1]`` arrays (batch, rows, columns, channels), rows being
        ``(height - window[0]) // strides[0] + 1`` and columns likewise.
    """
    batch, height, width, channels = images.shape
    rows = (height - window[0]) // strides[0] + 1
    columns = (width - window[1]) // strides[1] + 1
    return [
        lax.slice(
            images,
            (0, top, left, 0),
            (batch, top + (rows - 1) * strides[0] + 1, left + (columns - 1) * strides[1] + 1, channels),
            (1, *strides, 1),
        )
        for top in range(window[0])
        for left in range(window[1])
    ]
