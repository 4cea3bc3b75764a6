"""The residual network for images of 32x32 pixels; 20 layers by default.

References:
    He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, section 4.2.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp


class ResNet(nn.Module):
    """A convolution, three stages of residual blocks, the mean over all pixels, and the classifier."""

    classes: int
    depth: int = 20
    """Layers with weights: 6n + 2, for n blocks in each stage."""
    width: int = 16
    """Filters of the first stage; each later stage has twice as many, at half the resolution."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalisation after every convolution; group has groups of 8 channels."""
    residual: bool = True
    """Whether the input of a block is added to its output."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, classes)."""

        def convolve(x: jax.Array, filters: int, strides: int = 1) -> jax.Array:
            is_free = self.norm == "none"
            init = nn.initializers.he_normal()
            return nn.Conv(filters, (3, 3), strides, use_bias=is_free, kernel_init=init, dtype=self.dtype)(x)

        def normalize(x: jax.Array) -> jax.Array:
            if self.norm == "batch":
                return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x)
            return nn.GroupNorm(None, group_size=8, dtype=self.dtype)(x) if self.norm == "group" else x

        x = nn.relu(normalize(convolve(images, self.width)))
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                filters, strides = self.width * 2**stage, 2 if stage and not block else 1
                y = nn.relu(normalize(convolve(x, filters, strides)))
                y = normalize(convolve(y, filters))
                if self.residual:
                    # Where the shape changes, the shortcut has no parameters: every other pixel, and new channels of 0.
                    y += jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[3])))
                x = nn.relu(y)
        return nn.Dense(self.classes, dtype=self.dtype)(x.mean((1, 2)))
