"""The places for workers on this machine: one a core on CPU, one a device on accelerators."""

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
from typing import IO, Any

import psutil

from ablations.execution.costs import check_memory_of
from ablations.execution.trials import hash_source, read_message, write_message
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

PROBE_SECONDS = 300
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
    """A place for a worker: its number, the one core it runs on, if it is pinned, and its environment beyond ours."""

    number: int
    core: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_cpu(self) -> bool:
        """Whether the worker trains on a CPU."""
        return self.environment.get("JAX_PLATFORMS") == "cpu"


def make_slots(workers: int | None = None) -> list[Slot]:
    """Returns the places for workers.

    On CPU a worker is pinned to one core: side by side they train more than one process with all cores. On GPUs and
    TPUs a worker sees one device.

    Args:
        workers: how many; ``None`` is one a core, or one a device.

    Raises:
        InputError: more workers than devices.
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
    check_flags()
    if not may_have_accelerators():
        return "cpu", 0
    # In a process of its own, for JAX would take the devices that the workers need.
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
    if backend == "tpu":
        bounds = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        return {"TPU_VISIBLE_CHIPS": str(index), **bounds}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[index] if visible != [""] else str(index)}


TAIL_BYTES = 4000
START_SECONDS = 300
END_SECONDS = 10
Message = tuple[dict[str, Any], list[bytes | None]]


class WorkerProcess:
    """A worker process, from its start to its end.

    Args:
        slot: where it runs.
        inbox: receives its messages, each with this object, and ``None`` when there will be no more.

    Attributes:
        slot: where it runs.
        signature: the static signature of the last group it was given; `""` for none.
        has_begun: whether it ever began a trial.
    """

    def __init__(self, slot: Slot, inbox: "queue.SimpleQueue[tuple[WorkerProcess, Message | None]]") -> None:
        self.slot, self.signature, self.has_begun = slot, "", False
        self._waiting: list[Trial] = []
        self._begun: dict[str, Trial] = {}
        self._together = 0
        self._is_ready = False
        self._verdict: str | None = None
        self._since = time.monotonic()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = _start(slot, self._log)
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._memory = psutil.Process(self._process.pid)
        self._listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._listener.start()

    @property
    def is_free(self) -> bool:
        """Whether it can be given a group."""
        return not (self._waiting or self._begun) and self._verdict is None

    def give(self, group: tuple[Trial, ...], signature: str, at_once: int | None = None) -> None:
        """Sends it a group of trials, of which so many are to run in one program; ``None`` lets it choose."""
        self._waiting, self.signature = list(group), signature
        try:
            write_message(self._stdin, {"configs": [trial.config.to_dict() for trial in group], "at_once": at_once})
        except OSError:
            self.kill("the worker has ended")  # of which the listener will hear

    def receive(self, message: Message) -> list[Event]:
        """Returns what a message means for its group; a worker that makes no sense is killed."""
        try:
            return self._read(message)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            self.kill(f"the worker sent no message: {error!r}")
            return []

    def watch(self, timeout: float | None, memory_limit: float | None) -> None:
        """Kills the process where its start, or its trial, takes too long, or its trial too much memory."""
        seconds = time.monotonic() - self._since
        if self._process.poll() is not None:
            self._signal_group()  # what it has left behind keeps its output open
        elif not self._is_ready and seconds > START_SECONDS:
            self.kill(f"the worker was not ready after {START_SECONDS} s")
        elif self._begun and timeout is not None and seconds > timeout * self._together:
            self.kill(f"ran longer than {timeout * self._together:g} s")
        elif self._begun and memory_limit is not None:
            with contextlib.suppress(psutil.Error):
                used = self._memory.memory_info().rss
                if used > memory_limit:
                    self.kill(f"used {used / 2**30:.2f} GiB of memory, more than {memory_limit / 2**30:.2f} GiB")

    def kill(self, reason: str) -> None:
        """Kills the process, and whatever it has started, for a reason that becomes that of its trial."""
        self._verdict = self._verdict or reason
        self._signal_group()

    def release(self) -> str:
        """Waits for the end of the process, closes what was open to it, and returns the tail of what it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._listener.join(END_SECONDS)
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - TAIL_BYTES, 0))
        output = self._log.read().decode(errors="replace").strip()
        with contextlib.suppress(OSError):
            self._stdin.close()
        if not self._listener.is_alive():
            self._stdout.close()
        self._log.close()
        return output

    def settle(self, output: str) -> list[Event]:
        """Returns what the end of the process means for its group: a trial that it was at by itself has failed."""
        reason = self._verdict or self._describe_exit()
        begun: list[Event] = [
            Failed(trial, reason, output or None) if self._together == 1 else Returned(trial, self._together, reason)
            for trial in self._begun.values()
        ]
        return [*begun, *(Returned(trial) for trial in self._waiting)]

    def describe_end(self, output: str) -> str:
        """Returns one line that says how the process ended: the verdict, or its last words, if it left any."""
        return self._verdict or (output.splitlines() or [self._describe_exit()])[-1]

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
            raise ValueError(f"about another run, {key}")
        trial = self._waiting.pop(0)
        self._together = self._together + 1 if self._begun else 1
        self._begun[key] = trial
        self.has_begun, self._since = True, time.monotonic()
        return trial

    def _listen(self, inbox: "queue.SimpleQueue[tuple[WorkerProcess, Message | None]]") -> None:
        try:
            while (message := read_message(self._stdout)) is not None:
                inbox.put((self, message))
        except (ValueError, OSError) as error:
            self.kill(f"the worker sent no message: {error}")
        finally:
            inbox.put((self, None))

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _describe_exit(self) -> str:
        code = self._process.returncode
        if code is None:
            return "the worker does not end"
        if code >= 0:
            return f"the worker ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        perhaps = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"the worker was killed by {name}{perhaps}"


def _start(slot: Slot, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    command = python_command("-m", "ablations.execution.worker", "--source", hash_source())
    environment = {**python_environment(), **slot.environment}
    if slot.core is not None:
        command += ["--core", str(slot.core)]
        environment |= ONE_THREAD
    # A session of its own: Ctrl-C at the terminal is for the coordinator, which ends its workers itself.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
    )


WATCH_SECONDS = 0.5
FAILED_STARTS = 3
MEMORY_SHARE = 0.9
LEAST_MEMORY = 2 * 2**30


def make_local_executor(
    workers: int | None = None,
    timeout: float | None = None,
    memory_limit: float | None = None,
    at_once: int | None = None,
) -> "LocalExecutor":
    """Returns an executor with the places of `make_slots`.

    Args:
        workers: how many; ``None`` is one a core, or one a device.
        timeout: seconds after which a trial has failed; ``None`` for ever.
        memory_limit: bytes above which a trial has failed; ``None`` is an equal share of 90% of this machine's,
            but at least 2 GiB.
        at_once: trials that a worker trains in one program; ``None`` is one on CPU, and as many as fit the memory of
            an accelerator.

    Raises:
        InputError, UnavailableError: as `make_slots`.
    """
    slots = make_slots(workers)
    most = 1 if all(slot.is_cpu for slot in slots) else MOST_AT_ONCE
    limit = share_memory(len(slots)) if memory_limit is None else memory_limit
    return LocalExecutor(slots, timeout, limit, at_once or most, at_once)


def share_memory(workers: int) -> float:
    """Returns the bytes of memory above which a trial of one of so many workers has failed, by default."""
    return max(MEMORY_SHARE * find_memory() / workers, LEAST_MEMORY)


class LocalExecutor:
    """Runs trials in worker processes, which start when there is work for them.

    Args:
        slots: where workers run, one in each.
        timeout: seconds after which a trial has failed, as many times for several in one program; ``None`` for ever.
        memory_limit: bytes of resident memory above which a trial has failed; ``None`` for any.
        group_size: trials that a worker is given at once.
        at_once: trials of a group that run in one program; ``None`` leaves it to the worker, which knows its device.

    Raises:
        UnavailableError: from `poll`, where no worker can start any more.
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
        """Raises `UnavailableError` with every cell of these trials that cannot fit the memory of a worker on a CPU."""
        if all(slot.is_cpu for slot in self._slots.values()):
            check_memory_of(trials, min(find_memory(), self._memory_limit or math.inf))

    def free_slots(self) -> dict[int, str]:
        """Returns, for every slot without work, the static signature of its last trial (`""` for none)."""
        workers = {number: self._workers.get(number) for number in self._slots}
        return {n: worker.signature if worker else "" for n, worker in workers.items() if not worker or worker.is_free}

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Begins a group on a free slot."""
        if slot not in self._workers:
            self._workers[slot] = WorkerProcess(self._slots[slot], self._inbox)
        self._workers[slot].give(group, group[0].signature, self._at_once)

    def poll(self, seconds: float) -> list[Event]:
        """Returns what has happened, after waiting at most so long for something to happen."""
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

    def close(self) -> None:
        """Kills every worker."""
        for worker in self._workers.values():
            worker.kill("the grid was stopped")
        for worker in self._workers.values():
            worker.release()
        self._workers.clear()

    def _replace(self, worker: WorkerProcess) -> list[Event]:
        """Makes room for another worker, unless too many in a row have died in this slot before their first trial."""
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
