"""Estimates of the memory that a run needs, to refuse runs that cannot fit and to choose how many share one program.

`estimate_least_bytes` is a lower bound for a CPU: the images (of those that are fed, a chunk), the parameters with the
state of the optimizer, and the largest output of a layer for the images that are computed together. XLA takes more,
several times more if activations are kept for the backward pass; `cnnjax.machine.compilation` checks the real amount
against the same limit after compilation. This module imports JAX only when it asks for the device.
"""

import math
import os

from cnnjax.data.dataset import DatasetInfo
from cnnjax.machine.processes import count_cores, find_memory, out_of_memory
from cnnjax.models.batches import EVALUATION_BATCH, LEAST_PART
from cnnjax.runs.config import MOST_AT_ONCE, RunConfig
from cnnjax.runs.splits import count_available, split_sizes

_COPIES = {"sgd": 1, "adam": 3, "adamw": 3, "rmsprop": 2, "lion": 2, "lamb": 3}
"""Copies of the parameters in memory, by optimizer: the parameters and its moments; momentum adds one to sgd.

An optimizer of the user may keep no moments.
"""
MEMORY_SHARE = 0.6
"""Largest share of the device's memory for the runs of a program; the images and XLA's workspace need the rest."""
IMAGE_SHARE = 0.25
"""Largest share of the memory for images that stay on the device; others are fed in chunks."""
CHUNK_BYTES = 64 * 2**20
"""Most bytes of the images in a chunk, unless a single batch has more. About four chunks are in memory at once."""
UNKNOWN_MEMORY = 8 * 2**30
"""Assumed memory, in bytes, of a device that does not report its memory."""


def estimate_least_bytes(config: RunConfig, info: DatasetInfo) -> int:
    """Returns a lower bound of the memory, in bytes, that a run needs on a CPU, over all devices of the CPU.

    Example:
        >>> from cnnjax.data.dataset import DatasetInfo
        >>> info = DatasetInfo("mnist", "bundled", (28, 28, 1), 10, 60000, 10000, "file", None)
        >>> round(estimate_least_bytes(RunConfig(), info) / 2**20)
        46
    """
    layers = config.model.list_layers(info.image_shape, info.classes)
    examples = split_sizes(config, info.train_size)[0] if info.train_size else 1
    batch = min(config.train.batch_size, examples)
    together = batch if config.model.couples_examples else min(batch, LEAST_PART)
    computed = [layer.activation_bytes for layer in layers if layer.flops]
    copies = _COPIES.get(config.train.optimizer, 1) + bool(config.train.momentum) + bool(config.train.average)
    parameters = 4 * copies * sum(layer.parameters for layer in layers)
    outputs = together * max(computed, default=0) // (1 if config.train.precision == "float32" else 2)
    return min(examples * math.prod(info.image_shape), CHUNK_BYTES) + parameters + outputs


def check_memory(config: RunConfig, info: DatasetInfo, memory: float) -> None:
    """Raises `UnavailableError` if a run needs more than `memory` bytes on a CPU, by `estimate_least_bytes`."""
    needed = estimate_least_bytes(config, info)
    if needed > memory:
        raise out_of_memory(needed, memory)


def fit_on_devices(config: RunConfig, info: DatasetInfo, devices: int = 1, share: float | None = None) -> bool:
    """Whether the images of a run are copied to its devices; otherwise they are fed in chunks.

    They are if they take at most a share of the memory, and if their number is not known yet. On CPU, every device has
    a copy, and a process on some of the cores, such as a worker of a grid, has its share of the memory.

    Args:
        config: the run.
        info: its dataset.
        devices: number of devices of this process that share every batch.
        share: largest share of the memory that they may take; by default `IMAGE_SHARE`.
    """
    import jax

    if info.train_size is None or info.test_size is None:
        return True
    _, validation = split_sizes(config, info.train_size)
    images = count_available(config, info.train_size) + validation + info.test_size
    if jax.local_devices()[0].platform == "cpu":
        memory = find_memory() * count_cores() / (os.cpu_count() or 1) / devices
    else:
        memory = _find_device_memory()
    return images * math.prod(info.image_shape) <= (IMAGE_SHARE if share is None else share) * memory


def choose_at_once(config: RunConfig, info: DatasetInfo) -> int:
    """Returns how many runs with the same static signature should share a program.

    On accelerators, as many as fit `MEMORY_SHARE` of the memory, at most `MOST_AT_ONCE`; one if the images are fed in
    chunks. On CPU, one: 8 runs of 6,000 images took 13.5 s in one program on one core, against 5.1 s one after the
    other.

    Args:
        config: one of the runs.
        info: their dataset.
    """
    import jax

    if jax.local_devices()[0].platform == "cpu" or not fit_on_devices(config, info):
        return 1
    a_run = estimate_bytes(config, info.image_shape, info.classes)
    return min(max(int(MEMORY_SHARE * _find_device_memory() / a_run), 1), MOST_AT_ONCE)


def _find_device_memory() -> int:
    """Returns the memory in bytes of an accelerator."""
    import jax

    return int((jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", UNKNOWN_MEMORY))


def estimate_bytes(config: RunConfig, image_shape: tuple[int, ...], classes: int) -> int:
    """Returns about how many bytes a run needs, in training or evaluation, with convolutions by patches.

    Args:
        config: the run.
        image_shape: (height, width, channels).
        classes: number of classes.
    """
    layers = config.model.list_layers(image_shape, classes)
    activations = sum(layer.activation_bytes for layer in layers)
    # For one output of a convolution, the patch has as many numbers as computing the output takes multiplications.
    patches = sum(4 * layer.flops // (2 * layer.output_shape[-1]) for layer in layers if layer.is_convolution)
    # Training holds the activations, their gradients, and what is kept for the backward pass.
    images = max(config.train.batch_size * (3 * activations + 2 * patches), EVALUATION_BATCH * (activations + patches))
    # 24 bytes per parameter: float32 values of the parameter, its gradient, the optimizer's state and a copy.
    return images + 24 * sum(layer.parameters for layer in layers)
