"""Pooling: the maximum or the mean of each window of each channel.

Windows that tile the image without overlap, the usual case, are an axis of a reshaped array; all others are slices.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers.windows import MOST_SLICES, slice_windows


def max_pool(images: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> jax.Array:
    """Returns the maximum of each window; pixels that no whole window covers are left out.

    Args:
        images: (batch, height, width, channels).
        window: height and width of the window, no larger than the images.
        strides: steps of the window down and across.

    Returns:
        (batch, rows, columns, channels), of the same dtype.
    """
    if window == strides:
        return jnp.max(_tile(images, window), axis=(2, 4))
    if window[0] * window[1] > MOST_SLICES:
        pooled: jax.Array = nn.max_pool(images, window, strides)
        return pooled
    return functools.reduce(jnp.maximum, slice_windows(images, window, strides))


def average_pool(images: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> jax.Array:
    """Returns the mean of each window; arguments and result are those of `max_pool`."""
    if window == strides:
        return jnp.mean(_tile(images, window), axis=(2, 4))
    if window[0] * window[1] > MOST_SLICES:
        pooled: jax.Array = nn.avg_pool(images, window, strides)
        return pooled
    return functools.reduce(jnp.add, slice_windows(images, window, strides)) / (window[0] * window[1])


def _tile(images: jax.Array, window: tuple[int, int]) -> jax.Array:
    batch, height, width, channels = images.shape
    rows, columns = height // window[0], width // window[1]
    covered = images[:, : rows * window[0], : columns * window[1]]
    return covered.reshape(batch, rows, window[0], columns, window[1], channels)
