"""What an executor tells of the trials it was given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ablations.language.grids import Trial
from cnnjax.history import Progress
from cnnjax.records import PackedRun


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
    """Runs groups of trials of one static signature, by `ablations.running.trials`.

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
