"""Trials on this machine: a worker process a core, or a device, each replaced when it dies.

A worker that crashes, hangs or takes too much memory costs only the trial it was at, or those of one program, which are
then run again in smaller groups. A thread a worker turns what it
sends into one queue, so that the coordinator waits in one place.
"""

import math
import queue
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

from ablations.language.grids import Trial
from ablations.running.costs import check_memory_of
from ablations.running.events import Event
from ablations.running.slots import Slot, make_slots
from ablations.running.worker_process import Message, WorkerProcess
from cnnjax.errors import UnavailableError
from cnnjax.host_memory import find_memory
from cnnjax.signatures import MOST_AT_ONCE

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
