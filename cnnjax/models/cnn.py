"""The CNN: its settings, and the shapes, parameters and FLOPs of its layers, by arithmetic alone.

No JAX is needed, so thousands of networks can be sized in milliseconds, and a network that cannot exist is refused with
the name of the layer. The linen module (`cnnjax.models.module`) has the same layers under the same names; tests compare
the two.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from cnnjax.errors import InputError
from cnnjax.models.blocks import (
    Activations,
    Paddings,
    Pair,
    Pixels,
    Pools,
    Sizes,
    collapse,
    expand,
    pad_pixels,
    read_activation,
    read_padding,
    read_pool,
    read_window,
)
from cnnjax.models.network import Layer, Shape
from cnnjax.settings import Settings
from cnnjax.settings.checking import Count, Fraction

if TYPE_CHECKING:
    import flax.linen as nn
    import jax.numpy as jnp


@dataclass(frozen=True)
class Block:
    """All settings of one convolution block: convolution, optional batch normalisation, activation, pooling."""

    filters: int
    kernel_size: Pair
    strides: Pair
    padding: Literal["valid", "same"] | Pixels
    activation: str
    pool: str
    pool_size: Pair
    pool_strides: Pair


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The network: convolution blocks, then hidden dense layers, then the classifier.

    A setting of the blocks is one value for all of them, or a list with one entry per block.

    Raises:
        InputError: a value is not legal, or a list has not one entry per block.

    Example:
        >>> config = ModelConfig(filters=(8, 16), kernel_size=(5, 3))
        >>> [block.kernel_size for block in config.blocks]
        [(5, 5), (3, 3)]
        >>> ModelConfig(padding=0) == ModelConfig(padding="valid")
        True
    """

    section = "model"

    filters: tuple[Count, ...] = (32, 64)
    """Filters of each convolution block; [] is a dense network on the pixels."""
    kernel_size: Sizes = 5
    """Window of the convolution: 5, or one entry per block such as [5, 3] or [[5, 3], [3, 3]]."""
    strides: Sizes = 1
    """Strides of the convolution, written as kernel_size is."""
    padding: Paddings = "valid"
    """valid, same, pixels on every side, or [[[top, bottom], [left, right]], ...] with one entry per block."""
    activation: Activations = "relu"
    """relu, leaky_relu, elu, gelu, silu, tanh, sigmoid or linear; hidden dense layers take the last block's."""
    pool: Pools = "max"
    """max, avg or none, after the activation."""
    pool_size: Sizes = 2
    """Window of the pooling, written as kernel_size is."""
    pool_strides: Sizes | None = None
    """Strides of the pooling; left out, they equal pool_size."""
    dense: tuple[Count, ...] = ()
    """Widths of the hidden dense layers."""
    dropout: Fraction = 0.0
    """Rate of dropout before every dense layer."""
    batch_norm: bool = False
    """Batch normalisation before every hidden activation (momentum 0.99, epsilon 0.001)."""
    use_bias: bool = True
    """A bias in every convolution and dense layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = self.blocks
        for name in ("kernel_size", "strides", "padding", "pool", "pool_size", "pool_strides"):
            self._set(
                name, collapse([getattr(block, name) for block in blocks]) if blocks else getattr(type(self), name)
            )
        if all(block.pool_strides == block.pool_size for block in blocks):
            self._set("pool_strides", None)
        activations: tuple[str, ...] = (*(block.activation for block in blocks), self.dense_activation)
        if not blocks and not self.dense:
            activations = ("relu",)
            self._set("batch_norm", False)
        self._set("activation", collapse(activations) if len(set(activations)) == 1 else activations[:-1])

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The convolution blocks with all their settings; a block without pooling has the default pooling window."""

        def entries(name: str, read: Callable[[Any, str], Any]) -> tuple[Any, ...]:
            return expand(getattr(self, name), len(self.filters), read, f"model.{name}")

        pools = entries("pool", read_pool)
        pool_sizes = entries("pool_size", read_window)
        columns = (
            self.filters,
            entries("kernel_size", read_window),
            entries("strides", read_window),
            entries("padding", read_padding),
            entries("activation", read_activation),
            pools,
            _where_pooled(pool_sizes, pools),
            _where_pooled(pool_sizes if self.pool_strides is None else entries("pool_strides", read_window), pools),
        )
        return tuple(Block(*settings) for settings in zip(*columns, strict=True))

    @property
    def dense_activation(self) -> str:
        """The activation of the hidden dense layers: that of the last block, or `activation` if there are no blocks."""
        if self.blocks:
            return self.blocks[-1].activation
        return read_activation(self.activation, "model.activation")

    @classmethod
    def read_alone(cls, name: str, value: Any) -> Any:
        """Returns the normal form of a value of the field `name`, of which a list may have any number of entries."""
        value = super().read_alone(name, value)
        is_per_block = isinstance(value, tuple) and name not in ("filters", "dense")
        return collapse(value) if is_per_block else value

    @property
    def identity(self) -> dict[str, Any]:
        """The settings, as they are part of the run key."""
        return self.to_dict()

    def check_code(self) -> None:
        """Does nothing, as the network is made of the library's code."""

    def describe_code(self) -> None:
        """Returns ``None``, as the network is made of the library's code."""

    @property
    def can_be_divided(self) -> bool:
        """Always true."""
        return True

    @property
    def couples_examples(self) -> bool:
        """Whether there is dropout or batch normalisation, which act on the whole batch."""
        return bool(self.dropout) or self.batch_norm

    def list_layers(self, image_shape: Shape, classes: int | None) -> tuple[Layer, ...]:
        """Returns the layers from the image to the classifier.

        Args:
            image_shape: (height, width, channels).
            classes: number of outputs of the classifier; ``None`` stops after the last convolution block.

        Raises:
            InputError: a window is larger than its input (the message names the layer and the shapes), the network has
                more than `LARGEST` parameters or FLOPs, or `image_shape` or `classes` is not positive.

        Example:
            >>> [layer.name for layer in ModelConfig(filters=(8,)).list_layers((28, 28, 1), classes=10)]
            ['Conv_0', 'MaxPool_0', 'Flatten', 'Dense_0']
        """
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise InputError(f"input_shape={image_shape}: must be (height, width, channels), each >= 1")
        if classes is not None and classes < 1:
            raise InputError(f"classes={classes}: must be >= 1")
        layers: list[Layer] = []
        shape: Shape = image_shape
        for index, block in enumerate(self.blocks):
            layers += _block_layers(self, block, index, shape)
            shape = layers[-1].output_shape
        if classes is not None:
            layers += _dense_layers(self, shape, classes)
        _check_size(layers)
        return tuple(layers)

    def split(self) -> tuple["ModelConfig", dict[str, float]]:
        """Returns the network to compile and the rate of dropout, which its program takes as data.

        In the network to compile, the rate of dropout is 0 or, if there is dropout, always the same number.
        """
        return replace(self, dropout=0.5 if self.dropout else 0.0), {"dropout": self.dropout}

    def build(self, classes: int, dtype: "jnp.dtype", axis: str | None = None, observed: bool = False) -> "nn.Module":
        """Returns the linen module, `cnnjax.models.module.CNN`."""
        from cnnjax.models.module import CNN

        return CNN(self, classes, dtype, axis, dropout_is_data=True, fuses_pooling=not observed)


def _where_pooled(windows: tuple[Pair, ...], pools: tuple[str, ...]) -> tuple[Pair, ...]:
    """Returns the windows, with the default window for blocks without pooling."""
    return tuple(window if pool != "none" else (2, 2) for window, pool in zip(windows, pools, strict=True))


POOL_LAYERS = {"max": "MaxPool", "avg": "AvgPool"}
"""Names of the pooling layers, without their number."""
LARGEST = 2**63 - 1
"""Most parameters and most FLOPs of a network: SQLite, which stores them, has 64-bit integers."""


def _block_layers(config: ModelConfig, block: Block, index: int, shape: Shape) -> list[Layer]:
    height, width, channels = shape
    rows, columns = pad_pixels(block.padding, (height, width), block.kernel_size, block.strides)
    padded = (height + sum(rows), width + sum(columns), channels)
    name = f"Conv_{index}"
    output = (*_slide(name, shape, padded, block.kernel_size, block.strides), block.filters)
    taps = math.prod(block.kernel_size) * channels
    layers = [
        Layer(
            name,
            "Conv",
            output,
            trainable=(taps + config.use_bias) * block.filters,
            flops=2 * taps * math.prod(output),
        )
    ]
    if config.batch_norm:
        layers.append(_batch_norm(index, output))
    if block.pool != "none":
        kind = POOL_LAYERS[block.pool]
        name = f"{kind}_{index}"
        pooled = (*_slide(name, output, output, block.pool_size, block.pool_strides), block.filters)
        layers.append(Layer(name, kind, pooled))
    return layers


def _dense_layers(config: ModelConfig, shape: Shape, classes: int) -> list[Layer]:
    features = math.prod(shape)
    layers = [Layer("Flatten", "Flatten", (features,))]
    for index, width in enumerate((*config.dense, classes)):
        if config.dropout:
            layers.append(Layer(f"Dropout_{index}", "Dropout", (features,)))
        layers.append(
            Layer(
                f"Dense_{index}",
                "Dense",
                (width,),
                trainable=(features + config.use_bias) * width,
                flops=2 * features * width,
            )
        )
        if config.batch_norm and index < len(config.dense):
            layers.append(_batch_norm(len(config.blocks) + index, (width,)))
        features = width
    return layers


def _batch_norm(index: int, shape: Shape) -> Layer:
    return Layer(f"BatchNorm_{index}", "BatchNorm", shape, trainable=2 * shape[-1], non_trainable=2 * shape[-1])


def _check_size(layers: list[Layer]) -> None:
    for what in ("parameters", "flops"):
        total = sum(getattr(layer, what) for layer in layers)
        if total > LARGEST:
            raise InputError(f"model: the network has {total:.2e} {what}; must be < 2**63")


def _slide(name: str, shape: Shape, padded: Shape, window: Pair, strides: Pair) -> Pair:
    """Returns the numbers of rows and columns of outputs of a sliding window; `padded` is `shape` with its padding."""
    if window[0] > padded[0] or window[1] > padded[1]:
        with_padding = "" if padded == shape else f", {padded[0]}x{padded[1]} with its padding"
        raise InputError(
            f"model: {name}: its {window[0]}x{window[1]} window is larger than its {shape[0]}x{shape[1]} input "
            f"(shape {shape}{with_padding})"
        )
    rows, columns = ((p - w) // s + 1 for p, w, s in zip(padded[:2], window, strides, strict=True))
    return (rows, columns)
