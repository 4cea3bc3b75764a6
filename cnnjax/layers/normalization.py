"""Batch normalisation, alone or followed by a ReLU, of images whose channels are the last axis.

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


class Normalized(NamedTuple):
    """A normalised batch, and its statistics: mean and variance of each channel, float32 (channels,)."""

    outputs: jax.Array
    mean: jax.Array
    variance: jax.Array


class _Residual(NamedTuple):
    images: jax.Array
    mean: jax.Array
    deviation: jax.Array
    scale: jax.Array
    shift: jax.Array


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
    if not custom_calls.are_available() or images.dtype not in (jnp.float32, jnp.bfloat16):
        return default(images, scale, bias)
    on_cpu = functools.partial(_normalize, epsilon=epsilon, axis=axis, relu=relu)
    operands = images, scale.astype(jnp.float32), bias.astype(jnp.float32)
    result: Normalized = lax.platform_dependent(*operands, cpu=on_cpu, default=default)
    return Normalized(result.outputs, lax.stop_gradient(result.mean), lax.stop_gradient(result.variance))


def _normalize_by_xla(
    images: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> Normalized:
    wide = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    axes = tuple(range(images.ndim - 1))
    moments = jnp.stack([wide.mean(axes), (wide * wide).mean(axes)])
    mean, variance = _find_statistics(moments if axis is None else lax.pmean(moments, axis))
    outputs = (wide - mean) * (lax.rsqrt(variance + epsilon) * scale) + bias
    return Normalized((jax.nn.relu(outputs) if relu else outputs).astype(images.dtype), mean, variance)


def _find_statistics(moments: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = moments[0]
    return mean, jnp.maximum(moments[1] - mean * mean, 0)


def _count(images: jax.Array, axis: str | None) -> int:
    """Returns the number of values of a channel, on all devices."""
    return math.prod(images.shape[:-1]) * (1 if axis is None else lax.axis_size(axis))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(
    images: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> Normalized:
    return _forward(images, scale, bias, epsilon, axis, relu)[0]


def _forward(
    images: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis: str | None, relu: bool
) -> tuple[Normalized, _Residual]:
    sums = custom_calls.sum_channels(images)
    mean, variance = _find_statistics((sums if axis is None else lax.psum(sums, axis)) / _count(images, axis))
    deviation = jnp.sqrt(variance + epsilon)
    factor = scale / deviation
    shift = bias - mean * factor
    outputs = custom_calls.scale_channels(images, factor, shift, relu)
    return Normalized(outputs, mean, variance), _Residual(images, mean, deviation, factor, shift)


def _backward(
    epsilon: float, axis: str | None, relu: bool, kept: _Residual, cotangents: Normalized
) -> tuple[jax.Array, jax.Array, jax.Array]:
    images, mean, deviation, factor, shift = kept
    cotangent = cotangents.outputs
    own = custom_calls.sum_cotangents(images, cotangent, factor, shift, relu)
    of_bias, of_scale = own[0], (own[1] - mean * own[0]) / deviation
    sums = jnp.stack([of_bias, of_scale])
    of_all = (sums if axis is None else lax.psum(sums, axis)) / _count(images, axis)
    # g * factor - factor * (mean of g) - factor * (x - mean) / deviation * (mean of g times the normalised x)
    slope = -factor * of_all[1] / deviation
    offset = -factor * of_all[0] - slope * mean
    of_images = custom_calls.pull_channels(images, cotangent, factor, shift, slope, offset, relu)
    return of_images, of_scale, of_bias


_normalize.defvjp(_forward, _backward)
