"""Flax's batch normalisation, computed by `normalize_batch` in training, whatever module it is part of."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers import custom_calls
from cnnjax.layers.normalization import Normalized, normalize_batch


def replace_batch_norm(
    method: Callable[..., Any],
    args: Any,
    kwargs: Any,
    context: Any,
    relu: bool = False,
    normalize: Callable[..., Normalized] = normalize_batch,
) -> Any:
    """Calls a method of a module, unless it is a batch normalisation in training, which `normalize` computes.

    With `relu`, a ReLU follows every batch normalisation.

    It is an interceptor of Flax. Variables, running statistics and results, up to rounding, are those of
    ``nn.BatchNorm``.

    Example:
        >>> layer = nn.BatchNorm(use_running_average=False)
        >>> images = jnp.arange(8.0).reshape(2, 4)
        >>> variables = layer.init(jax.random.key(0), images)
        >>> with nn.intercept_methods(replace_batch_norm):
        ...     outputs, _ = layer.apply(variables, images, mutable=["batch_stats"])
        >>> outputs[:, 0].round(3).tolist()
        [-1.0, 1.0]
    """
    layer = context.module
    if type(layer) is not nn.BatchNorm or context.method_name != "__call__":
        return method(*args, **kwargs)
    given = inspect.signature(nn.BatchNorm.__call__).bind(layer, *args, **kwargs).arguments
    images, is_masked = given["x"], given.get("mask") is not None
    is_trained = not nn.merge_param("use_running_average", layer.use_running_average, given.get("use_running_average"))
    if is_masked or not is_trained or layer.is_initializing() or not _is_usual(layer, images):
        outputs = method(*args, **kwargs)
        return nn.relu(outputs) if relu else outputs
    channels = images.shape[-1:]
    scale = nn.meta.unbox(layer.get_variable("params", "scale")) if layer.use_scale else jnp.ones(channels, jnp.float32)
    bias = nn.meta.unbox(layer.get_variable("params", "bias")) if layer.use_bias else jnp.zeros(channels, jnp.float32)
    normalized = normalize(images, scale, bias, layer.epsilon, layer.axis_name, relu)
    old: Mapping[str, jax.Array] = layer.variables["batch_stats"]
    for name, new in (("mean", normalized.mean), ("var", normalized.variance)):
        layer.put_variable("batch_stats", name, layer.momentum * old[name] + (1 - layer.momentum) * new)
    return normalized.outputs


def _is_usual(layer: nn.BatchNorm, images: Any) -> bool:
    """Whether `normalize_batch` can do what the layer does, and is faster."""
    if not custom_calls.are_available() or not isinstance(images, jax.Array):
        return False
    names = [name for name, is_used in (("scale", layer.use_scale), ("bias", layer.use_bias)) if is_used]
    has_all = all(layer.has_variable("params", name) for name in names)
    dtype = layer.dtype or jnp.promote_types(images.dtype, layer.param_dtype)
    return bool(
        has_all
        and layer.has_variable("batch_stats", "mean")
        and images.ndim > 1
        and images.size
        and layer.axis in (-1, images.ndim - 1)
        and images.dtype == dtype
        and dtype in (jnp.float32, jnp.bfloat16)
        and layer.param_dtype == jnp.float32
        and layer.use_fast_variance
        and layer.axis_index_groups is None
    )
