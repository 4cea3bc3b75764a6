"""The names datasets go by: `name`, `name/config`, `name:version` or `name/config:version`, as in TFDS.

A name becomes part of a path, so it is taken apart here, by one strict pattern, before anything touches the disk.
"""

import re
from dataclasses import dataclass

from cnnjax.errors import InputError

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
