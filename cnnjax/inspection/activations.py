"""Layer outputs and saliency maps of a trained network.

Layer outputs are named as in the layer table. Dropout and flattening have none, because they change no numbers.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models.network import OUTPUTS
from cnnjax.models.prediction import TrainedNetwork, prepare_images, scale_images


def compute_outputs(network: TrainedNetwork, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the output of every layer for some images.

    Args:
        network: the trained network.
        images: uint8 (n, height, width, channels).

    Returns:
        Layer name to float32 output, from the first layer to the logits: feature maps are (n, rows, columns, channels),
        outputs of dense layers (n, features).

    Raises:
        InputError: the images are not uint8, or not of the shape that the network was trained on.
    """
    network.check_images(images)
    program = jax.jit(_apply_layers, static_argnames="model")
    outputs = program(network.variables, images, model=network.build(observed=True))
    layers = network.config.list_layers(network.image_shape, network.classes)
    return {layer.name: np.asarray(outputs[layer.name]) for layer in layers if layer.name in outputs}


def compute_saliency(network: TrainedNetwork, image: np.ndarray) -> np.ndarray:
    """Returns the gradient of the largest logit with respect to the pixels of an image.

    Args:
        network: the trained network.
        image: uint8 (height, width, channels).

    Returns:
        ``d logit / d pixel``, float32 (height, width, channels), for pixels scaled to [0, 1].

    Raises:
        InputError: the image is not uint8, or not of the shape that the network was trained on.

    References:
        Simonyan, Vedaldi and Zisserman (2014), Deep inside convolutional networks.
    """
    network.check_images(image[np.newaxis])
    model = network.build()

    def find_largest_logit(pixels: jax.Array) -> jax.Array:
        logits = model.apply(network.variables, prepare_images(pixels[None], network.variables))
        assert isinstance(logits, jax.Array)
        return logits[0].max()

    return np.asarray(jax.jit(jax.grad(find_largest_logit))(scale_images(jnp.asarray(image))))


def _apply_layers(variables: Any, images: jax.Array, *, model: nn.Module) -> dict[str, jax.Array]:
    """Returns the output of every layer by its name, float32, with the batch dimension first."""
    _, state = model.apply(variables, prepare_images(images, variables), mutable=["intermediates"])
    return {name: output.astype(jnp.float32) for name, output in state["intermediates"][OUTPUTS].items()}
