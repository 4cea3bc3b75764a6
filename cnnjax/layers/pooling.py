"""Pooling: the maximum or the mean of each window of each channel.

The members of all windows are slices of the images, one for each position in the window. The gradient of a maximum
goes to the first of equal members.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.blocks import Pair
from cnnjax.layers.maximum import find_first_maximum, give_to_first
from cnnjax.layers.windows import MOST_SLICES, check_window, size_of, slice_windows


def max_pool(images: jax.Array, window: Pair, strides: Pair) -> jax.Array:
    """Returns the maximum of each window; pixels that no whole window covers are left out.

    Args:
        images: (height, width, batch, channels).
        window: height and width of the window, no larger than the images.
        strides: steps of the window down and across.

    Returns:
        (rows, columns, batch, channels), of the same dtype.

    Raises:
        InputError: the window is larger than the images.
    """
    check_window(size_of(images), window)
    if window[0] * window[1] > MOST_SLICES:
        pooled: jax.Array = nn.max_pool(images.transpose(2, 0, 1, 3), window, strides).transpose(1, 2, 0, 3)
        return pooled
    return _max_of_slices(images, window, strides)


def average_pool(images: jax.Array, window: Pair, strides: Pair) -> jax.Array:
    """Returns the mean of each window, summed in float32; arguments and result are those of `max_pool`."""
    wide = images.astype(jnp.float32) if images.dtype == jnp.bfloat16 else images
    check_window(size_of(images), window)
    if window[0] * window[1] > MOST_SLICES:
        pooled = nn.avg_pool(wide.transpose(2, 0, 1, 3), window, strides).transpose(1, 2, 0, 3)
    else:
        pooled = functools.reduce(jnp.add, slice_windows(wide, window, strides)) / (window[0] * window[1])
    return pooled.astype(images.dtype)  # type: ignore[no-any-return]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_of_slices(images: jax.Array, window: Pair, strides: Pair) -> jax.Array:
    return functools.reduce(jnp.maximum, slice_windows(images, window, strides))


def _forward(images: jax.Array, window: Pair, strides: Pair) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    slices = slice_windows(images, window, strides)
    return functools.reduce(jnp.maximum, slices), (find_first_maximum(slices), images)


def _backward(
    window: Pair, strides: Pair, residual: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array]:
    first, images = residual
    given = give_to_first(first, cotangent, window[0] * window[1])
    if window == strides:
        covered = _interleave(given, window)
        missing = [(0, size - inner) for size, inner in zip(images.shape, covered.shape, strict=True)]
        return (jnp.pad(covered, missing),)
    _, pull_back = jax.vjp(lambda images: slice_windows(images, window, strides), images)
    return pull_back(given)  # type: ignore[no-any-return]


def _interleave(members: list[jax.Array], window: Pair) -> jax.Array:
    """Puts the members of windows that tile an image where they belong."""
    rows, columns, *rest = members[0].shape
    lines = [jnp.stack(members[start : start + window[1]], 2) for start in range(0, len(members), window[1])]
    return jnp.stack(lines, 1).reshape(rows * window[0], columns * window[1], *rest)


_max_of_slices.defvjp(_forward, _backward)
