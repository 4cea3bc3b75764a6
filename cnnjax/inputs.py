"""Small text files that a person wrote, TOML or JSON: read once, and refused where they are too large or too deep.

A parser takes time and memory for whatever it is given: an endless file, or one key of a million parts, would hang it.
"""

import json
import os
import re
import stat
import tomllib
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

from cnnjax.errors import InputError

MOST_BYTES = 2**20
"""Of a text file."""
DEEPEST = 32
"""Brackets inside one another, and parts of one dotted key."""
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)|' + r"'''.*?(?:'''|\Z)|" + r'"(?:\\.|[^"\\\n])*"?|' + r"'[^'\n]*'?|#[^\n]*",
    re.DOTALL,
)
_TOO_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){{{DEEPEST}}}")


def read_text(path: Path) -> str:
    """Returns the text of a small regular file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it cannot be read, is no regular file, is larger than `MOST_BYTES` or not UTF-8; the message says
            what is wrong, and the caller puts before it which file that is.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError("must be a regular file, not a pipe, a device or a folder")
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content or b"") > MOST_BYTES:
        raise InputError(f"must be at most {MOST_BYTES // 2**20} MiB")
    try:
        return (content or b"").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"must be UTF-8: {error.reason} at byte {error.start}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Returns the tables of a TOML text; raises `InputError` where it is not valid TOML, or too deep."""
    _check_depth(text)
    try:
        return tomllib.loads(text)
    except (ValueError, TypeError) as error:
        raise InputError(f"not valid TOML: {error}") from None


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text; raises `InputError` where it is not JSON, too deep, or has a key twice."""
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
