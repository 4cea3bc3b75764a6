"""The work of a grid: which trials are left to run, in which order they are run, and the interface of executors.

A `Schedule` hands out trials, an `Executor` runs them, and the executor reports the end of every trial in an event.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ablations.study.grid import Grid, Trial
from cnnjax.runs.history import Progress
from cnnjax.runs.record import FINAL, PackedRun
from cnnjax.runs.store import Store

Budget = Literal["full", "halving"]
"""``full`` trains every cell to its end; ``halving`` repeatedly prunes the worse half of the cells."""


@dataclass(frozen=True)
class Policy:
    """What to do about failures.

    Attributes:
        retry_failed: whether trials that are stored as failed are run again.
        fail_fast: whether the grid stops when a trial fails in its last attempt; failures that were stored before do
            not stop it.
        max_retries: number of further attempts after a trial has failed.
    """

    retry_failed: bool = False
    fail_fast: bool = False
    max_retries: int = 1


@dataclass(frozen=True)
class Work:
    """The trials of a grid: those that are stored, those that are invalid, and those that are left to run.

    Attributes:
        stored: the number of trials whose stored result is kept, by status.
        invalid: the trials whose network does not fit its images.
        waiting: the trials to run.
        statuses: the status of every run in the store, also of runs outside the grid, by run key, oldest first.
    """

    stored: Counter[str]
    invalid: tuple[Trial, ...]
    waiting: tuple[Trial, ...]
    statuses: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """The number of trials by status; trials that are left to run are ``waiting``."""
        return self.stored + Counter(invalid=len(self.invalid), waiting=len(self.waiting))


@dataclass(frozen=True)
class Ending:
    """How a grid ended.

    Attributes:
        counts: the number of trials by status; trials that were not run are ``waiting``.
        stopped: whether a failure stopped the grid, because of `Policy.fail_fast`.
    """

    counts: Counter[str]
    stopped: bool


def find_work(grid: Grid, store: Store, retry_failed: bool = False) -> Work:
    """Finds which trials of a grid a store has; the store need not exist yet.

    Args:
        grid: the trials.
        store: the store with results.
        retry_failed: whether trials that are stored as failed are left to run.
    """
    statuses = {key: run.status for key, run in store.list_statuses().items()}
    kept = FINAL if retry_failed else (*FINAL, "failed")
    valid = [trial for trial in grid.trials if trial.cell.problem is None]
    return Work(
        stored=Counter(statuses[trial.key] for trial in valid if statuses.get(trial.key) in kept),
        invalid=tuple(trial for trial in grid.trials if trial.cell.problem is not None),
        waiting=tuple(trial for trial in valid if statuses.get(trial.key) not in kept),
        statuses=statuses,
    )


class Schedule:
    """The trials that have not started, grouped by static signature, the longest first.

    Args:
        trials: all trials to run.
        cost: returns the expected duration of a trial, in any unit.
    """

    def __init__(self, trials: Iterable[Trial], cost: Callable[[Trial], float]) -> None:
        self._waiting: dict[str, deque[Trial]] = {}
        for trial in sorted(trials, key=cost, reverse=True):  # the groups are then in this order too
            self._waiting.setdefault(trial.signature, deque()).append(trial)
        self._running: Counter[str] = Counter()
        self._most: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def has(self, signature: str) -> bool:
        """Whether trials with this signature are waiting."""
        return signature in self._waiting

    def take(self, signature: str, size: int, takers: int = 1) -> tuple[Trial, ...]:
        """Removes and returns up to `size` trials with the same signature.

        Args:
            signature: the signature to prefer, because the worker has its programs already; `""` for none.
            size: the largest number of trials; fewer are taken if a group with this signature has failed.
            takers: the number of workers that share the waiting trials.
        """
        if signature not in self._waiting:
            idle = (other for other in self._waiting if not self._running[other])
            signature = next(idle, next(iter(self._waiting), ""))
        group = self._waiting.get(signature, deque())
        share = min(size, self._most.get(signature, size), math.ceil(len(group) / takers))
        taken = tuple(group.popleft() for _ in range(share))
        if not group:
            self._waiting.pop(signature, None)
        self._running[signature] += len(taken)
        return taken

    def put_back(self, trial: Trial, together: int = 0) -> None:
        """Reschedules a trial that was taken, after the others with its signature.

        Args:
            trial: a trial that has no result.
            together: the number of trials in its program if that failed; later groups with the signature are smaller.
        """
        if together > 1:
            self._most[trial.signature] = min(together // 2, self._most.get(trial.signature, together))
        self._waiting.setdefault(trial.signature, deque()).append(trial)
        self.end(trial)

    def end(self, trial: Trial) -> None:
        """Records that a trial that was taken has ended."""
        self._running[trial.signature] -= 1


@dataclass(frozen=True)
class Started:
    """A trial has started."""

    trial: Trial


@dataclass(frozen=True)
class Advanced:
    """Progress of a running trial."""

    trial: Trial
    progress: Progress


@dataclass(frozen=True)
class Ended:
    """A trial has completed or diverged."""

    trial: Trial
    run: PackedRun


@dataclass(frozen=True)
class Failed:
    """A trial has failed.

    Attributes:
        trial: the trial.
        reason: why it failed, in one line.
        output: the end of what it printed.
    """

    trial: Trial
    reason: str
    output: str | None = None


@dataclass(frozen=True)
class Returned:
    """A trial must be rescheduled, because its worker ended before the trial started or ran several trials together.

    Attributes:
        trial: the trial.
        together: the number of trials in the program that ended; 0 if the trial had not started.
        reason: why the program ended, in one line.
    """

    trial: Trial
    together: int = 0
    reason: str = ""


Event = Started | Advanced | Ended | Failed | Returned


class Executor(Protocol):
    """Runs groups of trials with the same static signature, by `ablations.execution.trials`.

    For every submitted trial, `poll` returns exactly one `Ended`, `Failed` or `Returned`.
    """

    group_size: int
    """The largest number of trials that a slot takes at once."""

    def free_slots(self) -> Mapping[int, str]:
        """Returns the idle slots, each with the static signature whose programs it has (`""` for none)."""

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Starts a group of trials on an idle slot."""

    def poll(self, seconds: float) -> list[Event]:
        """Returns the events since the last call; waits up to `seconds` for the first."""

    def close(self) -> None:
        """Stops all running trials at once."""
