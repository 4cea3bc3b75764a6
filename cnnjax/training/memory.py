"""How much memory a run takes, and what follows: what is refused, and how many runs one program trains. No JAX here.

`estimate_least_bytes` is what must be there at one moment on a CPU, by arithmetic: the images, the parameters with all
that the optimizer keeps, and the largest output of a layer for as many images as go through the network together. What
XLA really takes is more, several times where activations are kept for the backward pass; `cnnjax.machine.compilation`
holds that, once it is known, to the same limit.
"""

import math

from cnnjax.data.dataset import DatasetInfo
from cnnjax.machine.processes import out_of_memory
from cnnjax.models.batches import EVALUATION_BATCH, LEAST_PART
from cnnjax.runs.config import MOST_AT_ONCE, RunConfig, split_sizes

_COPIES = {"sgd": 1, "adam": 3, "adamw": 3}
"""Of the parameters, with the moments of the optimizer; those of sgd with momentum are two."""


def estimate_least_bytes(config: RunConfig, info: DatasetInfo) -> int:
    """Returns the bytes of memory without which a run cannot train on a CPU; all devices of a batch share them."""
    layers = config.model.list_layers(info.image_shape, info.classes)
    examples = split_sizes(config, info.train_size)[0] if info.train_size else 1
    batch = min(config.train.batch_size, examples)
    together = batch if config.model.couples_examples else min(batch, LEAST_PART)
    computed = [layer.activation_bytes for layer in layers if layer.flops]
    copies = _COPIES[config.train.optimizer] + bool(config.train.momentum)
    parameters = 4 * copies * sum(layer.parameters for layer in layers)
    outputs = together * max(computed) // (1 if config.train.precision == "float32" else 2)
    return examples * math.prod(info.image_shape) + parameters + outputs


def check_memory(config: RunConfig, info: DatasetInfo, memory: float) -> None:
    """Raises `UnavailableError` where a run needs more than so many bytes of memory."""
    needed = estimate_least_bytes(config, info)
    if needed > memory:
        raise out_of_memory(needed, memory)


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
    import jax

    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return 1
    memory = (device.memory_stats() or {}).get("bytes_limit", UNKNOWN_MEMORY)
    a_run = estimate_bytes(config, info.image_shape, info.classes)
    return min(max(int(MEMORY_SHARE * memory / a_run), 1), MOST_AT_ONCE)


def estimate_bytes(config: RunConfig, image_shape: tuple[int, ...], classes: int) -> int:
    """Returns about how many bytes a run holds at once, in training or evaluation, by convolutions of patches."""
    layers = config.model.list_layers(image_shape, classes)
    activations = sum(layer.activation_bytes for layer in layers)
    # Of each output, a convolution's patches hold as many numbers as it takes multiplications.
    patches = sum(4 * layer.flops // (2 * layer.output_shape[-1]) for layer in layers if layer.is_convolution)
    # In training: activations, their gradients and what is kept for the backward pass.
    images = max(config.train.batch_size * (3 * activations + 2 * patches), EVALUATION_BATCH * (activations + patches))
    # Parameters: with gradient, optimizer and a copy.
    return images + 24 * sum(layer.parameters for layer in layers)
