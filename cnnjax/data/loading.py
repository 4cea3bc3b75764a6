"""Loads the images of a run, by the name of a dataset or by the hash of images that were given in Python.

`mnist` is the bundled MNIST; any other name is a TFDS set. It is read from the cache, or else from the files that TFDS
has prepared, or else it is prepared first. Each step imports only what it needs: MNIST and cached datasets load without
TFDS, prepared ones without TensorFlow. Images that were given in Python have only been given a name, so the hash of
their content (`DataConfig.sha256`) is part of the run key too, and they are found in the cache by it.
"""

import contextlib
import functools
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import cache, files, mnist, tfds
from cnnjax.data.dataset import GIVEN, Dataset, DatasetInfo, Split, count_classes, make_dataset, name_classes
from cnnjax.data.settings import OWN_FILES, READING, DataConfig, Reference, parse_name
from cnnjax.errors import CnnjaxError, CorruptionError, InputError, UnavailableError
from cnnjax.machine.files import cache_root, read_path

_log = logging.getLogger(__name__)


def find_images(data: DataConfig) -> DataConfig:
    """Returns the settings with the user's own files replaced by the hash of the images in them; others unchanged.

    The files are read, and their images kept in the cache, unless they are unchanged since they were last read. If they
    are no longer there, the images that they had are used.

    Raises:
        InputError: the files cannot be read, or are not images with labels.
        UnavailableError: the cache cannot be written.
    """
    if not data.own_files:
        return data
    path = read_path(data.path, "data.name").absolute()
    kind = "mixed folder" if data.own_files == "folder" else data.own_files
    reading = {"kind": kind, **{name: getattr(data, name) for name in READING}}
    known = cache.find_own(path, reading)
    state = files.fingerprint(path) if path.exists() else None
    if known is None or (state is not None and state != known.state):
        try:
            dataset = files.read_folder(path, data) if data.own_files == "folder" else files.read_npz(path)
            known = cache.OwnFiles(state or "", dataset.sha256)
            cache.store_given(dataset)
            cache.store_own(path, reading, known)
        except OSError as error:
            raise UnavailableError(f"{data.name}: no copy can be kept in {cache_root()}: {error.strerror}") from None
    defaults = {name: getattr(DataConfig, name) for name in READING}
    return replace(data, name=data.own_files, sha256=known.sha256, **defaults)


def load_data(data: DataConfig) -> Dataset:
    """Loads the images of a run.

    Raises:
        InputError: the images were given in Python or in files, and the cache has no copy of them; otherwise as `load`.
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
    """Returns the metadata of the images of a run, mostly without loading them; raises the errors of `load_data`."""
    if data.sha256 is None:
        return load_info(data.name, manual_dir=data.manual_dir)
    entry = cache.find_given(data.sha256)
    if entry is None:
        raise _not_kept(data)
    return entry.info


@functools.cache
def find_info(data: DataConfig) -> DatasetInfo:
    """Returns the metadata as `load_data_info` does, and remembers it until a dataset is prepared in this process."""
    return load_data_info(data)


def load(name: str, *, manual_dir: str | Path | None = None) -> Dataset:
    """Loads a dataset: `mnist` from the bundled files, any other name through `load_tfds`.

    Args:
        name: `mnist`, or a TFDS name: `name`, `name/config`, `name:1.2.3` or `name/config:1.2.3`.
        manual_dir: folder of files downloaded by hand, from which TFDS prepares the dataset; not used otherwise.

    Returns:
        The dataset; its arrays are read-only.

    Raises:
        InputError: the name is not known, the dataset is not uint8 images of one size with labels, or `manual_dir` is
            not a folder.
        CorruptionError: a file has a wrong checksum, is truncated or damaged, or has a label out of range.
        UnavailableError: the dataset is not prepared yet, and TensorFlow, the network, a permission or disk space is
            missing.

    Example:
        >>> dataset = load("mnist")
        >>> dataset.image_shape, dataset.classes, len(dataset.train), len(dataset.test)
        ((28, 28, 1), 10, 60000, 10000)
    """
    reference, folder = parse_name(name), _existing_folder(manual_dir)
    if name == mnist.INFO.name:
        return mnist.load_mnist()
    dataset = _load_tfds(reference, folder)
    return dataset.answering(*{*dataset.answers, str(reference)})


def load_tfds(name: str, *, manual_dir: str | Path | None = None) -> Dataset:
    """Loads a TFDS dataset, `mnist` included, in TFDS's order of examples.

    The first load prepares the dataset in TFDS's data folder (`TFDS_DATA_DIR`) if it is not there, with TensorFlow in a
    child process; decodes it; and stores the arrays in the cache (`CNNJAX_CACHE_DIR`), from where later
    loads map them. If the cache cannot be written, the arrays are returned all the same, with a `RuntimeWarning`. From
    then on, a name without a version means the cached version.

    Arguments, result and errors are those of `load`. If the dataset has no split `test`, its `validation` is used.
    """
    return _load_tfds(parse_name(name), _existing_folder(manual_dir))


def load_info(name: str, *, manual_dir: str | Path | None = None) -> DatasetInfo:
    """Returns the metadata of a dataset: image shape and classes, and sizes and hash if they are known.

    This takes milliseconds for `mnist` and for cached datasets, whose arrays are not opened. For others it takes a
    second or two; sizes and hash are None then, because the dataset is not prepared for this. Only a dataset whose
    image size TFDS does not declare is loaded. Arguments and errors are those of `load`.

    Example:
        >>> load_info("mnist").train_size
        60000
    """
    reference, folder = parse_name(name), _existing_folder(manual_dir)
    if name == mnist.INFO.name:
        return mnist.INFO
    entry = cache.find_entry(reference)
    if entry:
        return entry.info

    source = tfds.find_source(reference)
    if None in source.declared_shape:
        return _load_tfds(reference, folder).info
    height, width, channels = source.declared_shape
    shape = (int(height or 0), int(width or 0), int(channels or 0))
    return DatasetInfo(source.name, source.version, shape, source.classes, None, None, "tfds", None)


def find_class_names(data: DataConfig, classes: int) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of their labels; their numbers if the names are not known.

    Args:
        data: the dataset.
        classes: number of classes.

    Example:
        >>> find_class_names(DataConfig("mnist"), classes=10)[:3]
        ('0', '1', '2')
    """
    names: tuple[str, ...] = ()
    if data.sha256 is not None:
        names = load_data_info(data).class_names
    elif data.name != mnist.INFO.name:
        with contextlib.suppress(CnnjaxError):  # TFDS may not know a dataset whose images are still in the cache
            names = tfds.find_source(parse_name(data.name)).class_names
    return name_classes(names, classes)


def _load_tfds(reference: Reference, manual_dir: Path | None) -> Dataset:
    entry = cache.find_entry(reference)
    cached = cache.load_entry(entry) if entry else None
    return cached or _decode_and_store(reference, manual_dir)


def _decode_and_store(reference: Reference, manual_dir: Path | None) -> Dataset:
    source = tfds.find_source(reference)
    if not source.is_prepared():
        _log.info("preparing %s once, with TensorFlow; this may take minutes", reference)
        tfds.prepare(source, manual_dir)
        source = tfds.find_source(reference)
        if not source.is_prepared():
            folder = source.builder.data_dir
            raise CorruptionError(f"data.name='{reference}': the dataset in {folder} is incomplete; delete that folder")
    names = tfds.names_of(source)
    dataset = tfds.decode(source).answering(*names)
    find_info.cache_clear()  # sizes and hash are known from now on
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


def identify(data: DataConfig, dataset: Dataset) -> DataConfig:
    """Returns the settings of a run's images with the content hash of `dataset`, unless the name alone identifies it.

    Raises:
        InputError: the settings have another name or another content hash than `dataset`.
    """
    if data.name == DataConfig().name and dataset.version == GIVEN:
        data = replace(data, name=dataset.name)
    is_own = data.name in OWN_FILES and data.sha256 is not None
    if not is_own and parse_name(dataset.name).name != parse_name(data.name).name:
        raise InputError(f"dataset: is {dataset.name}, but the run's data.name={data.name!r}")
    if data.sha256 is None and _is_named(data.name, dataset):
        return data
    if data.sha256 not in (None, dataset.sha256):
        raise InputError(f"dataset: has the sha256 {dataset.sha256}, but the run's data.sha256={data.sha256!r}")
    return replace(data, sha256=dataset.sha256)


def _is_named(name: str, dataset: Dataset) -> bool:
    return dataset.sha256 == mnist.INFO.sha256 if name == mnist.INFO.name else name in dataset.answers


def read_dataset(value: Any, name: str) -> Dataset:
    """Returns images that were given in Python as a dataset.

    Args:
        value: a `Dataset`, which is returned as it is; or a pair of training and test split, each a `Split` or a pair
            of images (n, height, width[, channels]) and labels (n,). The number of classes is one more than the largest
            label, but at least 2.
        name: name of the dataset that is made of such a pair.

    Raises:
        InputError: `value` is neither, or the arrays are not images and labels.

    Example:
        >>> images, labels = np.zeros((3, 8, 8), np.uint8), np.array([0, 1, 2])
        >>> read_dataset(((images, labels), (images, labels)), "mine").info.image_shape
        (8, 8, 1)
    """
    if isinstance(value, Dataset):
        return value
    if not (_is_pair(value) and all(isinstance(part, Split) or _is_pair(part) for part in value)):
        raise InputError(
            f"dataset: must be a Dataset, or ((train images, train labels), (test images, test labels)), "
            f"not {_describe(value)}"
        )
    train, test = (part if isinstance(part, Split) else Split(*part) for part in value)
    return make_dataset(name, GIVEN, train, test, count_classes(train, test), "file")


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {value.shape}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"{type(value).__name__} of {', '.join(type(part).__name__ for part in value[:3]) or 'nothing'}"
    return type(value).__name__


def keep_given(data: DataConfig, dataset: Dataset) -> None:
    """Stores a copy of images that were given in Python, so that other processes and later commands can load them.

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
    """Stores only the metadata of images that were given in Python, for commands that need no more.

    Does nothing if the user's cache cannot be written.
    """
    if data.sha256 is not None:
        with contextlib.suppress(OSError, UnavailableError):
            cache.store_given_info(info)


def _not_kept(data: DataConfig) -> InputError:
    if data.name in OWN_FILES:
        return InputError(
            f"data.name={data.name!r}: the cache has no copy of these images (sha256 {data.sha256}); "
            f"give data.name={data.name}:PATH with the path of their files"
        )
    return InputError(
        f"data.name={data.name!r}: these images were handed over in Python under this name (sha256 {data.sha256}), and "
        "no copy of them is kept; give dataset=... in Python"
    )
