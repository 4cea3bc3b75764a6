"""What the store says of a grid, cell by cell.

A cell's accuracy is estimated from its completed seeds alone. A trial without a result is counted, and listed with its
reason; it never becomes a number.
"""

import functools
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ablations.execution.costs import find_size
from ablations.study.grid import Cell, Grid, Trial
from cnnjax.reports.arms import find_resolution
from cnnjax.runs.record import STATUSES, Record
from cnnjax.statistics.estimates import Estimate, estimate_accuracy

TRIAL_STATUSES = (*STATUSES, "missing")
"""What can be said of a trial; ``missing`` is not in the store."""


@dataclass(frozen=True)
class Failure:
    """A trial that ran and has no accuracy: failed or diverged.

    Attributes:
        cell: its name.
        seed: of the trial.
        status: ``failed`` or ``diverged``.
        reason: why.
        output: the last lines that it printed; ``None`` where there are none.
    """

    cell: str
    seed: int
    status: str
    reason: str | None
    output: str | None


@dataclass(frozen=True)
class CellResult:
    """What is known of a cell.

    Attributes:
        name: of the cell.
        labels: the label of its level of every factor.
        problem: why its network cannot exist; ``None`` where it can.
        parameters, flops: of its network; ``None`` where it cannot exist.
        keys: the run key of every trial, by seed.
        accuracies: test accuracy of every completed trial, by seed.
        val_accuracies: validation accuracy after the last epoch of every completed trial that has validation examples.
        counts: number of trials by status, one entry for each of `TRIAL_STATUSES`.
        train_seconds: mean time of training of the completed trials; ``None`` where there is none.
        total_seconds: time spent on all its trials.
        failures: its trials that failed or diverged.
        pruned: why successive halving did not take its trials further; ``None`` where it did, or had no part in it.
        resolution, val_resolution: the steps of the accuracies; ``None`` where they are not known.
    """

    name: str
    labels: Mapping[str, str]
    problem: str | None
    parameters: int | None
    flops: int | None
    keys: Mapping[int, str]
    accuracies: Mapping[int, float]
    val_accuracies: Mapping[int, float]
    counts: Mapping[str, int]
    train_seconds: float | None
    total_seconds: float
    failures: tuple[Failure, ...]
    pruned: str | None = None
    resolution: float | None = None
    val_resolution: float | None = None

    @functools.cached_property
    def accuracy(self) -> Estimate | None:
        """The mean test accuracy with its 95% interval over the completed seeds; ``None`` where there is none."""
        return estimate_accuracy(self.accuracies.values(), resolution=self.resolution) if self.accuracies else None

    @functools.cached_property
    def val_accuracy(self) -> Estimate | None:
        """The mean validation accuracy likewise, on which to choose a cell; ``None`` without validation examples."""
        values = self.val_accuracies.values()
        return estimate_accuracy(values, resolution=self.val_resolution) if values else None

    @property
    def trials(self) -> int:
        """Number of trials, whatever became of them."""
        return sum(self.counts.values())


def summarize_cells(grid: Grid, records: Mapping[str, Record]) -> tuple[CellResult, ...]:
    """Returns the result of every cell of a grid, in the grid's order.

    Args:
        grid: what was to be run.
        records: what is stored, by run key; records of other runs are left aside.
    """
    return tuple(_summarize(cell, [cell.seeded(seed) for seed in grid.seeds], records) for cell in grid.cells)


def _summarize(cell: Cell, trials: list[Trial], records: Mapping[str, Record]) -> CellResult:
    found = {trial.config.seed: records.get(trial.key) for trial in trials}
    stored = {seed: record for seed, record in found.items() if record is not None}
    size = find_size(cell.config) if cell.problem is None else (None, None)
    completed = {seed: record for seed, record in stored.items() if record.status == "completed"}
    counted = Counter(_find_status(cell, record) for record in found.values())
    reasons = [record.reason for record in stored.values() if record.status == "invalid"]
    step, val_step = (
        find_resolution([cell.config], measure) if completed else None for measure in ("test", "validation")
    )
    return CellResult(
        name=cell.name,
        labels=cell.labels,
        problem=cell.problem or next(iter(reasons), None),
        parameters=size[0],
        flops=size[1],
        keys={trial.config.seed: trial.key for trial in trials},
        accuracies={
            seed: record.test_accuracy for seed, record in completed.items() if record.test_accuracy is not None
        },
        val_accuracies={
            seed: record.history[-1].val_accuracy
            for seed, record in completed.items()
            if record.history and record.history[-1].val_accuracy is not None
        },
        counts={status: counted[status] for status in TRIAL_STATUSES},
        train_seconds=_mean(record.seconds.get("train") for record in completed.values()),
        total_seconds=sum(record.seconds.get("total") or 0.0 for record in stored.values()),
        failures=tuple(
            Failure(cell.name, seed, record.status, record.reason, record.output)
            for seed, record in stored.items()
            if record.status in ("failed", "diverged")
        ),
        pruned=next((record.reason for record in stored.values() if record.status == "pruned"), None),
        resolution=step,
        val_resolution=val_step,
    )


def _find_status(cell: Cell, record: Record | None) -> str:
    if record is not None:
        return record.status
    return "invalid" if cell.problem else "missing"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
