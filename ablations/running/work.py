"""A grid against a store: what is stored already, and what is left to run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ablations.language.grids import Grid, Trial
from cnnjax.records import FINAL
from cnnjax.runs import Store

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
