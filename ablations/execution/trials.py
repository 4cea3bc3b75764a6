"""Runs and reports trials in a worker, on this machine or on a cluster.

A message between the coordinator and a worker process is a line of JSON followed by raw bytes. Nothing is pickled, so
the worst that a faulty worker can send is a message that cannot be read.
"""

import dataclasses
import functools
import hashlib
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ablations
import cnnjax
from cnnjax.data.dataset import Dataset
from cnnjax.data.settings import DataConfig
from cnnjax.errors import CnnjaxError, Interrupted, UnavailableError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import Observer, Progress, Silence
from cnnjax.runs.provenance import describe_software
from cnnjax.runs.record import PackedRun, Record, pack_run
from cnnjax.runs.trial_function import ACCURACY
from cnnjax.training.fit import fit_group

MOST_BYTES = 2**30
"""The largest blob in a message; a store has no room for a larger one."""
TAIL = 4000
"""How much is kept of the end of a failed trial's output, in bytes or characters."""


def run_trials(
    configs: Sequence[RunConfig], load: Callable[[DataConfig], Dataset], make_observer: Callable[[RunConfig], Observer]
) -> Iterator[PackedRun]:
    """Runs trials with one static signature; yields each as it ends.

    Args:
        configs: the runs: networks, several of which are trained in one program on one device, or calls of a function.
        load: loads the images of networks.
        make_observer: makes the observer of a network's training.
    """
    if configs[0].trial:
        return (PackedRun(call_function(config)) for config in configs)
    return map(pack_run, fit_group(configs, load(configs[0].data.whole), make_observer, devices=1))


@dataclass(frozen=True)
class Failure:
    """Why a trial has failed.

    Attributes:
        reason: the reason in one line.
        output: the end of the traceback.
    """

    reason: str
    output: str


def run_trial(config: RunConfig, load: Callable[[DataConfig], Dataset], observer: Observer) -> PackedRun | Failure:
    """Runs one trial, whose exceptions do not end this process.

    Args:
        config: the run.
        load: loads the images of a network.
        observer: receives the progress of a network's training.

    Raises:
        Interrupted: a signal arrived.
    """
    try:
        (run,) = run_trials([config], load, lambda _: observer)
    except Interrupted:
        raise
    except BaseException as error:
        return Failure(describe_error(error), traceback.format_exc()[-TAIL:])
    return run


def call_function(config: RunConfig) -> Record:
    """Calls the trial function of a run; one with a score that is not a finite number has diverged."""
    assert config.trial
    start = time.perf_counter()
    scores = config.trial.call(config.seed)
    wrong = ", ".join(f"{name}={score}" for name, score in scores.items() if not math.isfinite(score))
    return Record(
        config=config,
        status="diverged" if wrong else "completed",
        reason=f"not a finite number: {wrong}" if wrong else None,
        parameters=None,
        flops=None,
        test_loss=None,
        test_accuracy=None if wrong else scores.get(ACCURACY),
        history=(),
        seconds={"total": time.perf_counter() - start},
        provenance={"code": config.trial.describe_code(), **describe_software()},
        scores={name: score if math.isfinite(score) else None for name, score in scores.items()},
    )


class Reporter(Silence):
    """An observer that sends the progress of a trial to the coordinator.

    Args:
        send: sends the progress, which it takes as JSON values.
        seconds: the shortest time between two messages.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self._sent = float("-inf")

    def advance(self, progress: Progress) -> None:
        """Sends the progress, unless the last message was sent less than `seconds` ago."""
        if time.monotonic() - self._sent >= self._seconds:
            self._sent = time.monotonic()
            self._send(dataclasses.asdict(progress))


def describe_error(error: BaseException) -> str:
    """Returns the reason of a failed trial, in one line.

    Example:
        >>> describe_error(ValueError("not a number"))
        'ValueError: not a number'
    """
    if isinstance(error, CnnjaxError):
        return str(error)
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def write_message(stream: IO[bytes], header: dict[str, Any], blobs: Sequence[bytes | None] = ()) -> None:
    """Writes a message and flushes the stream.

    Args:
        stream: a stream that is open for writing.
        header: JSON values, without the key ``blobs``.
        blobs: the bytes that follow the header; a ``None`` is received as ``None``.

    Example:
        >>> import io
        >>> stream = io.BytesIO()
        >>> write_message(stream, {"kind": "ready"}, [b"abc", None])
        >>> read_message(io.BytesIO(stream.getvalue()))
        ({'kind': 'ready'}, [b'abc', None])
    """
    sizes = [None if blob is None else len(blob) for blob in blobs]
    stream.write(json.dumps({**header, "blobs": sizes}).encode() + b"\n")
    for blob in blobs:
        stream.write(blob or b"")
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes | None]] | None:
    """Returns the header and the blobs of the next message, or ``None`` if the stream ends before or within it.

    Raises:
        ValueError: the line is not the header of a message.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    sizes = header.pop("blobs", None) if isinstance(header, dict) else None
    if not isinstance(sizes, list) or not all(_is_size(size) for size in sizes):
        raise ValueError(f"{line[:40]!r}")
    blobs = [None if size is None else stream.read(size) for size in sizes]
    is_cut_off = any(len(blob or b"") < (size or 0) for blob, size in zip(blobs, sizes, strict=True))
    return None if is_cut_off else (header, blobs)


def _is_size(size: Any) -> bool:
    return size is None or (isinstance(size, int) and 0 <= size <= MOST_BYTES)


@functools.cache
def hash_source() -> str:
    """Returns the SHA-256 of the source files of `ablations` and `cnnjax`, as they were at the first call."""
    digest = hashlib.sha256()
    for package in (ablations, cnnjax):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{package.__name__}/{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def check_source(coordinators: str) -> None:
    """Raises `UnavailableError` if the hash of the coordinator's source is not that of this process's source."""
    if coordinators != hash_source():
        folder = Path(ablations.__path__[0]).parent
        raise UnavailableError(f"{folder}: this source is not the one that the grid was started with; start it again")
