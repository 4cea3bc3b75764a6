"""How much memory a run takes in training, and so how many runs one program should train on a device."""

import jax

from cnnjax.architecture import list_layers
from cnnjax.config import RunConfig
from cnnjax.datasets import DatasetInfo
from cnnjax.signatures import MOST_AT_ONCE
from cnnjax.training import EVALUATION_BATCH

MEMORY_SHARE = 0.6
"""Of the device's memory that runs may fill by `estimate_bytes`, which leaves out the images and XLA's workspace."""
UNKNOWN_MEMORY = 8 * 2**30
"""Bytes assumed of a device that does not tell."""


def choose_at_once(config: RunConfig, info: DatasetInfo) -> int:
    """Returns how many runs of a form one program should train.

    On CPU one, which is faster by itself (`docs/performance.md`); elsewhere as many as fit the memory, `MOST_AT_ONCE`
    at most.

    Args:
        config: one of the runs.
        info: of their dataset.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return 1
    memory = (device.memory_stats() or {}).get("bytes_limit", UNKNOWN_MEMORY)
    a_run = estimate_bytes(config, info.image_shape, info.classes)
    return min(max(int(MEMORY_SHARE * memory / a_run), 1), MOST_AT_ONCE)


def estimate_bytes(config: RunConfig, image_shape: tuple[int, ...], classes: int) -> int:
    """Returns about how many bytes a run holds at once, in training or evaluation, by convolutions of patches."""
    layers = list_layers(config.model, image_shape, classes)
    activations = sum(layer.activation_bytes for layer in layers)
    # Of each output, a convolution's patches hold as many numbers as it takes multiplications.
    patches = sum(4 * layer.flops // (2 * layer.output_shape[-1]) for layer in layers if layer.kind == "Conv")
    # In training: activations, their gradients and what is kept for the backward pass.
    images = max(config.train.batch_size * (3 * activations + 2 * patches), EVALUATION_BATCH * (activations + patches))
    # Parameters: with gradient, optimizer and a copy.
    return images + 24 * sum(layer.parameters for layer in layers)
