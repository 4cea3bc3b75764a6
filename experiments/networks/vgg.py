"""A small VGG: blocks of 3x3 convolutions, each block twice as wide as the one before.

References:
    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class VGG(nn.Module):
    """Blocks of convolutions with batch normalisation, each with max-pooling, then one hidden dense layer."""

    classes: int
    blocks: tuple[int, ...] = (2, 2, 2)
    """Convolutions of each block."""
    width: int = 32
    """Filters of the first block."""
    batch_norm: bool = True
    """Batch normalisation before every activation."""
    dense: int = 128
    """Width of the hidden dense layer."""
    dropout: float = 0.0
    """Rate of dropout before each dense layer."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, classes)."""
        x = images
        for index, convolutions in enumerate(self.blocks):
            for _ in range(convolutions):
                x = nn.Conv(self.width * 2**index, (3, 3), use_bias=not self.batch_norm, dtype=self.dtype)(x)
                if self.batch_norm:
                    x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(len(x), -1))
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(nn.Dense(self.dense, dtype=self.dtype)(x)))
        return nn.Dense(self.classes, dtype=self.dtype)(x)
