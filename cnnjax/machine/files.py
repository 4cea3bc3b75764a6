"""Files that users name and that commands write, and the user's cache. No JAX here.

Paths are checked, and ``~`` is expanded as in a shell. Text files are read once, and refused if they are too large,
nested too deep or not regular files. Output files are checked before the work begins, and replaced as a whole when it
is done. The cache holds decoded datasets and compiled programs, which can be made again.
"""

import contextlib
import json
import os
import re
import stat
import sys
import tomllib
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

from cnnjax.errors import InputError, UnavailableError

MOST_BYTES = 2**20
"""Size limit of a text file, in bytes."""
DEEPEST = 32
"""Most brackets inside one another, and most parts of a dotted key."""

SQLITE = b"SQLite format 3\0"
"""First bytes of every SQLite database."""
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)|' + r"'''.*?(?:'''|\Z)|" + r'"(?:\\.|[^"\\\n])*"?|' + r"'[^'\n]*'?|#[^\n]*",
    re.DOTALL,
)
_TOO_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){{{DEEPEST}}}")


def read_path(value: str | os.PathLike[str], where: str) -> Path:
    """Returns a path with ``~`` replaced by the home folder.

    Args:
        value: the path.
        where: the option that the path was given with, such as ``--out``, for messages.

    Raises:
        InputError: the value is not a path, is empty, or has a null character.
        UnavailableError: the home folder is not known.

    Example:
        >>> read_path("~/runs", "--out") == Path.home() / "runs"
        True
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{where}={' '.join(repr(value).splitlines())}: must be a path, not {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(f"{where}={text!r}: must be a path, not an empty text, bytes, or one with a null character")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UnavailableError(f"{where}={text!r}: the home folder of that user is not known") from None


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: the file.
        most_bytes: size limit, in bytes.

    Raises:
        InputError: the file cannot be read, is not a regular file, or is larger. The message says what is wrong; the
            caller adds the name of the file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that has no writer would block forever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError("must be a regular file, not a pipe, a device or a folder")
            # read() allocates the bytes that it is asked for, so this asks for few more than the file has; at least
            # 1 MiB, because files in /proc report a size of zero.
            content = file.read(min(max(status.st_size, 2**20), most_bytes) + 1) or b""
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > most_bytes:
        raise InputError(f"must be at most {most_bytes // 2**20} MiB")
    return content


def read_text(path: Path) -> str:
    """Returns the text of a small regular file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: as `read_bytes`, with the limit `MOST_BYTES`; or the text is not UTF-8.
    """
    try:
        return read_bytes(path, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"must be UTF-8: {error.reason} at byte {error.start}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Returns the tables of a TOML text; raises `InputError` if it is not valid TOML or nested too deep.

    Example:
        >>> parse_toml("[model]\\nfilters = [8, 16]")
        {'model': {'filters': [8, 16]}}
    """
    _check_depth(text)
    try:
        return tomllib.loads(text)
    except (ValueError, TypeError) as error:
        raise InputError(f"not valid TOML: {error}") from None


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text; raises `InputError` if it is not JSON, nested too deep, or has a key twice.

    Example:
        >>> parse_json('{"seed": 1, "seed": 2}')
        Traceback (most recent call last):
            ...
        cnnjax.errors.InputError: not valid JSON: duplicate key 'seed'
    """
    _check_depth(text)
    try:
        return json.loads(text, object_pairs_hook=_refuse_duplicates)
    except (ValueError, TypeError) as error:
        raise InputError(f"not valid JSON: {error}") from None


def _check_depth(text: str) -> None:
    bare = _QUOTED.sub("x", text)
    steps = (1 if mark in "[{" else -1 for mark in re.findall(r"[][{}]", bare))
    if max(accumulate(steps), default=0) > DEEPEST or _TOO_LONG_KEY.search(bare):
        raise InputError(f"nested too deep; must have at most {DEEPEST} brackets inside one another, or parts of a key")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"duplicate key {next(name for name, count in names.items() if count > 1)!r}")
    return values


def check_output(path: Path, option: str, elsewhere: str = "") -> Path:
    """Checks that a file may be written, and returns its path with symbolic links resolved.

    Args:
        path: the path as the user gave it.
        option: the option that it was given with, such as ``--output``, for messages.
        elsewhere: end of the message if the path is not a file: where else the content can go.

    Raises:
        InputError: the path is not a file, its folder does not exist, or it is a database, which is never replaced.
        UnavailableError: the system denies access.
    """
    if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
        raise InputError(f"{option} {path}: must be a file{elsewhere}")
    try:
        target = path.resolve()
        if not target.parent.is_dir():
            raise InputError(f"{option} {path}: its folder does not exist")
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
    """Checks that a folder exists, or that it can be made together with the folders above it, and returns it.

    Args:
        path: the path as the user gave it.
        option: the option that it was given with, for messages.

    Raises:
        InputError: the path, or a folder above it, is a file.
        UnavailableError: the system denies access.
    """
    try:
        found = next(folder for folder in (path, *path.resolve().parents) if folder.exists())
        if not found.is_dir():
            raise InputError(f"{option} {path}: {found} is a file; must be a folder")
    except (OSError, RuntimeError) as error:
        raise UnavailableError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None
    return path


def replace_file(path: Path, content: str | bytes, option: str) -> None:
    """Writes a file completely or not at all; raises `UnavailableError` if it cannot be written."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        temporary.replace(path)
    except OSError as error:
        raise UnavailableError(f"{option} {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def cache_root() -> Path:
    """Returns the folder of the user's cache.

    It is `$CNNJAX_CACHE_DIR`, or `$XDG_CACHE_HOME/cnnjax` if that is not set, or else `~/.cache/cnnjax`.

    Raises:
        UnavailableError: the home folder is not known.
    """
    own, shared = os.environ.get("CNNJAX_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    root = Path(own) if own else (Path(shared) if shared else Path("~/.cache")) / "cnnjax"
    try:
        return root.expanduser()
    except RuntimeError:
        raise UnavailableError("the home folder is not known; CNNJAX_CACHE_DIR names another one") from None


def keep_programs(wanted: bool = True) -> None:
    """Makes JAX keep compiled programs in the user's cache, for all later processes.

    This must be called before JAX starts; child processes inherit it. Variables that the user has set, such as
    `JAX_COMPILATION_CACHE_DIR`, are not changed. The programs of a network take about 0.2 MB; the folder can be deleted
    at any time.

    Args:
        wanted: ``False`` compiles everything anew and keeps nothing.
    """
    if not wanted:
        configure_jax("jax_enable_compilation_cache", False)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            programs = cache_root() / "programs"
        except UnavailableError:  # no home folder, as in some containers: nothing can be kept
            configure_jax("jax_enable_compilation_cache", False)
            return
        _remove_empty(programs)
        configure_jax("jax_compilation_cache_dir", str(programs))
    for name, least in {"min_compile_time_secs": 0, "min_entry_size_bytes": -1}.items():
        if f"jax_persistent_cache_{name}".upper() not in os.environ:
            configure_jax(f"jax_persistent_cache_{name}", least)


def configure_jax(name: str, value: str | int | bool) -> None:
    """Sets a setting of JAX for this process and its child processes, without importing JAX, if it has not started.

    Args:
        name: name of the setting in ``jax.config``, such as ``jax_num_cpu_devices``.
        value: its value.
    """
    os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    if "jax" in sys.modules:  # which has read the variables
        with contextlib.suppress(RuntimeError):  # JAX has started, and keeps its settings
            sys.modules["jax"].config.update(name, value)


def _remove_empty(folder: Path) -> None:
    """Removes empty files, which a full disk leaves behind; JAX would print a warning for each that it reads."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.stat().st_size == 0:
                path.unlink()
