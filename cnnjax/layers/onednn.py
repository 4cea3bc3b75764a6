"""Convolution in C++ on CPU, by oneDNN or by tiles, also transposed, with gradients of any order in reverse mode.

A convolution is linear in its images and in its kernel. So it and its two gradients are three operations, whose
gradients are these three again.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.layers import custom_calls
from cnnjax.layers.custom_calls import Window

Operands = tuple[jax.Array, jax.Array]
Shape = tuple[int, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(images: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolves images with a kernel on CPU.

    Args:
        images: (batch, *spatial, channels), float32 or bfloat16; one to three spatial axes.
        kernel: (*window, channels / groups, filters), of the same dtype.
        window: the steps, padding and gaps of the window.

    Returns:
        (batch, *spatial, filters), of the same dtype.
    """
    return custom_calls.convolve(images, kernel, window)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def pull_to_images(cotangent: jax.Array, kernel: jax.Array, window: Window, spatial: Shape) -> jax.Array:
    """Returns the cotangent of the images of `convolve`, of these spatial sizes, from that of its outputs."""
    return custom_calls.find_image_gradient(cotangent, kernel, window, spatial)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def pull_to_kernel(images: jax.Array, cotangent: jax.Array, window: Window, taps: Shape) -> jax.Array:
    """Returns the cotangent of the kernel of `convolve`, of so many taps along each axis, from that of its outputs."""
    return custom_calls.find_kernel_gradient(images, cotangent, window, taps)


def convolve_transposed(
    images: jax.Array, kernel: jax.Array, window: Window, scale: Shape, spatial: Shape
) -> jax.Array:
    """Convolves images whose pixels have been moved `scale` apart, with zeros between them.

    Args:
        images: (batch, *spatial, channels).
        kernel: (*window, channels / groups, filters).
        window: of strides 1, padded by less than its reach on every side.
        scale: distances of adjacent pixels along each spatial axis.
        spatial: spatial sizes of the outputs.

    Returns:
        (batch, *spatial, filters).
    """
    *taps, channels, filters = kernel.shape
    groups = window.groups
    turned = jnp.flip(kernel, range(len(taps))).reshape(*taps, channels, groups, filters // groups)
    form, direct = transpose_kernel(kernel, window, scale)
    return pull_to_images(images, turned.swapaxes(-1, -3).reshape(form.shape), direct, spatial)


def transpose_kernel(kernel: Any, window: Window, scale: Shape) -> tuple[jax.ShapeDtypeStruct, Window]:
    """Returns kernel and window of the convolution whose gradient of images is `convolve_transposed`.

    Args:
        kernel, window, scale: as for `convolve_transposed`; of the kernel only shape and dtype matter.
    """
    *taps, channels, filters = kernel.shape
    padding = tuple(
        (span - 1 - low, span - 1 - high)
        for span, (low, high) in zip(window.find_reach(kernel.shape), window.padding, strict=True)
    )
    form = jax.ShapeDtypeStruct((*taps, filters // window.groups, window.groups * channels), kernel.dtype)
    return form, Window(scale, padding, window.dilation, window.groups)


def _forward(images: jax.Array, kernel: jax.Array, window: Window) -> tuple[jax.Array, Operands]:
    return convolve(images, kernel, window), (images, kernel)


def _backward(window: Window, operands: Operands, cotangent: jax.Array) -> Operands:
    images, kernel = operands
    return (
        pull_to_images(cotangent, kernel, window, images.shape[1:-1]),
        pull_to_kernel(images, cotangent, window, kernel.shape[:-2]),
    )


convolve.defvjp(_forward, _backward)


def _forward_images(
    cotangent: jax.Array, kernel: jax.Array, window: Window, spatial: Shape
) -> tuple[jax.Array, Operands]:
    return pull_to_images(cotangent, kernel, window, spatial), (cotangent, kernel)


def _backward_images(window: Window, spatial: Shape, operands: Operands, images: jax.Array) -> Operands:
    cotangent, kernel = operands
    return convolve(images, kernel, window), pull_to_kernel(images, cotangent, window, kernel.shape[:-2])


pull_to_images.defvjp(_forward_images, _backward_images)


def _forward_kernel(images: jax.Array, cotangent: jax.Array, window: Window, taps: Shape) -> tuple[jax.Array, Operands]:
    return pull_to_kernel(images, cotangent, window, taps), (images, cotangent)


def _backward_kernel(window: Window, taps: Shape, operands: Operands, kernel: jax.Array) -> Operands:
    images, cotangent = operands
    return pull_to_images(cotangent, kernel, window, images.shape[1:-1]), convolve(images, kernel, window)


pull_to_kernel.defvjp(_forward_kernel, _backward_kernel)
