"""Which examples of a dataset train, validate and test a run."""

import math

import numpy as np
from numpy.typing import NDArray

from cnnjax.data.dataset import Dataset, Split, name_classes
from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig

_DRAW = 1
"""Joins the seed of a run where it draws training examples, so that these numbers are used for nothing else."""


def split_sizes(config: RunConfig, examples: int) -> tuple[int, int]:
    """Returns the numbers of examples for training and for validation.

    Of the training examples of the dataset, the first ones are used for training and the last ones for validation. The
    validation examples do not depend on `train_size`, so the points of a learning curve are comparable. Nor do they
    depend on `resample`, which draws from the other examples alone.

    Args:
        config: the run.
        examples: number of training examples of the dataset.

    Raises:
        InputError: a part would be empty, `train_size` is larger than the first part or leaves a subset no choice, or
            the run has 2**31 steps or more.

    Example:
        >>> from cnnjax import TrainConfig
        >>> split_sizes(RunConfig(train=TrainConfig(validation_split=0.1)), examples=60000)
        (54000, 6000)
    """
    # The product is rounded before the floor, as 60000 * (1 - 0.9) is slightly below 6000 in floating point.
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
    if size == rest and config.data.resample == "subset":
        raise InputError(
            f"data.train_size={config.data.train_size}: must be a number < {rest}, the training examples of "
            f"{config.data.name}, of which data.resample='subset' draws as many"
        )
    steps = math.ceil(size / config.train.batch_size)
    if config.train.epochs * steps >= 2**31:
        raise InputError(f"train.epochs={config.train.epochs}: must be < {2**31 // steps}, for {steps} steps an epoch")
    return size, validation


def count_available(config: RunConfig, examples: int) -> int:
    """Returns how many training examples a run must have at hand: those it trains on, or draws them from.

    Args:
        config: the run.
        examples: number of training examples of the dataset.

    Raises:
        InputError: as `split_sizes`.

    Example:
        >>> from cnnjax import DataConfig
        >>> count_available(RunConfig(data=DataConfig(train_size=1000, resample="subset")), examples=60000)
        60000
    """
    size, validation = split_sizes(config, examples)
    return size if config.data.resample == "none" else examples - validation


def draw_training(config: RunConfig, examples: int) -> NDArray[np.int32] | None:
    """Returns which training examples a run trains on, as its seed draws them; ``None`` if it draws none.

    The draw is plain, not by class: each example is drawn as likely as any other, as new ones would come. It depends
    on nothing but the seed, the way of drawing and the numbers of examples, so arms with the same seed train on the
    same examples, and a smaller subset of a seed is a part of its larger ones.

    Args:
        config: the run.
        examples: number of training examples of the dataset.

    Returns:
        Numbers of training examples of the dataset, int32 (size,), sorted; those of a bootstrap may repeat.

    Raises:
        InputError: as `split_sizes`.

    References:
        Efron, "Bootstrap methods: another look at the jackknife", 1979; Bouthillier et al., "Accounting for variance in
        machine learning benchmarks", 2021.

    Example:
        >>> from cnnjax import DataConfig
        >>> draw_training(RunConfig(data=DataConfig(resample="bootstrap")), examples=5).tolist()
        [1, 2, 2, 4, 4]
    """
    if config.data.resample == "none":
        return None
    available, random = count_available(config, examples), np.random.default_rng([config.seed, _DRAW])
    size, _ = split_sizes(config, examples)
    is_bootstrap = config.data.resample == "bootstrap"
    drawn = random.integers(available, size=size) if is_bootstrap else random.permutation(available)[:size]
    return np.sort(drawn).astype(np.int32)


def take_splits(config: RunConfig, dataset: Dataset) -> dict[str, Split]:
    """Returns the examples of ``train``, ``validation`` (if the run has any) and ``test``.

    Where a run draws its training examples, ``train`` has those to draw from, which are the same for all seeds. A class
    may be missing in a draw by chance, as it may in any sample.

    Raises:
        InputError: the training or validation examples lack a class, as those of a dataset sorted by class would.
    """
    available = count_available(config, len(dataset.train))
    _, validation = split_sizes(config, len(dataset.train))
    images, labels = dataset.train.images, dataset.train.labels
    splits = {"train": Split(images[:available], labels[:available])}
    if validation:
        splits["validation"] = Split(images[-validation:], labels[-validation:])
        _check_classes(splits["validation"], dataset, "validation")
    _check_classes(splits["train"], dataset, "training")
    return {**splits, "test": dataset.test}


def _check_classes(part: Split, dataset: Dataset, purpose: str) -> None:
    """Raises `InputError` if a part of the training examples lacks a class that it would have if they were shuffled."""
    whole = np.bincount(dataset.train.labels, minlength=dataset.classes)
    found = np.bincount(part.labels, minlength=dataset.classes)
    # Of examples in random order, such a class is absent with a probability below exp(-20).
    lacking = np.flatnonzero((found == 0) & (whole * len(part) >= 20 * len(dataset.train)))
    if lacking.size:
        name = name_classes(dataset.class_names, dataset.classes)[lacking[0]]
        raise InputError(
            f"data.name={dataset.name!r}: class {name!r} is not among the {len(part)} {purpose} examples; shuffle the "
            "training arrays, of which data.train_size takes the first and train.validation_split the last"
        )
