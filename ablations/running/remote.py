"""What a grid runs on the nodes of a Ray cluster: a trial, in a process like a local worker's.

A CPU trial runs in a process pinned to one core before JAX counts them, which makes the bits of its result those of a
local worker. What comes back is JSON and bytes. Nothing here imports Ray: it is Ray that runs it.
"""

import contextlib
import functools
import json
import os
import tempfile
import traceback
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ablations.running.source import check_source
from cnnjax.config import RunConfig
from cnnjax.datasets import Dataset
from cnnjax.errors import Interrupted

PROGRESS_SECONDS = 1.0
TAIL_CHARACTERS = 4000
Note = tuple[str, dict[str, Any] | None]
Result = tuple[str, bytes | None, bytes | None]
_claims: list[FileLock] = []


def run_remotely(
    config: str, dataset: Dataset, notes: Any, environment: tuple[tuple[str, str], ...], source: str
) -> Result:
    """Runs a trial.

    Args:
        config: the run as JSON.
        dataset: its images.
        notes: handle of a `Notes` actor.
        environment: variables that JAX is to start with.
        source: hash of the coordinator's source.

    Returns:
        A header as JSON, and the arrays of a run that ended. The header has a `kind`: ``ended`` with a ``record``;
        ``failed`` with a ``reason`` and the ``output``; ``interrupted``, when the node sent a signal.

    Raises:
        UnavailableError: this node has other source.
    """
    check_source(source)
    run_config = RunConfig.from_json(config)

    def send(progress: dict[str, Any] | None) -> None:
        with contextlib.suppress(Exception):  # a trial does not depend on who listens
            notes.add.options(num_returns=0).remote(run_config.key, progress)

    send(None)
    _prepare(environment)
    from ablations.running.trials import Reporter, describe_error, run_trial

    try:
        run = run_trial(run_config, dataset, Reporter(send, PROGRESS_SECONDS))
    except Interrupted:
        return json.dumps({"kind": "interrupted"}), None, None
    except BaseException as error:
        tail = traceback.format_exc()[-TAIL_CHARACTERS:]
        return json.dumps({"kind": "failed", "reason": describe_error(error), "output": tail}), None, None
    return json.dumps({"kind": "ended", "record": run.record.to_dict()}), run.variables, run.predictions


class Notes:
    """An actor that holds what trials say of their progress until the coordinator asks for it."""

    def __init__(self) -> None:
        self._notes: list[Note] = []

    def add(self, key: str, progress: dict[str, Any] | None) -> None:
        """Receives how far the run with this key is; ``None`` when it begins."""
        self._notes.append((key, progress))

    def take(self) -> list[Note]:
        """Returns what has been received since the last time."""
        notes, self._notes = self._notes, []
        return notes


@functools.cache
def _prepare(environment: tuple[tuple[str, str], ...]) -> None:
    """Makes this process, which runs one trial after the other, one like a local worker's, before it imports JAX."""
    os.environ.update(environment)
    if ("JAX_PLATFORMS", "cpu") in environment and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {_claim_core()})


def _claim_core() -> int:
    """Returns a core that no other trial's process on this machine has claimed, until this process ends."""
    cores = sorted(os.sched_getaffinity(0))
    folder = Path(tempfile.gettempdir()) / f"cnnjax-cores-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        for core in cores:
            lock = FileLock(folder / f"{core}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                _claims.append(lock)
                return core
    return cores[os.getpid() % len(cores)]
