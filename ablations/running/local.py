"""Trials on this machine: a worker process a core, or a device, each replaced when it dies.

A worker that crashes, hangs or takes too much memory costs only the trial it was at. A thread a worker turns what it
sends into one queue, so that the coordinator waits in one place.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import psutil

from ablations.language.grids import Trial
from ablations.running.events import Advanced, Ended, Event, Failed, Returned, Started
from ablations.running.messages import read_message, write_message
from cnnjax.errors import UnavailableError
from cnnjax.history import Progress
from cnnjax.records import PackedRun, Record
from cnnjax.signatures import static_signature

TAIL_BYTES = 4000
WATCH_SECONDS = 0.5
START_SECONDS = 300
FAILED_STARTS = 3
Message = tuple[dict[str, Any], list[bytes | None]]


@dataclass(frozen=True)
class Slot:
    """A place for a worker: its number, the one core it runs on, if it is pinned, and its environment beyond ours."""

    number: int
    core: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)


class LocalExecutor:
    """Runs trials in worker processes.

    Args:
        slots: where workers run, one in each.
        timeout: seconds after which a trial has failed; ``None`` for ever.
        memory_limit: bytes of resident memory above which a trial has failed; ``None`` for any.
        group_size: trials that a worker takes at once.

    Raises:
        UnavailableError: from `poll`, where workers cannot even start.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        timeout: float | None = None,
        memory_limit: int | None = None,
        group_size: int = 1,
    ) -> None:
        self.group_size = group_size
        self._timeout, self._memory_limit = timeout, memory_limit
        self._inbox: queue.SimpleQueue[tuple[_Worker, Message | None]] = queue.SimpleQueue()
        self._workers: dict[Slot, _Worker | None] = dict.fromkeys(slots)
        self._watched = 0.0
        self._failed_starts = 0

    def free_slots(self) -> list[str]:
        """Returns the signature of the last trial of every worker without work, `""` for one yet to start."""
        workers = self._workers.values()
        return [worker.signature if worker else "" for worker in workers if worker is None or not worker.group]

    def submit(self, group: tuple[Trial, ...]) -> None:
        """Begins a group on a free slot, one that has its programs if there is such a slot."""
        signature = static_signature(group[0].config)
        free = {slot: worker for slot, worker in self._workers.items() if worker is None or not worker.group}
        by_fit = sorted(free, key=lambda slot: _misfit(free[slot], signature))
        slot = by_fit[0]
        worker = free[slot] or _Worker(slot, self._inbox)
        self._workers[slot] = worker
        worker.give(group, signature)

    def poll(self, seconds: float) -> list[Event]:
        """Returns what has happened, after waiting at most so long for something to happen."""
        events: list[Event] = []
        wait = min(seconds, WATCH_SECONDS)
        while True:
            try:
                worker, message = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            except queue.Empty:
                break
            wait = 0.0
            events += self._receive(worker, message) if message else self._bury(worker)
        if time.monotonic() - self._watched > WATCH_SECONDS:
            self._watched = time.monotonic()
            for worker in filter(None, self._workers.values()):
                worker.watch(self._timeout, self._memory_limit)
        return events

    def close(self) -> None:
        """Kills every worker."""
        for worker in filter(None, self._workers.values()):
            worker.kill("the grid was stopped")
            worker.release()
        self._workers = dict.fromkeys(self._workers)

    def _receive(self, worker: "_Worker", message: Message) -> list[Event]:
        self._failed_starts = 0
        return worker.receive(message)

    def _bury(self, worker: "_Worker") -> list[Event]:
        if self._workers.get(worker.slot) is worker:
            self._workers[worker.slot] = None
        output = worker.release()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise UnavailableError(f"workers cannot start: {worker.describe_end(output)}")
        return worker.settle(output)


class _Worker:
    """A worker process, the group it is at, and what it printed."""

    def __init__(self, slot: Slot, inbox: "queue.SimpleQueue[tuple[_Worker, Message | None]]") -> None:
        self.slot, self.signature = slot, ""
        self.group: list[Trial] = []
        self.ready = False
        self._verdict: str | None = None
        self._started = time.monotonic()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = _start_process(slot, self._log)
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._memory = psutil.Process(self._process.pid)
        self._listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._listener.start()

    def give(self, group: tuple[Trial, ...], signature: str) -> None:
        self.group, self.signature = list(group), signature
        self._started = time.monotonic()
        try:
            write_message(self._stdin, {"configs": [trial.config.to_dict() for trial in group]})
        except OSError:
            self.kill("")  # it is dead already, and its end is on its way

    def receive(self, message: Message) -> list[Event]:
        header, blobs = message
        kind = header["kind"]
        if kind == "ready":
            self.ready, self._started = True, time.monotonic()
            return []
        trial = self.group[0]
        if header["key"] != trial.key:
            self.kill(f"the worker answered for another run, {header['key'][:12]}")
            return []
        if kind == "started":
            self._started = time.monotonic()
            return [Started(trial)]
        if kind == "advanced":
            return [Advanced(trial, Progress(**header["progress"]))]
        if kind == "ended":
            del self.group[0]
            return [Ended(trial, PackedRun(Record.from_dict(header["record"]), *blobs))]
        self._verdict = header["reason"]
        return []

    def watch(self, timeout: float | None, memory_limit: int | None) -> None:
        """Kills the process where its trial takes too long or too much."""
        seconds = time.monotonic() - self._started
        if not self.ready and seconds > START_SECONDS:
            self.kill(f"the worker was not ready after {START_SECONDS} s")
        if not self.group or not self.ready:
            return
        if timeout is not None and seconds > timeout:
            self.kill(f"ran longer than {timeout:g} s")
        if memory_limit is not None:
            try:
                used = self._memory.memory_info().rss
            except psutil.Error:
                return
            if used > memory_limit:
                self.kill(f"used {used / 2**30:.2f} GiB of memory, more than {memory_limit / 2**30:.2f} GiB")

    def kill(self, reason: str) -> None:
        self._verdict = self._verdict or reason
        self._process.kill()

    def release(self) -> str:
        """Waits for the end of the process, closes what was open to it, and returns the tail of what it printed."""
        self._process.wait()
        self._listener.join()
        output = self._read_output()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._log.close()
        return output

    def settle(self, output: str) -> list[Event]:
        """Returns what the end of the process means for its group."""
        if not self.ready:
            return [Returned(trial) for trial in self.group]
        if not self.group:
            return []
        failed = Failed(self.group[0], self._verdict or self._describe_exit(), output or None)
        return [failed, *(Returned(trial) for trial in self.group[1:])]

    def describe_end(self, output: str) -> str:
        """Returns one line that says how the process ended: the verdict, or its last words, if it left any."""
        return self._verdict or (output.splitlines() or [self._describe_exit()])[-1]

    def _listen(self, inbox: "queue.SimpleQueue[tuple[_Worker, Message | None]]") -> None:
        try:
            while (message := read_message(self._stdout)) is not None:
                inbox.put((self, message))
        except (ValueError, KeyError, TypeError) as error:
            self.kill(f"the worker sent no message: {error}")
        inbox.put((self, None))

    def _describe_exit(self) -> str:
        code = self._process.returncode
        if code >= 0:
            return f"the worker ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        perhaps = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"the worker was killed by {name}{perhaps}"

    def _read_output(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - TAIL_BYTES, 0))
        return self._log.read().decode(errors="replace").strip()


def _start_process(slot: Slot, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ablations.running.worker"]
    environment = {**os.environ, **slot.environment}
    if slot.core is not None:
        command += ["--core", str(slot.core)]
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # A session of its own: Ctrl-C at the terminal is for the coordinator, which ends its workers itself.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
    )


def _misfit(worker: _Worker | None, signature: str) -> int:
    """Orders free slots: a worker that has the programs, one to be started, one with other programs."""
    if worker is None:
        return 1
    return 0 if worker.signature == signature else 2
