"""The operations of the C++ in ``native``: oneDNN's convolutions, and loops over channels and pooling windows.

They run on CPU only, on one thread for each core that a device of JAX has. Activations are (batch, *spatial, channels)
and kernels (*window, channels / groups, filters), float32 or bfloat16. The functions here have no gradients; those that
do are in `onednn`, `normalization` and `reduction`.
"""

import contextlib
import ctypes
import functools
import itertools
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.errors import UnavailableError
from cnnjax.layers.platforms import vary_alike
from cnnjax.machine.native import LAYERS, are_fast_layers_wanted, compile_library
from cnnjax.machine.processes import count_cores

_RESULTS = {
    "convolution_outputs": "outputs",
    "convolution_image_gradient": "images",
    "convolution_kernel_gradient": "kernel",
}
"""The modes of a convolution, and which of its arrays each computes from the other two."""
TILED_CHANNELS = 16
"""Tiles in C++ need numbers of channels and of filters that are multiples of this one."""
_HANDLERS = (
    *_RESULTS,
    "channel_moments",
    "channel_affine",
    "channel_affine_sums",
    "channel_affine_gradient",
    "max_pool",
    "max_pool_gradient",
    "sum_pool",
    "sum_pool_gradient",
)


Size = tuple[int, int]
"""Height and width."""


class Window(NamedTuple):
    """A window that slides over images.

    Attributes:
        strides: steps along each spatial axis.
        padding: zeros before and after each spatial axis, >= 0.
        dilation: distances of adjacent positions in the window along each spatial axis; 1 leaves no gaps.
        groups: number of groups of channels that see only each other.
        tiled: whether it is computed by tiles, in C++, instead of oneDNN.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    tiled: bool = False

    def find_reach(self, kernel: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the pixels that the window spans along each spatial axis, for a kernel of this shape.

        Example:
            >>> Window((1, 1), ((0, 0), (0, 0)), (2, 1)).find_reach((3, 5, 1, 8))
            (5, 5)
        """
        return tuple((taps - 1) * gap + 1 for taps, gap in zip(kernel, self.dilation, strict=False))


def are_available() -> bool:
    """Whether JAX computes on CPU and these operations can be called; compiles them if nobody has before."""
    return jax.default_backend() == "cpu" and are_fast_layers_wanted() and isinstance(_load(), ctypes.CDLL)


def describe() -> str | None:
    """Returns what convolves on CPU, such as ``oneDNN 3.2.0``; ``None`` if these operations cannot be called."""
    library = _load() if are_fast_layers_wanted() else None
    if not isinstance(library, ctypes.CDLL):
        return None
    return f"oneDNN {'.'.join(map(str, (ctypes.c_int * 3).in_dll(library, 'onednn_version')))}"


def explain_missing() -> str:
    """Returns why these operations cannot be called, and what would help; empty if they can be or are not wanted."""
    found = _load() if are_fast_layers_wanted() else None
    return str(found) if isinstance(found, UnavailableError) else ""


@functools.cache
def _load() -> ctypes.CDLL | UnavailableError:
    """Compiles and registers the operations; returns their library, or why they cannot be had."""
    try:
        path = compile_library(LAYERS)
        with _sleeping_threads():
            library = ctypes.CDLL(str(path))
    except UnavailableError as error:
        return error
    except OSError as error:
        return UnavailableError(f"the compiled layers cannot be loaded: {error}")
    for name in _HANDLERS:
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(_name_target(name), handler, platform="cpu")
    return library


@contextlib.contextmanager
def _sleeping_threads() -> Iterator[None]:
    """Lets OpenMP, if it is loaded now, put waiting threads to sleep; they would slow XLA's down."""
    name = "OMP_WAIT_POLICY"
    is_set = name in os.environ
    os.environ.setdefault(name, "passive")
    try:
        yield
    finally:
        if not is_set:
            del os.environ[name]


def _name_target(name: str) -> str:
    return f"cnnjax_{name}"


def _call(name: str, results: Any, *operands: jax.Array, **attributes: Any) -> Any:
    # Under vmap, one call after the other: on CPU a call fills a core.
    call: Any = jax.ffi.ffi_call(_name_target(name), results, vmap_method="sequential")
    operands = vary_alike(*operands)
    return jax.tree.map(
        lambda result: vary_alike(result, operands[0])[0],
        call(*operands, threads=np.int64(_count_threads()), **attributes),
    )


def _count_threads() -> int:
    """Returns the number of threads of a call: the cores that a device has."""
    mesh = jax.sharding.get_abstract_mesh()  # that of `jax.shard_map` around this, whose devices compute at once
    devices = min(math.prod(mesh.shape[axis] for axis in mesh.manual_axes), jax.local_device_count("cpu"))
    return int(max(count_cores() // devices, 1))


class _Shapes(NamedTuple):
    """Shapes of the arrays of a convolution, in any of its modes."""

    images: tuple[int, ...]
    kernel: tuple[int, ...]
    outputs: tuple[int, ...]


def can_convolve(images: Any, kernel: Any, window: Window) -> bool:
    """Whether oneDNN has kernels for a convolution and its gradients; else it would compute one number at a time.

    Args:
        images: (batch, *spatial, channels), of which only shape and dtype matter.
        kernel: (*window, channels / groups, filters), likewise.
        window: the window.
    """
    shapes = _Shapes(images.shape, kernel.shape, find_output_shape(images.shape, kernel.shape, window))
    return all(_count_scratch(mode, shapes, _choose_dtype(images.dtype), window) is not None for mode in _RESULTS)


def can_tile(images: Any, kernel: Any, window: Window) -> bool:
    """Whether a convolution can be computed by tiles in C++; arguments as for `can_convolve`."""
    is_usual = kernel.shape[:-2] == (3, 3) and (window.dilation, window.groups) == ((1, 1), 1)
    if not is_usual or kernel.shape[2] % TILED_CHANNELS or kernel.shape[3] % TILED_CHANNELS or not are_available():
        return False
    lows = [low for low, _ in window.padding]
    is_within = all(0 <= low < 3 for low in lows) and (
        window.strides == (1, 1) or (window.strides == (2, 2) and lows[0] % 2 == lows[1] % 2)
    )
    return is_within and _choose_dtype(images.dtype) == jnp.float32


def _call_onednn(mode: str, shapes: _Shapes, *operands: jax.Array, window: Window) -> jax.Array:
    """Calls a convolution, of bfloat16 in float32 where oneDNN cannot do it on this CPU."""
    dtype = operands[0].dtype
    computed = _choose_dtype(dtype)
    scratch = _count_scratch(mode, shapes, computed, window)
    if scratch is None:
        raise NotImplementedError(f"oneDNN has no kernel for {shapes} with {window}")
    # As a result, the scratch memory is counted and shared by XLA, like that of its own operations.
    forms = (
        jax.ShapeDtypeStruct(getattr(shapes, _RESULTS[mode]), computed),
        jax.ShapeDtypeStruct((scratch,), jnp.uint8),
    )
    result, _ = _call(mode, forms, *(operand.astype(computed) for operand in operands), **_write(window))
    converted: jax.Array = result.astype(dtype)
    return converted


def _choose_dtype(dtype: Any) -> Any:
    library = _load()
    assert isinstance(library, ctypes.CDLL)
    has_bfloat16 = ctypes.c_int.in_dll(library, "has_bfloat16").value
    return dtype if has_bfloat16 else jnp.dtype(jnp.float32)


def _count_scratch(mode: str, shapes: _Shapes, dtype: Any, window: Window) -> int | None:
    """Returns the bytes of scratch memory of a convolution; ``None`` if oneDNN has no kernel for it."""
    library = _load()
    assert isinstance(library, ctypes.CDLL)
    low, high = zip(*window.padding, strict=True)
    sizes = [*itertools.chain(*shapes, window.strides, low, high, window.dilation)]
    count = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3, ctypes.c_void_p, *[ctypes.c_int64] * 3)(
        ("count_scratch", library)
    )
    first = ([*_RESULTS].index(mode), dtype == jnp.bfloat16, len(shapes.images))
    found: int = count(*first, (ctypes.c_int64 * len(sizes))(*sizes), window.groups, window.tiled, _count_threads())
    return None if found < 0 else found


def _write(window: Window) -> dict[str, Any]:
    """Returns the attributes of a window."""
    columns = {
        "strides": window.strides,
        "low": [low for low, _ in window.padding],
        "high": [high for _, high in window.padding],
        "dilation": window.dilation,
    }
    arrays = {name: np.array(values, np.int64) for name, values in columns.items()}
    return {**arrays, "groups": np.int64(window.groups), "tiled": np.int64(window.tiled)}


def find_output_shape(images: tuple[int, ...], kernel: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """Returns the shape of the outputs of a convolution, (batch, *spatial, filters)."""
    spatial = (
        (size + sum(padding) - span) // stride + 1
        for size, padding, span, stride in zip(
            images[1:-1], window.padding, window.find_reach(kernel), window.strides, strict=True
        )
    )
    return (images[0], *spatial, kernel[-1])


def convolve(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Returns the outputs (batch, *spatial, filters) of a convolution."""
    shapes = _Shapes(images.shape, kernel.shape, find_output_shape(images.shape, kernel.shape, window))
    return _call_onednn("convolution_outputs", shapes, images, kernel, window=window)


def find_image_gradient(cotangent: jax.Array, kernel: jax.Array, window: Window, spatial: tuple[int, ...]) -> jax.Array:
    """Returns the cotangent of the images of `convolve`, which have these spatial sizes, from that of its outputs."""
    images = (cotangent.shape[0], *spatial, kernel.shape[-2] * window.groups)
    shapes = _Shapes(images, kernel.shape, cotangent.shape)
    return _call_onednn("convolution_image_gradient", shapes, cotangent, kernel, window=window)


def find_kernel_gradient(images: jax.Array, cotangent: jax.Array, window: Window, taps: tuple[int, ...]) -> jax.Array:
    """Returns the cotangent of the kernel of `convolve`, which has so many taps, from that of its outputs."""
    kernel = (*taps, images.shape[-1] // window.groups, cotangent.shape[-1])
    shapes = _Shapes(images.shape, kernel, cotangent.shape)
    return _call_onednn("convolution_kernel_gradient", shapes, images, cotangent, window=window)


def find_moments(x: jax.Array) -> jax.Array:
    """Returns the mean and the variance over all axes but the last, float32 (2, channels)."""
    moments: jax.Array = _call("channel_moments", jax.ShapeDtypeStruct((2, x.shape[-1]), jnp.float32), x)
    return moments


def scale_channels(x: jax.Array, mean: jax.Array, scale: jax.Array, bias: jax.Array, relu: bool) -> jax.Array:
    """Returns ``(x - mean) * scale + bias``, or 0 where that is negative if `relu`.

    The vectors are float32 (channels,).
    """
    y: jax.Array = _call("channel_affine", jax.ShapeDtypeStruct(x.shape, x.dtype), x, mean, scale, bias, relu=relu)
    return y


def sum_cotangents(
    x: jax.Array, cotangent: jax.Array, mean: jax.Array, scale: jax.Array, bias: jax.Array, relu: bool
) -> jax.Array:
    """Returns the sums of g and of ``g * (x - mean)``, float32 (2, channels).

    Here g is the cotangent of `scale_channels` where its result was positive, or everywhere without `relu`.
    """
    form = jax.ShapeDtypeStruct((2, x.shape[-1]), jnp.float32)
    sums: jax.Array = _call("channel_affine_sums", form, x, cotangent, mean, scale, bias, relu=relu)
    return sums


def pull_channels(
    x: jax.Array,
    cotangent: jax.Array,
    mean: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    slope: jax.Array,
    offset: jax.Array,
    relu: bool,
) -> jax.Array:
    """Returns ``g * scale + (x - mean) * slope + offset``, with the g of `sum_cotangents`."""
    form = jax.ShapeDtypeStruct(x.shape, x.dtype)
    operands = (x, cotangent, mean, scale, bias, slope, offset)
    gradient: jax.Array = _call("channel_affine_gradient", form, *operands, relu=relu)
    return gradient


class PoolingWindow(NamedTuple):
    """A pooling window: height, width, steps down and across, and rows and columns before the images."""

    height: int
    width: int
    down: int
    across: int
    top: int = 0
    left: int = 0


def take_maxima(x: jax.Array, window: PoolingWindow, size: Size) -> tuple[jax.Array, jax.Array]:
    """Returns the maxima (batch, rows, columns, channels) and, uint8, the positions of the first maxima in windows.

    Args:
        x: (batch, height, width, channels).
        window: of at most 256 positions.
        size: rows and columns; every window must contain some of the images.
    """
    shape = (x.shape[0], *size, x.shape[3])
    forms = (jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.uint8))
    maxima, positions = _call("max_pool", forms, x, window=np.array(window, np.int64))
    return maxima, positions


def pull_maxima(cotangent: jax.Array, positions: jax.Array, window: PoolingWindow, size: Size) -> jax.Array:
    """Returns the cotangent of the images of `take_maxima`, of this height and width."""
    form = jax.ShapeDtypeStruct((cotangent.shape[0], *size, cotangent.shape[3]), cotangent.dtype)
    gradient: jax.Array = _call("max_pool_gradient", form, cotangent, positions, window=np.array(window, np.int64))
    return gradient


def take_sums(x: jax.Array, window: PoolingWindow, size: Size) -> jax.Array:
    """Returns the sums of windows; arguments and result are those of `take_maxima`."""
    form = jax.ShapeDtypeStruct((x.shape[0], *size, x.shape[3]), x.dtype)
    sums: jax.Array = _call("sum_pool", form, x, window=np.array(window, np.int64))
    return sums


def pull_sums(cotangent: jax.Array, window: PoolingWindow, size: Size) -> jax.Array:
    """Returns the cotangent of the images of `take_sums`, of this height and width."""
    form = jax.ShapeDtypeStruct((cotangent.shape[0], *size, cotangent.shape[3]), cotangent.dtype)
    gradient: jax.Array = _call("sum_pool_gradient", form, cotangent, window=np.array(window, np.int64))
    return gradient
