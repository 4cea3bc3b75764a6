"""A dataset: two splits of uint8 images with int32 labels, checked once and identified by the hash of their content.

Arrays of other dtypes are converted if it is clear what they mean. Whole numbers in 0..255 are pixels, whatever their
dtype, and so are floats in [0, 1] that are multiples of 1/255. Images without a channel axis are grey. Arrays whose
meaning would have to be guessed, such as normalised images, are refused.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnjax.errors import InputError

GIVEN = "given"
"""Version of a dataset whose images were given in Python."""
Order = Literal["file", "tfds"]
_MOST_CHANNELS = 4
_CLOSE = 1e-3
"""Largest distance of a scaled pixel from a whole number that is taken for a rounding error, except for float16."""
_ROUNDING = float(np.finfo(np.float16).eps)
"""Relative rounding error of float16; scaled pixels are at most 255, so 255 times this is their largest distance."""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split, in a fixed order.

    Arrays of these dtypes and shapes are not copied. Other arrays and lists are converted if it is clear what they mean
    (see `cnnjax.data.dataset`). The fields are read-only views; the caller's own arrays stay writeable.

    Attributes:
        images: uint8 (n, height, width, channels), 1 to 4 channels.
        labels: int32 (n,).

    Raises:
        InputError: the arrays cannot be converted, or have different lengths.

    Example:
        >>> split = Split(np.ones((2, 8, 8)), [0, 1])
        >>> split.images.shape, split.images.dtype, split.labels.dtype
        ((2, 8, 8, 1), dtype('uint8'), dtype('int32'))
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __post_init__(self) -> None:
        images, labels = read_images(self.images), read_labels(self.labels)
        if len(images) != len(labels):
            raise InputError(f"{len(images)} images but {len(labels)} labels; there must be one label an image")
        for name, array in (("images", images), ("labels", labels)):
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DatasetInfo:
    """The metadata of a dataset. A field is None if only decoding the dataset would tell it.

    Attributes:
        name: TFDS name, with its configuration if it has one: `mnist`, `emnist/letters`.
        version: TFDS version; `bundled` for the MNIST in this package, `given` for images given in Python.
        image_shape: (height, width, channels).
        classes: number of classes; labels are in 0 .. classes - 1.
        train_size: number of training examples.
        test_size: number of test examples.
        order: order of the examples: that of the original files (`file`), or that of TFDS (`tfds`).
        sha256: `content_hash` of the arrays.
        class_names: the names of the classes, in the order of their labels; empty if they are not known.
    """

    name: str
    version: str
    image_shape: tuple[int, int, int]
    classes: int
    train_size: int | None
    test_size: int | None
    order: Order
    sha256: str | None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked dataset, made by `make_dataset` or `from_arrays`: the fields of `DatasetInfo`, and the splits."""

    name: str
    version: str
    train: Split
    test: Split
    classes: int
    sha256: str
    order: Order
    class_names: tuple[str, ...] = ()
    answers: tuple[str, ...] = field(default=(), init=False)
    """The names with which `load` returns exactly these images; none for images that were made in Python."""

    @classmethod
    def from_arrays(
        cls, train: tuple[Any, Any], test: tuple[Any, Any], classes: Sequence[str] | None = None, name: str = "arrays"
    ) -> "Dataset":
        """Returns a dataset of arrays in the forms that people have.

        Args:
            train: images and labels. Images are (n, height, width[, channels]): whole numbers in 0..255, or floats in
                [0, 1], which are rounded to multiples of 1/255, with a warning if that changes them. Labels are
                integers (n,), strings (n,), or one-hot (n, classes).
            test: likewise.
            classes: names of the classes. String labels are among them; integers count from 0 in this order. By
                default, the distinct labels of both splits, sorted.
            name: name of the dataset, as `data.name` of a run.

        Raises:
            InputError: the arrays are not images and labels, or a label is not among the classes.

        Example:
            >>> images = np.zeros((3, 8, 8), np.uint8)
            >>> pets = Dataset.from_arrays((images, ["dog", "cat", "dog"]), (images, ["cat", "cat", "dog"]))
            >>> pets.class_names, pets.train.labels.tolist()
            (('cat', 'dog'), [1, 0, 1])
        """
        images = [_round_pixels(images, f"{split} images") for split, (images, _) in _name_splits(train, test)]
        images = [array if isinstance(array, np.memmap) else np.array(array) for array in images]  # of our own
        numbers, names = _number_labels([labels for _, (_, labels) in _name_splits(train, test)], classes)
        splits = Split(images[0], numbers[0]), Split(images[1], numbers[1])
        return make_dataset(name, GIVEN, *splits, max(len(names), 2), "file", names)

    def answering(self, *names: str) -> "Dataset":
        """Sets `answers`, the names with which `load` returns this dataset, and returns the dataset itself."""
        object.__setattr__(self, "answers", names)
        return self

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return _image_shape(self.train)

    @property
    def info(self) -> DatasetInfo:
        """The metadata of the dataset."""
        sizes = len(self.train), len(self.test)
        shape = self.image_shape
        return DatasetInfo(
            self.name, self.version, shape, self.classes, *sizes, self.order, self.sha256, self.class_names
        )


def _name_splits(train: Any, test: Any) -> list[tuple[str, Any]]:
    for split, value in (("train", train), ("test", test)):
        if not isinstance(value, Sequence) or len(value) != 2:
            raise InputError(f"{split}: must be (images, labels), not {type(value).__name__}")
    return [("train", train), ("test", test)]


def _round_pixels(value: Any, where: str) -> NDArray[Any]:
    """Returns images with floats in [0, 1] rounded to multiples of 1/255; other images as they are."""
    images = _read_array(value, where)
    if images.dtype.kind != "f" or images.size == 0 or not (images.min() >= 0 and images.max() <= 1):
        return images
    pixels = np.round(images * np.float32(255)).astype(np.uint8)
    change = float(np.abs(pixels / np.float32(255) - images).max())
    if change > _ROUNDING:
        warnings.warn(f"{where}: rounded to multiples of 1/255, by {change:.4f} at most", stacklevel=3)
    return pixels


def _number_labels(splits: list[Any], classes: Sequence[str] | None) -> tuple[list[NDArray[np.int32]], tuple[str, ...]]:
    """Returns the labels of every split as numbers of classes, and the names of the classes."""
    arrays = [_undo_one_hot(np.asarray(labels)) for labels in splits]
    if isinstance(classes, str) or not isinstance(classes, Sequence | None):
        raise InputError(f"classes={classes!r}: must be a list of names")
    if classes is not None and len(set(classes)) < len(classes):
        raise InputError(f"classes={list(classes)}: must be different names")
    if all(labels.dtype.kind in "iu" for labels in arrays):
        if classes is not None:
            return [read_labels(labels) for labels in arrays], tuple(classes)
        known: list[Any] = sorted({int(label) for labels in arrays for label in np.unique(labels)})
    elif all(labels.dtype.kind == "U" for labels in arrays):
        known = list(classes or sorted({str(label) for labels in arrays for label in np.unique(labels)}))
    else:
        kinds = ", ".join(str(labels.dtype) for labels in arrays)
        raise InputError(f"labels are {kinds}; they must be integers (n,), strings (n,), or one-hot (n, classes)")
    numbers = {label: number for number, label in enumerate(known)}
    kind = int if arrays[0].dtype.kind in "iu" else str
    unknown = next(
        (kind(label) for labels in arrays for label in np.unique(labels) if kind(label) not in numbers), None
    )
    if unknown is not None:
        raise InputError(f"labels: {unknown!r} is not one of the classes {', '.join(map(str, known))}")
    return [np.array([numbers[kind(label)] for label in labels], np.int32) for labels in arrays], tuple(map(str, known))


def _undo_one_hot(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if (
        labels.ndim == 2
        and labels.dtype.kind in "biuf"
        and np.isin(labels, (0, 1)).all()
        and (labels.sum(1) == 1).all()
    ):
        return np.asarray(labels.argmax(1))
    if labels.ndim != 1:
        raise InputError(f"labels are {labels.dtype} {labels.shape}; they must be (n,), or one-hot (n, classes)")
    return labels


def name_classes(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """Returns the names of the classes, or their numbers if the names are not known.

    Example:
        >>> name_classes((), classes=3), name_classes(("cat", "dog"), classes=2)
        (('0', '1', '2'), ('cat', 'dog'))
    """
    return tuple(names) if len(names) == classes else tuple(map(str, range(classes)))


def make_dataset(
    name: str,
    version: str,
    train: Split,
    test: Split,
    classes: int,
    order: Order,
    class_names: tuple[str, ...] = (),
) -> Dataset:
    """Checks that two splits make a dataset, and hashes them. The arguments are described in `DatasetInfo`.

    Raises:
        InputError: a split is empty, a label is not in 0 .. classes - 1, or the splits' image shapes differ.

    Example:
        >>> split = Split(np.zeros((3, 8, 8), np.uint8), [0, 1, 1])
        >>> make_dataset("mine", "given", split, split, classes=2, order="file").info.train_size
        3
    """
    for split_name, split in (("train", train), ("test", test)):
        _check_split(f"data.name={name!r}: {split_name}", split, classes)
    if _image_shape(train) != _image_shape(test):
        raise InputError(
            f"data.name={name!r}: images vary in size, {_image_shape(train)} in train and {_image_shape(test)} in test;"
            " they must all have one (height, width, channels)"
        )
    return Dataset(name, version, train, test, classes, content_hash(train, test), order, class_names)


def count_classes(train: Split, test: Split) -> int:
    """Returns one more than the largest label of both splits, but at least 2."""
    return max(1 + int(max(train.labels.max(initial=0), test.labels.max(initial=0))), 2)


def _check_split(where: str, split: Split, classes: int) -> None:
    if len(split) == 0:
        raise InputError(f"{where} has no examples; there must be at least one")
    check_labels(where, split.labels, classes)


def check_labels(where: str, labels: NDArray[np.int32], classes: int) -> None:
    """Raises `InputError` if a label is not in 0 .. classes - 1; the message begins with `where`."""
    out_of_range = np.flatnonzero((labels < 0) | (labels >= classes))
    if out_of_range.size:
        index = int(out_of_range[0])
        raise InputError(f"{where} example {index} has label {labels[index]}; labels must be in 0..{classes - 1}")


def _image_shape(split: Split) -> tuple[int, int, int]:
    height, width, channels = split.images.shape[1:]
    return height, width, channels


def content_hash(train: Split, test: Split) -> str:
    """Returns the SHA-256, in hex, of the shapes and values of both splits, whatever their memory layout.

    Of each array, a line of text such as `train images uint8 (60000, 28, 28, 1)` is hashed, then its values as
    little-endian bytes in C order.
    """
    digest = hashlib.sha256()
    for split_name, split in (("train", train), ("test", test)):
        _add_array(digest, f"{split_name} images uint8 {split.images.shape}\n", split.images)
        _add_array(digest, f"{split_name} labels int32 {split.labels.shape}\n", split.labels.astype("<i4", copy=False))
    return digest.hexdigest()


def _add_array(digest: Any, header: str, array: NDArray[Any]) -> None:
    digest.update(header.encode())
    digest.update(np.ascontiguousarray(array))


def read_images(value: Any) -> NDArray[np.uint8]:
    """Returns images as uint8 (n, height, width, channels), without a copy if they have this form already.

    Raises:
        InputError: the array has another shape, or its values are not pixels.

    Example:
        >>> read_images(np.ones((2, 28, 28))).shape
        (2, 28, 28, 1)
    """
    images = _read_array(value, "images")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or not 1 <= images.shape[3] <= _MOST_CHANNELS:
        raise InputError(
            f"images are {images.dtype} {images.shape}; they must be (n, height, width), or with 1 to {_MOST_CHANNELS} "
            "channels (n, height, width, channels)"
        )
    if images.dtype == np.uint8 or images.size == 0:
        return images.astype(np.uint8, copy=False)
    low, high = images.min(), images.max()
    scaled = images * np.float32(255) if images.dtype.kind == "f" and high <= 1 else images
    pixels = np.round(scaled) if images.dtype.kind == "f" else scaled
    close = 255 * _ROUNDING if images.dtype == np.float16 else _CLOSE
    if images.dtype.kind not in "iuf" or not (low >= 0 and high <= 255) or np.abs(scaled - pixels).max() > close:
        raise InputError(
            f"images are {images.dtype} in [{low}, {high}]; they must be whole numbers in 0..255, "
            "or multiples of 1/255 in [0, 1]"
        )
    return pixels.astype(np.uint8)


def read_labels(value: Any) -> NDArray[np.int32]:
    """Returns labels as int32 (n,), without a copy if they have this form already.

    Raises:
        InputError: the array has another shape, or its values are not integers or too large for int32.

    Example:
        >>> read_labels([[3], [1]])
        array([3, 1], dtype=int32)
    """
    labels = _read_array(value, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise InputError(f"labels are {labels.dtype} {labels.shape}; they must be (n,): one class number an image")
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and labels.size):
        raise InputError(f"labels are {labels.dtype} {labels.shape}; they must be integers (n,)")
    limits = np.iinfo(np.int32)
    if labels.size and not (labels.min() >= limits.min and labels.max() <= limits.max):
        raise InputError(f"labels are in [{labels.min()}, {labels.max()}]; they must be in 0..{limits.max}")
    return labels.astype(np.int32, copy=False)


def _read_array(value: Any, what: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = value if isinstance(value, np.ndarray) else np.asarray(value)  # a memmap stays one
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{what} are not an array of numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} are {array.dtype} {array.shape}; they must be numbers")
    return array
