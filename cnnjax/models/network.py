"""What the library needs of a network, on one page.

Training, evaluation, prediction, inspection, planning and the commands see a network through `Network` alone. To train
another one, write its settings as a frozen dataclass with these methods; `cnnjax.models.cnn.ModelConfig` is an example.
No JAX here: a network is sized and refused before JAX has started.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import flax.linen as nn
    import jax.numpy as jnp

Shape = tuple[int, ...]
OUTPUTS = "outputs"
"""Name of what an observed module sows in the collection ``intermediates``: the output of every layer, by its name."""


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

    @property
    def is_convolution(self) -> bool:
        """Whether it multiplies, and gives maps (rows, columns, filters)."""
        return self.flops > 0 and len(self.output_shape) == 3


class Network(Protocol):
    """The settings of a network: frozen, hashable, equal where they mean the same network."""

    @property
    def couples_examples(self) -> bool:
        """Whether the output for one example depends on the others of its batch, or on its place among them.

        Batch normalisation and dropout do this, so such a batch is never cut into parts.
        """

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON values in normal form; they are part of the run key."""

    def list_layers(self, image_shape: Shape, classes: int | None) -> tuple[Layer, ...]:
        """Returns the layers from the image to the classifier, by arithmetic alone.

        Args:
            image_shape: (height, width, channels).
            classes: outputs of the classifier; ``None`` stops before it.

        Raises:
            InputError: the network cannot take such images, by the name of the layer and its shapes.
        """

    def split(self) -> tuple[Self, dict[str, float]]:
        """Returns the network that is compiled, and the numbers that are data to its program.

        Runs whose compiled networks are equal share one program, whatever their numbers are. The module takes the
        numbers as keyword arguments in training.
        """

    def build(self, classes: int, dtype: "jnp.dtype", axis: str | None = None, observed: bool = False) -> "nn.Module":
        """Returns the linen module.

        It maps float images (batch, height, width, channels) in [0, 1] to float32 logits (batch, classes), is called
        with ``train=True`` and the numbers of `split` in training, and takes random numbers from the stream
        ``dropout``. Its fields `config`, `classes` and `axis` are this network and the arguments.

        Args:
            classes: number of classes.
            dtype: arithmetic of the layers; parameters are float32.
            axis: of a mesh, along which the batch is divided in training.
            observed: the module sows what every layer gives, with the batch first, as `OUTPUTS`.
        """
