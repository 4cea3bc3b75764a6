"""Convolution as one matrix product: every window becomes a row of a matrix (im2col), the kernel the other factor.

For a convolution that a pooling follows, the rows can be the windows of whole pooling groups instead: fewer, larger
rows, and a kernel matrix that holds the kernel once for every member of a group, shifted, between zeros. Where images
have few channels the rows are what takes the time, and this way there are a quarter as many.

References:
    Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.blocks import Pair
from cnnjax.layers.windows import count_steps, size_of, slice_windows

FEW_CHANNELS = 4
"""Up to so many channels, copying pixel by pixel would be slow: positions in the window come first instead."""


def convolve_by_patches(
    images: jax.Array, kernel: jax.Array, strides: Pair = (1, 1), group: Pair = (1, 1)
) -> jax.Array:
    """Convolves images without padding.

    Args:
        images: (height, width, batch, channels).
        kernel: (window height, window width, channels, filters), of the same dtype.
        strides: steps of the window down and across.
        group: height and width of groups of outputs that are to be taken apart, as for a pooling; whole groups only.

    Returns:
        (rows of groups, columns of groups, batch, members of a group, filters), the members in row-major order.
    """
    channels, filters = kernel.shape[2:]
    weights = _repeat_kernel(kernel, strides, group)
    window = size_of(weights)
    steps = (strides[0] * group[0], strides[1] * group[1])
    matrix = weights.reshape(-1, group[0] * group[1] * filters)
    if channels <= FEW_CHANNELS:
        by_channel = [images[..., channel : channel + 1] for channel in range(channels)]
        slices = [slice_windows(image, window, steps) for image in by_channel]
        taps = jnp.stack([each for position in zip(*slices, strict=True) for each in position])[..., 0]
        rows = taps.reshape(len(taps), -1)
        outputs = lax.dot_general(rows, matrix, (((0,), (0,)), ((), ()))).reshape(*taps.shape[1:], -1)
    else:
        outputs = jnp.concatenate(slice_windows(images, window, steps), -1) @ matrix
    return outputs.reshape(*outputs.shape[:3], group[0] * group[1], filters)


def count_patch_bytes(images: jax.Array, window: Pair, strides: Pair) -> int:
    """Returns the bytes of the matrix of all windows, without groups."""
    rows, columns = count_steps(size_of(images), window, strides)
    return rows * columns * images.shape[2] * images.shape[3] * window[0] * window[1] * images.dtype.itemsize


def _repeat_kernel(kernel: jax.Array, strides: Pair, group: Pair) -> jax.Array:
    """Returns (height, width, channels, members, filters) over the window of a group, the kernel where a member is."""
    down, across = ((size - 1) * stride for size, stride in zip(group, strides, strict=True))
    offsets = [(i * strides[0], j * strides[1]) for i in range(group[0]) for j in range(group[1])]
    shifted = [jnp.pad(kernel, ((top, down - top), (left, across - left), (0, 0), (0, 0))) for top, left in offsets]
    return jnp.stack(shifted, -2)
