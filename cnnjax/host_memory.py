"""What a run needs of this machine's memory at the very least, so that what cannot fit is refused before it starts.

The bound is of what must be there at one moment on a CPU, by arithmetic: the images, the parameters with all that the
optimizer keeps, and the largest output of a layer for as many images as go through the network together. What XLA
really takes is more, several times where activations are kept for the backward pass; `cnnjax.compilation` holds that,
once it is known, to the same limit. No JAX here.
"""

import math
from pathlib import Path

import psutil

from cnnjax.architecture import list_layers
from cnnjax.config import RunConfig
from cnnjax.datasets import DatasetInfo
from cnnjax.errors import UnavailableError
from cnnjax.parts import LEAST_PART
from cnnjax.splits import split_sizes

_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_COPIES = {"sgd": 1, "adam": 3, "adamw": 3}
"""Of the parameters, with the moments of the optimizer; those of sgd with momentum are two."""


def find_memory() -> int:
    """Returns the bytes of memory of this machine, or of the container that this process is in."""
    limits = [psutil.virtual_memory().total]
    for path in map(Path, _GROUP_LIMITS):
        if path.is_file() and (limit := path.read_text().strip()).isdecimal():
            limits.append(int(limit))
    return min(limits)


def estimate_least_bytes(config: RunConfig, info: DatasetInfo) -> int:
    """Returns the bytes of memory without which a run cannot train on a CPU; all devices of a batch share them."""
    layers = list_layers(config.model, info.image_shape, info.classes)
    examples = split_sizes(config, info.train_size)[0] if info.train_size else 1
    batch = min(config.train.batch_size, examples)
    together = batch if config.model.batch_norm or config.model.dropout else min(batch, LEAST_PART)
    computed = [layer.activation_bytes for layer in layers if layer.kind in ("Conv", "Dense")]
    copies = _COPIES[config.train.optimizer] + bool(config.train.momentum)
    parameters = 4 * copies * sum(layer.parameters for layer in layers)
    outputs = together * max(computed) // (1 if config.train.precision == "float32" else 2)
    return examples * math.prod(info.image_shape) + parameters + outputs


def check_memory(config: RunConfig, info: DatasetInfo, memory: float) -> None:
    """Raises `UnavailableError` where a run needs more than so many bytes of memory."""
    needed = estimate_least_bytes(config, info)
    if needed > memory:
        raise out_of_memory(needed, memory)


def out_of_memory(needed: float, memory: float) -> UnavailableError:
    """Returns the error that says how much memory is needed, and how much there is."""
    return UnavailableError(
        f"out of memory; use a smaller train.batch_size or network: at least {needed / 2**30:,.1f} GiB are needed, "
        f"and there are {memory / 2**30:,.1f} GiB"
    )
