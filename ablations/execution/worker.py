"""A worker process, which trains trials on one core or one device until its standard input ends.

It reads groups of configurations as messages on standard input, and answers with messages on standard output: a trial
has started, its progress, its result. Everything that a trial prints goes to standard error, and the coordinator keeps
the end of it. When the coordinator dies, standard input is closed and the worker ends, even during a trial.
"""

import argparse
import contextlib
import functools
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from typing import IO, Any, NoReturn

from ablations.execution.trials import (
    Reporter,
    check_source,
    describe_error,
    read_message,
    run_trials,
    write_message,
)
from cnnjax.data.dataset import Dataset
from cnnjax.data.loading import load_data, load_data_info
from cnnjax.data.settings import DataConfig
from cnnjax.errors import CnnjaxError, UnavailableError
from cnnjax.machine.backend import check_settings, jax_started
from cnnjax.machine.processes import take_stdout
from cnnjax.runs.config import RunConfig
from cnnjax.training.fit import cut_runs

PROGRESS_SECONDS = 0.5
"""Shortest time between two messages about the progress of a trial."""


def main() -> None:
    """Runs the worker on the standard streams."""
    parser = argparse.ArgumentParser(prog="python -m ablations.execution.worker")
    parser.add_argument("--core", type=int, help="the only core to run on")
    parser.add_argument("--source", required=True, help="hash of the coordinator's source")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})  # before JAX counts the cores
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the coordinator receives these signals too, and ends its workers
    replies = take_stdout().detach()  # type: ignore[attr-defined] # as bytes
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # so that a crash loses no output
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(sys.stdin.buffer, jobs), daemon=True).start()
    try:
        check_source(arguments.source)
        with jax_started():
            check_settings()
            write_message(replies, {"kind": "ready"})
            _serve(jobs, replies)
    except UnavailableError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(error.exit_code)  # does not wait for the thread that reads standard input


def _serve(jobs: "queue.SimpleQueue[dict[str, Any]]", replies: IO[bytes]) -> NoReturn:
    while True:
        job = jobs.get()
        configs = [RunConfig.from_dict(values) for values in job["configs"]]
        for together in _cut(configs, job["at_once"]):
            _run(together, replies)


def _read_jobs(stream: IO[bytes], jobs: "queue.SimpleQueue[dict[str, Any]]") -> None:
    while (message := read_message(stream)) is not None:
        jobs.put(message[0])
    os._exit(0)


def _cut(configs: Sequence[RunConfig], at_once: int | None) -> Iterable[Sequence[RunConfig]]:
    with contextlib.suppress(CnnjaxError):  # the first trial will raise this error again, and report it
        if not configs[0].trial:
            return cut_runs(configs, load_data_info(configs[0].data), at_once)
    return ([config] for config in configs)


def _run(configs: Sequence[RunConfig], replies: IO[bytes]) -> None:
    def observe(config: RunConfig) -> Reporter:
        def report(progress: dict[str, Any]) -> None:
            write_message(replies, {"kind": "advanced", "key": config.key, "progress": progress})

        return Reporter(report, PROGRESS_SECONDS)

    _forget_output()
    for config in configs:
        write_message(replies, {"kind": "started", "key": config.key})
    try:
        for run in run_trials(configs, _load, observe):
            header = {"kind": "ended", "key": run.record.key, "record": run.record.to_dict()}
            write_message(replies, header, (run.variables, run.predictions))
    except BaseException as error:
        traceback.print_exc()
        write_message(replies, {"kind": "failed", "reason": describe_error(error)})
        os._exit(1)  # the coordinator starts a new process for the next trial


def _forget_output() -> None:
    """Empties the file behind standard error, so that it holds the output of this trial only."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)


@functools.lru_cache(maxsize=1)
def _load(data: DataConfig) -> Dataset:
    return load_data(data)


if __name__ == "__main__":
    main()
