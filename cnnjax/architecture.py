"""The layers that a configuration makes of an image: names, shapes, parameters and FLOPs, by arithmetic alone.

The formulas are closed forms, so thousands of networks can be sized, and impossible ones refused by name, in
milliseconds and without JAX. The linen module has the same layers under the same names; tests hold the two together.
"""

import math
from dataclasses import dataclass

from cnnjax.blocks import Pair, Pixels
from cnnjax.config import Block, ModelConfig
from cnnjax.errors import InputError

Shape = tuple[int, ...]
POOL_LAYERS = {"max": "MaxPool", "avg": "AvgPool"}
"""What a pooling layer is called, without its number."""
LARGEST = 2**63 - 1
"""Parameters or FLOPs that a store can hold."""


@dataclass(frozen=True)
class Layer:
    """One layer: its name in the parameter tree, its shapes for one image, and what it costs."""

    name: str
    kind: str
    output_shape: Shape
    trainable: int = 0
    non_trainable: int = 0
    flops: int = 0

    @property
    def parameters(self) -> int:
        """Trainable and non-trainable parameters."""
        return self.trainable + self.non_trainable

    @property
    def activation_bytes(self) -> int:
        """Bytes of the output for one image in float32."""
        return 4 * math.prod(self.output_shape)


def list_layers(config: ModelConfig, input_shape: Shape, classes: int | None) -> tuple[Layer, ...]:
    """Returns the layers from the image to the classifier.

    Args:
        config: the network.
        input_shape: ``(height, width, channels)`` of an image.
        classes: outputs of the classifier; ``None`` stops after the last convolution block.

    Raises:
        InputError: a window is larger than its input, by the name of the layer and the shapes; the network is larger
            than any; or `input_shape` or `classes` is not positive.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise InputError(f"input_shape={input_shape}: must be (height, width, channels), each >= 1")
    if classes is not None and classes < 1:
        raise InputError(f"classes={classes}: must be >= 1")
    layers: list[Layer] = []
    shape: Shape = input_shape
    for index, block in enumerate(config.blocks):
        layers += _block_layers(config, block, index, shape)
        shape = layers[-1].output_shape
    if classes is not None:
        layers += _dense_layers(config, shape, classes)
    _check_size(layers)
    return tuple(layers)


def pad_pixels(padding: str | Pixels, size: Pair, window: Pair, strides: Pair) -> Pixels:
    """Returns ``((top, bottom), (left, right))``, the zeros put around an image of `size` before the window slides.

    ``same`` gives ``ceil(size / stride)`` outputs, the odd pixel going to the bottom and right (TensorFlow's rule).
    """
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding == "same":
        rows, columns = (_same_pixels(s, w, t) for s, w, t in zip(size, window, strides, strict=True))
        return (rows, columns)
    assert not isinstance(padding, str)
    return padding


def _same_pixels(size: int, window: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
    return (total // 2, total - total // 2)


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
    if window[0] > padded[0] or window[1] > padded[1]:
        with_padding = "" if padded == shape else f", {padded[0]}x{padded[1]} with its padding"
        raise InputError(
            f"model: {name}: its {window[0]}x{window[1]} window is larger than its {shape[0]}x{shape[1]} input "
            f"(shape {shape}{with_padding})"
        )
    rows, columns = ((p - w) // s + 1 for p, w, s in zip(padded[:2], window, strides, strict=True))
    return (rows, columns)
