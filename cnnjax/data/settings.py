"""Which images a run means: a dataset name as in TFDS, and a content hash where the name does not tell.

A name (`name`, `name/config`, `name:version` or `name/config:version`) becomes part of a path, so it is taken apart
here, by one strict pattern, before anything touches the disk.
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
    """A dataset name taken apart; `config` and `version` are None where the name leaves them to TFDS."""

    name: str
    config: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return full_name(self.name, self.config) + (f":{self.version}" if self.version else "")


def full_name(name: str, config: str | None) -> str:
    """`name/config`, or `name` where there is no configuration."""
    return f"{name}/{config}" if config else name


def parse_name(name: str) -> Reference:
    """Take a dataset name apart.

    Raises:
        InputError: it isn't `name[/config][:version]` with a version of three numbers.
    """
    match = _FORM.fullmatch(name)
    if match is None:
        raise InputError(
            f"data.name={name!r} is not a dataset name; write name, name/config, name:1.2.3 or name/config:1.2.3"
        )
    return Reference(match["name"], match["config"], match["version"])


@dataclass(frozen=True)
class DataConfig(Settings):
    """The images."""

    section = "data"

    name: str = "mnist"
    """mnist (bundled), or the name of any TensorFlow Datasets set of labelled images."""
    train_size: Count | None = None
    """Train on the first so many examples; left out, on all."""
    manual_dir: str | None = None
    """Folder of files that TensorFlow Datasets prepares a set from; not part of the run key."""

    sha256: str | None = None
    """Content hash of images that were handed over in Python, which their name alone does not tell from others."""

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
        """Which images they are."""
        return self.name, self.sha256

    @property
    def whole(self) -> "DataConfig":
        """The whole dataset, of which a run may train on a part only."""
        return replace(self, train_size=None)
