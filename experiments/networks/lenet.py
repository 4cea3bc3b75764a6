"""LeNet-5, the network that read cheques.

References:
    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "sigmoid": nn.sigmoid}


class LeNet5(nn.Module):
    """Two convolutions, each with pooling, then three dense layers."""

    classes: int
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh"
    """Activation of every hidden layer."""
    pool: Literal["avg", "max"] = "avg"
    """Pooling of 2x2 pixels after each convolution."""
    filters: tuple[int, int] = (6, 16)
    """Filters of the two convolutions."""
    dense: tuple[int, ...] = (120, 84)
    """Widths of the hidden dense layers."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, classes)."""
        activate = ACTIVATIONS[self.activation]
        pool = nn.avg_pool if self.pool == "avg" else nn.max_pool
        x = images
        for filters, padding in zip(self.filters, ("SAME", "VALID"), strict=True):
            x = activate(nn.Conv(filters, (5, 5), padding=padding, dtype=self.dtype)(x))
            x = pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(len(x), -1)
        for width in self.dense:
            x = activate(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.classes, dtype=self.dtype)(x)
