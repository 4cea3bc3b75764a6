"""The layer table: Keras's ``summary()``, with FLOPs and activation bytes.

All numbers are for one image. FLOPs are those of the forward pass through convolutions and dense layers; a multiply-add
counts as two. Activation bytes are the size of a layer's output in float32. The table is at most 80 columns wide: if
the numbers of a large network do not fit, the column of bytes is left out, then that of FLOPs; the totals below the
table still show them.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cnnjax.errors import InputError
from cnnjax.models.network import Layer, Network, Shape
from cnnjax.models.own_module import ModuleConfig, is_linen_module

if TYPE_CHECKING:
    import flax.linen as nn

WIDTH = 80


@dataclass(frozen=True)
class Summary:
    """The layers of a network and their totals; ``str()`` returns the table."""

    layers: tuple[Layer, ...]

    @property
    def trainable(self) -> int:
        """Number of parameters that the optimizer changes."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def non_trainable(self) -> int:
        """Number of running statistics of batch normalisation."""
        return sum(layer.non_trainable for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Number of trainable and non-trainable parameters."""
        return self.trainable + self.non_trainable

    @property
    def flops(self) -> int:
        """Floating-point operations of the forward pass of one image."""
        return sum(layer.flops for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all layer outputs for one image in float32."""
        return sum(layer.activation_bytes for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns the layers and the totals as JSON values."""
        totals = ("parameters", "trainable", "non_trainable", "flops", "activation_bytes")
        layers = [dataclasses.asdict(layer) for layer in self.layers]
        return {"layers": layers, **{name: getattr(self, name) for name in totals}}

    def __str__(self) -> str:
        rows = [_HEADINGS, *map(_table_row, self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        while _measure(widths) > WIDTH and len(widths) > 3:
            widths.pop()
        heading, *lines = (_align(row, widths) for row in rows)
        rule = "=" * _measure(widths)
        lines = [heading, rule, *lines, rule]
        lines += [
            f"Total params: {self.parameters:,} ({4 * self.parameters:,} bytes)",
            f"Trainable params: {self.trainable:,}",
            f"Non-trainable params: {self.non_trainable:,}",
            f"Forward FLOPs per image: {self.flops:,}",
            f"Activation bytes per image: {self.activation_bytes:,}",
        ]
        return "\n".join(lines)

    __repr__ = __str__


@runtime_checkable
class _HasNetwork(Protocol):
    """A configuration with a network, such as `RunConfig`."""

    @property
    def model(self) -> Network: ...

    @property
    def trial(self) -> object: ...


def summarize(
    config: "Network | _HasNetwork | nn.Module", input_shape: Shape = (28, 28, 1), classes: int | None = 10
) -> Summary:
    """Returns the layer table of a network, by arithmetic alone, without JAX.

    Args:
        config: the settings of a network or of a run, or a linen module.
        input_shape: ``(height, width, channels)`` of an image.
        classes: number of outputs of the classifier; ``None`` ends the table after the last convolution block.

    Returns:
        The summary; printing it shows the table.

    Raises:
        InputError: a window is larger than its input, or the run calls a trial function.

    Example:
        >>> from cnnjax import ModelConfig, summarize
        >>> summarize(ModelConfig(filters=(32,)), (28, 28, 1), classes=None).parameters
        832
        >>> summarize(ModelConfig(), (28, 28, 1), classes=None).parameters
        52096
        >>> summarize(ModelConfig(), (28, 28, 1)).parameters
        62346
    """
    found: Any = config
    if isinstance(config, _HasNetwork):
        if config.trial:
            raise InputError("config: calls a trial function, which has no network to summarize")
        found = config.model
    network: Network = ModuleConfig.from_module(found) if is_linen_module(found) else found
    return Summary(network.list_layers(input_shape, classes))


def _table_row(layer: Layer) -> tuple[str, ...]:
    shape = f"({', '.join(['None', *map(str, layer.output_shape)])})"
    costs = (layer.parameters, layer.flops, layer.activation_bytes)
    return (f"{layer.name} ({layer.kind})", shape, *(f"{cost:,}" for cost in costs))


def _measure(widths: list[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _align(row: tuple[str, ...], widths: list[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=False)]
    return _GAP.join([*left, *right]).rstrip()


_HEADINGS = ("Layer (type)", "Output Shape", "Param #", "FLOPs", "Bytes")
_GAP = "  "
