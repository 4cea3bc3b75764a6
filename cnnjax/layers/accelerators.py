"""Convolution on accelerators: XLA's own, unless many kernels are trained at once.

Under `vmap` over kernels XLA makes one grouped convolution of them all, which accelerators are slow at; by patches they
are one batched matrix product.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from cnnjax.blocks import Pair
from cnnjax.layers.patches import can_be_patches, convolve_by_patches


def convolve_by_xla(images: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """Convolves images (height, width, batch, channels) without padding."""
    return lax.conv_general_dilated(images, kernel, strides, "VALID", dimension_numbers=("HWNC", "HWIO", "HWNC"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_on_accelerator(images: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """Convolves images without padding: by XLA; under `vmap` over kernels by patches, where these are not too many.

    Arguments and result are those of `convolve_by_patches`.
    """
    outputs: jax.Array = _dispatch(_forward_by, images, kernel, strides)(images, kernel)
    return outputs


def _forward(images: jax.Array, kernel: jax.Array, strides: Pair) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_on_accelerator(images, kernel, strides), (images, kernel)


def _backward(
    strides: Pair, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    gradients: tuple[jax.Array, jax.Array] = _dispatch(_backward_by, *operands, strides)(*operands, cotangent)
    return gradients


convolve_on_accelerator.defvjp(_forward, _backward)


def _forward_by(convolve: Callable[..., jax.Array]) -> Callable[..., Any]:
    return convolve


def _backward_by(convolve: Callable[..., jax.Array]) -> Callable[..., Any]:
    return lambda images, kernel, cotangent: jax.vjp(convolve, images, kernel)[1](cotangent)


def _dispatch(
    mode: Callable[[Callable[..., jax.Array]], Callable[..., Any]], images: jax.Array, kernel: jax.Array, strides: Pair
) -> Callable[..., Any]:
    """Returns the mode of XLA's convolution as a function of (images, kernel, ...), under `vmap` that of patches."""
    by_xla = mode(functools.partial(convolve_by_xla, strides=strides))
    if not can_be_patches(images, kernel, strides):
        return by_xla
    by_patches = mode(functools.partial(convolve_by_patches, strides=strides))
    chooser = jax.custom_batching.custom_vmap(by_xla)

    @chooser.def_vmap
    def choose(size: int, is_batched: Sequence[bool], *operands: jax.Array) -> tuple[Any, Any]:
        chosen = by_patches if is_batched[1] else by_xla
        results = jax.vmap(chosen, [0 if batched else None for batched in is_batched], axis_size=size)(*operands)
        return results, jax.tree.map(lambda array: True, results)

    # A function with a rule for `vmap` has no derivative of its own, which the gradient of a gradient needs.
    differentiable = jax.custom_vjp(chooser)
    differentiable.defvjp(
        lambda *operands: (chooser(*operands), operands),
        lambda operands, cotangent: jax.vjp(by_xla, *operands)[1](cotangent),
    )
    return differentiable
