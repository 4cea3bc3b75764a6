"""Batch normalisation, alone or followed by a ReLU, and the bias, of images whose channels are the last axis.

On CPU the gradient reads the images and the cotangent twice, and nothing else is kept for it. XLA's own is several
times slower there, above all in bfloat16.

References:
    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    2015.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.layers import custom_calls
from cnnjax.layers.platforms import choose_by_platform


class Normalized(NamedTuple):
    """A normalised batch, and its statistics: mean and variance of each channel, float32 (channels,)."""

    outputs: jax.Array
    mean: jax.Array
    variance: jax.Array


class _Residual(NamedTuple):
    images: jax.Array
    scale: jax.Array
    bias: jax.Array
    mean: jax.Array
    variance: jax.Array


Gradients = tuple[jax.Array, jax.Array, jax.Array]
"""Gradients of the images, the scale and the bias."""


def normalize_batch(
    images: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float = 1e-5,
    axis: str | None = None,
    relu: bool = False,
) -> Normalized:
    """Normalises every channel over a batch: ``(x - mean) / sqrt(variance + epsilon) * scale + bias``.

    The statistics have no gradients of their own.

    Args:
        images: (batch, ..., channels), float32 or bfloat16.
        scale: float32 (channels,).
        bias: float32 (channels,).
        epsilon: is added to the variance.
        axis: name of the mesh axis along which the batch is divided, whose statistics are then those of all devices.
        relu: whether a ReLU follows.

    Returns:
        The outputs, of the shape and dtype of the images, and the statistics.

    Example:
        >>> normalize_batch(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1), epsilon=0.0).outputs.tolist()
        [[-1.0], [1.0]]
    """
    default = functools.partial(_normalize_by_xla, epsilon=epsilon, axis=axis, relu=relu)
    if custom_calls.are_available() and images.dtype in (jnp.float32, jnp.bfloat16):
        on_cpu = functools.partial(_normalize, epsilon=epsilon, axis=axis, relu=relu)
        operands = (images, scale.astype(jnp.float32), bias.astype(jnp.float32))
        result = choose_by_platform(*operands, cpu=on_cpu, default=default)
    else:
        result = default(images, scale, bias)
    return Normalized(result.outputs, lax.stop_gradient(result.mean), lax.stop_gradient(result.variance))


def _normalize_by_xla(
    images: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> Normalized:
    wide = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    axes = tuple(range(images.ndim - 1))
    moments = jnp.stack([wide.mean(axes), (wide * wide).mean(axes)])
    mean, square = moments if axis is None else lax.pmean(moments, axis)
    variance = jnp.maximum(square - mean * mean, 0)
    outputs = (wide - mean) * (lax.rsqrt(variance + epsilon) * scale) + bias
    return Normalized((jax.nn.relu(outputs) if relu else outputs).astype(images.dtype), mean, variance)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(
    images: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> Normalized:
    mean, variance = custom_calls.find_moments(images)
    if axis is not None:
        of_device, mean = mean, lax.pmean(mean, axis)
        variance = lax.pmean(variance + (of_device - mean) ** 2, axis)
    factor = scale / jnp.sqrt(variance + epsilon)
    return Normalized(custom_calls.scale_channels(images, mean, factor, bias, relu), mean, variance)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _pull(kept: _Residual, cotangent: jax.Array, epsilon: float, axis: str | None, relu: bool) -> Gradients:
    images, scale, bias, mean, variance = kept
    deviation = jnp.sqrt(variance + epsilon)
    factor = scale / deviation
    of_bias, of_centred = custom_calls.sum_cotangents(images, cotangent, mean, factor, bias, relu)
    of_scale = of_centred / deviation
    sums = jnp.stack([of_bias, of_scale])
    of_all = (sums if axis is None else lax.pmean(sums, axis)) / math.prod(images.shape[:-1])
    # g * factor - factor * (mean of g) - factor * (x - mean) / deviation * (mean of g times the normalised x)
    offset, slope = -factor * of_all[0], -factor * of_all[1] / deviation
    of_images = custom_calls.pull_channels(images, cotangent, mean, factor, bias, slope, offset, relu)
    return of_images, of_scale, of_bias


def _forward(
    images: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> tuple[Normalized, _Residual]:
    normalized = _normalize(images, scale, bias, epsilon, axis, relu)
    return normalized, _Residual(images, scale, bias, normalized.mean, normalized.variance)


def _backward(epsilon: float, axis: str | None, relu: bool, kept: _Residual, cotangents: Normalized) -> Gradients:
    return _pull(kept, cotangents.outputs, epsilon, axis, relu)


_normalize.defvjp(_forward, _backward)


def _forward_pull(
    kept: _Residual, cotangent: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> tuple[Gradients, tuple[_Residual, jax.Array]]:
    return _pull(kept, cotangent, epsilon, axis, relu), (kept, cotangent)


def _backward_pull(
    epsilon: float, axis: str | None, relu: bool, operands: tuple[_Residual, jax.Array], cotangents: Gradients
) -> tuple[_Residual, jax.Array]:
    """Differentiates the gradient of XLA, in which the statistics are functions of the images."""
    kept, cotangent = operands

    def pull(images: jax.Array, scale: jax.Array, bias: jax.Array, cotangent: jax.Array) -> Gradients:
        by_xla = functools.partial(_normalize_by_xla, epsilon=epsilon, axis=axis, relu=relu)
        gradients: Gradients = jax.vjp(lambda *inputs: by_xla(*inputs).outputs, images, scale, bias)[1](cotangent)
        return gradients

    of_images, of_scale, of_bias, of_cotangent = jax.vjp(pull, kept.images, kept.scale, kept.bias, cotangent)[1](
        cotangents
    )
    of_statistics = jnp.zeros_like(kept.mean), jnp.zeros_like(kept.variance)
    return _Residual(of_images, of_scale, of_bias, *of_statistics), of_cotangent


_pull.defvjp(_forward_pull, _backward_pull)


def add_bias(images: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns images plus a bias for each channel.

    On CPU the gradient of a bias in bfloat16 is summed in float64, where XLA's sum is slow and inexact.

    Args:
        images: (batch, ..., channels).
        bias: (channels,), of the same dtype.

    Example:
        >>> add_bias(jnp.zeros((1, 2)), jnp.array([1.0, 2.0])).tolist()
        [[1.0, 2.0]]
    """
    if images.dtype != jnp.bfloat16 or not custom_calls.are_available():
        return images + bias
    return choose_by_platform(images, bias, cpu=_add_bias, default=jnp.add)


@jax.custom_vjp
def _add_bias(images: jax.Array, bias: jax.Array) -> jax.Array:
    return images + bias


def _forward_bias(images: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return images + bias, None


def _backward_bias(_: None, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = custom_calls.find_moments(cotangent)[0]
    return cotangent, (mean * math.prod(cotangent.shape[:-1])).astype(cotangent.dtype)


_add_bias.defvjp(_forward_bias, _backward_bias)
