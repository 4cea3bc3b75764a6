"""A grid against a store: what is stored already, and what is left to run."""

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
"""Whether every cell trains to its end, or the worse half is pruned again and again."""


@dataclass(frozen=True)
class Policy:
    """What becomes of failures.

    Attributes:
        retry_failed: runs what the store holds as failed again; otherwise it stays so.
        fail_fast: stops at the first trial that fails for good; what the store holds as failed already stops nothing.
        max_retries: further attempts at a trial that fails.
    """

    retry_failed: bool = False
    fail_fast: bool = False
    max_retries: int = 1


@dataclass(frozen=True)
class Work:
    """What is stored and what is not.

    Attributes:
        stored: how many trials have which status in the store and stay as they are.
        invalid: trials whose network cannot exist.
        waiting: trials to run.
        statuses: of every run in the store, of the grid or not, by run key, in the order they were stored.
    """

    stored: Counter[str]
    invalid: tuple[Trial, ...]
    waiting: tuple[Trial, ...]
    statuses: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by status, those to run being ``waiting``."""
        return self.stored + Counter(invalid=len(self.invalid), waiting=len(self.waiting))


@dataclass(frozen=True)
class Ending:
    """How a grid ended.

    Attributes:
        counts: number of trials by status, those that were not run being ``waiting``.
        stopped: whether a failure of this call stopped it, which `Policy.fail_fast` asks for.
    """

    counts: Counter[str]
    stopped: bool


def find_work(grid: Grid, store: Store, retry_failed: bool = False) -> Work:
    """Compares a grid with a store, which need not exist yet.

    Args:
        grid: the study.
        store: where its results are.
        retry_failed: counts trials that failed as waiting.
    """
    statuses = {key: outcome.status for key, outcome in store.list_outcomes().items()}
    kept = FINAL if retry_failed else (*FINAL, "failed")
    valid = [trial for trial in grid.trials if trial.cell.problem is None]
    return Work(
        stored=Counter(statuses[trial.key] for trial in valid if statuses.get(trial.key) in kept),
        invalid=tuple(trial for trial in grid.trials if trial.cell.problem is not None),
        waiting=tuple(trial for trial in valid if statuses.get(trial.key) not in kept),
        statuses=statuses,
    )


class Schedule:
    """The trials that are not begun, in groups by static signature.

    Args:
        trials: all that is to be run.
        cost: how long a trial takes, in any unit.
    """

    def __init__(self, trials: Iterable[Trial], cost: Callable[[Trial], float]) -> None:
        self._waiting: dict[str, deque[Trial]] = {}
        for trial in sorted(trials, key=cost, reverse=True):  # so the groups, too, come in the order of their longest
            self._waiting.setdefault(trial.signature, deque()).append(trial)
        self._running: Counter[str] = Counter()
        self._most: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def has(self, signature: str) -> bool:
        """Whether trials of this signature are waiting."""
        return signature in self._waiting

    def take(self, signature: str, size: int, takers: int = 1) -> tuple[Trial, ...]:
        """Removes and returns up to `size` trials of one signature, that of the programs at hand if any are left.

        Args:
            signature: of the programs at hand; `""` for none.
            size: the most trials, where no group of this signature has failed.
            takers: how many may share what is waiting.
        """
        if signature not in self._waiting:
            nobodys = (other for other in self._waiting if not self._running[other])
            signature = next(nobodys, next(iter(self._waiting), ""))
        group = self._waiting.get(signature, deque())
        share = min(size, self._most.get(signature, size), math.ceil(len(group) / takers))
        taken = tuple(group.popleft() for _ in range(share))
        if not group:
            self._waiting.pop(signature, None)
        self._running[signature] += len(taken)
        return taken

    def put_back(self, trial: Trial, together: int = 0) -> None:
        """Takes up a trial again that was taken, to be run after the others of its signature.

        Args:
            trial: that has no result.
            together: how many trials of one program went down with it; none of this signature will have as many again.
        """
        if together > 1:
            self._most[trial.signature] = min(together // 2, self._most.get(trial.signature, together))
        self._waiting.setdefault(trial.signature, deque()).append(trial)
        self.end(trial)

    def end(self, trial: Trial) -> None:
        """Learns that a trial that was taken runs no more."""
        self._running[trial.signature] -= 1


@dataclass(frozen=True)
class Started:
    """A trial has begun."""

    trial: Trial


@dataclass(frozen=True)
class Advanced:
    """A trial is so far."""

    trial: Trial
    progress: Progress


@dataclass(frozen=True)
class Ended:
    """A trial has a result: it completed or diverged."""

    trial: Trial
    run: PackedRun


@dataclass(frozen=True)
class Failed:
    """A trial has none, for a reason in one line; `output` is the last of what it printed."""

    trial: Trial
    reason: str
    output: str | None = None


@dataclass(frozen=True)
class Returned:
    """A trial has no result through no fault of its own; it is nobody's now.

    Attributes:
        trial: that was not begun, because the worker of its group is gone, or that went down with others.
        together: how many trials of one program went down; 0 where it was not begun.
        reason: of that, in one line.
    """

    trial: Trial
    together: int = 0
    reason: str = ""


Event = Started | Advanced | Ended | Failed | Returned


class Executor(Protocol):
    """Runs groups of trials of one static signature, by `ablations.execution.trials`.

    Every trial that is submitted comes back in exactly one `Ended`, `Failed` or `Returned`.
    """

    group_size: int
    """Trials that one slot takes at once."""

    def free_slots(self) -> Mapping[int, str]:
        """Returns, for every slot without work, the static signature it has the programs of (`""` for none)."""

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Begins a group on a free slot."""

    def poll(self, seconds: float) -> list[Event]:
        """Returns what has happened, after waiting at most so long for something to happen."""

    def close(self) -> None:
        """Stops whatever runs, at once."""
