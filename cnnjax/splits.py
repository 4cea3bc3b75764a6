"""Which training examples train and which validate: the last ones validate, the first ones train. No JAX here."""

import math

from cnnjax.config import RunConfig
from cnnjax.errors import InputError


def split_sizes(config: RunConfig, examples: int) -> tuple[int, int]:
    """Returns how many of the training examples train, from their start, and how many validate, from their end.

    The validation examples are the same for every `train_size`, so learning curves are comparable.

    Raises:
        InputError: a part would be empty, `train_size` is more than there are, or the steps are too many to count.
    """
    # Rounded first: 60000 * (1 - 0.9) is a hair below 6000.
    rest = math.floor(round(examples * (1 - config.train.validation_split), 6))
    validation = examples - rest
    if rest == 0 or (config.train.validation_split and validation == 0):
        raise InputError(
            f"train.validation_split={config.train.validation_split}: leaves {rest} examples to train and "
            f"{validation} to validate; must leave at least one of each"
        )
    size = rest if config.data.train_size is None else config.data.train_size
    if size > rest:
        raise InputError(f"data.train_size={size}: must be <= {rest}, the training examples of {config.data.name}")
    steps = math.ceil(size / config.train.batch_size)
    if config.train.epochs * steps >= 2**31:
        raise InputError(f"train.epochs={config.train.epochs}: must be < {2**31 // steps}, for {steps} steps an epoch")
    return size, validation
