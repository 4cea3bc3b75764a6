"""Any convolution, called as ``jax.lax.conv_general_dilated`` is, and computed by what measures fastest on CPU.

On CPU these are oneDNN, if it is installed, and tiles or patches. On accelerators, and for what none of them can do, it
is XLA's own convolution. On CPU, derivatives are in reverse mode only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.layers import custom_calls, onednn
from cnnjax.layers.convolution import convolve, convolve_and_pool, count_saved
from cnnjax.layers.custom_calls import Window, find_output_shape
from cnnjax.layers.platforms import choose_by_platform
from cnnjax.layers.pooling import MOST_SLICES
from cnnjax.layers.reduction import pool_batch
from cnnjax.settings.blocks import Pair, Pixels, dilate, pad_pixels

Shape = tuple[int, ...]
Convolution = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps images (batch, *spatial, channels) and a kernel (*window, channels / groups, filters) to outputs."""
LAYOUTS = ("NHWC", "HWIO", "NHWC")
"""Layouts of images, kernels and outputs."""
WORTH_TILING = 3.3
"""How many times fewer multiplications than the definition tiles in JAX must need to be faster than oneDNN."""
WORTH_TILING_NATIVELY = 0.8
"""How many times fewer operations, as `_count_native_operations` has them, tiles in C++ must need to be faster."""
MOST_TILED = 2**17
"""Bytes of an image's outputs up to which tiles may be faster than oneDNN; those of larger ones leave the caches."""


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **others: Any,
) -> jax.Array:
    """Convolves as ``jax.lax.conv_general_dilated`` does, with the same arguments, but faster on CPU.

    Args:
        lhs: images, in the layout that `dimension_numbers` says.
        rhs: kernel.
        window_strides: steps of the window along each spatial axis.
        padding: ``SAME``, ``VALID``, ``SAME_LOWER``, or pixels (before, after) along each spatial axis.
        lhs_dilation: distances of adjacent pixels, which makes a transposed convolution; ``None`` for 1.
        rhs_dilation: distances of adjacent positions in the window; ``None`` for 1.
        dimension_numbers: layouts, such as ``("NHWC", "HWIO", "NHWC")``; ``None`` for channels first.
        feature_group_count: number of groups of channels.
        batch_group_count: number of groups of examples.
        precision: precision of the products on accelerators.
        preferred_element_type: dtype of the outputs.
        others: further arguments of ``jax.lax.conv_general_dilated``.

    Returns:
        The outputs, in the layout that `dimension_numbers` says.

    Raises:
        TypeError, ValueError: as ``jax.lax.conv_general_dilated``.

    Example:
        >>> import flax.linen as nn
        >>> layer = nn.Conv(4, (3, 3), conv_general_dilated=conv_general_dilated)
        >>> layer.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 3)))[0].shape
        (2, 8, 8, 4)
    """
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)

    named = {
        "lhs_dilation": lhs_dilation,
        "rhs_dilation": rhs_dilation,
        "dimension_numbers": numbers,
        "feature_group_count": feature_group_count,
        "batch_group_count": batch_group_count,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
        **others,
    }

    def by_xla(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        outputs: jax.Array = lax.conv_general_dilated(lhs, rhs, window_strides, padding, **named)
        return outputs

    form = jax.eval_shape(by_xla, lhs, rhs)  # checks the arguments, too
    ones = (1,) * (lhs.ndim - 2)
    gaps, scale = (ones if given is None else tuple(map(int, given)) for given in (rhs_dilation, lhs_dilation))
    if not isinstance(padding, str) and np.min(padding, initial=0) < 0 and scale == ones:
        # Padded beforehand, for on CPU XLA's convolution then reads memory outside the images.
        margins = [(0, 0, 0)] * lhs.ndim
        for axis, (low, high) in zip(numbers.lhs_spec[2:], padding, strict=True):
            margins[axis] = (int(low), int(high), 0)
        padded = lax.pad(lhs, jnp.zeros((), lhs.dtype), margins)
        return conv_general_dilated(padded, rhs, window_strides, "VALID", **named)
    is_usual = lhs.dtype == rhs.dtype == form.dtype and lhs.dtype in (jnp.float32, jnp.bfloat16)
    is_empty = not all((*lhs.shape, *rhs.shape, *form.shape))
    if not is_usual or is_empty or batch_group_count != 1 or not 3 <= lhs.ndim <= 5 or any(others.values()):
        return by_xla(lhs, rhs)

    to_images = (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    to_kernel = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
    to_outputs = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    images, kernel, outputs = (
        jax.ShapeDtypeStruct(tuple(array.shape[axis] for axis in axes), array.dtype)
        for array, axes in ((lhs, to_images), (rhs, to_kernel), (form, to_outputs))
    )
    window = Window(tuple(map(int, window_strides)), (), gaps, int(feature_group_count))
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:-1], window.find_reach(kernel.shape), window_strides, padding)
    window = window._replace(padding=tuple((int(low), int(high)) for low, high in padding))
    fast = (
        choose_convolution(images, kernel, window)
        if scale == ones
        else choose_transposed(outputs, kernel, window, scale)
    )
    if fast is None:
        return by_xla(lhs, rhs)

    def on_cpu(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
        return fast(lhs.transpose(to_images), rhs.transpose(to_kernel)).transpose(_invert(to_outputs))

    return choose_by_platform(lhs, rhs, cpu=on_cpu, default=by_xla)


def convolve_batch(
    images: jax.Array,
    kernel: jax.Array,
    strides: Pair = (1, 1),
    padding: str | Pixels = "valid",
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """Convolves images as `cnnjax.layers.convolve` does, but with the batch first.

    Args:
        images: (batch, height, width, channels), float32 or bfloat16.
        kernel: (window height, window width, channels / groups, filters), of the same dtype.
        strides: steps of the window down and across.
        padding: ``valid``, ``same`` or ``((top, bottom), (left, right))`` zeros.
        dilation: distances of adjacent positions in the window, down and across; 1 leaves no gaps.
        groups: number of groups of channels that see only each other.

    Returns:
        (batch, rows, columns, filters), of the same dtype.
    """
    pixels = padding.upper() if isinstance(padding, str) else padding
    return conv_general_dilated(images, kernel, strides, pixels, None, dilation, LAYOUTS, groups)


def convolve_and_pool_batch(
    images: jax.Array,
    kernel: jax.Array,
    strides: Pair,
    padding: str | Pixels,
    window: Pair,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """Returns the maxima of `convolve_batch` over adjacent windows; arguments as for `convolve_and_pool`."""
    size, taps = (images.shape[1], images.shape[2]), (kernel.shape[0], kernel.shape[1])
    pixels = pad_pixels(padding, size, dilate(taps, dilation), strides)
    sliding = Window(strides, pixels, dilation, groups)
    if is_faster_in_jax(images, kernel, sliding):
        pooled = convolve_and_pool(images.transpose(1, 2, 0, 3), kernel, strides, pixels, window)
        return pooled.transpose(2, 0, 1, 3)
    rows, columns = find_output_shape(images.shape, kernel.shape, sliding)[1:3]
    (top, bottom), (left, right) = pixels
    # Without the rows and columns of outputs that no window of the pooling reaches.
    pixels = (top, bottom - rows % window[0] * strides[0]), (left, right - columns % window[1] * strides[1])
    return pool_batch(convolve_batch(images, kernel, strides, pixels, dilation, groups), "max", window, window)


def _invert(axes: Shape) -> Shape:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def choose_convolution(images: Any, kernel: Any, window: Window) -> Convolution | None:
    """Returns the fastest convolution on CPU but XLA's; ``None`` if there is none.

    Args:
        images: (batch, *spatial, channels), of which only shape and dtype matter.
        kernel: (*window, channels / groups, filters), likewise.
        window: the window.
    """
    reach = window.find_reach(kernel.shape)
    # What a padding has beyond the reach of the window is added beforehand.
    within = tuple(
        (min(low, span - 1), min(high, span - 1)) for (low, high), span in zip(window.padding, reach, strict=True)
    )
    beyond = [(low - a, high - b, 0) for (low, high), (a, b) in zip(window.padding, within, strict=True)]
    margins = ((0, 0, 0), *beyond, (0, 0, 0))
    padded = jax.eval_shape(lambda images: lax.pad(images, jnp.zeros((), images.dtype), margins), images)
    window = window._replace(padding=within)
    convolution = _choose(padded, kernel, window)
    if convolution is None or not any(map(any, beyond)):
        return convolution
    chosen = convolution
    return lambda images, kernel: chosen(lax.pad(images, jnp.zeros((), images.dtype), margins), kernel)


def _choose(images: Any, kernel: Any, window: Window) -> Convolution | None:
    if is_faster_tiled(images, kernel, window):  # asked first, for `can_convolve` prepares oneDNN's convolutions
        return lambda images, kernel: onednn.convolve(images, kernel, window._replace(tiled=True))
    is_possible = len(window.strides) == 2 and kernel.shape[0] * kernel.shape[1] <= MOST_SLICES
    is_onednn = custom_calls.are_available() and custom_calls.can_convolve(images, kernel, window)
    if is_possible and (not is_onednn or is_faster_in_jax(images, kernel, window)):
        return lambda images, kernel: _convolve_in_jax(images, kernel, window)
    return (lambda images, kernel: onednn.convolve(images, kernel, window)) if is_onednn else None


def is_faster_tiled(images: Any, kernel: Any, window: Window) -> bool:
    """Whether tiles in C++ are faster than oneDNN; measured by ``python -m experiments.measure.convolutions``.

    Args:
        images: (batch, *spatial, channels), of which only shape and dtype matter.
        kernel: (*window, channels / groups, filters), likewise.
        window: the window.
    """
    if not custom_calls.can_tile(images, kernel, window):
        return False
    outputs = find_output_shape(images.shape, kernel.shape, window)
    whole = math.prod(outputs[:3]) * math.prod(kernel.shape)
    return bool(whole > WORTH_TILING_NATIVELY * _count_native_operations(outputs, kernel.shape, window))


def _count_native_operations(outputs: Shape, kernel: Shape, window: Window) -> int:
    """Returns what tiles in C++ cost, in multiplications: those of their products, and what transforms take as long."""
    batch, rows, columns, filters = outputs
    channels = kernel[2]
    points = 36 if window.strides == (1, 1) else 81
    tiles = batch * math.ceil(rows / 4) * math.ceil(columns / 4)
    return tiles * points * (channels * filters + 8 * (channels + filters)) + 36 * 40 * channels * filters


def is_faster_in_jax(images: Any, kernel: Any, window: Window) -> bool:
    """Whether tiles or patches in JAX are faster than C++; measured by ``python -m experiments.measure.convolutions``.

    Args:
        images: (batch, height, width, channels), of which only shape and dtype matter.
        kernel: (window height, window width, channels / groups, filters), likewise.
        window: the window.
    """
    if images.dtype != jnp.float32 or (*window.dilation, window.groups) != (1, 1, 1):
        return False
    if is_faster_tiled(images, kernel, window):
        return False
    if images.shape[3] == 1:
        return True
    batch, height, width, channels = images.shape
    (top, bottom), (left, right) = window.padding
    seen = jax.ShapeDtypeStruct((height + top + bottom, width + left + right, batch, channels), images.dtype)
    outputs = find_output_shape(images.shape, kernel.shape, window)
    is_small = 4 * math.prod(outputs[1:]) <= MOST_TILED
    return window.strides == (1, 1) and is_small and count_saved(seen, kernel) > WORTH_TILING


def _convolve_in_jax(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    down, across = window.strides
    rows, columns = window.padding
    row_gap, column_gap = window.dilation
    inside = images.transpose(1, 2, 0, 3)
    outputs = convolve(inside, kernel, (down, across), (rows, columns), None, (row_gap, column_gap), window.groups)
    return outputs.transpose(2, 0, 1, 3)


def choose_transposed(outputs: Any, kernel: Any, window: Window, scale: Shape) -> Convolution | None:
    """Returns the fastest transposed convolution on CPU but XLA's; ``None`` if there is none.

    Args:
        outputs: (batch, *spatial, filters), of which only shape and dtype matter.
        kernel: (*window, channels / groups, filters), likewise.
        window: the window.
        scale: distances of adjacent pixels along each spatial axis.
    """
    is_padded_less = all(
        min(pads) >= 0 and max(pads) < span
        for pads, span in zip(window.padding, window.find_reach(kernel.shape), strict=True)
    )
    if set(window.strides) != {1} or not is_padded_less or not custom_calls.are_available():
        return None
    if not custom_calls.can_convolve(outputs, *onednn.transpose_kernel(kernel, window, scale)):
        return None
    spatial = outputs.shape[1:-1]
    return lambda images, kernel: onednn.convolve_transposed(images, kernel, window, scale, spatial)
