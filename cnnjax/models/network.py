"""The interface between a network and the rest of the library.

Training, evaluation, prediction, inspection, planning and the commands use a network only through `Network`. To train
another network, write its settings as a frozen dataclass with these methods; `cnnjax.models.cnn.ModelConfig` is an
example. No JAX here: a network is sized, and refused if it does not fit its images, before JAX has started.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import flax.linen as nn
    import jax.numpy as jnp

Shape = tuple[int, ...]
OUTPUTS = "outputs"
"""Entry of the collection ``intermediates`` in which an observed module sows the outputs of its layers, by name."""
LOSSES = "losses"
"""The collection of losses that a network sows; they are added to the loss of the run."""
NORMALIZATION = "normalization"
"""The collection with the ``mean`` and ``deviation`` that images are normalised with before the network sees them."""
UNSAVED = (LOSSES, "intermediates", "perturbations")
"""Collections that are not part of the state of a network."""


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: name in the parameter tree, such as ``Conv_0``.
        kind: kind of layer, such as ``Conv``.
        output_shape: shape of the output for one image, without the batch.
        trainable: number of trainable parameters.
        non_trainable: number of other variables, such as the statistics of batch normalisation.
        flops: of the forward pass of one image; only layers with matrix products have any.
    """

    name: str
    kind: str
    output_shape: Shape
    trainable: int = 0
    non_trainable: int = 0
    flops: int = 0

    @property
    def parameters(self) -> int:
        """Number of trainable and non-trainable parameters."""
        return self.trainable + self.non_trainable

    @property
    def activation_bytes(self) -> int:
        """Size in bytes of the output for one image in float32."""
        return 4 * math.prod(self.output_shape)

    @property
    def is_convolution(self) -> bool:
        """Whether the layer has FLOPs and outputs feature maps (rows, columns, filters)."""
        return self.flops > 0 and len(self.output_shape) == 3


class Network(Protocol):
    """The settings of a network: frozen and hashable, and equal if they mean the same network."""

    @property
    def couples_examples(self) -> bool:
        """Whether, in training, the output for an example depends on the rest of its batch or its position in it.

        So it is with batch normalisation and dropout. The batches of such a network are never cut into parts.
        """

    def can_be_divided(self, image_shape: Shape, classes: int) -> bool:
        """Returns whether batches can be divided among devices, without another result than on one, up to rounding."""

    @property
    def references(self) -> tuple[str, ...]:
        """The import paths of code that is not the library's."""

    def check_code(self) -> None:
        """Raises `InputError` if code of the user that it consists of is not what these settings were made with."""

    def describe_code(self) -> dict[str, Any]:
        """Returns the texts of such code with their hash by import path, as JSON values; empty for the library's."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings as JSON values in normal form, as they are part of the run key."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as JSON values in normal form."""

    def list_layers(self, image_shape: Shape, classes: int | None) -> tuple[Layer, ...]:
        """Returns the layers from the image to the classifier, by arithmetic alone.

        Args:
            image_shape: (height, width, channels).
            classes: number of outputs of the classifier; ``None`` stops before it.

        Raises:
            InputError: the network cannot take such images; the message names the layer and its shapes.
        """

    def split(self) -> tuple[Self, dict[str, float]]:
        """Returns the network to compile, and the settings that its program takes as data, by name.

        Runs for which the network to compile is equal share one program, whatever these numbers are. In training, the
        module takes the numbers as keyword arguments.
        """

    def build(self, classes: int, dtype: "jnp.dtype", axis: str | None = None, observed: bool = False) -> "nn.Module":
        """Returns the linen module.

        It maps float images (batch, height, width, channels) in [0, 1] to float32 logits (batch, classes). In training
        it is called with ``train=True``, the numbers of `split` and a random key for ``dropout``; variables outside
        ``params`` are mutable then, and what it sows in ``losses`` is added to the loss. It has the fields
        `config` (this network), `classes` and `axis` (the arguments).

        Args:
            classes: number of classes.
            dtype: dtype of the arithmetic of the layers; parameters are float32.
            axis: name of the mesh axis along which the batch is divided in training; ``None`` for one device.
            observed: whether the module sows the output of every layer, with the batch first, in `OUTPUTS`.
        """
