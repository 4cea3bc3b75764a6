"""Which images a run means: those of a name that stands for the same images everywhere, or those of a content hash.

The bundled MNIST and TFDS's sets go by their name. Images that were handed over in Python have only been given one, so
the run key holds the hash of their content too (`DataConfig.sha256`), and they are found again by it.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cnnjax.caches import cache_root
from cnnjax.config import DataConfig
from cnnjax.dataset_names import parse_name
from cnnjax.datasets import bundled, cache
from cnnjax.datasets.arrays import Dataset, DatasetInfo, Split, make_dataset
from cnnjax.datasets.loading import load, load_info
from cnnjax.errors import InputError, UnavailableError

VERSION = "given"
"""Of datasets that are made of arrays without a version."""


def load_data(data: DataConfig) -> Dataset:
    """Loads the images that a run means.

    Raises:
        InputError: they were handed over in Python, and no copy is kept; otherwise as `load`.
        CorruptionError, UnavailableError: as `load`.
    """
    if data.sha256 is None:
        return load(data.name, manual_dir=data.manual_dir)
    entry = cache.find_given(data.sha256)
    dataset = cache.load_entry(entry) if entry and entry.has_arrays else None
    if dataset is None:
        raise _not_kept(data)
    return dataset


def load_data_info(data: DataConfig) -> DatasetInfo:
    """What `load_data` would load, without its arrays; raises as `load_data` does."""
    if data.sha256 is None:
        return load_info(data.name, manual_dir=data.manual_dir)
    entry = cache.find_given(data.sha256)
    if entry is None:
        raise _not_kept(data)
    return entry.info


def identify(data: DataConfig, dataset: Dataset) -> DataConfig:
    """Returns the settings that mean these images: with their content hash, unless the name alone means them.

    Raises:
        InputError: the settings are of a dataset of another name, or of other content.
    """
    if parse_name(dataset.name).name != parse_name(data.name).name:
        raise InputError(f"dataset: is {dataset.name}, but the run's data.name={data.name!r}")
    if data.sha256 is None and _is_named(data.name, dataset):
        return data
    if data.sha256 not in (None, dataset.sha256):
        raise InputError(f"dataset: has the sha256 {dataset.sha256}, but the run's data.sha256={data.sha256!r}")
    return replace(data, sha256=dataset.sha256)


def read_dataset(value: Any, name: str) -> Dataset:
    """Returns what was handed over as a dataset.

    Args:
        value: a `Dataset`; or two splits, train and test, each a `Split` or a pair of images and labels, which are then
            of as many classes as the largest label says.
        name: of a dataset that is made of splits.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(value, Dataset):
        return value
    if not (_is_pair(value) and all(isinstance(part, Split) or _is_pair(part) for part in value)):
        raise InputError(
            f"dataset: must be a Dataset, or ((train images, train labels), (test images, test labels)), "
            f"not {_describe(value)}"
        )
    train, test = (part if isinstance(part, Split) else Split(*part) for part in value)
    classes = 1 + int(max(train.labels.max(initial=0), test.labels.max(initial=0)))
    return make_dataset(name, VERSION, train, test, max(classes, 2), "file")


def keep_given(data: DataConfig, dataset: Dataset) -> None:
    """Keeps a copy of images that were handed over, from where other processes, and later commands, load them.

    Raises:
        UnavailableError: the user's cache cannot be written.
    """
    if data.sha256 is None:
        return
    try:
        cache.store_given(dataset)
    except OSError as error:
        raise UnavailableError(f"dataset: no copy can be kept in {cache_root()}: {error.strerror}") from None


def keep_given_info(data: DataConfig, info: DatasetInfo) -> None:
    """Keeps what is known of images that were handed over, without a copy, for commands that need no more."""
    if data.sha256 is not None:
        with contextlib.suppress(OSError, UnavailableError):
            cache.store_given_info(info)


def _is_named(name: str, dataset: Dataset) -> bool:
    return dataset.sha256 == bundled.INFO.sha256 if name == bundled.INFO.name else name in dataset.answers


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {value.shape}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"{type(value).__name__} of {', '.join(type(part).__name__ for part in value[:3]) or 'nothing'}"
    return type(value).__name__


def _not_kept(data: DataConfig) -> InputError:
    return InputError(
        f"data.name={data.name!r}: these images were handed over in Python under this name (sha256 {data.sha256}), and "
        "no copy of them is kept; give dataset=... in Python"
    )
