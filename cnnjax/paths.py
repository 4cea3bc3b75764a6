"""Paths as people give them. No JAX here."""

import os
from pathlib import Path

from cnnjax.errors import InputError, UnavailableError


def read_path(value: str | os.PathLike[str], where: str) -> Path:
    """Returns a path with ``~`` replaced by the home folder.

    Args:
        value: as it was given.
        where: it was given to, such as ``--out``.

    Raises:
        InputError: it is empty, no path, or holds a null character.
        UnavailableError: the home folder is not known.

    Example:
        >>> read_path("~/runs", "--out") == Path.home() / "runs"
        True
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{where}={value!r}: must be a path, not {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(f"{where}={text!r}: must be a path, not an empty text, bytes, or one with a null character")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UnavailableError(f"{where}={text!r}: the home folder of that user is not known") from None
