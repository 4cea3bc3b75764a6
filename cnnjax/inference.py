"""Predictions of a trained network on images that need not be of a dataset."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.config import RunConfig
from cnnjax.errors import InputError
from cnnjax.model import CNN
from cnnjax.training import EVALUATION_BATCH, scale_images


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
        InputError: the images are not uint8 of four dimensions, or do not fit the network.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(f"images: must be uint8 (n, height, width, channels), not {images.dtype} {images.shape}")
    classes = params[f"Dense_{len(config.model.dense)}"]["kernel"].shape[-1]
    model = CNN(config.model, classes, jnp.dtype(config.train.precision))
    variables = {"params": params, "batch_stats": batch_stats}
    expected = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *images.shape[1:])))["params"]
    if jax.tree.map(jnp.shape, expected) != jax.tree.map(jnp.shape, params):
        raise InputError(f"images: of shape {images.shape[1:]}, which is not what the network was trained on")
    logits = jax.jit(lambda batch: model.apply(variables, scale_images(batch)))
    starts = range(0, len(images), EVALUATION_BATCH)
    parts = [np.argmax(logits(images[start : start + EVALUATION_BATCH]), -1) for start in starts]
    return np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32)
