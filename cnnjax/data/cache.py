"""A cache of decoded arrays, so that a TFDS dataset is decoded, and TFDS imported, only when it is first used.

An entry is a folder `datasets/<name>/<config or _>/<version>/` with four `.npy` files and `metadata.json`. It is
written under another name, flushed to the disk and renamed, so no entry is ever half-written. Files can be damaged
later, so every load compares the arrays with the content hash (2 GB/s) before they are used. A damaged entry counts as
missing, and is replaced. `metadata.json` also lists the names that the entry answers to, as TFDS resolved them when the
entry was stored: `emnist` means `emnist/byclass:3.1.0` until the entry is deleted.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cnnjax.data.dataset import Dataset, DatasetInfo, Split, make_dataset
from cnnjax.data.settings import Reference
from cnnjax.errors import CnnjaxError, CorruptionError
from cnnjax.machine.files import cache_root, replace_file

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """A cached dataset, of which only the metadata has been read.

    Attributes:
        folder: the folder of the entry.
        info: the metadata.
        answers: the dataset names that mean this entry, such as `emnist` and `emnist/byclass:3.1.0`.
    """

    folder: Path
    info: DatasetInfo
    answers: tuple[str, ...]

    @property
    def has_arrays(self) -> bool:
        """Whether the arrays are cached too; of images given by the user, an entry may have the metadata only."""
        return (self.folder / f"{_ARRAYS[0]}.npy").exists()


def cache_folder() -> Path:
    """Returns the folder of the entries of TFDS datasets, in the user's cache."""
    return cache_root() / "datasets"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields a folder in the cache that is removed at the end; arrays that map its files stay valid.

    Raises:
        OSError: the cache cannot be written.
    """
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="draft-", dir=cache_root()) as folder:
        yield Path(folder)


def make_array(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns an array to be filled, in a file without a name, so that it need not fit into memory.

    If the cache cannot be written, the array is in memory.
    """
    try:
        with temporary_folder() as folder, (folder / "array").open("xb+") as file:
            if hasattr(os, "posix_fallocate"):  # or else a full disk would end the process when the array is filled
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError:
        return np.empty(shape, np.uint8)


def find_entry(reference: Reference) -> CacheEntry | None:
    """Returns the cached entry with the highest version among those that answer to the name, or None."""
    found = [entry for entry in _entries(reference.name) if str(reference) in entry.answers]
    return max(found, key=lambda entry: [int(part) for part in entry.info.version.split(".")], default=None)


def load_entry(entry: CacheEntry) -> Dataset | None:
    """Returns the dataset of an entry, with memory-mapped, read-only arrays; None if they are missing or damaged."""
    info = entry.info
    try:
        arrays = [_map_array(entry.folder / f"{name}.npy") for name in _ARRAYS]
        train, test = Split(*arrays[:2]), Split(*arrays[2:])
        dataset = make_dataset(info.name, info.version, train, test, info.classes, info.order, info.class_names)
    except (OSError, ValueError, CnnjaxError) as error:
        _log.warning("the cached copy in %s is damaged and will be made again: %s", entry.folder, error)
        return None
    if dataset.info != info:
        _log.warning("the cached copy in %s is damaged and will be made again: SHA-256 differs", entry.folder)
        return None
    return dataset.answering(*entry.answers)


def store(dataset: Dataset, answers: tuple[str, ...]) -> Dataset:
    """Writes a dataset to the cache and returns the memory-mapped copy.

    If two processes store the same dataset at once, both succeed, and one of the two equal copies is kept.

    Args:
        dataset: the dataset.
        answers: the dataset names that mean it.

    Raises:
        OSError: the cache folder cannot be written (permission, disk full); no partial entry is left.
    """
    name, _, config = dataset.name.partition("/")
    entry = CacheEntry(cache_folder() / name / (config or "_") / dataset.version, dataset.info, answers)
    _store(dataset, entry)
    return load_entry(entry) or dataset


def find_given(sha256: str) -> CacheEntry | None:
    """Returns the entry of images given by the user, by their content hash, or None; it may lack the arrays."""
    path = _given_folder(sha256) / "metadata.json"
    try:
        entry = _read_metadata(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, CorruptionError) as error:
        _log.warning("the cached copy in %s is damaged: %s", path.parent, error)
        return None
    return entry if entry.info.sha256 == sha256 else None


def store_given(dataset: Dataset) -> None:
    """Writes images given by the user to the cache, unless they are there already.

    Raises:
        OSError: the cache folder cannot be written (permission, disk full); no partial entry is left.
    """
    entry = find_given(dataset.sha256)
    if entry is None or not entry.has_arrays or load_entry(entry) is None:
        _store(dataset, CacheEntry(_given_folder(dataset.sha256), dataset.info, ()))


def store_given_info(info: DatasetInfo) -> None:
    """Writes the metadata of images given by the user, unless it is there already; raises as `store_given`."""
    assert info.sha256 is not None
    if find_given(info.sha256) is None:
        _store(None, CacheEntry(_given_folder(info.sha256), info, ()))


@dataclass(frozen=True)
class OwnFiles:
    """What is remembered of files of the user's own.

    Attributes:
        state: the fingerprint of the files when they were read.
        sha256: the content hash of the images that they had.
    """

    state: str
    sha256: str


def find_own(path: Path, reading: Mapping[str, Any]) -> OwnFiles | None:
    """Returns what is remembered of files that were read in this way, if their images are in the cache; else None."""
    try:
        known = OwnFiles(**json.loads(_own_path(path, reading).read_text(encoding="utf-8")))
        entry = find_given(known.sha256)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return known if entry and entry.has_arrays else None


def store_own(path: Path, reading: Mapping[str, Any], known: OwnFiles) -> None:
    """Remembers files that were read in this way; raises `UnavailableError` if it cannot be written."""
    target = _own_path(path, reading)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, json.dumps(asdict(known)), "the cache")


def _own_path(path: Path, reading: Mapping[str, Any]) -> Path:
    text = json.dumps([str(path), dict(reading)], sort_keys=True)
    return cache_root() / "files" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def _given_folder(sha256: str) -> Path:
    return cache_root() / "images" / sha256


def _store(dataset: Dataset | None, entry: CacheEntry) -> None:
    entry.folder.parent.mkdir(parents=True, exist_ok=True)
    draft = entry.folder.parent / f".{entry.folder.name}.{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        if dataset is not None:
            _write_arrays(draft, dataset)
        _write_metadata(draft, entry)
        _put_in_place(draft, entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _entries(name: str) -> Iterator[CacheEntry]:
    for path in cache_folder().glob(f"{name}/*/[0-9]*/metadata.json"):
        try:
            entry = _read_metadata(path)
            if not re.fullmatch(r"\d+(\.\d+)*", entry.info.version, re.ASCII):
                raise CorruptionError(f"metadata.json states the version {entry.info.version!r}")
            yield entry
        except (OSError, ValueError, TypeError, KeyError, CorruptionError) as error:
            _log.warning("the cached copy in %s is damaged and will be made again: %s", path.parent, error)


def _read_metadata(path: Path) -> CacheEntry:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.pop("check", None) != _check(content):
        raise CorruptionError("metadata.json is not what was written")
    answers = tuple(content.pop("answers"))
    shape, names = tuple(content["image_shape"]), tuple(content.get("class_names", ()))
    info = DatasetInfo(**content | {"image_shape": shape, "class_names": names})
    if not isinstance(info.version, str):
        raise CorruptionError(f"metadata.json states the version {info.version!r}")
    if isinstance(info.classes, bool) or not isinstance(info.classes, int):
        raise CorruptionError(f"metadata.json states {info.classes!r} classes")
    if not all(isinstance(name, str) for name in names) or len(names) not in (0, info.classes):
        raise CorruptionError(f"metadata.json states the class names {names!r}")
    return CacheEntry(path.parent, info, answers)


def _check(content: dict[str, Any]) -> str:
    """Returns the hash of the metadata, which `metadata.json` holds as `check`."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _map_array(path: Path) -> NDArray[Any]:
    """Returns the array of a file, memory-mapped; raises `ValueError` if the file is not a whole `.npy` file."""
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy reads headers as Python literals, so damage can raise nearly any exception
        raise ValueError(f"{path.name}: {type(error).__name__}: {error}") from None
    return array


def _write_arrays(folder: Path, dataset: Dataset) -> None:
    train, test = dataset.train, dataset.test
    arrays: tuple[NDArray[Any], ...] = (train.images, train.labels, test.images, test.labels)
    for name, array in zip(_ARRAYS, arrays, strict=True):
        with _durable(folder / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)


def _write_metadata(folder: Path, entry: CacheEntry) -> None:
    content = asdict(entry.info) | {"answers": entry.answers}
    with _durable(folder / "metadata.json") as file:
        file.write(json.dumps(content | {"check": _check(content)}, indent=1).encode())


@contextmanager
def _durable(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file, and syncs it to the disk when the block ends."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(draft: Path, entry: CacheEntry) -> None:
    """Renames the draft to the folder of the entry; keeps an entry that is there already, if it is not damaged."""
    for _ in range(3):
        try:
            draft.rename(entry.folder)
            return
        except OSError:
            if not entry.folder.exists():
                raise
        with suppress(OSError, ValueError, TypeError, KeyError, CorruptionError):
            if load_entry(_read_metadata(entry.folder / "metadata.json")) is not None:
                return
        with suppress(FileNotFoundError):
            damaged = draft.with_name(f"{draft.name}.damaged")
            entry.folder.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
