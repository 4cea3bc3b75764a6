"""The CNN: its settings, and the shapes, parameters and FLOPs of its layers, by arithmetic alone.

No JAX is needed, so thousands of networks can be sized in milliseconds, and a network that cannot exist is refused with
the name of the layer. The linen module (`cnnjax.models.module`) has the same layers under the same names; tests compare
the two.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from cnnjax.errors import InputError
from cnnjax.models.network import Layer, Shape
from cnnjax.settings import Settings
from cnnjax.settings.blocks import (
    Activations,
    GroupCounts,
    Groups,
    Paddings,
    Pair,
    Pixels,
    Pools,
    Sizes,
    collapse,
    dilate,
    expand,
    pad_pixels,
    read_activation,
    read_groups,
    read_padding,
    read_pool,
    read_window,
)
from cnnjax.settings.checking import Count, Fraction, plural

if TYPE_CHECKING:
    import flax.linen as nn
    import jax.numpy as jnp


@dataclass(frozen=True)
class Block:
    """All settings of one convolution block: convolution, optional normalisation, activation, pooling."""

    filters: int
    kernel_size: Pair
    strides: Pair
    padding: Literal["valid", "same"] | Pixels
    dilation: Pair
    groups: Groups
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
    aliases = MappingProxyType({"batch_norm": ("norm", {True: "batch", False: "none"})})
    later = ("dilation", "groups", "spatial_dropout", "norm", "residual", "global_pool", "initializer")

    filters: tuple[Count, ...] = (32, 64)
    """Filters of each convolution block; [] is a dense network on the pixels."""
    kernel_size: Sizes = 5
    """Window of the convolution: 5, or one entry per block such as [5, 3] or [[5, 3], [3, 3]]."""
    strides: Sizes = 1
    """Strides of the convolution, written as kernel_size is."""
    padding: Paddings = "valid"
    """valid, same, pixels on every side, or [[[top, bottom], [left, right]], ...] with one entry per block."""
    dilation: Sizes = 1
    """Distance of adjacent positions in the window of the convolution, written as kernel_size is."""
    groups: GroupCounts = 1
    """Groups of channels in the convolution, such as 4 or [1, 4]; depthwise is one per input channel."""
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
    spatial_dropout: Fraction = 0.0
    """Rate of dropout of whole feature maps after every block (Tompson et al., 2015)."""
    norm: Literal["none", "batch", "layer", "group", "instance"] = "none"
    """Normalisation before every hidden activation: none, batch, layer, group or instance."""
    batch_norm: bool | None = None
    """Another way to write norm=batch."""
    residual: bool = False
    """A shortcut around every convolution, added before the activation; needs padding same."""
    global_pool: Literal["none", "max", "avg"] = "none"
    """max or avg of each feature map in place of flattening, or none."""
    use_bias: bool = True
    """A bias in every convolution and dense layer."""
    initializer: Literal[
        "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal"
    ] = "glorot_uniform"
    """Initial kernels: glorot_uniform, glorot_normal, he_uniform, he_normal, lecun_uniform, lecun_normal or
    orthogonal."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_norm is not None:
            meaning = "batch" if self.batch_norm else "none"
            if self.norm not in ("none", "batch"):
                raise InputError(
                    f"model.batch_norm={self.batch_norm}: means norm={meaning}, but model.norm={self.norm!r}; "
                    "give only norm"
                )
            self._set("norm", meaning)
            self._set("batch_norm", None)
        blocks = self.blocks
        for name in _OF_BLOCKS:
            self._set(
                name, collapse([getattr(block, name) for block in blocks]) if blocks else getattr(type(self), name)
            )
        for name in () if blocks else _WITH_BLOCKS:
            self._set(name, getattr(type(self), name))
        if all(block.pool_strides == block.pool_size for block in blocks):
            self._set("pool_strides", None)
        activations: tuple[str, ...] = (*(block.activation for block in blocks), self.dense_activation)
        if not blocks and not self.dense:
            activations = ("relu",)
        if not blocks and (not self.dense or self.norm == "instance"):
            self._set("norm", "none")
        self._set("activation", collapse(activations) if len(set(activations)) == 1 else activations[:-1])

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The convolution blocks with all their settings; a block without pooling has the default pooling window."""

        def entries(name: str, read: Callable[[Any, str], Any]) -> tuple[Any, ...]:
            return expand(getattr(self, name), len(self.filters), read, f"model.{name}")

        pools = entries("pool", read_pool)
        pool_sizes = entries("pool_size", read_window)
        windows = entries("kernel_size", read_window)
        columns = (
            self.filters,
            windows,
            entries("strides", read_window),
            entries("padding", read_padding),
            _where_several(entries("dilation", read_window), windows),
            entries("groups", read_groups),
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
        """The settings, as they are part of the run key: those that came later only if they are not the defaults."""
        is_batch = self.norm == "batch"  # which keys know by its older name
        values = super().identity
        if is_batch:
            del values["norm"]
        return {"batch_norm": is_batch, **values}

    @property
    def references(self) -> tuple[str, ...]:
        """None, as the network is made of the library's code."""
        return ()

    def check_code(self) -> None:
        """Does nothing, as the network is made of the library's code."""

    def describe_code(self) -> dict[str, Any]:
        """Returns nothing, as the network is made of the library's code."""
        return {}

    def can_be_divided(self, image_shape: Shape, classes: int) -> bool:
        """Returns true: batch normalisation and dropout are made for it."""
        return True

    @property
    def couples_examples(self) -> bool:
        """Whether there is dropout or batch normalisation, which act on the whole batch."""
        return bool(self.dropout or self.spatial_dropout) or self.norm == "batch"

    def list_layers(self, image_shape: Shape, classes: int | None) -> tuple[Layer, ...]:
        """Returns the layers from the image to the classifier.

        Args:
            image_shape: (height, width, channels).
            classes: number of outputs of the classifier; ``None`` stops after the last convolution block.

        Raises:
            InputError: a window is larger than its input, channels or filters are no multiple of the groups, a
                shortcut does not fit (the message names the layer and the shapes), the network has more than `LARGEST`
                parameters or FLOPs, or `image_shape` or `classes` is not positive.

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
        """Returns the network to compile and the rates of dropout, which its program takes as data.

        In the network to compile, the rate of dropout is 0 or, if there is dropout, always the same number.
        """
        rates = {"dropout": self.dropout}
        if self.spatial_dropout:
            rates["spatial_dropout"] = self.spatial_dropout
        fixed = {name: 0.5 if rate else 0.0 for name, rate in rates.items()}
        return replace(self, **fixed), rates  # type: ignore[arg-type]

    def build(self, classes: int, dtype: "jnp.dtype", axis: str | None = None, observed: bool = False) -> "nn.Module":
        """Returns the linen module, `cnnjax.models.module.CNN`."""
        from cnnjax.models.module import CNN

        return CNN(self, classes, dtype, axis, dropout_is_data=True, fuses_pooling=not observed)


_OF_BLOCKS = ("kernel_size", "strides", "padding", "dilation", "groups", "pool", "pool_size", "pool_strides")
_WITH_BLOCKS = ("spatial_dropout", "residual", "global_pool")
"""Settings that a network without convolution blocks does not have."""


def _where_several(dilations: tuple[Pair, ...], windows: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Returns the dilations, without those of windows of one pixel."""
    return tuple(
        (down if height > 1 else 1, across if width > 1 else 1)
        for (down, across), (height, width) in zip(dilations, windows, strict=True)
    )


def _where_pooled(windows: tuple[Pair, ...], pools: tuple[str, ...]) -> tuple[Pair, ...]:
    """Returns the windows, with the default window for blocks without pooling."""
    return tuple(window if pool != "none" else (2, 2) for window, pool in zip(windows, pools, strict=True))


POOL_LAYERS = {"max": "MaxPool", "avg": "AvgPool"}
NORM_LAYERS = {"batch": "BatchNorm", "layer": "LayerNorm", "group": "GroupNorm", "instance": "InstanceNorm"}
"""Names of the layers of a kind, without their number."""
LARGEST = 2**63 - 1
"""Most parameters and most FLOPs of a network: SQLite, which stores them, has 64-bit integers."""


def _block_layers(config: ModelConfig, block: Block, index: int, shape: Shape) -> list[Layer]:
    height, width, channels = shape
    name, window = f"Conv_{index}", dilate(block.kernel_size, block.dilation)
    rows, columns = pad_pixels(block.padding, (height, width), window, block.strides)
    padded = (height + sum(rows), width + sum(columns), channels)
    output = (*_slide(name, shape, padded, window, block.strides), block.filters)
    groups = channels if block.groups == "depthwise" else block.groups
    if channels % groups or block.filters % groups:
        raise InputError(
            f"model: {name}: groups={block.groups}: its {channels} input {plural('channel', channels)} and its "
            f"{block.filters} {plural('filter', block.filters)} must be multiples of {groups}"
        )
    taps = math.prod(block.kernel_size) * channels // groups
    layers = [
        Layer(
            name,
            "Conv",
            output,
            trainable=(taps + config.use_bias) * block.filters,
            flops=2 * taps * math.prod(output),
        )
    ]
    if config.norm != "none":
        layers.append(_norm_layer(config.norm, index, output))
    if config.residual:
        layers += _shortcut_layers(block, index, shape, output)
    if block.pool != "none":
        kind = POOL_LAYERS[block.pool]
        name = f"{kind}_{index}"
        output = (*_slide(name, output, output, block.pool_size, block.pool_strides), block.filters)
        layers.append(Layer(name, kind, output))
    if config.spatial_dropout:
        layers.append(Layer(f"SpatialDropout_{index}", "SpatialDropout", output))
    return layers


def _shortcut_layers(block: Block, index: int, shape: Shape, output: Shape) -> list[Layer]:
    addition = Layer(f"Add_{index}", "Add", output)
    if shape == output:
        return [addition]
    rows, columns = (math.ceil(size / stride) for size, stride in zip(shape[:2], block.strides, strict=True))
    if output[:2] != (rows, columns):
        raise InputError(
            f"model: Conv_{index}: residual: its output is {output[0]}x{output[1]}, but that of its shortcut is "
            f"{rows}x{columns}; must be equal, as with padding same"
        )
    taps, flops = shape[-1] * block.filters, 2 * shape[-1] * math.prod(output)
    return [Layer(f"Shortcut_{index}", "Shortcut", output, trainable=taps, flops=flops), addition]


def _dense_layers(config: ModelConfig, shape: Shape, classes: int) -> list[Layer]:
    if config.global_pool == "none":
        layers = [Layer("Flatten", "Flatten", (math.prod(shape),))]
    else:
        kind = f"Global{POOL_LAYERS[config.global_pool]}"
        layers = [Layer(kind, kind, (shape[-1],))]
    (features,) = layers[0].output_shape
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
        if config.norm not in ("none", "instance") and index < len(config.dense):
            layers.append(_norm_layer(config.norm, len(config.blocks) + index, (width,)))
        features = width
    return layers


def _norm_layer(norm: str, index: int, shape: Shape) -> Layer:
    kind, parameters = NORM_LAYERS[norm], 2 * shape[-1]
    statistics = parameters if norm == "batch" else 0
    return Layer(f"{kind}_{index}", kind, shape, trainable=parameters, non_trainable=statistics)


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
