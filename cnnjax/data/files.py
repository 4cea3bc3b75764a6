"""Images in files of the user's own: in folders, one folder per class, or as arrays in an npz file.

A folder has ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` alone, of which a share becomes test images.
An npz file has the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, as Keras writes them. What is read is
remembered under the state of the files (names, sizes and times), so that unchanged files are not decoded again.
"""

import hashlib
import io
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnjax.data.dataset import Dataset, Split, make_dataset
from cnnjax.data.settings import DataConfig
from cnnjax.errors import InputError
from cnnjax.machine.files import read_bytes
from cnnjax.machine.processes import count_cores
from cnnjax.settings.checking import write_count

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_BYTES = 2**28
"""The largest image file."""
MOST_PIXELS = 50_000_000
"""The largest image."""
_MOST_LINES = 20
_log = logging.getLogger(__name__)
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_folder(folder: Path, reading: DataConfig) -> Dataset:
    """Returns the images of a folder, sorted by class and name of file, with the names of the classes.

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
    with ThreadPoolExecutor(count_cores()) as pool:
        headers = list(pool.map(_read_header, (file.path for file in files)))
        _refuse_corrupt([each for each in headers if isinstance(each, str)], reading, where)
        found = [(file, header) for file, header in zip(files, headers, strict=True) if isinstance(header, Header)]
        shape = _choose_shape([header for _, header in found], reading, where)
        images = np.empty((len(found), *shape), np.uint8)

        def decode(index: int) -> str | None:
            try:
                images[index] = _decode(found[index][0].path, shape)
            except Exception as error:  # decoders raise nearly any error on damaged files
                return f"{found[index][0].path}: {_describe(error)}"
            return None

        problems = list(pool.map(decode, range(len(found))))
    _refuse_corrupt([problem for problem in problems if problem], reading, where)

    def gather(split: str) -> Split:
        chosen = [
            index
            for index, ((file, _), problem) in enumerate(zip(found, problems, strict=True))
            if file.split == split and problem is None
        ]
        if not chosen:
            raise InputError(f"{where}: no image of {split} can be read; must have at least one")
        return Split(images[chosen], np.array([found[index][0].label for index in chosen]))

    train, test = gather("train"), gather("test")
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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in _ARRAYS if name not in archive.files]
            if missing:
                raise InputError(f"{where}: has no array {missing[0]!r}; must have {', '.join(_ARRAYS)}")
            arrays = [archive[name] for name in _ARRAYS]
    except InputError:
        raise
    except Exception as error:  # as numpy reads headers as Python literals, damage surfaces as nearly any error
        raise InputError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        train, test = Split(*arrays[:2]), Split(*arrays[2:])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    classes = 1 + int(max(train.labels.max(initial=0), test.labels.max(initial=0)))
    return make_dataset(name_source(path), "npz", train, test, max(classes, 2), "file")


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


@dataclass(frozen=True)
class Header:
    """What the header of an image file says: (height, width) of the upright image, and whether it has colours."""

    size: Size
    is_colour: bool


def _list_files(folder: Path, reading: DataConfig, where: str) -> tuple[list[File], tuple[str, ...]]:
    """Returns the image files sorted by split, class and name, and the names of the classes."""
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
    return [
        File(path, split, label)
        for split, table in tables.items()
        for label, name in enumerate(classes)
        for path in table[name]
    ], classes


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


def _read_header(path: Path) -> "Header | str":
    """Returns the header of an image, or why the file cannot be read."""
    from PIL import ExifTags, Image

    try:
        with Image.open(path, formats=FORMATS) as file:
            width, height = file.size
            if width * height > MOST_PIXELS:
                return f"{path}: is {width} x {height} pixels; must be at most {MOST_PIXELS:,} in all"
            is_turned = file.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            is_colour = _is_colour(file)
    except Exception as error:  # decoders raise nearly any error on damaged files
        return f"{path}: {_describe(error)}"
    return Header((width, height) if is_turned else (height, width), is_colour)


def _is_colour(file: "Image") -> bool:
    if file.mode == "P":
        palette = np.array(file.getpalette() or [0, 0, 0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return file.mode not in ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L")


def _choose_shape(headers: Sequence[Header], reading: DataConfig, where: str) -> tuple[int, int, int]:
    """Returns (height, width, channels) of the images as they are kept."""
    if not headers:
        raise InputError(f"{where}: no image can be read; must have at least one in train and in test")
    sizes = list(dict.fromkeys(header.size for header in headers))
    if reading.size is None and len(sizes) > 1:
        first, second = (f"{width} x {height}" for height, width in sizes[:2])
        raise InputError(
            f"{where}: images vary in size: {first}, {second} (width x height); data.size=32 resizes and crops them"
        )
    height, width = reading.size or sizes[0]
    return height, width, reading.channels or (3 if any(header.is_colour for header in headers) else 1)


def _decode(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Returns an image, upright, resized so that it covers the shape, and cropped at its middle."""
    from PIL import Image, ImageOps

    height, width, channels = shape
    with Image.open(io.BytesIO(read_bytes(path, MOST_BYTES)), formats=FORMATS) as file:
        picture: Image.Image = ImageOps.exif_transpose(file)
        if picture.mode.startswith("I"):  # 16 bits a pixel
            picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if "A" in picture.mode or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("L" if channels == 1 else "RGB")
        if picture.size != (width, height):
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture, np.uint8).reshape(shape)


def _refuse_corrupt(problems: Sequence[str], reading: DataConfig, where: str) -> None:
    """Raises `InputError` with a line for every file that cannot be read, unless such files are to be skipped."""
    if not problems:
        return
    if reading.skip_corrupt:
        _log.warning("%s: %d files cannot be read and are left out", where, len(problems))
        return
    hidden = len(problems) - _MOST_LINES
    more = [f"... and {hidden:,} more"] if hidden > 0 else []
    listed = "\n  ".join([*problems[:_MOST_LINES], *more])
    count = write_count(len(problems), "file")
    raise InputError(f"{where}: {count} cannot be read; data.skip_corrupt=true leaves them out\n  {listed}")


def _describe(error: BaseException) -> str:
    if isinstance(error, InputError):
        return str(error)
    strerror = getattr(error, "strerror", None)
    return strerror or "is not a whole image"
