"""Maxima and sums over sliding windows of images, as ``jax.lax.reduce_window`` computes them, with fast gradients.

XLA's gradients of these are 10 to 30 times slower on CPU. Those here have gradients of any order in reverse mode.
"""

import functools
import math
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.layers import custom_calls
from cnnjax.layers.custom_calls import PoolingWindow, Size

MOST_POSITIONS = 256
"""Most positions in a window of these functions."""


def take_maxima(images: jax.Array, window: PoolingWindow, size: Size) -> jax.Array:
    """Returns the maxima of windows on CPU; their gradient goes to the first maximum of a window.

    Args:
        images: (batch, height, width, channels), float32 or bfloat16.
        window: of at most `MOST_POSITIONS` positions; what it sees outside the images never is the maximum.
        size: rows and columns of the outputs; every window must see some of the images.

    Returns:
        (batch, rows, columns, channels), of the same dtype; NaN where a window has a NaN.
    """
    return _take_maxima(images, window, size, _size_of(images))[0]


def take_sums(images: jax.Array, window: PoolingWindow, size: Size) -> jax.Array:
    """Returns the sums of windows on CPU; arguments and result are those of `take_maxima`."""
    return _take_sums(images, window, size, _size_of(images))


def pool_batch(images: jax.Array, kind: str, window: Size, strides: Size) -> jax.Array:
    """Returns the maxima or means of windows of images, without padding.

    Args:
        images: (batch, height, width, channels).
        kind: ``max``, ``avg``, or ``none`` for the images as they are.
        window: height and width, no larger than the images.
        strides: steps of the window down and across.

    Returns:
        (batch, rows, columns, channels), of the same dtype.

    Example:
        >>> pool_batch(jnp.arange(4.0).reshape(1, 2, 2, 1), "avg", (2, 2), (2, 2)).item()
        1.5
    """
    if kind == "none":
        return images

    def by_xla(images: jax.Array) -> jax.Array:
        if kind == "max":
            return nn.max_pool(images, window, strides)  # type: ignore[no-any-return]
        return nn.pool(images, 0.0, lax.add, window, strides, "VALID") / float(math.prod(window))  # type: ignore[no-any-return]

    is_usual = images.dtype in (jnp.float32, jnp.bfloat16) and math.prod(window) <= MOST_POSITIONS
    if not is_usual or not custom_calls.are_available():
        return by_xla(images)
    rows, columns = jax.eval_shape(by_xla, images).shape[1:3]
    place, size = PoolingWindow(*window, *strides), (rows, columns)

    def on_cpu(images: jax.Array) -> jax.Array:
        if kind == "max":
            return take_maxima(images, place, size)
        return take_sums(images, place, size) / float(math.prod(window))

    result: jax.Array = lax.platform_dependent(images, cpu=on_cpu, default=by_xla)
    return result


def _size_of(images: jax.Array) -> Size:
    return images.shape[1], images.shape[2]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _take_maxima(images: jax.Array, window: PoolingWindow, size: Size, given: Size) -> tuple[jax.Array, jax.Array]:
    return custom_calls.take_maxima(images, window, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _pull_maxima(
    cotangent: jax.Array, positions: jax.Array, window: PoolingWindow, size: Size, given: Size
) -> jax.Array:
    return custom_calls.pull_maxima(cotangent, positions, window, given)


def _select(images: jax.Array, positions: jax.Array, window: PoolingWindow, size: Size) -> jax.Array:
    """Returns the pixel at its position in every window."""
    below, beside = (
        (count - 1) * step + length - before - have
        for count, step, length, before, have in zip(
            size, window[2:4], window[:2], window[4:], _size_of(images), strict=True
        )
    )
    margins = ((0, 0, 0), (window.top, below, 0), (window.left, beside, 0), (0, 0, 0))
    padded = lax.pad(images, jnp.zeros((), images.dtype), margins)
    steps = (1, window.down, window.across, 1)
    ends = ((size[0] - 1) * window.down + 1, (size[1] - 1) * window.across + 1)

    def see(position: int) -> jax.Array:
        top, left = divmod(position, window.width)
        stop = (len(images), top + ends[0], left + ends[1], images.shape[3])
        return jnp.where(positions == position, lax.slice(padded, (0, top, left, 0), stop, steps), 0)

    return functools.reduce(operator.add, map(see, range(window.height * window.width)))


def _forward_maxima(
    images: jax.Array, window: PoolingWindow, size: Size, given: Size
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    maxima, positions = _take_maxima(images, window, size, given)
    return (maxima, positions), positions


def _backward_maxima(
    window: PoolingWindow, size: Size, given: Size, positions: jax.Array, cotangents: tuple[jax.Array, Any]
) -> tuple[jax.Array]:
    return (_pull_maxima(cotangents[0], positions, window, size, given),)


_take_maxima.defvjp(_forward_maxima, _backward_maxima)


def _forward_pull(
    cotangent: jax.Array, positions: jax.Array, window: PoolingWindow, size: Size, given: Size
) -> tuple[jax.Array, jax.Array]:
    return _pull_maxima(cotangent, positions, window, size, given), positions


def _backward_pull(
    window: PoolingWindow, size: Size, given: Size, positions: jax.Array, images: jax.Array
) -> tuple[jax.Array, None]:
    return _select(images, positions, window, size), None


_pull_maxima.defvjp(_forward_pull, _backward_pull)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _take_sums(images: jax.Array, window: PoolingWindow, size: Size, given: Size) -> jax.Array:
    return custom_calls.take_sums(images, window, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pull_sums(cotangent: jax.Array, window: PoolingWindow, size: Size, given: Size) -> jax.Array:
    return custom_calls.pull_sums(cotangent, window, given)


_take_sums.defvjp(
    lambda images, window, size, given: (_take_sums(images, window, size, given), None),
    lambda window, size, given, _, cotangent: (_pull_sums(cotangent, window, size, given),),
)
_pull_sums.defvjp(
    lambda cotangent, window, size, given: (_pull_sums(cotangent, window, size, given), None),
    lambda window, size, given, _, images: (_take_sums(images, window, size, given),),
)
