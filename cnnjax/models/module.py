"""CNN: the Flax linen module that a `ModelConfig` describes.

Its parameter tree has the names, shapes and layout of one built from ``nn.Conv``, ``nn.Dense`` and ``nn.BatchNorm`` in
the same order, so weights move both ways; only the arithmetic inside the convolution is ours.
"""

import functools
import operator
from collections.abc import Callable

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.machine.devices import take_share
from cnnjax.models.blocks import Pair, Pixels
from cnnjax.models.cnn import POOL_LAYERS, Block, ModelConfig
from cnnjax.models.layers import average_pool, convolve, convolve_and_pool, max_pool
from cnnjax.models.network import OUTPUTS

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "linear": lambda x: x,
}
MONOTONE = frozenset({"relu", "leaky_relu", "elu", "tanh", "sigmoid", "linear"})
"""Activations that never fall, so that a maximum before them is the maximum after them."""
POOLS: dict[str, Callable[[jax.Array, Pair, Pair], jax.Array]] = {
    "max": max_pool,
    "avg": average_pool,
    "none": lambda images, window, strides: images,
}


class Conv(nn.Module):
    """A convolution with the parameters of ``nn.Conv``: ``kernel`` (height, width, channels, filters) and ``bias``.

    With a `pool`, a window of a max-pooling with the same strides, it gives the maxima alone.
    """

    filters: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: str | Pixels
    use_bias: bool
    dtype: jnp.dtype
    pool: Pair | None = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (height, width, batch, channels) to (rows, columns, batch, filters)."""
        shape = (*self.kernel_size, images.shape[-1], self.filters)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape, jnp.float32)
        operands = images.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding
        outputs = convolve_and_pool(*operands, self.pool) if self.pool else convolve(*operands)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.filters,), jnp.float32)
            outputs = outputs + bias.astype(self.dtype)
        return outputs


class Dropout(nn.Module):
    """Dropout as in ``nn.Dropout``, of a batch that may be divided among devices: each drops its share of the whole."""

    axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array | None) -> jax.Array:
        """Zeroes values (batch, features) with probability `rate`, and scales the others to the same mean.

        Args:
            x: float (batch, features).
            rate: in [0, 1); ``None``, outside training, leaves them as they are.
        """
        if rate is None:
            return x
        batch = len(x) if self.axis is None else len(x) * lax.axis_size(self.axis)
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, (batch, x.shape[1]))
        own = take_share(kept.T, self.axis).T
        return jnp.where(own, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


class CNN(nn.Module):
    """Convolution blocks, then hidden dense layers, then the classifier.

    Kernels start Glorot-uniform (Glorot and Bengio, 2010), biases at zero.

    Attributes:
        config: the network.
        classes: number of classes.
        dtype: arithmetic of the layers; parameters are float32.
        axis: of a mesh, along which the batch is divided in training.
        dropout_is_data: in a network with dropout, its rate comes with every call instead of from `config`.
        fuses_pooling: takes the maximum of a pooling inside the convolution before it where that gives the same, so
            that the maps between the two are never made.
    """

    config: ModelConfig
    classes: int
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None
    dropout_is_data: bool = False
    fuses_pooling: bool = True

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, dropout: float | jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits.

        Where the collection ``intermediates`` is mutable, sows the output of every layer as its entry `OUTPUTS`, by the
        name in the layer table: maps (batch, rows, columns, channels) and units (batch, features). An activation
        belongs to the layer before it, as in Keras.

        Args:
            images: (batch, height, width, channels), floats in [0, 1].
            train: dropout is on, which needs the ``dropout`` key, and batch normalisation uses and updates the
                statistics of the batch.
            dropout: the rate, float32 (), in [0, 1); where `dropout_is_data`, needed in training.

        Returns:
            float32 logits (batch, classes).
        """
        chex.assert_rank(images, 4)
        config = self.config
        dense = functools.partial(
            nn.Dense, use_bias=config.use_bias, kernel_init=nn.initializers.glorot_uniform(), dtype=self.dtype
        )

        norm: Callable[[], Callable[[jax.Array], jax.Array]] = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.99,
            epsilon=1e-3,
            dtype=self.dtype,
            axis_name=self.axis,
        )
        if train and config.dropout and self.dropout_is_data and dropout is None:
            raise TypeError("dropout: the rate of this network is data, and must be given in training")
        rate = config.dropout if dropout is None else dropout

        def drop(x: jax.Array) -> jax.Array:
            return Dropout(self.axis)(x, rate if train else None) if config.dropout else x

        def keep(name: str, x: jax.Array) -> jax.Array:
            if self.is_mutable_collection("intermediates"):
                output = x.transpose(2, 0, 1, 3) if x.ndim == 4 else x
                self.sow("intermediates", OUTPUTS, {name: output}, init_fn=dict[str, jax.Array], reduce_fn=operator.or_)
            return x

        def finish(name: str, index: int, activation: str, x: jax.Array) -> jax.Array:
            """Normalises and activates what the layer `name` gives, the `index`-th with parameters."""
            if config.batch_norm:
                keep(name, x)
                name, x = f"BatchNorm_{index}", norm()(x)
            return keep(name, ACTIVATIONS[activation](x))

        x = jnp.asarray(images, self.dtype).transpose(1, 2, 0, 3)
        for index, block in enumerate(config.blocks):
            conv = functools.partial(
                Conv, block.filters, block.kernel_size, block.strides, block.padding, config.use_bias, self.dtype
            )
            if self.fuses_pooling and pools_first(block, config.batch_norm):
                x = ACTIVATIONS[block.activation](conv(block.pool_size)(x))
            else:
                x = finish(f"Conv_{index}", index, block.activation, conv()(x))
                x = POOLS[block.pool](x, block.pool_size, block.pool_strides)
            if block.pool != "none":
                keep(f"{POOL_LAYERS[block.pool]}_{index}", x)
        x = x.transpose(2, 0, 1, 3).reshape(len(images), -1)
        for index, width in enumerate(config.dense):
            x = finish(f"Dense_{index}", len(config.blocks) + index, config.dense_activation, dense(width)(drop(x)))
        logits = keep(f"Dense_{len(config.dense)}", dense(self.classes)(drop(x)))
        return logits.astype(jnp.float32)


def pools_first(block: Block, batch_norm: bool) -> bool:
    """Whether a block gives the same if the maximum is taken right after the convolution, before bias and activation.

    Adding a number and a monotone activation keep the order, also rounded; batch normalisation may turn it around.
    """
    in_tiles = block.pool == "max" and block.pool_size == block.pool_strides
    return in_tiles and block.activation in MONOTONE and not batch_norm
