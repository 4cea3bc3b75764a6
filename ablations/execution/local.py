"""Runs trials in worker processes on this machine, one per core of a CPU or per accelerator.

A `Slot` is a core or device for a worker, a `WorkerProcess` is one worker from its start to its end, and the
`LocalExecutor` gives trials to the workers. If a worker crashes, hangs or uses too much memory, its trial fails and the
worker is replaced; the grid goes on.
"""

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Annotated, Any

import psutil

from ablations.execution.costs import check_memory_of
from ablations.execution.trials import TAIL, hash_source, read_message, write_message
from ablations.execution.work import Advanced, Ended, Event, Failed, Returned, Started
from ablations.study.grid import Trial
from cnnjax.errors import InputError, UnavailableError
from cnnjax.machine.backend import check_flags
from cnnjax.machine.processes import (
    ONE_THREAD,
    find_memory,
    list_cores,
    may_have_accelerators,
    python_command,
    python_environment,
)
from cnnjax.runs.config import MOST_AT_ONCE
from cnnjax.runs.history import Progress
from cnnjax.runs.record import PackedRun, Record
from cnnjax.settings.checking import Interval

Workers = Annotated[int, Interval(1, 4096)] | None
"""The number of worker processes; ``None`` for one per core or device."""
PROBE_SECONDS = 300
"""Time limit for JAX to find its devices."""
START_SECONDS = 300
"""Time limit for a worker to start."""
END_SECONDS = 10
"""Time limit for a killed worker to end."""
WATCH_SECONDS = 0.5
"""Interval between two checks of the time limits and the memory of the workers."""
FAILED_STARTS = 3
"""Number of failed starts in a row after which a slot is no longer used."""
MEMORY_SHARE = 0.9
"""Share of the memory of this machine that all trials together may use."""
LEAST_MEMORY = 2 * 2**30
"""Smallest default memory limit of a trial, in bytes."""
Message = tuple[dict[str, Any], list[bytes | None]]
"""Header and blobs, as `ablations.execution.trials.read_message` returns them."""
_PROBE = """
import json, sys
from cnnjax.errors import UnavailableError
from cnnjax.machine.backend import jax_started
try:
    with jax_started():
        import jax
except UnavailableError as error:
    sys.exit(str(error))
print(json.dumps([jax.default_backend(), jax.local_device_count()]))
"""


@dataclass(frozen=True)
class Slot:
    """A core or a device for a worker.

    Attributes:
        number: identifies the slot.
        core: the core that the worker is pinned to, if any.
        environment: environment variables of the worker in addition to those of this process.
    """

    number: int
    core: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_cpu(self) -> bool:
        """Whether the worker trains on a CPU."""
        return self.environment.get("JAX_PLATFORMS") == "cpu"


def make_slots(workers: int | None = None) -> list[Slot]:
    """Returns the slots of this machine.

    On a CPU each worker is pinned to one core, because one process per core trains more trials in the same time than
    one process on all cores. On GPUs and TPUs each worker sees one device.

    Args:
        workers: the number of slots; one per core or device by default.

    Raises:
        InputError: there are fewer GPUs or TPUs than `workers`.
        UnavailableError: JAX cannot start.
    """
    backend, devices = _find_accelerators()
    if backend == "cpu":
        cores = list_cores()
        return [Slot(i, cores[i % len(cores)], {"JAX_PLATFORMS": "cpu"}) for i in range(workers or len(cores))]
    if workers and workers > devices:
        raise InputError(f"--workers={workers}: must be <= {devices}, the number of {backend} devices, one worker each")
    return [Slot(index, None, _show_device(backend, index)) for index in range(workers or devices)]


def _find_accelerators() -> tuple[str, int]:
    """Returns JAX's backend and its number of devices; ``("cpu", 0)`` if there are certainly no accelerators."""
    check_flags()
    if not may_have_accelerators():
        return "cpu", 0
    # In a child process: in this one, JAX would reserve the devices that the workers need.
    command = python_command("-c", _PROBE)
    try:
        probe = subprocess.run(
            command, env=python_environment(), capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"JAX cannot start: it has not found its devices in {PROBE_SECONDS} s") from None
    if probe.returncode:
        raise UnavailableError((probe.stderr.strip().splitlines() or ["JAX cannot start: no reason given"])[-1])
    backend, count = json.loads(probe.stdout.splitlines()[-1])
    return backend, count


def _show_device(backend: str, index: int) -> dict[str, str]:
    """Returns the environment variables with which a process sees only one of the devices."""
    if backend == "tpu":
        bounds = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        return {"TPU_VISIBLE_CHIPS": str(index), **bounds}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[index] if visible != [""] else str(index)}


class WorkerProcess:
    """A worker process, from its start to its end.

    Args:
        slot: the slot that it runs on.
        inbox: receives this object together with each of its messages, and with ``None`` when the process has ended.

    Attributes:
        slot: the slot that it runs on.
        signature: the static signature of its last group of trials; `""` for none.
        has_begun: whether it has ever started a trial.
    """

    def __init__(self, slot: Slot, inbox: "queue.SimpleQueue[tuple[WorkerProcess, Message | None]]") -> None:
        self.slot, self.signature, self.has_begun = slot, "", False
        self._waiting: list[Trial] = []
        self._begun: dict[str, Trial] = {}
        self._together = 0
        self._is_ready = False
        self._verdict: str | None = None
        self._since = time.monotonic()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open until the worker ends
        self._process = _start(slot, self._log)
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._memory = psutil.Process(self._process.pid)
        self._listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._listener.start()

    @property
    def is_free(self) -> bool:
        """Whether it has no trials and has not been killed."""
        return not (self._waiting or self._begun) and self._verdict is None

    def give(self, group: tuple[Trial, ...], signature: str, at_once: int | None = None) -> None:
        """Sends a group of trials to the worker.

        Args:
            group: trials with the same static signature.
            signature: the signature.
            at_once: number of trials in one program; ``None`` lets the worker choose.
        """
        self._waiting, self.signature = list(group), signature
        try:
            write_message(self._stdin, {"configs": [trial.config.to_dict() for trial in group], "at_once": at_once})
        except OSError:
            self.kill("the worker has ended")  # the listening thread will report the end

    def receive(self, message: Message) -> list[Event]:
        """Returns the events in a message; kills the worker if the message is invalid."""
        try:
            return self._read(message)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            self.kill(f"the worker sent an invalid message: {error!r}")
            return []

    def _read(self, message: Message) -> list[Event]:
        header, blobs = message
        kind = header["kind"]
        if kind == "ready":
            self._is_ready, self._since = True, time.monotonic()
            return []
        if kind == "failed":
            self._verdict = str(header["reason"])
            return []
        if kind == "started":
            return [Started(self._begin(header["key"]))]
        trial = self._begun[header["key"]]
        if kind == "advanced":
            return [Advanced(trial, Progress(**header["progress"]))]
        variables, predictions = blobs
        run = PackedRun(Record.from_dict(header["record"]), variables, predictions)
        del self._begun[trial.key]
        return [Ended(trial, run)]

    def _begin(self, key: str) -> Trial:
        if self._waiting[0].key != key:
            raise ValueError(f"it started another run, {key}")
        trial = self._waiting.pop(0)
        self._together = self._together + 1 if self._begun else 1
        self._begun[key] = trial
        self.has_begun, self._since = True, time.monotonic()
        return trial

    def watch(self, timeout: float | None, memory_limit: float | None) -> None:
        """Kills the process if its start or its trial takes too long, or its trial uses too much memory.

        Args:
            timeout: time limit of a trial in seconds, multiplied by the trials in its program; ``None`` for no limit.
            memory_limit: limit of the resident memory in bytes, without mapped files, which the system can take back;
                ``None`` for no limit.
        """
        seconds = time.monotonic() - self._since
        if self._process.poll() is not None:
            self._signal_group()  # kills children of the ended process, which may keep its output open
        elif not self._is_ready and seconds > START_SECONDS:
            self.kill(f"the worker was not ready after {START_SECONDS} s")
        elif self._begun and timeout is not None and seconds > timeout * self._together:
            self.kill(f"ran longer than {timeout * self._together:g} s")
        elif self._begun and memory_limit is not None:
            with contextlib.suppress(psutil.Error):
                info = self._memory.memory_info()
                used = info.rss - getattr(info, "shared", 0)
                if used > memory_limit:
                    self.kill(f"used {used / 2**30:.2f} GiB of memory, more than {memory_limit / 2**30:.2f} GiB")

    def kill(self, reason: str) -> None:
        """Kills the process and its children; `reason` becomes the reason why its trial failed."""
        self._verdict = self._verdict or reason
        self._signal_group()

    def release(self) -> str:
        """Waits for the process to end, closes its streams, and returns the end of its output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._listener.join(END_SECONDS)
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - TAIL, 0))
        output = self._log.read().decode(errors="replace").strip()
        with contextlib.suppress(OSError):
            self._stdin.close()
        if not self._listener.is_alive():
            self._stdout.close()
        self._log.close()
        return output

    def settle(self, output: str) -> list[Event]:
        """Returns the events of the unfinished trials after the process has ended.

        A trial that was alone in its program has failed. Others are returned, to be rescheduled.
        """
        reason = self._verdict or self._describe_exit()
        begun: list[Event] = [
            Failed(trial, reason, output or None) if self._together == 1 else Returned(trial, self._together, reason)
            for trial in self._begun.values()
        ]
        return [*begun, *(Returned(trial) for trial in self._waiting)]

    def describe_end(self, output: str) -> str:
        """Returns how the process ended, in one line: the reason for killing it, or the last line of its output."""
        return self._verdict or (output.splitlines() or [self._describe_exit()])[-1]

    def _describe_exit(self) -> str:
        code = self._process.returncode
        if code is None:
            return "the worker has not ended after it was killed"
        if code >= 0:
            return f"the worker ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        perhaps = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
        return f"the worker was killed by {name}{perhaps}"

    def _listen(self, inbox: "queue.SimpleQueue[tuple[WorkerProcess, Message | None]]") -> None:
        try:
            while (message := read_message(self._stdout)) is not None:
                inbox.put((self, message))
        except (ValueError, OSError) as error:
            self.kill(f"the worker sent an invalid message: {error}")
        finally:
            inbox.put((self, None))

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _start(slot: Slot, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    command = python_command("-m", "ablations.execution.worker", "--source", hash_source())
    environment = {**python_environment(), **slot.environment}
    if slot.core is not None:
        command += ["--core", str(slot.core)]
        environment |= ONE_THREAD
    # In a new session, so that Ctrl-C at the terminal reaches only the coordinator, which then ends its workers.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
    )


class LocalExecutor:
    """Runs trials in worker processes, which are started when there are trials for them.

    Args:
        slots: the slots, each for one worker.
        timeout: time limit of a trial in seconds, multiplied by the trials in its program; ``None`` for no limit.
        memory_limit: limit of a trial's resident memory in bytes; ``None`` for no limit.
        group_size: the largest number of trials that a worker is given at once.
        at_once: number of trials of a group in one program; ``None`` lets the worker choose for its device.

    Raises:
        UnavailableError: from `poll`, when no worker can start.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        timeout: float | None = None,
        memory_limit: float | None = None,
        group_size: int = 1,
        at_once: int | None = None,
    ) -> None:
        self.group_size, self._at_once = group_size, at_once
        self._timeout, self._memory_limit = timeout, memory_limit
        self._inbox: queue.SimpleQueue[tuple[WorkerProcess, Message | None]] = queue.SimpleQueue()
        self._slots = {slot.number: slot for slot in slots}
        self._workers: dict[int, WorkerProcess] = {}
        self._failed_starts: Counter[int] = Counter()
        self._error: UnavailableError | None = None
        self._watched = 0.0

    def check_memory(self, trials: Iterable[Trial]) -> None:
        """Raises `UnavailableError` if cells of these trials need more memory than a worker has on a CPU."""
        if all(slot.is_cpu for slot in self._slots.values()):
            check_memory_of(trials, min(find_memory(), self._memory_limit or math.inf))

    def free_slots(self) -> dict[int, str]:
        """Returns the idle slots, each with the static signature of its last trial (`""` for none)."""
        workers = {number: self._workers.get(number) for number in self._slots}
        return {n: worker.signature if worker else "" for n, worker in workers.items() if not worker or worker.is_free}

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Gives a group of trials to the worker of an idle slot, which is started if there is none."""
        if slot not in self._workers:
            self._workers[slot] = WorkerProcess(self._slots[slot], self._inbox)
        self._workers[slot].give(group, group[0].signature, self._at_once)

    def poll(self, seconds: float) -> list[Event]:
        """Returns the events since the last call; waits up to `seconds` for the first."""
        if self._error:
            raise self._error
        events: list[Event] = []
        wait = min(seconds, WATCH_SECONDS)
        while True:
            try:
                worker, message = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            except queue.Empty:
                break
            wait = 0.0
            events += worker.receive(message) if message else self._replace(worker)
        if time.monotonic() - self._watched > WATCH_SECONDS:
            self._watched = time.monotonic()
            for worker in self._workers.values():
                worker.watch(self._timeout, self._memory_limit)
        return events

    def _replace(self, worker: WorkerProcess) -> list[Event]:
        """Removes a worker that has ended, and returns the events of its trials.

        If `FAILED_STARTS` workers in a row ended before their first trial, the slot is no longer used.
        """
        number = worker.slot.number
        if self._workers.get(number) is worker:
            del self._workers[number]
        output = worker.release()
        self._failed_starts[number] = 0 if worker.has_begun else self._failed_starts[number] + 1
        if self._failed_starts[number] == FAILED_STARTS:
            self._retire(number, worker.describe_end(output))
        return worker.settle(output)

    def _retire(self, number: int, reason: str) -> None:
        del self._slots[number]
        if self._slots:
            warnings.warn(
                f"workers cannot start, so the grid goes on with {len(self._slots)}: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self._error = UnavailableError(f"workers cannot start: {reason}")

    def close(self) -> None:
        """Kills every worker."""
        for worker in self._workers.values():
            worker.kill("the grid was stopped")
        for worker in self._workers.values():
            worker.release()
        self._workers.clear()


def make_local_executor(
    workers: int | None = None,
    timeout: float | None = None,
    memory_limit: float | None = None,
    at_once: int | None = None,
) -> LocalExecutor:
    """Returns an executor with the slots of this machine.

    Args:
        workers: the number of workers; one per core or device by default.
        timeout: time limit of a trial in seconds; ``None`` for no limit.
        memory_limit: limit of a trial's resident memory in bytes; by default, that of `share_memory`.
        at_once: number of trials in one program; by default, one on a CPU, and on an accelerator as many as its memory
            holds.

    Raises:
        InputError, UnavailableError: as `make_slots`.
    """
    slots = make_slots(workers)
    most = 1 if all(slot.is_cpu for slot in slots) else MOST_AT_ONCE
    limit = share_memory(len(slots)) if memory_limit is None else memory_limit
    return LocalExecutor(slots, timeout, limit, at_once or most, at_once)


def share_memory(workers: int) -> float:
    """Returns the default memory limit of a trial in bytes.

    It is an equal share of 90% of the machine's memory for each of the `workers`, but at least 2 GiB.
    """
    return max(MEMORY_SHARE * find_memory() / workers, LEAST_MEMORY)
