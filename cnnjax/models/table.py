"""The layer table: Keras's ``summary()``, with FLOPs and activation bytes.

All numbers are for one image. FLOPs are those of the forward pass through convolutions and dense layers; a multiply-add
counts as two. Activation bytes are the size of a layer's output in float32. The table is at most 80 columns wide: if
the numbers of a large network do not fit, the column of bytes is left out, then that of FLOPs; the totals below the
table still show them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from cnnjax.models.network import Layer

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
