"""What every layer of a trained network gives, what the network answers, and which pixels its answer hangs on.

The network that trains takes the maximum of a pooling inside the convolution before it, so that the maps between the
two are never made. Here they are: the layers are applied one by one, under the names of the layer table. An activation
belongs to the layer before it, as in Keras; dropout and flattening, which change no number, are left out.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.architecture import list_layers
from cnnjax.errors import InputError
from cnnjax.model import ACTIVATIONS, CNN, POOLS, Conv
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


class _Tracer:
    """Applies layers by name, to activations in the network's own layout, and keeps what they give."""

    def __init__(self, variables: Any, model: CNN) -> None:
        self.outputs: dict[str, jax.Array] = {}
        self._variables, self._model = variables, model

    def apply(self, name: str, layer: nn.Module, x: jax.Array) -> jax.Array:
        """Returns what a layer with parameters gives."""
        own = {kind: tree[name] for kind, tree in self._variables.items() if name in tree}
        output = layer.apply(own, x)
        assert isinstance(output, jax.Array)
        return self.keep(name, output)

    def activate(self, name: str, index: int, x: jax.Array, activation: str) -> jax.Array:
        """Returns what the layer `name`, the `index`-th, gives: normalised, if the network does that, and activated."""
        if self._model.config.batch_norm:
            name = f"BatchNorm_{index}"
            x = self.apply(name, nn.BatchNorm(use_running_average=True, epsilon=1e-3, dtype=self._model.dtype), x)
        return self.keep(name, ACTIVATIONS[activation](x))

    def keep(self, name: str, x: jax.Array) -> jax.Array:
        """Keeps what a layer gives, with the batch first, and returns it."""
        self.outputs[name] = (x.transpose(2, 0, 1, 3) if x.ndim == 4 else x).astype(jnp.float32)
        return x


def _apply_layers(variables: Any, images: jax.Array, *, model: CNN) -> dict[str, jax.Array]:
    config, tracer = model.config, _Tracer(variables, model)
    x = jnp.asarray(scale_images(images), model.dtype).transpose(1, 2, 0, 3)
    for index, block in enumerate(config.blocks):
        convolution = Conv(block.filters, block.kernel_size, block.strides, block.padding, config.use_bias, model.dtype)
        x = tracer.apply(f"Conv_{index}", convolution, x)
        x = tracer.activate(f"Conv_{index}", index, x, block.activation)
        if block.pool != "none":
            x = POOLS[block.pool](x, block.pool_size, block.pool_strides)
            tracer.keep(f"{_POOL_NAMES[block.pool]}_{index}", x)
    x = x.transpose(2, 0, 1, 3).reshape(len(images), -1)
    for index, width in enumerate((*config.dense, model.classes)):
        x = tracer.apply(f"Dense_{index}", nn.Dense(width, use_bias=config.use_bias, dtype=model.dtype), x)
        if index < len(config.dense):
            x = tracer.activate(f"Dense_{index}", len(config.blocks) + index, x, config.dense_activation)
    return tracer.outputs


_POOL_NAMES = {"max": "MaxPool", "avg": "AvgPool"}
