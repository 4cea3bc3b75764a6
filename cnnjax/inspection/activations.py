"""What every layer of a trained network gives, what the network answers, and which pixels its answer hangs on.

Outputs go by the names of the layer table; dropout and flattening, which change no number, have none.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models.network import OUTPUTS
from cnnjax.models.prediction import TrainedNetwork, compute_logits, scale_images


def compute_outputs(network: TrainedNetwork, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what every layer gives for some images.

    Args:
        network: the network.
        images: uint8 (n, height, width, channels).

    Returns:
        By name of the layer, from the image on, float32: maps (n, rows, columns, channels), then units (n, features);
        the last are the logits.

    Raises:
        InputError: the images are not uint8 of the network's shape.
    """
    network.check_images(images)
    program = jax.jit(_apply_layers, static_argnames="model")
    outputs = program(network.variables, images, model=network.build(observed=True))
    layers = network.config.list_layers(network.image_shape, network.classes)
    return {layer.name: np.asarray(outputs[layer.name]) for layer in layers if layer.name in outputs}


def compute_probabilities(network: TrainedNetwork, images: np.ndarray) -> np.ndarray:
    """Returns the probabilities float32 (n, classes) that the network gives to the classes of uint8 images.

    Raises:
        InputError: the images are not uint8 of the network's shape.
    """
    logits = compute_logits(network, images)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def compute_saliency(network: TrainedNetwork, image: np.ndarray) -> np.ndarray:
    """Returns how the winning logit changes with the pixels of an image: ``d logit / d pixel``.

    Args:
        network: the network.
        image: uint8 (height, width, channels).

    Returns:
        float32 (height, width, channels); the pixels are in [0, 1].

    Raises:
        InputError: the image is not uint8 of the network's shape.

    References:
        Simonyan, Vedaldi and Zisserman (2014), Deep inside convolutional networks.
    """
    network.check_images(image[np.newaxis])
    model = network.build()

    def win(pixels: jax.Array) -> jax.Array:
        logits = model.apply(network.variables, pixels[None])
        assert isinstance(logits, jax.Array)
        return logits[0].max()

    return np.asarray(jax.jit(jax.grad(win))(scale_images(jnp.asarray(image))))


def _apply_layers(variables: Any, images: jax.Array, *, model: nn.Module) -> dict[str, jax.Array]:
    """Returns what every layer gives, float32, with the batch first."""
    _, kept = model.apply(variables, scale_images(images), mutable=["intermediates"])
    return {name: output.astype(jnp.float32) for name, output in kept["intermediates"][OUTPUTS].items()}
