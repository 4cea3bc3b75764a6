"""Maxima and sums over sliding windows of images, as ``jax.lax.reduce_window`` computes them, with fast gradients.

XLA's gradients of these are 10 to 30 times slower on CPU. Those here have gradients of any order in reverse mode.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.layers import custom_calls
from cnnjax.layers.custom_calls import PoolingWindow, Size
from cnnjax.layers.platforms import choose_by_platform

MOST_POSITIONS = 256
"""Most positions in a window of these functions."""
Reduction = Callable[[jax.Array], jax.Array]
"""Maps images to the maxima or sums of their windows."""


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
    none = (1, 1, 1, 1)
    parameters = ((1, *window, 1), (1, *strides, 1), ((0, 0),) * 4, none, none)
    reduce = lax.max if kind == "max" else lax.add
    pool = find_reduction(images, *parameters, reduce=reduce) or _make_reduction(*parameters, reduce=reduce)
    pooled = pool(images)
    return pooled if kind == "max" else pooled / float(math.prod(window))


def find_reduction(
    images: Any,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
    *,
    reduce: Callable[..., Any],
) -> Reduction | None:
    """Returns maxima or sums of windows, as ``lax.reduce_window`` has them, computed on CPU by the functions above.

    Args:
        images: of which only shape and dtype matter.
        window_dimensions, window_strides, padding, base_dilation, window_dilation: those of ``lax.reduce_window``.
        reduce: ``lax.max`` or ``lax.add``.

    Returns:
        A function of such images; ``None`` if only XLA can do it.
    """
    parameters = (window_dimensions, window_strides, padding, base_dilation, window_dilation)
    window = _read_window(images, *parameters)
    if window is None:
        return None
    by_xla = _make_reduction(*parameters, reduce=reduce)
    rows, columns = jax.eval_shape(by_xla, images).shape[1:3]
    take = take_maxima if reduce is lax.max else take_sums
    on_cpu = functools.partial(take, window=window, size=(rows, columns))
    return functools.partial(choose_by_platform, cpu=on_cpu, default=by_xla)


def _make_reduction(*parameters: Any, reduce: Callable[..., Any]) -> Reduction:
    start = -math.inf if reduce is lax.max else 0.0
    return lambda images: lax.reduce_window(images, start, reduce, *parameters)


def _read_window(
    images: Any, window_dimensions: Any, window_strides: Any, padding: Any, base_dilation: Any, window_dilation: Any
) -> PoolingWindow | None:
    """Returns the window of a pooling of images (batch, height, width, channels), if the functions above can do it."""
    is_usual = images.ndim == 4 and images.size and images.dtype in (jnp.float32, jnp.bfloat16)
    if not is_usual or not custom_calls.are_available():
        return None
    outer = {window_dimensions[0], window_dimensions[3], *base_dilation, *window_dilation}
    is_spatial = outer == {1} and not any((*padding[0], *padding[3]))
    (top, bottom), (left, right) = padding[1:3]
    height, width = window_dimensions[1:3]
    # Every window sees some of the images.
    sees = min(top, left, bottom, right) >= 0 and max(top, bottom) < height and max(left, right) < width
    if not is_spatial or not sees or height * width > MOST_POSITIONS:
        return None
    return PoolingWindow(height, width, window_strides[1], window_strides[2], top, left)


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
