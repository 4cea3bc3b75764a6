"""Which trials to run next: those of the programs at hand first, else the longest that nobody has begun.

Longest first keeps the last workers from waiting for each other; staying with a signature saves compiling it again.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable

from ablations.language.grids import Trial


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
