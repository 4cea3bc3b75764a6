"""What running a study would mean: its trials, the size of its networks, the time it takes, and what it can show.

All of it is arithmetic on the grid and on what a store says; nothing is trained or written.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ablations.language.grids import Cell, Grid
from ablations.planning.forecasting import Forecast, forecast
from ablations.planning.sensitivity import Sensitivity
from ablations.planning.timing import Timing
from ablations.running.costs import summarize_run
from ablations.running.work import Work
from cnnjax.config import DataConfig
from cnnjax.datasets import DatasetInfo, load_data_info
from cnnjax.summary import Summary

STATUSES = ("completed", "diverged", "failed", "invalid", "waiting")
"""What can be said of a trial; ``waiting`` is to be run."""


@dataclass(frozen=True)
class CellPlan:
    """What is known of a cell before it runs.

    Attributes:
        cell: of the grid.
        size: the layers of its network; ``None`` where it cannot exist.
        counts: number of its trials by status, one entry for each of `STATUSES`.
        seconds: that one of its trials takes, compilation apart; ``None`` where that is not known.
    """

    cell: Cell
    size: Summary | None
    counts: Mapping[str, int]
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {
            "name": self.cell.name,
            "labels": dict(self.cell.labels),
            "problem": self.cell.problem,
            "parameters": self.size and self.size.parameters,
            "flops": self.size and self.size.flops,
            "activation_bytes": self.size and self.size.activation_bytes,
            "counts": dict(self.counts),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Plan:
    """What running a study would mean.

    Attributes:
        title: the question.
        grid: all that is to be run.
        cells: in the grid's order.
        programs: static signatures of the trials that wait; every worker that meets one compiles it once.
        workers: that run side by side.
        forecast: of the trials that wait; ``None`` where no timing is known.
        basis: where the timing is from; ``None`` where there is none.
        sensitivity: of a comparison of two cells.
        unknown_datasets: those whose number of training examples had to be assumed.
    """

    title: str
    grid: Grid
    cells: tuple[CellPlan, ...]
    programs: int
    workers: int
    forecast: Forecast | None
    basis: str | None
    sensitivity: Sensitivity
    unknown_datasets: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by status."""
        return {status: sum(cell.counts[status] for cell in self.cells) for status in STATUSES}

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON values, unrounded."""
        return {
            "study": self.grid.name,
            "title": self.title,
            "seeds": list(self.grid.seeds),
            "factors": list(self.grid.factors),
            "trials": len(self.grid.trials),
            "counts": self.counts,
            "cells": [cell.to_dict() for cell in self.cells],
            "duplicates": [asdict(duplicate) for duplicate in self.grid.duplicates],
            "programs": self.programs,
            "workers": self.workers,
            "forecast": self.forecast and asdict(self.forecast),
            "basis": self.basis,
            "sensitivity": asdict(self.sensitivity),
            "unknown_datasets": list(self.unknown_datasets),
        }


def make_plan(
    title: str,
    grid: Grid,
    work: Work,
    statuses: Mapping[str, str],
    workers: int,
    timing: Timing | None,
    sensitivity: Sensitivity,
) -> Plan:
    """Returns the plan of a grid.

    Args:
        title: of the study.
        grid: of the study.
        work: the grid against its store.
        statuses: of all that is stored, by run key.
        workers: that run side by side.
        timing: of runs as a worker runs them; ``None`` where nothing is known.
        sensitivity: of the grid.
    """
    cells = _plan_cells(grid, {**statuses, **{trial.key: "waiting" for trial in work.waiting}}, timing)
    return Plan(
        title=title,
        grid=grid,
        cells=cells,
        programs=len({trial.signature for trial in work.waiting}),
        workers=workers,
        forecast=_forecast(cells, work, workers, timing),
        basis=timing.basis if timing else None,
        sensitivity=sensitivity,
        unknown_datasets=tuple(info.name for info in list_infos(grid).values() if info.train_size is None),
    )


def list_infos(grid: Grid) -> dict[DataConfig, DatasetInfo]:
    """Returns what is known of every dataset of a grid, by its settings without the size; each is looked up once."""
    datasets = dict.fromkeys(cell.config.data.whole for cell in grid.cells)
    return {data: load_data_info(data) for data in datasets}


def _plan_cells(grid: Grid, statuses: Mapping[str, str], timing: Timing | None) -> tuple[CellPlan, ...]:
    trials = iter(grid.trials)  # cell by cell
    plans = []
    for cell in grid.cells:
        own = itertools.islice(trials, len(grid.seeds))
        found = ["invalid" if cell.problem else statuses[trial.key] for trial in own]
        plans.append(
            CellPlan(
                cell=cell,
                size=None if cell.problem else summarize_run(cell.config),
                counts={status: found.count(status) for status in STATUSES},
                seconds=timing.run_seconds(cell.config) if timing and not cell.problem else None,
            )
        )
    return tuple(plans)


def _forecast(cells: Iterable[CellPlan], work: Work, workers: int, timing: Timing | None) -> Forecast | None:
    if timing is None:
        return None if work.waiting else Forecast(0.0, 0.0)
    seconds = {cell.cell.config.key: cell.seconds or 0.0 for cell in cells}
    return forecast(
        work.waiting,
        workers,
        lambda trial: seconds[trial.cell.config.key],
        lambda trial: timing.compile_seconds(trial.config),
    )
