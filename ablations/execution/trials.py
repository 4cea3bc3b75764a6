"""Messages between the coordinator and its workers: a line of JSON, then bytes as they are.

Nothing is pickled, so a worker that goes wrong can only send a message that cannot be read.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import ablations
import cnnjax
from cnnjax.data.dataset import Dataset
from cnnjax.errors import CnnjaxError, UnavailableError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import Observer, Progress, Silence
from cnnjax.runs.record import PackedRun, pack_run
from cnnjax.training.fit import fit, iterate_chunk


def write_message(stream: IO[bytes], header: dict[str, Any], blobs: Sequence[bytes | None] = ()) -> None:
    """Writes a message and flushes it.

    Args:
        stream: open for writing.
        header: JSON values, without the key ``blobs``.
        blobs: bytes that follow the header; ``None`` stays ``None``.
    """
    sizes = [None if blob is None else len(blob) for blob in blobs]
    stream.write(json.dumps({**header, "blobs": sizes}).encode() + b"\n")
    for blob in blobs:
        stream.write(blob or b"")
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes | None]] | None:
    """Returns the header and the blobs of the next message, or ``None`` where the stream has ended, also amid one.

    Raises:
        ValueError: what comes is no message.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    sizes = header.pop("blobs", None) if isinstance(header, dict) else None
    if not isinstance(sizes, list) or not all(size is None or (isinstance(size, int) and size >= 0) for size in sizes):
        raise ValueError(f"{line[:40]!r}")
    blobs = [None if size is None else stream.read(size) for size in sizes]
    torn = any(len(blob or b"") < (size or 0) for blob, size in zip(blobs, sizes, strict=True))
    return None if torn else (header, blobs)


@functools.cache
def hash_source() -> str:
    """Returns the SHA-256 of the files of the packages, as they were when a process first asked for it."""
    digest = hashlib.sha256()
    for package in (ablations, cnnjax):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{package.__name__}/{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def check_source(coordinators: str) -> None:
    """Raises `UnavailableError` where the coordinator of a grid, with this hash, runs other source than we do."""
    if coordinators != hash_source():
        folder = Path(ablations.__path__[0]).parent
        raise UnavailableError(f"{folder}: this source is not the one that the grid was started with; start it again")


def run_trial(config: RunConfig, dataset: Dataset | None = None, observer: Observer | None = None) -> PackedRun:
    """Trains the network of a run on one device; arguments and errors are those of `cnnjax.fit`."""
    return pack_run(fit(config, out=None, dataset=dataset, observer=observer, devices=1))


def run_trials(
    configs: Sequence[RunConfig], dataset: Dataset, make_observer: Callable[[RunConfig], Observer]
) -> Iterator[PackedRun]:
    """Trains the networks of runs of one static signature in one program on one device; yields each as it ends."""
    if len(configs) == 1:
        yield run_trial(configs[0], dataset, make_observer(configs[0]))
    else:
        yield from map(pack_run, iterate_chunk(configs, dataset, make_observer))


def describe_error(error: BaseException) -> str:
    """Returns one line that says why a trial failed."""
    if isinstance(error, CnnjaxError):
        return str(error)
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class Reporter(Silence):
    """Sends the progress of a trial to the coordinator, now and then.

    Args:
        send: takes the progress as JSON values.
        seconds: the least time between two of them.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self._sent = float("-inf")

    def advance(self, progress: Progress) -> None:
        """Sends the progress, unless some was sent a moment ago."""
        if time.monotonic() - self._sent >= self._seconds:
            self._sent = time.monotonic()
            self._send(dataclasses.asdict(progress))
