"""Two-dimensional convolution, by the algorithm that measures fastest on the backend that runs it.

On CPU, XLA's own gradients of a convolution leave its fast path inside a scan (measured: 1.5 s for a step that takes
0.04 s here), so the windows are laid out as rows of a matrix and multiplied by the kernel (im2col), as long as that
matrix is not too large to hold. Accelerators have fast convolutions of their own.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.architecture import pad_pixels
from cnnjax.blocks import Pixels
from cnnjax.layers.windows import MOST_SLICES, slice_windows

PATCH_BYTES = 2**29


def convolve(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, int] = (1, 1), padding: str | Pixels = "valid"
) -> jax.Array:
    """Convolves images with a kernel: ``y[n, i, j, f] = sum x[n, i*s + a, j*t + b, c] * kernel[a, b, c, f]``.

    Args:
        images: (batch, height, width, channels), float32 or bfloat16.
        kernel: (window height, window width, channels, filters), of the same dtype.
        strides: ``(s, t)``, steps of the window down and across.
        padding: ``valid``, ``same`` or ``((top, bottom), (left, right))`` zeros.

    Returns:
        (batch, rows, columns, filters), of the same dtype.

    References:
        Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006.
    """
    height, width, channels, filters = kernel.shape
    pixels = pad_pixels(padding, (images.shape[1], images.shape[2]), (height, width), strides)

    def by_matrix_product(images: jax.Array, kernel: jax.Array) -> jax.Array:
        padded = jnp.pad(images, ((0, 0), *pixels, (0, 0)))
        patches = jnp.concatenate(slice_windows(padded, (height, width), strides), axis=-1)
        return patches @ kernel.reshape(height * width * channels, filters)

    def by_backend(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(images, kernel, strides, pixels, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    outputs = jax.eval_shape(by_backend, images, kernel)
    patch_bytes = math.prod(outputs.shape[:3]) * height * width * channels * images.dtype.itemsize
    sliced = height * width <= MOST_SLICES and patch_bytes <= PATCH_BYTES
    on_cpu = by_matrix_product if sliced else by_backend
    result: jax.Array = lax.platform_dependent(images, kernel, cpu=on_cpu, default=by_backend)
    return result
