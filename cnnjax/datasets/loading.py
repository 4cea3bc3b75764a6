"""The way in: bundled, else cached, else read from what TFDS has prepared, else prepared first.

Each step imports only what it needs: MNIST and cached datasets load without TFDS, prepared ones without TensorFlow.
"""

import logging
import warnings
from pathlib import Path

from cnnjax.dataset_names import Reference, parse_name
from cnnjax.datasets import bundled, cache
from cnnjax.datasets.arrays import Dataset, DatasetInfo
from cnnjax.errors import CorruptionError, InputError

_log = logging.getLogger(__name__)


def load(name: str, *, manual_dir: str | Path | None = None) -> Dataset:
    """Load a dataset: `mnist` from the bundled files, any other name through `load_tfds`.

    Args:
        name: `mnist`, or a TFDS name: `name`, `name/config`, `name:1.2.3` or `name/config:1.2.3`.
        manual_dir: folder of files downloaded by hand, for preparing; not looked into if there is nothing to prepare.

    Returns:
        The dataset; its arrays are read-only.

    Raises:
        InputError: an unknown name, a dataset that isn't uint8 images of one size with labels, no folder `manual_dir`.
        CorruptionError: a file has a wrong checksum, is truncated or damaged, or holds a label out of range.
        UnavailableError: to be prepared first, and there is no TensorFlow, network, permission or disk space.

    Example:
        >>> dataset = load("mnist")
        >>> dataset.image_shape, dataset.classes, len(dataset.train), len(dataset.test)
        ((28, 28, 1), 10, 60000, 10000)
    """
    reference, folder = parse_name(name), _existing_folder(manual_dir)
    if name == bundled.INFO.name:
        return bundled.load_mnist()
    dataset = _load_tfds(reference, folder)
    return dataset.answering(*{*dataset.answers, str(reference)})


def load_tfds(name: str, *, manual_dir: str | Path | None = None) -> Dataset:
    """Load a dataset of TFDS's, `mnist` included, in TFDS's order.

    The first load prepares the dataset in TFDS's data folder (`TFDS_DATA_DIR`) if it isn't there, with TensorFlow in a
    process of its own; decodes it into memory; and keeps the arrays in the cache folder (`CNNJAX_CACHE_DIR`), from
    where later loads map them. If the cache can't be written the arrays are returned all the same, with a
    `RuntimeWarning`. A name without a version means, from then on, the version that is cached.

    Arguments, result and errors are those of `load`. The test split is `validation` where the dataset has no `test`.
    """
    return _load_tfds(parse_name(name), _existing_folder(manual_dir))


def load_info(name: str, *, manual_dir: str | Path | None = None) -> DatasetInfo:
    """What `load` would load, without its arrays: image shape, classes, and sizes and hash where they are known.

    Takes milliseconds for `mnist` and for cached datasets, whose files are not opened, and a second or two for others,
    which are not prepared: sizes and hash are None then. A prepared dataset that declares no one image size is loaded,
    to find it out. Arguments and errors are those of `load`.
    """
    reference, folder = parse_name(name), _existing_folder(manual_dir)
    if name == bundled.INFO.name:
        return bundled.INFO
    entry = cache.find_entry(reference)
    if entry:
        return entry.info

    from cnnjax.datasets.builders import find_source

    source = find_source(reference)
    if None in source.declared_shape:
        return _load_tfds(reference, folder).info
    height, width, channels = source.declared_shape
    shape = (int(height or 0), int(width or 0), int(channels or 0))
    return DatasetInfo(source.name, source.version, shape, source.classes, None, None, "tfds", None)


def _load_tfds(reference: Reference, manual_dir: Path | None) -> Dataset:
    entry = cache.find_entry(reference)
    cached = cache.load_entry(entry) if entry else None
    return cached or _decode_and_store(reference, manual_dir)


def _decode_and_store(reference: Reference, manual_dir: Path | None) -> Dataset:
    from cnnjax.datasets.builders import find_source, names_of
    from cnnjax.datasets.decoding import decode
    from cnnjax.datasets.preparing import prepare

    source = find_source(reference)
    if not source.is_prepared():
        _log.info("preparing %s once, with TensorFlow; this may take minutes", reference)
        prepare(source, manual_dir)
        source = find_source(reference)
        if not source.is_prepared():
            folder = source.builder.data_dir
            raise CorruptionError(f"data.name='{reference}': {folder} holds no whole dataset; delete that folder")
    names = names_of(source)
    dataset = decode(source).answering(*names)
    try:
        return cache.store(dataset, names)
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(
            f"{cache.cache_folder()} cannot be written, so '{reference}' is decoded at every start: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )
        return dataset


def _existing_folder(manual_dir: str | Path | None) -> Path | None:
    if manual_dir is None:
        return None
    folder = Path(manual_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"data.manual_dir={str(manual_dir)!r} is not a folder; it must hold the downloaded files")
    return folder.resolve()
