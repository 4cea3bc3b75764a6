"""Predictions of a trained network on images that need not be of a dataset."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.backend import jax_started
from cnnjax.compilation import compile_program
from cnnjax.config import RunConfig
from cnnjax.errors import InputError
from cnnjax.model import CNN
from cnnjax.parts import count_fitting
from cnnjax.training import EVALUATION_BATCH, predict_logits


@jax_started()
def predict(
    config: RunConfig,
    params: dict[str, Any],
    batch_stats: dict[str, Any],
    images: np.ndarray,
    image_shape: tuple[int, ...],
) -> np.ndarray:
    """Returns the predicted classes.

    Args:
        config: the run that made the parameters.
        params: trainable parameters.
        batch_stats: running statistics of batch normalisation; empty without it.
        images: uint8 (n, height, width, channels).
        image_shape: (height, width, channels) of the images that the network was trained on.

    Returns:
        int32 (n,).

    Raises:
        InputError: the images are not uint8 of that shape.
        UnavailableError: JAX cannot start.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape[1:] != image_shape:
        raise InputError(f"images: must be uint8 (n, {str(image_shape)[1:]}, not {images.dtype} {images.shape}")
    classes = params[f"Dense_{len(config.model.dense)}"]["kernel"].shape[-1]
    model = CNN(config.model, classes, jnp.dtype(config.train.precision))
    variables = {"params": params, "batch_stats": batch_stats}
    size = EVALUATION_BATCH
    if jax.default_backend() == "cpu":
        size = min(size, count_fitting(config.model, image_shape, classes))
    program = compile_program(predict_logits, variables, np.zeros((size, *image_shape), np.uint8), model=model)
    predictions = [np.zeros(0, np.int32)]
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
        predictions.append(np.argmax(program(variables, padded), -1)[: len(batch)].astype(np.int32))
    return np.concatenate(predictions)
