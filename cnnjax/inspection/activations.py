"""What every layer of a trained network gives, what the network answers, and which pixels its answer hangs on.

Outputs go by the names of the layer table; dropout and flattening, which change no number, have none.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.architecture import list_layers
from cnnjax.errors import InputError
from cnnjax.model import CNN, OUTPUTS
from cnnjax.records import Run
from cnnjax.training import EVALUATION_BATCH, predict_logits, scale_images


class Network(NamedTuple):
    """A trained network: the module, its ``params`` and ``batch_stats``, and the (height, width, channels) it takes."""

    model: CNN
    variables: dict[str, Any]
    image_shape: tuple[int, ...]


def rebuild_network(run: Run) -> Network:
    """Returns the network of a stored run."""
    config = run.record.config
    classes = run.params[f"Dense_{len(config.model.dense)}"]["kernel"].shape[-1]
    model = CNN(config.model, classes, jnp.dtype(config.train.precision))
    shape = tuple(run.record.provenance["dataset"]["image_shape"])
    return Network(model, {"params": run.params, "batch_stats": run.batch_stats}, shape)


def compute_outputs(network: Network, images: np.ndarray) -> dict[str, np.ndarray]:
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
    _check_images(network, images)
    program = jax.jit(_apply_layers, static_argnames="model")
    outputs = program(network.variables, images, model=network.model)
    layers = list_layers(network.model.config, network.image_shape, network.model.classes)
    return {layer.name: np.asarray(outputs[layer.name]) for layer in layers if layer.name in outputs}


def compute_probabilities(network: Network, images: np.ndarray) -> np.ndarray:
    """Returns the probabilities float32 (n, classes) that the network gives to the classes of uint8 images.

    Raises:
        InputError: the images are not uint8 of the network's shape.
    """
    _check_images(network, images)
    program = jax.jit(predict_logits, static_argnames="model")
    rows = [np.zeros((0, network.model.classes), np.float32)]
    for start in range(0, len(images), EVALUATION_BATCH):
        batch = images[start : start + EVALUATION_BATCH]
        padded = np.pad(batch, ((0, EVALUATION_BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
        rows.append(np.asarray(program(network.variables, padded, model=network.model))[: len(batch)])
    logits = np.concatenate(rows)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def compute_saliency(network: Network, image: np.ndarray) -> np.ndarray:
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
    _check_images(network, image[np.newaxis])

    def win(pixels: jax.Array) -> jax.Array:
        logits = network.model.apply(network.variables, pixels[None])
        assert isinstance(logits, jax.Array)
        return logits[0].max()

    return np.asarray(jax.jit(jax.grad(win))(scale_images(jnp.asarray(image))))


def _check_images(network: Network, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != network.image_shape:
        shape = str(network.image_shape)[1:]
        raise InputError(f"images: must be uint8 (n, {shape}, not {images.dtype} {images.shape}")


def _apply_layers(variables: Any, images: jax.Array, *, model: CNN) -> dict[str, jax.Array]:
    """Returns what every layer gives, float32, with the batch first."""
    apart = model.clone(fuses_pooling=False)
    _, kept = apart.apply(variables, scale_images(images), mutable=["intermediates"])
    return {
        name: (x.transpose(2, 0, 1, 3) if x.ndim == 4 else x).astype(jnp.float32)
        for name, x in kept["intermediates"][OUTPUTS].items()
    }
