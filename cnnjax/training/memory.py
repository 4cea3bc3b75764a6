"""How much memory a run takes: which runs are refused, and how many runs one program trains. No JAX at import.

`estimate_least_bytes` is the least that a CPU holds at one moment, by arithmetic: the images, the parameters with the
state of the optimizer, and the largest output of a layer for the images that are computed together. XLA takes more,
several times more if activations are kept for the backward pass; `cnnjax.machine.compilation` checks the real amount
against the same limit, once it is known.
"""

import math

from cnnjax.data.dataset import DatasetInfo
from cnnjax.machine.processes import out_of_memory
from cnnjax.models.batches import EVALUATION_BATCH, LEAST_PART
from cnnjax.runs.config import MOST_AT_ONCE, RunConfig, split_sizes

_COPIES = {"sgd": 1, "adam": 3, "adamw": 3}
"""Copies of the parameters by optimizer, its moments included; momentum adds one to sgd."""
MEMORY_SHARE = 0.6
"""Share of the device's memory for runs, by `estimate_bytes`; the images and XLA's workspace need the rest."""
UNKNOWN_MEMORY = 8 * 2**30
"""Memory in bytes assumed of a device that does not report it."""


def estimate_least_bytes(config: RunConfig, info: DatasetInfo) -> int:
    """Returns the least memory in bytes with which a run can train on a CPU, over all devices of the CPU."""
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
    """Raises `UnavailableError` if a run needs more than so many bytes of memory."""
    needed = estimate_least_bytes(config, info)
    if needed > memory:
        raise out_of_memory(needed, memory)


def choose_at_once(config: RunConfig, info: DatasetInfo) -> int:
    """Returns how many runs of one static signature a program should train.

    On accelerators as many as fit the memory, at most `MOST_AT_ONCE`. On CPU one: 8 runs of 6,000 images took 13.5 s in
    one program on a core, against 5.1 s one after the other.

    Args:
        config: one of the runs.
        info: their dataset.
    """
    import jax

    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return 1
    memory = (device.memory_stats() or {}).get("bytes_limit", UNKNOWN_MEMORY)
    a_run = estimate_bytes(config, info.image_shape, info.classes)
    return min(max(int(MEMORY_SHARE * memory / a_run), 1), MOST_AT_ONCE)


def estimate_bytes(config: RunConfig, image_shape: tuple[int, ...], classes: int) -> int:
    """Returns about how many bytes a run holds at once, in training or evaluation, with convolutions by patches."""
    layers = config.model.list_layers(image_shape, classes)
    activations = sum(layer.activation_bytes for layer in layers)
    # The patches of an output of a convolution hold as many numbers as the output takes multiplications.
    patches = sum(4 * layer.flops // (2 * layer.output_shape[-1]) for layer in layers if layer.is_convolution)
    # In training: activations, their gradients and what is kept for the backward pass.
    images = max(config.train.batch_size * (3 * activations + 2 * patches), EVALUATION_BATCH * (activations + patches))
    # Parameters: with gradient, optimizer and a copy.
    return images + 24 * sum(layer.parameters for layer in layers)
