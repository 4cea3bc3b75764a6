"""Images in files of the user's own: in folders, one folder per class, or as arrays in an npz file.

A folder has ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` alone, of which a share becomes test images.
An npz file has the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, as Keras writes them. What is read is
remembered under the state of the files (names, sizes and times), so that unchanged files are not decoded again.
"""

import functools
import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnjax.data.cache import make_array, temporary_folder
from cnnjax.data.dataset import Dataset, Split, count_classes, make_dataset
from cnnjax.data.pictures import open_picture
from cnnjax.data.settings import DataConfig
from cnnjax.errors import InputError, cut_lines
from cnnjax.machine.processes import count_cores
from cnnjax.settings.checking import write_count

_BLOCK = 100
"""Number of files that are decoded before their pixels are written, so that those of a large set do not pile up."""
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_log = logging.getLogger(__name__)
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_folder(folder: Path, reading: DataConfig) -> Dataset:
    """Returns the images of a folder with the names of its classes.

    Training images are in a fixed mixed order (`_mix`), test images sorted by class and name of file.

    Args:
        folder: with ``train/<class>/*`` and ``test/<class>/*``, or with ``<class>/*`` and `reading.test_split`.
        reading: says by `size`, `channels`, `test_split`, `split_seed` and `skip_corrupt` how the files are read.

    Raises:
        InputError: there is no such folder, a class or split is missing or empty, or images have several sizes; or
            lists the files that cannot be read.

    Example:
        >>> read_folder(Path("no-such-folder"), DataConfig("folder:no-such-folder"))
        Traceback (most recent call last):
            ...
        cnnjax.errors.InputError: data.name='folder:no-such-folder': there is no such folder
    """
    where = f"data.name='folder:{folder}'"
    files, classes = _list_files(folder, reading, where)
    images, read = _decode_all(files, reading, where)
    labels = np.array([file.label for file in read], np.int32)
    splits = [file.split for file in read]
    for split in ("train", "test"):
        if split not in splits:
            raise InputError(f"{where}: no image of {split} can be read; must have at least one")
    first = splits.index("test")
    train, test = Split(images[:first], labels[:first]), Split(images[first:], labels[first:])
    return make_dataset(name_source(folder), "folder", train, test, len(classes), "file", classes)


def read_npz(path: Path) -> Dataset:
    """Returns the images of an npz file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Raises:
        InputError: the file cannot be read, lacks an array, or its arrays are not images and labels.
    """
    where = f"data.name='npz:{path}'"
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{where}: is not a file")
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            missing = [name for name in _ARRAYS if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise InputError(f"{where}: has no array {missing[0]!r}; must have {', '.join(_ARRAYS)}")
            arrays = _read_arrays(archive)
    except InputError:
        raise
    except Exception as error:  # as numpy reads headers as Python literals, damage surfaces as nearly any error
        raise InputError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        train, test = Split(*arrays[:2]), Split(*arrays[2:])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return make_dataset(name_source(path), "npz", train, test, count_classes(train, test), "file")


def _read_arrays(archive: zipfile.ZipFile) -> list[np.ndarray]:
    """Returns the arrays of an npz file, mapped from files of the cache; in memory if the cache cannot be written."""
    files = [f"{name}.npy" for name in _ARRAYS]
    try:
        with temporary_folder() as folder:
            return [np.load(archive.extract(file, folder), mmap_mode="r", allow_pickle=False) for file in files]
    except OSError:
        return [np.load(archive.open(file), allow_pickle=False) for file in files]


def name_source(path: Path) -> str:
    """Returns a dataset name made of the name of a folder or file.

    Example:
        >>> name_source(Path("/data/cats & dogs"))
        'cats_dogs'
    """
    words = re.findall(r"[A-Za-z0-9]+", path.resolve().stem)
    name = "_".join(words)[:100]
    return name if name[:1].isalpha() else f"images_{name}".rstrip("_")


def fingerprint(path: Path) -> str:
    """Returns the SHA-256 of the state of a file, or of all files below a folder: names, sizes and times of change."""
    names = [os.path.join(place, name) for place, _, found in os.walk(path) for name in found] or [str(path)]
    digest = hashlib.sha256()
    for name in sorted(names):
        status = os.stat(name)
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@dataclass(frozen=True)
class File:
    """An image file: its path, the split that it belongs to, and its label."""

    path: Path
    split: str
    label: int


def _list_files(folder: Path, reading: DataConfig, where: str) -> tuple[list[File], tuple[str, ...]]:
    """Returns the image files, first those of the training split, mixed, and the names of the classes."""
    try:
        if not folder.is_dir():
            raise InputError(f"{where}: {'is not a folder' if folder.exists() else 'there is no such folder'}")
        names = {each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")}
        if {"train", "test"} <= names:
            if reading.test_split is not None:
                raise InputError(f"data.test_split: {folder} has the folders train and test; leave it out")
            tables = {split: _list_classes(folder / split) for split in ("train", "test")}
        elif reading.test_split is None:
            raise InputError(
                f"{where}: has no folders train and test; give data.test_split=0.2 to draw test images from its classes"
            )
        else:
            tables = _draw_test(_list_classes(folder), reading.test_split, reading.split_seed)
    except OSError as error:
        raise InputError(f"{where}: {error.filename}: {error.strerror}") from None
    classes = tuple(sorted({name for table in tables.values() for name in table}))
    for split, table in tables.items():
        empty = next((name for name in classes if not table.get(name)), None)
        if empty is not None:
            raise InputError(f"{where}: class {empty!r} has no image in {split}; must have at least one")
    if len(classes) < 2:
        raise InputError(f"{where}: has {len(classes)} classes; must have at least 2 folders of images")
    test = [File(path, "test", label) for label, name in enumerate(classes) for path in tables["test"][name]]
    return _mix(tables["train"], classes) + test, classes


def _mix(table: Mapping[str, Sequence[Path]], classes: Sequence[str]) -> list[File]:
    """Returns the training files in an order of which every part has all classes in about their proportions.

    `train_size` takes the first examples, and `validation_split` the last ones; sorted by class, these would be of a
    few classes. The files of a class are shuffled, then spread evenly over the whole.
    """
    placed: list[tuple[float, File]] = []
    for label, name in enumerate(classes):
        paths = table[name]
        order = np.random.default_rng([*name.encode()]).permutation(len(paths))
        for place, index in enumerate(order):
            placed.append(((place + 0.5) / len(paths), File(paths[index], "train", label)))
    return [file for _, file in sorted(placed, key=lambda each: each[0])]


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """Returns the image files below every folder of a class, sorted by path."""
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    return {
        each.name: sorted(path for path in each.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
        for each in classes
    }


def _draw_test(classes: dict[str, list[Path]], share: float, seed: int) -> dict[str, dict[str, list[Path]]]:
    """Draws a share of each class, at least one image, as the test split."""
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name, paths in classes.items():
        count = min(max(round(share * len(paths)), 1), max(len(paths) - 1, 0))
        order = np.random.default_rng([seed, *name.encode()]).permutation(len(paths))
        drawn = {int(index) for index in order[:count]}
        train[name] = [path for index, path in enumerate(paths) if index not in drawn]
        test[name] = [path for index, path in enumerate(paths) if index in drawn]
    return {"train": train, "test": test}


def _decode_all(files: Sequence[File], reading: DataConfig, where: str) -> tuple[NDArray[np.uint8], list[File]]:
    """Returns the pixels of the files that can be read, uint8 (files, height, width, channels), and these files."""
    images, channels = np.empty((0, 1, 1, 1), np.uint8), 0
    sizes: dict[tuple[int, ...], None] = {}
    read: list[File] = []
    problems: list[str] = []
    with ThreadPoolExecutor(count_cores()) as pool:
        for start in range(0, len(files), _BLOCK):
            block = files[start : start + _BLOCK]
            for file, pixels in zip(block, pool.map(functools.partial(_decode, reading=reading), block), strict=True):
                if isinstance(pixels, str):
                    problems.append(pixels)
                    continue
                sizes.setdefault(pixels.shape[:2])
                if len(sizes) > 1:
                    continue  # refused below, after the files that cannot be read
                if pixels.shape[2] > channels:  # at the first file, and at the first colours after grey files
                    before, channels = images[: len(read)], pixels.shape[2]
                    images = make_array((len(files), *pixels.shape))
                    images[: len(read)] = before
                images[len(read)] = pixels  # grey pixels have equal channels
                read.append(file)
    _refuse_corrupt(problems, reading, where)
    _check_sizes([*sizes], where)
    return images[: len(read)], read


def _decode(file: File, reading: DataConfig) -> NDArray[np.uint8] | str:
    """Returns the pixels of an image, uint8 (height, width, channels), or why it cannot be read."""
    from PIL import Image, ImageOps

    try:
        picture = open_picture(file.path)
    except InputError as error:
        return f"{file.path}: {error}"
    mode = {None: picture.mode.removesuffix("A"), 1: "L", 3: "RGB"}[reading.channels]
    if picture.mode.endswith("A"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert(mode)
    if reading.size is not None and picture.size != reading.size[::-1]:
        picture = ImageOps.fit(picture, reading.size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(picture, np.uint8).reshape(picture.height, picture.width, -1)


def _check_sizes(sizes: Sequence[tuple[int, ...]], where: str) -> None:
    if len(sizes) > 1:
        first, second = (f"{width} x {height}" for height, width in sizes[:2])
        raise InputError(
            f"{where}: images vary in size: {first}, {second} (width x height); data.size=32 resizes and crops them"
        )


def _refuse_corrupt(problems: Sequence[str], reading: DataConfig, where: str) -> None:
    """Raises `InputError` with a line for every file that cannot be read, unless such files are to be skipped."""
    if not problems:
        return
    if reading.skip_corrupt:
        _log.warning("%s: %d files cannot be read and are left out", where, len(problems))
        return
    listed = "\n  ".join(cut_lines(sorted(problems)))
    count = write_count(len(problems), "file")
    raise InputError(f"{where}: {count} cannot be read; data.skip_corrupt=true leaves them out\n  {listed}")
