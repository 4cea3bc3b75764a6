"""Predictions of a trained network for any images of the right shape."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.errors import InputError
from cnnjax.machine.backend import jax_started
from cnnjax.machine.compilation import compile_program
from cnnjax.models.batches import EVALUATION_BATCH, count_fitting
from cnnjax.models.network import NORMALIZATION, Network, Shape


class TrainedNetwork(NamedTuple):
    """A trained network.

    Attributes:
        config: the settings of the network.
        precision: dtype of the arithmetic of the layers, ``float32`` or ``bfloat16``.
        variables: its variables by collection, such as ``params`` and ``batch_stats``.
        image_shape: (height, width, channels) of the images that it takes.
        classes: number of classes.
    """

    config: Network
    precision: str
    variables: dict[str, Any]
    image_shape: Shape
    classes: int

    def build(self, observed: bool = False) -> nn.Module:
        """Returns the linen module; an observed module sows the output of every layer."""
        return self.config.split()[0].build(self.classes, jnp.dtype(self.precision), observed=observed)

    def check_images(self, images: np.ndarray) -> None:
        """Raises `InputError` if images are not uint8 (n, height, width, channels) of the network's image shape."""
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            shape = str(self.image_shape)[1:]
            raise InputError(f"images: must be uint8 (n, {shape}, not {images.dtype} {images.shape}")


@jax_started()
def compute_logits(network: TrainedNetwork, images: np.ndarray) -> np.ndarray:
    """Returns the logits float32 (n, classes) of uint8 images (n, height, width, channels).

    Raises:
        InputError: the images are not uint8 of the network's shape.
        UnavailableError: JAX cannot start.
    """
    network.check_images(images)
    size = EVALUATION_BATCH
    if jax.default_backend() == "cpu":
        size = min(size, count_fitting(network.config, network.image_shape, network.classes))
    example = np.zeros((size, *network.image_shape), np.uint8)
    program = compile_program(predict_logits, network.variables, example, model=network.build())
    rows = [np.zeros((0, network.classes), np.float32)]
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
        rows.append(np.asarray(program(network.variables, padded))[: len(batch)])
    return np.concatenate(rows)


def compute_probabilities(network: TrainedNetwork, images: np.ndarray) -> np.ndarray:
    """Returns the class probabilities (softmax of the logits) of some images.

    Args:
        network: the trained network.
        images: uint8 (n, height, width, channels).

    Returns:
        float32 (n, classes).

    Raises:
        InputError: the images are not uint8, or not of the shape that the network was trained on.
    """
    logits = compute_logits(network, images)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def prepare_images(images: jax.Array, variables: Any) -> jax.Array:
    """Returns images as a network sees them, float32 of the same shape.

    Args:
        images: uint8, or float32 in [0, 1] (n, height, width, channels).
        variables: the variables of the network; if `NORMALIZATION` is among them, images are normalised with it.
    """
    scaled = scale_images(images) if images.dtype == jnp.uint8 else images
    if NORMALIZATION not in variables:
        return scaled
    mean, deviation = (variables[NORMALIZATION][name] for name in ("mean", "deviation"))
    normalized: jax.Array = (scaled - mean) / deviation
    return normalized


def scale_images(images: jax.Array) -> jax.Array:
    """Maps uint8 images to float32 in [0, 1], with the same shape.

    Example:
        >>> scale_images(jnp.uint8([0, 255])).tolist()
        [0.0, 1.0]
    """
    return images.astype(jnp.float32) / 255


def predict_logits(variables: Any, images: jax.Array, *, model: nn.Module) -> jax.Array:
    """Returns the logits float32 (n, classes) of uint8 images (n, height, width, channels).

    Args:
        variables: its variables by collection.
        images: the images.
        model: the network (static).
    """
    logits = model.apply(variables, prepare_images(images, variables))
    assert isinstance(logits, jax.Array)
    return logits
