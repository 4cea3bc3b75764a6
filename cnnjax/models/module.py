"""CNN: the Flax linen module that a `ModelConfig` describes.

Its parameter tree has the names, shapes and layout of a module built from ``nn.Conv``, ``nn.Dense`` and Flax's
normalisations in the same order, so weights can be exchanged between the two. Only the algorithms of convolution,
pooling and batch normalisation differ from Flax's.
"""

import functools
import math
import operator
from collections.abc import Callable

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.layers import custom_calls
from cnnjax.layers.custom_calls import Window
from cnnjax.layers.flax_modules import replace_batch_norm
from cnnjax.layers.general import MOST_TILED, is_faster_in_jax, is_faster_tiled
from cnnjax.layers.layouts import BATCH_FIRST, BATCH_INSIDE, Layout
from cnnjax.layers.normalization import add_bias
from cnnjax.machine.devices import take_share
from cnnjax.models.cnn import NORM_LAYERS, POOL_LAYERS, Block, ModelConfig
from cnnjax.models.network import OUTPUTS, Shape
from cnnjax.settings.blocks import Groups, Pair, Pixels, dilate, pad_pixels

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
"""Activations that never decrease, so that max-pooling before them gives the same as after them."""


class Conv(nn.Module):
    """A convolution with the parameters of ``nn.Conv``.

    They are ``kernel`` (height, width, channels / groups, filters) and ``bias`` (filters,), float32.

    Attributes:
        filters: number of filters.
        kernel_size: window (height, width).
        strides: strides (height, width).
        padding: ``valid``, ``same``, or pixels ((top, bottom), (left, right)).
        use_bias: whether there is a bias.
        dtype: dtype of the arithmetic and the output.
        initializer: name of the initializer of the kernel in ``nn.initializers``.
        dilation: distances of adjacent positions in the window, down and across.
        groups: number of groups of channels, or ``depthwise``.
        pool: window of a max-pooling with equal strides, which is applied before the bias; ``None`` for no pooling.
        layout: the order of the axes.
    """

    filters: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    padding: str | Pixels
    use_bias: bool
    dtype: jnp.dtype
    initializer: str
    dilation: Pair = (1, 1)
    groups: Groups = 1
    pool: Pair | None = None
    layout: Layout = BATCH_INSIDE

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images to feature maps, both in the layout of the network."""
        channels = images.shape[-1]
        groups = channels if self.groups == "depthwise" else self.groups
        shape = (*self.kernel_size, channels // groups, self.filters)
        kernel = self.param("kernel", getattr(nn.initializers, self.initializer)(), shape, jnp.float32)
        operands = images.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding
        convolve = self.layout.convolve
        if self.pool:
            convolve = functools.partial(self.layout.convolve_and_pool, window=self.pool)
        outputs = convolve(*operands, dilation=self.dilation, groups=groups)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.filters,), jnp.float32)
            outputs = add_bias(outputs, bias.astype(self.dtype))
        return outputs


class Dropout(nn.Module):
    """Dropout as in ``nn.Dropout``, and of whole feature maps, also for a batch that is divided among devices.

    The mask is drawn for the whole batch, and each device takes its share, so the number of devices does not change it.

    Attributes:
        axis: name of the mesh axis along which the batch is divided; ``None`` for one device.
        batch: position of the batch among the axes of what is dropped.
    """

    axis: str | None
    batch: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array | None) -> jax.Array:
        """Sets each feature or feature map to zero with probability `rate`, and divides the others by ``1 - rate``.

        Args:
            x: float (batch, features), or feature maps; on several devices, the share of this one.
            rate: in [0, 1); ``None``, outside training, returns `x` as it is.
        """
        if rate is None:
            return x
        batch = x.shape[self.batch] * (1 if self.axis is None else lax.axis_size(self.axis))
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, (batch, x.shape[-1]))
        own = jnp.expand_dims(take_share(kept.T, self.axis).T, range(self.batch + 1, x.ndim - 1))
        return jnp.where(own, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


class CNN(nn.Module):
    """Convolution blocks, then hidden dense layers, then the classifier.

    Biases start at zero; by default, kernels start Glorot-uniform (Glorot and Bengio, 2010).

    Attributes:
        config: the settings of the network.
        classes: number of classes.
        dtype: dtype of the arithmetic of the layers; parameters are float32.
        axis: name of the mesh axis along which the batch is divided in training; ``None`` for one device.
        dropout_is_data: whether the rates of dropout are passed with every call in training, instead of taken from
            `config`.
        fuses_pooling: whether max-pooling is done inside the convolution before it where the result is the same. The
            feature maps between the two are then never stored.

    Example:
        >>> module = CNN(ModelConfig(filters=(4,)), classes=10)
        >>> images = jnp.zeros((2, 28, 28, 1))
        >>> variables = module.init(jax.random.key(0), images)
        >>> variables["params"]["Conv_0"]["kernel"].shape
        (5, 5, 1, 4)
        >>> module.apply(variables, images).shape
        (2, 10)
    """

    config: ModelConfig
    classes: int
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    axis: str | None = None
    dropout_is_data: bool = False
    fuses_pooling: bool = True

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        dropout: float | jax.Array | None = None,
        spatial_dropout: float | jax.Array | None = None,
    ) -> jax.Array:
        """Returns the logits.

        If the collection ``intermediates`` is mutable, the output of every layer is sown in its entry `OUTPUTS`, under
        the layer's name in the layer table: feature maps (batch, rows, columns, channels) and dense units (batch,
        features). As in Keras, the output of a layer includes its activation.

        Args:
            images: (batch, height, width, channels), floats in [0, 1].
            train: whether dropout is applied, which needs a random key for ``dropout``, and batch normalisation uses
                the statistics of the batch and updates the running ones.
            dropout, spatial_dropout: the rates of dropout, float32 (), in [0, 1); those that the network has must be
                given in training if `dropout_is_data`.

        Returns:
            The logits, float32 (batch, classes).

        Raises:
            TypeError: `dropout_is_data`, and the network has dropout, but its rate is not given in training.
        """
        chex.assert_rank(images, 4)
        rates = {"dropout": dropout, "spatial_dropout": spatial_dropout}
        lacking = [name for name, rate in rates.items() if getattr(self.config, name) and rate is None]
        if train and self.dropout_is_data and lacking:
            raise TypeError(f"{lacking[0]}: the rate of this network is data, and must be given in training")
        for name, given in rates.items():
            own = getattr(self.config, name)
            rates[name] = None if not train or not own else own if given is None else given
        layout = choose_layout(self.config, images.shape[1:], self.dtype)
        x = layout.take(jnp.asarray(images, self.dtype))
        for index, block in enumerate(self.config.blocks):
            x = self._apply_block(index, block, x, train, rates["spatial_dropout"], layout)
        return self._apply_head(x, train, rates["dropout"], layout).astype(jnp.float32)

    def _apply_block(
        self, index: int, block: Block, x: jax.Array, train: bool, rate: float | jax.Array | None, layout: Layout
    ) -> jax.Array:
        """Applies a convolution with all that follows it, up to the dropout of feature maps at this rate."""
        config = self.config
        layer = functools.partial(
            Conv,
            block.filters,
            strides=block.strides,
            dtype=self.dtype,
            initializer=config.initializer,
            layout=layout,
        )
        conv = functools.partial(
            layer,
            kernel_size=block.kernel_size,
            padding=block.padding,
            use_bias=config.use_bias,
            dilation=block.dilation,
            groups=block.groups,
        )
        if self.fuses_pooling and pools_first(config, block):
            x = ACTIVATIONS[block.activation](conv(pool=block.pool_size)(x))
        else:
            outputs, shortcut = conv()(x), None
            if config.residual:
                name = f"Shortcut_{index}"
                project = layer(kernel_size=(1, 1), padding="valid", use_bias=False, name=name)
                shortcut = x if x.shape == outputs.shape else self._keep(name, project(x), layout)
            x = self._finish(f"Conv_{index}", index, block.activation, outputs, train, layout, shortcut)
            x = layout.pool(x, block.pool, block.pool_size, block.pool_strides)
        if block.pool != "none":
            self._keep(f"{POOL_LAYERS[block.pool]}_{index}", x, layout)
        if not config.spatial_dropout:
            return x
        return Dropout(self.axis, layout.batch, name=f"SpatialDropout_{index}")(x, rate)

    def _apply_head(self, x: jax.Array, train: bool, rate: float | jax.Array | None, layout: Layout) -> jax.Array:
        """Returns the logits of the feature maps of the last block, with dropout at this rate before dense layers."""
        config = self.config
        initial = getattr(nn.initializers, config.initializer)()
        dense = functools.partial(nn.Dense, use_bias=config.use_bias, kernel_init=initial, dtype=self.dtype)

        def drop(x: jax.Array) -> jax.Array:
            return Dropout(self.axis)(x, rate) if config.dropout else x

        if config.global_pool == "none":
            x = layout.give(x).reshape(x.shape[layout.batch], -1)
        else:
            spatial = (layout.rows, layout.rows + 1)
            x = x.max(spatial) if config.global_pool == "max" else x.mean(spatial)
            self._keep(f"Global{POOL_LAYERS[config.global_pool]}", x)
        for index, width in enumerate(config.dense):
            hidden = dense(width)(drop(x))
            x = self._finish(
                f"Dense_{index}", len(config.blocks) + index, config.dense_activation, hidden, train, layout
            )
        return self._keep(f"Dense_{len(config.dense)}", dense(self.classes)(drop(x)))

    def _finish(
        self,
        name: str,
        index: int,
        activation: str,
        x: jax.Array,
        train: bool,
        layout: Layout,
        shortcut: jax.Array | None = None,
    ) -> jax.Array:
        """Applies normalisation `index`, the shortcut and the activation to the output of the layer `name`."""
        norm = self.config.norm
        if norm != "none" and (x.ndim == 4 or norm != "instance"):
            self._keep(name, x, layout)
            name = f"{NORM_LAYERS[norm]}_{index}"
            activates = norm == "batch" and activation == "relu" and shortcut is None
            x = self._normalize(name, x, train, layout, activates)
            activation = "linear" if activates else activation
        if shortcut is not None:
            self._keep(name, x, layout)
            name, x = f"Add_{index}", lax.add(x, shortcut)
        return self._keep(name, ACTIVATIONS[activation](x), layout)

    def _normalize(self, name: str, x: jax.Array, train: bool, layout: Layout, relu: bool) -> jax.Array:
        """Applies the normalisation, and a ReLU if asked to."""
        channels = x.shape[-1]
        own = tuple(axis for axis in range(x.ndim) if axis != (layout.batch if x.ndim == 4 else 0))  # of one image
        # 32 groups (Wu and He, 2018), fewer where a group would be one channel, which is instance normalisation.
        groups = {"layer": 1, "group": max(math.gcd(64, channels) // 2, 1), "instance": channels}
        norm: Callable[..., Callable[[jax.Array], jax.Array]] = (
            functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.99, axis_name=self.axis)
            if self.config.norm == "batch"
            else functools.partial(nn.GroupNorm, groups[self.config.norm], reduction_axes=own)
        )
        with nn.intercept_methods(functools.partial(replace_batch_norm, relu=relu)):
            return norm(epsilon=1e-3, dtype=self.dtype, name=name)(x)

    def _keep(self, name: str, x: jax.Array, layout: Layout = BATCH_FIRST) -> jax.Array:
        """Sows the output of the layer `name`, if it is asked for, and returns it."""
        if self.is_mutable_collection("intermediates"):
            output = layout.give(x) if x.ndim == 4 else x
            self.sow("intermediates", OUTPUTS, {name: output}, init_fn=dict[str, jax.Array], reduce_fn=operator.or_)
        return x


def choose_layout(config: ModelConfig, image_shape: Shape, dtype: jnp.dtype) -> Layout:
    """Returns the order of axes in which a network is faster: the batch first if oneDNN suits a quarter of its FLOPs.

    With the batch first, tiles and patches still compute what suits them, for the price of changes of the order.

    Args:
        config: the settings of the network.
        image_shape: (height, width, channels).
        dtype: dtype of the arithmetic.
    """
    return _find_layout(config, image_shape, dtype) if custom_calls.are_available() else BATCH_INSIDE


@functools.lru_cache(maxsize=64)
def _find_layout(config: ModelConfig, image_shape: Shape, dtype: jnp.dtype) -> Layout:
    blocks, shape, suited = iter(config.blocks), image_shape, {True: 0, False: 0}
    for layer in config.list_layers(image_shape, None):
        if layer.kind == "Conv":
            block = next(blocks)
            groups = shape[-1] if block.groups == "depthwise" else block.groups
            padding = pad_pixels(
                block.padding, (shape[0], shape[1]), dilate(block.kernel_size, block.dilation), block.strides
            )
            images = jax.ShapeDtypeStruct((1, *shape), dtype)
            kernel = jax.ShapeDtypeStruct((*block.kernel_size, shape[-1] // groups, block.filters), dtype)
            window = Window(block.strides, padding, block.dilation, groups)
            is_in_jax = is_faster_in_jax(images, kernel, window)
            is_small = dtype == jnp.float32 and layer.activation_bytes <= MOST_TILED
            is_pooled_tile = is_small and pools_first(config, block) and block.strides == (1, 1)
            is_pooled_tile &= not is_faster_tiled(images, kernel, window)
            suited[is_in_jax or is_pooled_tile] += layer.flops
        shape = layer.output_shape
    return BATCH_FIRST if suited[False] > sum(suited.values()) / 4 else BATCH_INSIDE


def pools_first(config: ModelConfig, block: Block) -> bool:
    """Whether a block gives the same result if its max-pooling comes right after the convolution.

    Adding a bias and applying a monotone activation keep the order of values, also when rounded. A normalisation
    reverses it if its scale is negative, and a shortcut changes it. The windows of the pooling must not overlap.
    """
    is_disjoint = block.pool == "max" and block.pool_size == block.pool_strides
    return is_disjoint and block.activation in MONOTONE and config.norm == "none" and not config.residual
