"""The lock of a store, so that only one grid at a time runs on it.

The operating system releases the lock when the process that holds it ends, however it ends. A file beside the lock says
which process holds it.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from cnnjax.errors import UnavailableError


@dataclass(frozen=True)
class Owner:
    """The process that runs a grid, with its host, command line and time of start (ISO 8601, UTC)."""

    pid: int
    host: str
    command: str
    started_at: str

    def __str__(self) -> str:
        return f"{self.command!r} (process {self.pid} on {self.host}, since {self.started_at})"


@contextlib.contextmanager
def hold_store(out: Path, command: str) -> Iterator[None]:
    """Holds the lock of a store while the context lasts.

    Args:
        out: the folder of the store; it must exist.
        command: the command line of this process, for the message of others that find the store in use.

    Raises:
        UnavailableError: another process holds the lock (the message names it), or the folder cannot be written.
    """
    owner = Owner(os.getpid(), socket.gethostname(), command, datetime.now(UTC).isoformat(timespec="seconds"))
    lock = FileLock(_lock_path(out))
    try:
        lock.acquire(timeout=1)  # `read_owner` in another process holds the lock for a moment
        _note_path(out).write_text(json.dumps(asdict(owner)), encoding="utf-8")
    except Timeout:
        holder = read_owner(out) or "another process"
        raise UnavailableError(f"{out} is in use by {holder}; wait for it, or give another --out") from None
    except OSError as error:
        raise UnavailableError(f"cannot write in the output folder {out}: {error.strerror}") from None
    try:
        yield
    finally:
        _note_path(out).unlink(missing_ok=True)
        lock.release()


def read_owner(out: Path) -> Owner | None:
    """Returns the process that now runs a grid on the store in `out`, or ``None``; writes nothing."""
    if not _is_held(_lock_path(out)):
        return None
    try:
        return Owner(**json.loads(_note_path(out).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return Owner(0, "this machine", "another process", "a moment ago")


def _is_held(lock: Path) -> bool:
    """Whether a process holds the lock; works without permission to write in the folder."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lock_path(out: Path) -> Path:
    return out / "grid.lock"


def _note_path(out: Path) -> Path:
    return out / "grid.owner.json"
