"""Convolution with dilation or in groups, as sums over the positions in the window.

On CPU, XLA computes these, and their gradients inside a scan, one number at a time.
"""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.layers.pooling import MOST_SLICES
from cnnjax.settings.blocks import Pair, dilate


def convolve_in_groups(
    images: jax.Array, kernel: jax.Array, strides: Pair = (1, 1), dilation: Pair = (1, 1), groups: int = 1
) -> jax.Array:
    """Convolves images without padding, with gaps in the window, and in groups of channels that see only each other.

    Args:
        images: (height, width, batch, channels).
        kernel: (window height, window width, channels / groups, filters), of the same dtype.
        strides: steps of the window down and across.
        dilation: distances of adjacent positions in the window, down and across; 1 leaves no gaps.
        groups: number of groups, which divides channels and filters; as many as channels is a depthwise convolution.

    Returns:
        (rows, columns, batch, filters), of the same dtype.

    Example:
        >>> images = jnp.ones((8, 8, 2, 6))
        >>> convolve_in_groups(images, jnp.ones((3, 3, 1, 6)), dilation=(2, 2), groups=6).shape
        (4, 4, 2, 6)
    """
    height, width, _, filters = kernel.shape
    if height * width > MOST_SLICES:
        return lax.conv_general_dilated(
            images, kernel, strides, "VALID", None, dilation, ("HWNC", "HWIO", "HWNC"), feature_group_count=groups
        )
    reach = dilate((height, width), dilation)
    steps = [(size - span) // stride + 1 for size, span, stride in zip(images.shape, reach, strides, strict=False)]
    *_, batch, channels = images.shape

    def see(row: int, column: int) -> jax.Array:
        start = (row * dilation[0], column * dilation[1], 0, 0)
        spans = [(count - 1) * stride + 1 for count, stride in zip(steps, strides, strict=True)]
        stop = (start[0] + spans[0], start[1] + spans[1], batch, channels)
        return lax.slice(images, start, stop, (*strides, 1, 1))

    positions = [*itertools.product(range(height), range(width))]
    if groups == channels == filters:
        return functools.reduce(operator.add, (see(*position) * kernel[*position, 0] for position in positions))
    if groups == 1:
        return jnp.concatenate([see(*position) for position in positions], -1) @ kernel.reshape(-1, filters)
    shape = (*steps, batch, groups, channels // groups)
    seen = jnp.concatenate([see(*position).reshape(shape) for position in positions], -1)
    weights = kernel.reshape(-1, groups, filters // groups)
    return jnp.einsum("ijngc,cgf->ijngf", seen, weights).reshape(*steps, batch, filters)
