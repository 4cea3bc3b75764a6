"""What a dataset is: two splits of uint8 images with int32 labels, checked once and named by the hash of their content.

The hash covers shapes, values and order of the four arrays and nothing else, so two copies of a dataset agree whatever
files they were read from, and a run that records the hash says exactly which examples it saw, in which order.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnjax.errors import CorruptionError, InputError

Order = Literal["file", "tfds"]


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split, in a fixed order.

    Attributes:
        images: uint8 (n, height, width, channels), 1 to 4 channels.
        labels: int32 (n,).

    Raises:
        CorruptionError: the arrays don't have these dtypes and ranks, or differ in n.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[3] <= 4:
            raise CorruptionError(
                f"images are {images.dtype} {images.shape}; they must be uint8 (n, height, width, 1 to 4 channels)"
            )
        if labels.dtype != np.int32 or labels.ndim != 1:
            raise CorruptionError(f"labels are {labels.dtype} {labels.shape}; they must be int32 (n,)")
        if len(images) != len(labels):
            raise CorruptionError(f"{len(images)} images but {len(labels)} labels; there must be one label an image")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without its arrays; None where only decoding it would tell.

    Attributes:
        name: TFDS name, with its configuration if it has one: `mnist`, `emnist/letters`.
        version: TFDS version, or `bundled`.
        image_shape: (height, width, channels).
        classes: labels lie in 0 .. classes - 1.
        train_size: training examples.
        test_size: test examples.
        order: whose example order it is, the original file's (`file`) or TFDS's (`tfds`).
        sha256: `content_hash` of the arrays.
    """

    name: str
    version: str
    image_shape: tuple[int, int, int]
    classes: int
    train_size: int | None
    test_size: int | None
    order: Order
    sha256: str | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked dataset; `make_dataset` builds it. Fields are described in `DatasetInfo`."""

    name: str
    version: str
    train: Split
    test: Split
    classes: int
    sha256: str
    order: Order

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return _image_shape(self.train)

    @property
    def info(self) -> DatasetInfo:
        """Everything but the arrays."""
        sizes = len(self.train), len(self.test)
        return DatasetInfo(self.name, self.version, self.image_shape, self.classes, *sizes, self.order, self.sha256)


def make_dataset(name: str, version: str, train: Split, test: Split, classes: int, order: Order) -> Dataset:
    """Check that the splits belong together, hash them, and freeze them.

    Raises:
        InputError: a split is empty, or the splits' image shapes differ.
        CorruptionError: a label lies outside 0 .. classes - 1.
    """
    for split_name, split in (("train", train), ("test", test)):
        _check_split(f"data.name={name!r}: {split_name}", split, classes)
    if _image_shape(train) != _image_shape(test):
        raise InputError(
            f"data.name={name!r}: images vary in size, {_image_shape(train)} in train and {_image_shape(test)} in test;"
            " they must all have one (height, width, channels)"
        )
    return Dataset(name, version, train, test, classes, content_hash(train, test), order)


def content_hash(train: Split, test: Split) -> str:
    """SHA-256, in hex, of the shapes and values of both splits, whatever their memory layout and origin.

    Each array adds one line of text, `train images uint8 (60000, 28, 28, 1)`, then its little-endian C-order bytes.
    """
    digest = hashlib.sha256()
    for split_name, split in (("train", train), ("test", test)):
        _add_array(digest, f"{split_name} images uint8 {split.images.shape}\n", split.images)
        _add_array(digest, f"{split_name} labels int32 {split.labels.shape}\n", split.labels.astype("<i4", copy=False))
    return digest.hexdigest()


def _add_array(digest: Any, header: str, array: NDArray[Any]) -> None:
    digest.update(header.encode())
    digest.update(np.ascontiguousarray(array))


def _check_split(where: str, split: Split, classes: int) -> None:
    if len(split) == 0:
        raise InputError(f"{where} has no examples; there must be at least one")
    out_of_range = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if out_of_range.size:
        index = int(out_of_range[0])
        raise CorruptionError(
            f"{where} example {index} has label {split.labels[index]}; labels must be in 0..{classes - 1}"
        )
    for array in (split.images, split.labels):
        array.flags.writeable = False


def _image_shape(split: Split) -> tuple[int, int, int]:
    height, width, channels = split.images.shape[1:]
    return height, width, channels
