"""The networks of the benchmark, each described once: every library builds its own from the description."""

import itertools
from dataclasses import dataclass
from typing import Literal

from cnnjax.models.cnn import ModelConfig
from cnnjax.models.own_module import ModuleConfig

Padding = Literal["valid", "same"]
Pool = Literal["max", "avg", "none"]
Precision = Literal["float32", "bfloat16"]
Shape = tuple[int, int, int]
CLASSES = 10
GREY: Shape = (28, 28, 1)
COLOUR: Shape = (32, 32, 3)


@dataclass(frozen=True)
class Block:
    """A convolution, batch normalisation, a shortcut, ReLU and pooling; all but the convolution and ReLU are optional.

    Attributes:
        filters: number of filters.
        window: height and width of the window.
        strides: strides down and across.
        padding: padding of the convolution.
        is_depthwise: whether each filter sees one channel alone.
        norm: whether there is batch normalisation.
        bias: whether the convolution has a bias.
        pool: pooling of 2x2 pixels.
        shortcut: number of blocks, with this one, around which a shortcut leads: the input of the first of them is
            added before the ReLU of this one. If its shape differs, it is every other pixel, with new channels of 0.
            0 for no shortcut.
    """

    filters: int
    window: int = 3
    strides: int = 1
    padding: Padding = "same"
    is_depthwise: bool = False
    norm: bool = False
    bias: bool = True
    pool: Pool = "none"
    shortcut: int = 0


@dataclass(frozen=True)
class Network:
    """Convolution blocks, hidden dense layers with ReLU, and a dense layer of ten outputs.

    Attributes:
        name: name in the tables.
        image_shape: (height, width, channels) of the images.
        blocks: the convolution blocks.
        dense: widths of the hidden dense layers.
        averages: whether the mean over all pixels comes before the dense layers, in place of flattening.
        module: import path of the same network as a Flax module, which cnnjax then trains instead of its own CNN.
    """

    name: str
    image_shape: Shape
    blocks: tuple[Block, ...]
    dense: tuple[int, ...] = ()
    averages: bool = False
    module: str = ""

    def make_config(self) -> ModelConfig | ModuleConfig:
        """Returns the settings with which cnnjax trains it.

        Example:
            >>> TEXTBOOK.make_config() == ModelConfig()
            True
        """
        if self.module:
            return ModuleConfig.from_dict({"module": self.module})
        return ModelConfig(
            filters=tuple(block.filters for block in self.blocks),
            kernel_size=tuple(block.window for block in self.blocks),
            strides=tuple(block.strides for block in self.blocks),
            padding=tuple(block.padding for block in self.blocks),
            norm="batch" if any(block.norm for block in self.blocks) else "none",
            pool=tuple(block.pool for block in self.blocks),
            dense=self.dense,
            global_pool="avg" if self.averages else "none",
        )

    def count_flops(self) -> int:
        """Returns the floating-point operations of an image, forward and backward.

        The backward pass computes two gradients per layer, for its kernel and for its input; the images need none.
        """
        flops = [layer.flops for layer in self.make_config().list_layers(self.image_shape, CLASSES) if layer.flops]
        return 3 * sum(flops) - flops[0]


def _list_separable() -> tuple[Block, ...]:
    """Returns the blocks of `experiments.networks.separable.Separable` at its defaults."""
    blocks = [Block(32, norm=True, bias=False)]
    for strides in (1, 2, 1, 2):
        channels = blocks[-1].filters
        blocks.append(Block(channels, strides=strides, is_depthwise=True, norm=True, bias=False))
        blocks.append(Block(channels * strides, window=1, norm=True, bias=False))
    return tuple(blocks)


def _list_residual() -> tuple[Block, ...]:
    """Returns the blocks of `experiments.networks.resnet.ResNet` at its defaults: ResNet-20."""
    blocks = [Block(16, norm=True, bias=False)]
    for filters, block in itertools.product((16, 32, 64), range(3)):
        strides = 2 if filters > 16 and not block else 1
        blocks.append(Block(filters, strides=strides, norm=True, bias=False))
        blocks.append(Block(filters, norm=True, bias=False, shortcut=2))
    return tuple(blocks)


def _make_textbook(
    name: str, filters: tuple[int, ...] = (32, 64), window: int = 5, padding: Padding = "valid"
) -> Network:
    blocks = tuple(Block(each, window, padding=padding, pool="max") for each in filters)
    return Network(name, GREY, blocks)


TEXTBOOK = _make_textbook("textbook")
NETWORKS = {
    network.name: network
    for network in (
        TEXTBOOK,
        Network(
            "tutorial",
            COLOUR,
            (
                Block(32, padding="valid", pool="max"),
                Block(64, padding="valid", pool="max"),
                Block(64, padding="valid"),
            ),
            dense=(64,),
        ),
        Network(
            "vgg",
            COLOUR,
            tuple(Block(filters, norm=True, pool=pool) for filters in (64, 128) for pool in ("none", "max")),
        ),
        _make_textbook("wide", (64, 128), padding="same"),
        Network("strided", COLOUR, tuple(Block(filters, strides=2) for filters in (64, 128, 256))),
        Network(
            "average", GREY, tuple(Block(filters, padding="valid", pool="avg") for filters in (32, 64)), dense=(128,)
        ),
        Network(
            "separable", COLOUR, _list_separable(), averages=True, module="experiments.networks.separable:Separable"
        ),
        Network("resnet20", COLOUR, _list_residual(), averages=True, module="experiments.networks.resnet:ResNet"),
    )
}
"""The networks of the benchmark, by name."""

FILTERS, WINDOWS = ((16, 32), (32, 64), (64, 128)), (3, 5)
PADDINGS: tuple[Padding, ...] = ("valid", "same")
GRID = {
    network.name: network
    for network in (
        _make_textbook(f"{filters}, {window}, {padding}", filters, window, padding)
        for filters, window, padding in itertools.product(FILTERS, WINDOWS, PADDINGS)
    )
}
"""The twelve networks of the grid, by name: the textbook network with other filters, windows and padding."""
