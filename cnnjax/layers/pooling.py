"""Pooling, the maximum or the mean of each window of each channel, and the sliding windows of every layer.

Activations are (height, width, batch, channels), so one position of all windows is a strided slice of long runs of
memory, whole batches of pixels, whatever the strides. Convolution and pooling see an image through the same ``kh x kw``
slices, and differ only in how they combine them. Slices, unlike gathers or `lax.reduce_window`, are differentiated into
plain pads and sums. The gradient of equal maxima goes to the first, as in other frameworks.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.errors import InputError
from cnnjax.settings.blocks import Pair

MOST_SLICES = 400
"""XLA pools larger windows by itself: every position of a window is an operation to compile."""


def max_pool(images: jax.Array, window: Pair, strides: Pair) -> jax.Array:
    """Returns the maximum of each window; pixels that no whole window covers are ignored.

    Args:
        images: (height, width, batch, channels).
        window: height and width of the window, no larger than the images.
        strides: steps of the window down and across.

    Returns:
        (rows, columns, batch, channels), of the same dtype.

    Raises:
        InputError: the window is larger than the images.

    Example:
        >>> max_pool(jnp.arange(16.0).reshape(4, 4, 1, 1), (2, 2), (2, 2))[..., 0, 0]
        Array([[ 5.,  7.],
               [13., 15.]], dtype=float32)
    """
    check_window(size_of(images), window)
    if window[0] * window[1] > MOST_SLICES:
        pooled: jax.Array = nn.max_pool(images.transpose(2, 0, 1, 3), window, strides).transpose(1, 2, 0, 3)
        return pooled
    return _max_of_slices(images, window, strides)


def average_pool(images: jax.Array, window: Pair, strides: Pair) -> jax.Array:
    """Returns the mean of each window, summed in float32; arguments, result and errors are those of `max_pool`.

    Example:
        >>> average_pool(jnp.arange(16.0).reshape(4, 4, 1, 1), (2, 2), (2, 2))[..., 0, 0]
        Array([[ 2.5,  4.5],
               [10.5, 12.5]], dtype=float32)
    """
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
    """Returns the image whose adjacent windows have these members."""
    rows, columns, *rest = members[0].shape
    lines = [jnp.stack(members[start : start + window[1]], 2) for start in range(0, len(members), window[1])]
    return jnp.stack(lines, 1).reshape(rows * window[0], columns * window[1], *rest)


_max_of_slices.defvjp(_forward, _backward)


def take_maximum(values: jax.Array, axis: int) -> jax.Array:
    """Returns the maximum over an axis of few members; NaN wherever a member is NaN."""
    return _take_maximum(values, axis, values.shape[axis])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _take_maximum(values: jax.Array, axis: int, count: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _take_apart(values, axis))


def _forward_maximum(values: jax.Array, axis: int, count: int) -> tuple[jax.Array, jax.Array]:
    return _take_maximum(values, axis, count), find_first_maximum(_take_apart(values, axis))


def _backward_maximum(axis: int, count: int, first: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    # Joined along an existing axis, then cut: XLA does not vectorise its loop over a new axis, which takes 5.9-10.9 ms.
    given = jnp.concatenate(give_to_first(first, cotangent, count), axis)
    return (given.reshape(*cotangent.shape[:axis], count, *cotangent.shape[axis:]),)


_take_maximum.defvjp(_forward_maximum, _backward_maximum)


def _take_apart(values: jax.Array, axis: int) -> list[jax.Array]:
    return [jax.lax.index_in_dim(values, index, axis, keepdims=False) for index in range(values.shape[axis])]


def find_first_maximum(members: list[jax.Array]) -> jax.Array:
    """Returns the index int32 of the first of the largest members, elementwise."""
    best, first = members[0], jnp.zeros(members[0].shape, jnp.int32)
    for index, member in enumerate(members[1:], 1):
        larger = member > best
        best, first = jnp.where(larger, member, best), jnp.where(larger, index, first)
    return first


def give_to_first(first: jax.Array, cotangent: jax.Array, count: int) -> list[jax.Array]:
    """Returns the cotangent of each of `count` members: all of it for the first maximum, zero for the others."""
    return [jnp.where(first == index, cotangent, jnp.zeros_like(cotangent)) for index in range(count)]


def size_of(array: jax.Array) -> Pair:
    """Returns the height and width of images, or of the window of a kernel."""
    return array.shape[0], array.shape[1]


def check_window(size: Pair, window: Pair) -> None:
    """Raises `InputError` if a window is larger than the images."""
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(f"window {window[0]}x{window[1]}: must be no larger than the images, {size[0]}x{size[1]}")


def count_steps(size: Pair, window: Pair, strides: Pair = (1, 1)) -> Pair:
    """Returns the number of places of a window, down and across: ``(size - window) // strides + 1``."""
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
