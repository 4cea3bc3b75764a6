"""The ways a command can end badly, each with its exit code.

A message is one line that names what was wrong, where, and what is legal, so that a command can print it as it is.
"""

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


def printable(text: str, keep: str = "") -> str:
    """Returns `text` with escapes for what would move the cursor or change colours, other than what is in `keep`."""
    return "".join(mark if mark.isprintable() or mark in keep else ascii(mark)[1:-1] for mark in text)
