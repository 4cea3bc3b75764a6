"""Predictions of a trained network on images that need not be of a dataset."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from cnnjax.architecture import list_layers
from cnnjax.compilation import compile_program
from cnnjax.config import RunConfig
from cnnjax.errors import InputError
from cnnjax.model import CNN
from cnnjax.training import EVALUATION_BATCH, predict_logits


def predict(config: RunConfig, params: dict[str, Any], batch_stats: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Returns the predicted classes.

    Args:
        config: the run that made the parameters.
        params: trainable parameters.
        batch_stats: running statistics of batch normalisation; empty without it.
        images: uint8 (n, height, width, channels), of the size and channels that the network was trained on.

    Returns:
        int32 (n,).

    Raises:
        InputError: the images are not uint8 of four dimensions and at least one, or do not fit the network.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise InputError(f"images: must be uint8 (n, height, width, channels), not {images.dtype} {images.shape}")
    classes = params[f"Dense_{len(config.model.dense)}"]["kernel"].shape[-1]
    layers = list_layers(config.model, images.shape[1:], classes)
    fitting = {layer.name: layer.trainable for layer in layers if layer.trainable}
    if fitting != {name: sum(array.size for array in layer.values()) for name, layer in params.items()}:
        raise InputError(f"images: of shape {images.shape[1:]}, which is not what the network was trained on")
    model = CNN(config.model, classes, jnp.dtype(config.train.precision))
    variables = {"params": params, "batch_stats": batch_stats}
    program = compile_program(predict_logits, variables, images[:1].repeat(EVALUATION_BATCH, axis=0), model=model)
    predictions = []
    for start in range(0, len(images), EVALUATION_BATCH):
        batch = images[start : start + EVALUATION_BATCH]
        padded = np.pad(batch, ((0, EVALUATION_BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
        predictions.append(np.argmax(program(variables, padded), -1)[: len(batch)])
    return np.concatenate(predictions).astype(np.int32)
