"""Settings of the images: a dataset name as in TFDS, and a content hash for images given in Python.

A name (`name`, `name/config`, `name:version` or `name/config:version`) becomes part of a path, so it is parsed by a
strict pattern before the disk is accessed.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from cnnjax.errors import InputError
from cnnjax.settings import Settings
from cnnjax.settings.checking import Count

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

    name: str = "mnist"
    """mnist (bundled), or the name of any TensorFlow Datasets set of labelled images."""
    train_size: Count | None = None
    """Number of training examples, from the first on; by default all of them."""
    manual_dir: str | None = None
    """Folder of files that TensorFlow Datasets prepares a set from; not part of the run key."""

    sha256: str | None = None
    """Content hash of images given in Python, which distinguishes them from others of the same name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_name(self.name)
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise InputError(f"data.sha256={self.sha256!r}: must be 64 hexadecimal digits, in lower case")

    @classmethod
    def read_alone(cls, name: str, value: Any) -> Any:
        """Returns the normal form of a value of the field `name`."""
        value = super().read_alone(name, value)
        if name == "name":
            parse_name(value)
        return value

    @property
    def source(self) -> tuple[str, str | None]:
        """The name and the content hash, which together identify the images."""
        return self.name, self.sha256

    @property
    def whole(self) -> "DataConfig":
        """The settings of the whole dataset, without `train_size`."""
        return replace(self, train_size=None)
