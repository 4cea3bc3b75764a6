"""Settings of the images: a dataset name as in TFDS, files of the user's own, or a content hash.

A name (`name`, `name/config`, `name:version` or `name/config:version`) becomes part of a path, so it is parsed by a
strict pattern before the disk is accessed. `folder:PATH` and `npz:PATH` are the user's own files. They are read before
anything else is done, and replaced by the hash of their content, so that neither the path nor the way in which they
were read is part of a run.
"""

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cnnjax.errors import InputError
from cnnjax.settings import Settings
from cnnjax.settings.checking import Count, Interval, Reader

_FORM = re.compile(
    r"(?P<name>[A-Za-z]\w{0,99})(/(?P<config>[A-Za-z0-9][\w+.-]{0,99}))?(:(?P<version>\d{1,9}\.\d{1,9}\.\d{1,9}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Reference:
    """A parsed dataset name; `config` and `version` are None if the name has none, and TFDS then chooses them."""

    name: str
    config: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return full_name(self.name, self.config) + (f":{self.version}" if self.version else "")


def full_name(name: str, config: str | None) -> str:
    """Returns `name/config`, or `name` without a configuration."""
    return f"{name}/{config}" if config else name


def parse_name(name: str) -> Reference:
    """Parses a dataset name.

    Raises:
        InputError: the name is not `name[/config][:version]` with a version of three numbers.

    Example:
        >>> parse_name("emnist/letters:3.1.0")
        Reference(name='emnist', config='letters', version='3.1.0')
    """
    match = _FORM.fullmatch(name)
    if match is None:
        raise InputError(
            f"data.name={name!r} is not a dataset name; write name, name/config, name:1.2.3 or name/config:1.2.3"
        )
    return Reference(match["name"], match["config"], match["version"])


OWN_FILES = ("folder", "npz")
"""Kinds of files of the user's own, which stand before the path in a name."""
_LARGEST_SIDE = 4096


def read_size(value: Any, where: str) -> tuple[int, int] | None:
    """Returns (height, width) of a size given as ``32``, ``"32x48"`` or ``[32, 48]``.

    Raises:
        InputError: the value has another form, or a side is not in 1..4096.

    Example:
        >>> read_size("32x48", "data.size"), read_size(32, "data.size")
        ((32, 48), (32, 32))
    """
    if value is None:
        return None
    parts = value.split("x") if isinstance(value, str) else [value] if isinstance(value, int) else value
    try:
        sides = [int(part) for part in parts]
    except (TypeError, ValueError):
        sides = []
    if not 1 <= len(sides) <= 2 or not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise InputError(
            f"{where}={value!r}: must be such as 32, or 32x48 (height x width), each in 1..{_LARGEST_SIDE}"
        )
    return sides[0], sides[-1]


@dataclass(frozen=True)
class DataConfig(Settings):
    """The images: which dataset, and how many training examples.

    Raises:
        InputError: a value is not legal.

    Example:
        >>> DataConfig(train_size=1000).name
        'mnist'
        >>> DataConfig(name="mnist/")
        Traceback (most recent call last):
            ...
        cnnjax.errors.InputError: data.name='mnist/' is not a dataset name; write name, name/config, name:1.2.3 or \
name/config:1.2.3
    """

    section = "data"
    later = ("resample",)

    name: str = "mnist"
    """mnist (bundled), the name of any TensorFlow Datasets set of labelled images, folder:PATH or npz:PATH."""
    train_size: Count | None = None
    """Number of training examples, from the first on or as `resample` draws them; by default all of them."""
    size: Annotated[tuple[int, int] | None, Reader(read_size)] = None
    """Of a folder: size such as 32 or 32x48 (height x width) to which every image is resized and cropped."""
    channels: Literal[1, 3] | None = None
    """Of a folder: 1 for grey, 3 for colour; by default grey if all images are."""
    test_split: Annotated[float, Interval(0, 1, open_low=True, open_high=True)] | None = None
    """Of a folder without train and test: share of every class that is drawn as test images."""
    split_seed: Annotated[int, Interval(0, 2**32 - 1)] = 0
    """Of a folder without train and test: seed by which the test images are drawn."""
    skip_corrupt: bool = False
    """Of a folder: leaves out files that cannot be read."""
    manual_dir: str | None = None
    """Folder of files that TensorFlow Datasets prepares a set from; not part of the run key."""

    sha256: str | None = None
    """Content hash of images given in Python or in files of your own; part of the run key."""
    resample: Literal["none", "subset", "bootstrap"] = "none"
    """Training examples drawn by the seed: subset (train_size of them, each once) or bootstrap (with replacement)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_name(self.name)
        given = next((name for name in READING if getattr(self, name) != getattr(DataConfig, name)), None)
        if given is not None and self.own_files != "folder":
            raise InputError(f"data.{given}: is for images in a folder, as data.name=folder:PATH; leave it out")
        if self.split_seed and self.test_split is None:
            raise InputError("data.split_seed: has no effect without data.test_split")
        if self.own_files and self.sha256 is not None:
            raise InputError(f"data.sha256: is found from the files of data.name={self.name!r}; leave it out")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise InputError(f"data.sha256={self.sha256!r}: must be 64 hexadecimal digits, in lower case")

    @classmethod
    def read_alone(cls, name: str, value: Any) -> Any:
        """Returns the normal form of a value of the field `name`."""
        value = super().read_alone(name, value)
        if name == "name":
            _check_name(value)
        return value

    @property
    def own_files(self) -> str | None:
        """The kind of the user's own files, one of `OWN_FILES`, if these have not been read yet; else ``None``."""
        kind, colon, _ = self.name.partition(":")
        return kind if colon and kind in OWN_FILES else None

    @property
    def path(self) -> str:
        """The path of the user's own files, as it was given."""
        return self.name.partition(":")[2]

    @property
    def source(self) -> tuple[str, str | None]:
        """The name and the content hash, which together identify the images."""
        return self.name, self.sha256

    @property
    def whole(self) -> "DataConfig":
        """The settings of the whole dataset, of which no training examples are chosen."""
        return self.choose(DataConfig())

    def choose(self, other: "DataConfig") -> "DataConfig":
        """Returns these images with the choice of training examples that `other` makes."""
        return replace(self, train_size=other.train_size, resample=other.resample)


CHOOSING = {"data.train_size", "data.resample"}
"""Settings that choose training examples: arms that differ in them are tested on the same images."""
READING = ("size", "channels", "test_split", "split_seed", "skip_corrupt")
"""Fields that say how a folder is read; they have their defaults once it has been read."""


def _check_name(name: str) -> None:
    kind, _, path = name.partition(":")
    if kind not in OWN_FILES or not path:
        parse_name(name)
