"""Files that a command writes: refused before the work begins, replaced as a whole when it is done."""

import os
from pathlib import Path

from cnnjax.errors import InputError, UnavailableError

SQLITE = b"SQLite format 3\0"


def check_output(path: Path, option: str, elsewhere: str = "") -> Path:
    """Returns the file that a path leads to, where one may be written.

    Args:
        path: as given.
        option: it was given to, such as ``--output``.
        elsewhere: where else the content can go, said where the path is no file.

    Raises:
        InputError: it is no file, its folder is not there, or it is a database, which nothing replaces.
        UnavailableError: the system does not let us look.
    """
    if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
        raise InputError(f"{option} {path}: must be a file{elsewhere}")
    try:
        target = path.resolve()
        if not target.parent.is_dir():
            raise InputError(f"{option} {path}: its folder is not there")
        if not target.exists():
            return target
        if not target.is_file():
            raise InputError(f"{option} {path}: must be a file{elsewhere}")
        with target.open("rb") as file:
            if file.read(len(SQLITE)) == SQLITE:
                raise InputError(f"{option} {path}: is a database; a report does not replace it")
    except (OSError, RuntimeError) as error:
        raise UnavailableError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None
    return target


def check_folder(path: Path, option: str) -> Path:
    """Returns a folder that is there, or can be made with those above it.

    Args:
        path: as given.
        option: it was given to.

    Raises:
        InputError: a file is in its place, or in that of a folder above it.
        UnavailableError: the system does not let us look.
    """
    try:
        found = next(folder for folder in (path, *path.resolve().parents) if folder.exists())
        if not found.is_dir():
            raise InputError(f"{option} {path}: {found} is a file; must be a folder")
    except (OSError, RuntimeError) as error:
        raise UnavailableError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None
    return path


def replace_file(path: Path, content: str | bytes, option: str) -> None:
    """Writes a file, all of it or nothing; raises `UnavailableError` where it cannot be written."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        temporary.replace(path)
    except OSError as error:
        raise UnavailableError(f"{option} {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
