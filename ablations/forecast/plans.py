"""When a grid will be done: its trials dealt to workers as a run deals them, with a clock instead of training."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.execution.costs import TRAIN_SIZE_UNKNOWN, summarize_run
from ablations.execution.work import Schedule, Work
from ablations.forecast.sensitivity import ALPHA, POWER, Sensitivity
from ablations.forecast.timing import Timing
from ablations.study.grid import Cell, Grid, Trial
from cnnjax.console.tables import Column, Document, Table
from cnnjax.console.terminal import format_seconds
from cnnjax.data.dataset import DatasetInfo
from cnnjax.data.loading import load_data_info
from cnnjax.data.settings import DataConfig
from cnnjax.models.table import Summary
from cnnjax.runs.config import static_signature
from cnnjax.settings.schema import shorten_paths
from cnnjax.statistics.verdicts import LEAST_SEEDS


@dataclass(frozen=True)
class Forecast:
    """How long trials take: in seconds from beginning to end, and in seconds of all workers together."""

    wall: float
    work: float


def forecast(
    trials: Sequence[Trial],
    workers: int,
    run_seconds: Callable[[Trial], float],
    compile_seconds: Callable[[Trial], float],
) -> Forecast:
    """Plays the run of trials through, the longest first on every worker that is free.

    Args:
        trials: to be run.
        workers: how many run side by side.
        run_seconds: how long a trial takes on a worker that has its programs.
        compile_seconds: how much longer on one that has not.
    """
    schedule = Schedule(trials, run_seconds)
    places = [(0.0, number, _Place()) for number in range(workers)]
    work = 0.0
    for _ in trials:
        now, number, place = places[0]
        if place.trial:
            schedule.end(place.trial)
        (place.trial,) = schedule.take(place.signature, 1)
        place.signature = static_signature(place.trial.config)
        spent = run_seconds(place.trial)
        if place.signature not in place.compiled:
            place.compiled.add(place.signature)
            spent += compile_seconds(place.trial)
        work += spent
        heapq.heapreplace(places, (now + spent, number, place))
    return Forecast(max(now for now, _, _ in places), work)


class _Place:
    """A worker: what it runs, and the signatures it has compiled, that of its last trial being at hand."""

    def __init__(self) -> None:
        self.trial: Trial | None = None
        self.signature = ""
        self.compiled: set[str] = set()


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


MOST_ROWS = 50
MOST_LINES = 10


def describe_plan(plan: Plan, complete: bool = False) -> Document:
    """Returns the plan as a document.

    Args:
        plan: any.
        complete: with every cell and duplicate; otherwise `MOST_ROWS` and `MOST_LINES` of them, and how many more.
    """
    grid, counts = plan.grid, plan.counts
    cells, seeds = len(grid.cells), len(grid.seeds)
    facts = (
        f"study {grid.name}",
        f"{_count(cells, 'cell')} x {_count(seeds, 'seed')} = {_count(cells * seeds, 'trial')}",
        *(f"{count:,} {_NAMES.get(status, status)}" for status, count in counts.items() if count),
    )
    shown = plan.cells if complete else plan.cells[:MOST_ROWS]
    return Document(plan.title, facts, (_make_table(plan, shown),), tuple(_list_notes(plan, complete)))


def _make_table(plan: Plan, cells: Iterable[CellPlan]) -> Table:
    numbers = (*(Column(name, ",", True) for name in ("parameters", "FLOPs")), Column("s a trial", ",.1f", True))
    columns = (*map(Column, shorten_paths(plan.grid.factors).values()), *numbers, Column("trials"))
    return Table(columns, tuple(_make_row(plan, cell) for cell in cells))


def _make_row(plan: Plan, cell: CellPlan) -> tuple[str | int | float | None, ...]:
    size = cell.size
    return (
        *(cell.cell.labels[factor] for factor in plan.grid.factors),
        *((size.parameters, size.flops) if size else (None, None)),
        cell.seconds,
        ", ".join(f"{count} {_NAMES.get(status, status)}" for status, count in cell.counts.items() if count),
    )


def _list_notes(plan: Plan, complete: bool) -> Iterator[str]:
    most = None if complete else MOST_LINES
    hidden = 0 if complete else len(plan.cells) - MOST_ROWS
    if hidden > 0:
        yield f"... and {_count(hidden, 'more cell')}; --all shows them"
    yield from _cut(
        [f"invalid: {cell.cell.name}: {cell.cell.problem}" for cell in plan.cells if cell.cell.problem], most
    )
    yield from _cut([f"duplicate: {each.name} runs what {each.kept} runs" for each in plan.grid.duplicates], most)
    for name in plan.unknown_datasets:
        yield f"{name} is not prepared: {TRAIN_SIZE_UNKNOWN:,} training examples are assumed"
    yield f"to compile: {_count(plan.programs, 'program')}"
    yield f"estimated time here: {_write_time(plan)}"
    yield _write_sensitivity(plan.sensitivity)


def _cut(lines: list[str], most: int | None) -> list[str]:
    hidden = 0 if most is None else len(lines) - most
    return [*lines[:most], f"... and {hidden:,} more; --all shows them"] if hidden > 0 else lines


def _write_time(plan: Plan) -> str:
    if plan.forecast is None:
        return "not known, for no networks of such sizes were timed here; --calibrate measures it in about 30 s"
    if not plan.counts["waiting"]:
        return "none, there is nothing to run"
    wall, work = (format_seconds(seconds) for seconds in (plan.forecast.wall, plan.forecast.work))
    return f"{wall} on {_count(plan.workers, 'worker')} ({work} of work), from {plan.basis}"


def _write_sensitivity(sensitivity: Sensitivity) -> str:
    if not sensitivity.comparisons:
        return "one cell: nothing to compare"
    spread = f"standard deviation over seeds {sensitivity.standard_deviation:.4f}, {sensitivity.basis}"
    if sensitivity.difference is None:
        return f"with fewer than {LEAST_SEEDS} seeds no comparison is decided ({spread})"
    count = sensitivity.comparisons
    if count > 1:
        which = f"each of the {count} comparisons with a baseline, which together err with {ALPHA:.0%} at most"
    else:
        which = f"the comparison of the two cells, at a level of {ALPHA:.0%}"
    return (
        f"with {sensitivity.seeds} seeds a true difference of {100 * sensitivity.difference:.2f} points of accuracy is "
        f"found with {POWER:.0%} probability in {which} ({spread}; arms taken as uncorrelated, which overstates it "
        "where seeds agree)"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


_NAMES = {"waiting": "to run"}
