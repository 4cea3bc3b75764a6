"""A network of depthwise separable convolutions: one filter for each channel, then a mixing of the channels.

References:
    Howard and others, "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Separable(nn.Module):
    """A convolution, separable blocks of which each second one halves the resolution, and the classifier."""

    classes: int
    width: int = 32
    """Filters of the first convolution; they double where the resolution is halved."""
    blocks: int = 4
    """Number of separable blocks."""
    kernel_size: int = 3
    """Height and width of the depthwise windows."""
    separable: bool = True
    """Whether a block is depthwise and then pointwise; otherwise it is one whole convolution."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, classes)."""

        def finish(x: jax.Array) -> jax.Array:
            return nn.relu(nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x))

        convolve = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        window = (self.kernel_size, self.kernel_size)
        x = finish(convolve(self.width, window)(images))
        for block in range(self.blocks):
            strides = 1 + block % 2
            channels, filters = x.shape[3], x.shape[3] * strides
            if self.separable:
                x = finish(convolve(channels, window, strides, feature_group_count=channels)(x))
                x = finish(convolve(filters, (1, 1))(x))
            else:
                x = finish(convolve(filters, window, strides)(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x.mean((1, 2)))
