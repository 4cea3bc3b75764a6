"""From a dataset that TFDS has prepared to arrays, without TensorFlow: records read in chunks, decoded by Pillow.

Reading records one at a time takes several times as long, so chunks it is. The first image settles the size; any other
size ends the reading, with both named.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnjax.datasets.arrays import Dataset, Split, check_labels, make_dataset
from cnnjax.datasets.builders import Source, first_line
from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.logs import quiet

_CHUNK = 1000


def decode(source: Source) -> Dataset:
    """Read the splits `train` and `test` (`validation` where there is no `test`) of a prepared dataset into memory.

    Raises:
        InputError: a split is missing or empty, or images vary in size.
        CorruptionError: a file is missing, truncated or damaged, or a label is out of range.
        UnavailableError: it is prepared in a format that only TensorFlow reads, or Pillow or array_record is missing.
    """
    where = f"data.name={source.name!r}"
    _check_format(source, where)
    train, test = _split_names(source, where)
    with quiet():
        first, second = (_read_split(source, split, where) for split in (train, test))
    return make_dataset(source.name, source.version, first, second, source.classes, "tfds")


def _check_format(source: Source, where: str) -> None:
    formats = {form.value for form in source.builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise UnavailableError(
            f"{where} is prepared in {source.builder.data_dir} as {' and '.join(sorted(formats))}, not array_record; "
            "move that folder away, or set TFDS_DATA_DIR to another folder, to have it prepared again"
        )


def _split_names(source: Source, where: str) -> tuple[str, str]:
    there = list(source.builder.info.splits)
    test = "test" if "test" in there else "validation"
    if "train" not in there or test not in there:
        raise InputError(f"{where} has the splits {', '.join(there)}; it must have train, and test or validation")
    return "train", test


def _read_split(source: Source, split: str, where: str) -> Split:
    count = source.builder.info.splits[split].num_examples
    images: NDArray[np.uint8] | None = None
    labels = np.empty(count, np.int32)
    for index, (image, label) in enumerate(_examples(source, split, where)):
        if images is None:
            images = np.empty((count, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise InputError(
                f"{where}: images vary in size, {images.shape[1:]} and {image.shape} in {split}; "
                "they must all have one (height, width, channels)"
            )
        images[index], labels[index] = image, label
    if images is None:
        raise InputError(f"{where}: {split} has no examples; there must be at least one")
    try:
        check_labels(f"{where}: {split}", labels, source.classes)
    except InputError as error:
        raise CorruptionError(str(error)) from None
    return Split(images, labels)


def _examples(source: Source, split: str, where: str) -> Iterator[tuple[NDArray[Any], int]]:
    try:
        records = source.builder.as_data_source(split=split, file_format="array_record")
        for start in range(0, len(records), _CHUNK):
            for record in records.__getitems__(list(range(start, min(start + _CHUNK, len(records))))):
                yield record[source.image_key], record[source.label_key]
    except ImportError as error:
        raise UnavailableError(f"{where}: {first_line(error)}") from None
    except MemoryError:
        raise
    except Exception as error:
        folder = source.builder.data_dir
        raise CorruptionError(
            f"{where}: {split} in {folder} cannot be read ({first_line(error)}); delete that folder to prepare it again"
        ) from None
