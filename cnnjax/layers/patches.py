"""Convolution as one matrix product: every window becomes a row of a matrix (im2col), the kernel the other factor.

For a convolution of few channels that a pooling follows, the windows are those of whole pooling groups instead: fewer,
larger rows, and a kernel matrix that holds the kernel once for every member of a group, shifted, between zeros. With
few channels the rows are what takes the time, and this way there are a quarter as many.

References:
    Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.layers.pooling import (
    MOST_SLICES,
    count_steps,
    find_first_maximum,
    give_to_first,
    size_of,
    slice_windows,
)
from cnnjax.settings.blocks import Pair

PATCH_BYTES = 2**29
"""The largest matrix of patches."""
MOST_ZEROS = 4
"""The largest ratio of the rows of a kernel matrix, most of them zero, to the taps of the kernel."""
FEW_CHANNELS = 4
"""With so few channels copying pixel by pixel is slow, so the positions in the window come first instead."""


def convolve_by_patches(images: jax.Array, kernel: jax.Array, strides: Pair = (1, 1)) -> jax.Array:
    """Convolves images without padding.

    Args:
        images: (height, width, batch, channels).
        kernel: (window height, window width, channels, filters), of the same dtype.
        strides: steps of the window down and across.

    Returns:
        (rows, columns, batch, filters), of the same dtype.
    """
    window = size_of(kernel)
    if images.shape[3] <= FEW_CHANNELS:
        return _multiply(_stack_taps(images, window, strides), kernel)
    patches = jnp.concatenate(slice_windows(images, window, strides), -1)
    return patches @ kernel.reshape(-1, kernel.shape[3])


def can_be_patches(images: jax.Array, kernel: jax.Array, strides: Pair) -> bool:
    """Whether `convolve_by_patches` takes neither too long to compile nor too much memory, in float32."""
    window = size_of(kernel)
    rows, columns = count_steps(size_of(images), window, strides)
    patches = 4 * rows * columns * images.shape[2] * images.shape[3] * window[0] * window[1]
    return window[0] * window[1] <= MOST_SLICES and patches <= PATCH_BYTES


def is_worth_pooling_patches(images: jax.Array, kernel: jax.Array, strides: Pair, window: Pair) -> bool:
    """Whether `convolve_and_pool_by_patches` is faster than a convolution and then a pooling."""
    group = math.prod(
        (size - 1) * stride + taps for size, stride, taps in zip(window, strides, size_of(kernel), strict=True)
    )
    is_small = group <= min(MOST_SLICES, MOST_ZEROS * len(kernel) * kernel.shape[1])
    return is_small and images.shape[3] <= FEW_CHANNELS and can_be_patches(images, kernel, strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_and_pool_by_patches(images: jax.Array, kernel: jax.Array, strides: Pair, window: Pair) -> jax.Array:
    """Returns the maxima over adjacent windows of a convolution of few channels without padding.

    Args:
        images, kernel, strides: as for `convolve_by_patches`.
        window: height and width of the pooling, whose strides are the same; whole windows only.

    Returns:
        (rows, columns, batch, filters), of the same dtype.
    """
    return functools.reduce(jnp.maximum, _convolve_members(images, kernel, strides, window))


def _forward(
    images: jax.Array, kernel: jax.Array, strides: Pair, window: Pair
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    members = _convolve_members(images, kernel, strides, window)
    return functools.reduce(jnp.maximum, members), (images, kernel, find_first_maximum(members))


def _backward(
    strides: Pair, window: Pair, residual: tuple[jax.Array, jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel, first = residual
    given = give_to_first(first, cotangent, window[0] * window[1])
    # By line of the pooling window, which sees 30 of the 36 rows of a patch: 10.4 ms a step instead of 10.6.
    _, pull_to_images = jax.vjp(lambda images: _convolve_members(images, kernel, strides, window), images)
    _, pull_to_kernel = jax.vjp(lambda kernel: _convolve_lines(images, kernel, strides, window), kernel)
    lines = [jnp.concatenate(given[start : start + window[1]], -1) for start in range(0, len(given), window[1])]
    return *pull_to_images(given), *pull_to_kernel(lines)


convolve_and_pool_by_patches.defvjp(_forward, _backward)


def _convolve_members(images: jax.Array, kernel: jax.Array, strides: Pair, group: Pair) -> list[jax.Array]:
    """Returns every member of all groups, in row-major order: one product, whose columns are cut."""
    weights = _repeat_kernel(kernel, strides, group)
    taps = _stack_taps(images, size_of(weights), (strides[0] * group[0], strides[1] * group[1]))
    return jnp.split(_multiply(taps, weights), group[0] * group[1], -1)


def _convolve_lines(images: jax.Array, kernel: jax.Array, strides: Pair, group: Pair) -> list[jax.Array]:
    """Returns the members of each line of all groups side by side: products of the taps alone that a line sees."""
    weights = _repeat_kernel(kernel, strides, (1, group[1]))
    size = ((group[0] - 1) * strides[0] + len(kernel), weights.shape[1])
    taps = _stack_taps(images, size, (strides[0] * group[0], strides[1] * group[1]))
    tops = range(0, group[0] * strides[0], strides[0])
    return [_multiply(taps[top : top + len(kernel)], weights) for top in tops]


def _stack_taps(images: jax.Array, window: Pair, strides: Pair) -> jax.Array:
    """Returns what windows see: (height, width and channels of a window, rows, columns, batch)."""
    by_channel = [images[..., channel : channel + 1] for channel in range(images.shape[3])]
    slices = [slice_windows(image, window, strides) for image in by_channel]
    taps = jnp.stack([each for position in zip(*slices, strict=True) for each in position])[..., 0]
    return taps.reshape(*window, len(by_channel), *taps.shape[1:])


def _multiply(taps: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the sums over the window and its channels: (rows, columns, batch, columns of the weights)."""
    rows, matrix = taps.reshape(-1, math.prod(taps.shape[3:])), weights.reshape(-1, weights.shape[3])
    return lax.dot_general(rows, matrix, (((0,), (0,)), ((), ()))).reshape(*taps.shape[3:], -1)


def _repeat_kernel(kernel: jax.Array, strides: Pair, group: Pair) -> jax.Array:
    """Returns (height, width, channels, members and filters) over the window of a group: the kernel where each is."""
    down, across = ((size - 1) * stride for size, stride in zip(group, strides, strict=True))
    offsets = [(i * strides[0], j * strides[1]) for i in range(group[0]) for j in range(group[1])]
    shifted = [jnp.pad(kernel, ((top, down - top), (left, across - left), (0, 0), (0, 0))) for top, left in offsets]
    return jnp.concatenate(shifted, -1)
