"""The ways a command can end badly, each with its exit code.

A message is one line that names what was wrong, where, and what is legal, so that a command can print it as it is.
"""

from collections.abc import Sequence
from pathlib import Path


class CnnjaxError(Exception):
    """Base of the errors that a user can mend; `exit_code` is what a command ends with."""

    exit_code = 1


class InputError(CnnjaxError, ValueError):
    """A value, name or combination that cannot be used; nothing has been written."""

    exit_code = 2


class CodeError(InputError):
    """Code of the user raised an exception; `lines` are the entries of its traceback in the user's own files."""

    def __init__(self, message: str, lines: tuple[str, ...]) -> None:
        super().__init__(message)
        self.lines = lines


class CorruptionError(CnnjaxError):
    """A dataset, store or checkpoint whose bytes are not what they should be."""

    exit_code = 3


class UnavailableError(CnnjaxError):
    """The environment lacks something: disk space, network, permission, an optional package."""

    exit_code = 4


class Interrupted(CnnjaxError):  # noqa: N818 - not an error
    """A signal stopped the run; `checkpoint` is the folder from which it can be resumed, if there is one."""

    def __init__(self, message: str, signal_number: int, checkpoint: Path | None = None) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
        self.checkpoint = checkpoint


def cut_lines(lines: Sequence[str], most: int = 20, hint: str = "") -> list[str]:
    """Returns the first `most` lines, and one line that counts the others, if there are others.

    Args:
        lines: any number of lines.
        most: how many are kept.
        hint: the end of the line that counts the others.

    Example:
        >>> cut_lines(["a.png", "b.png", "c.png"], most=1)
        ['a.png', '... and 2 more']
    """
    hidden = len(lines) - most
    return [*lines[:most], *([f"... and {hidden:,} more{hint}"] if hidden > 0 else [])]


def printable(text: str, keep: str = "") -> str:
    """Returns `text` with escapes for what would move the cursor or change colours, other than what is in `keep`."""
    return "".join(mark if mark.isprintable() or mark in keep else ascii(mark)[1:-1] for mark in text)
