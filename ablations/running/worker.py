"""A worker process: one core or one device, one trial after the other, until its standard input ends.

It reads groups of configurations as messages, and answers with messages: a trial begun, an epoch's progress, a result.
Whatever else the trial prints goes to its standard error, of which the coordinator keeps the tail. When the coordinator
is gone, by whatever death, the end of the input ends the worker too, in the middle of a trial.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import queue
import sys
import threading
import time
import traceback
from typing import IO, Any

from ablations.running.messages import read_message, write_message
from cnnjax.config import RunConfig
from cnnjax.datasets import Dataset, load
from cnnjax.history import Progress, Silence

PROGRESS_SECONDS = 0.5


def main() -> None:
    """Serves the coordinator on the standard streams."""
    parser = argparse.ArgumentParser(prog="python -m ablations.running.worker")
    parser.add_argument("--core", type=int, help="the only core to run on")
    core = parser.parse_args().core
    if core is not None:
        os.sched_setaffinity(0, {core})  # before JAX counts the cores
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[list[dict[str, Any]]] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(sys.stdin.buffer, jobs), daemon=True).start()
    import jax

    jax.devices()
    write_message(replies, {"kind": "ready"})
    while True:
        for values in jobs.get():
            _run(RunConfig.from_dict(values), replies)


def _read_jobs(stream: IO[bytes], jobs: "queue.SimpleQueue[list[dict[str, Any]]]") -> None:
    while (message := read_message(stream)) is not None:
        jobs.put(message[0]["configs"])
    os._exit(0)


def _run(config: RunConfig, replies: IO[bytes]) -> None:
    from ablations.running.trials import describe_error, run_trial

    _forget_output()
    write_message(replies, {"kind": "started", "key": config.key})
    try:
        dataset = _load(config.data.name, config.data.manual_dir)
        run = run_trial(config, dataset, _Reporter(config.key, replies))
    except BaseException as error:
        traceback.print_exc()
        write_message(replies, {"kind": "failed", "key": config.key, "reason": describe_error(error)})
        sys.exit(1)  # the next trial deserves a process that nothing has gone wrong in
    header = {"kind": "ended", "key": config.key, "record": run.record.to_dict()}
    write_message(replies, header, (run.variables, run.predictions))


def _forget_output() -> None:
    """Empties the file behind standard error, so that it holds what this trial prints alone."""
    with contextlib.suppress(OSError):
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)


@functools.lru_cache(maxsize=1)
def _load(name: str, manual_dir: str | None) -> Dataset:
    return load(name, manual_dir=manual_dir)


class _Reporter(Silence):
    """Sends the progress of a trial, now and then."""

    def __init__(self, key: str, replies: IO[bytes]) -> None:
        self._key, self._replies = key, replies
        self._sent = 0.0

    def advance(self, progress: Progress) -> None:
        """Sends the progress, unless some was sent a moment ago."""
        if time.monotonic() - self._sent < PROGRESS_SECONDS:
            return
        self._sent = time.monotonic()
        header = {"kind": "advanced", "key": self._key, "progress": dataclasses.asdict(progress)}
        write_message(self._replies, header)


if __name__ == "__main__":
    main()
