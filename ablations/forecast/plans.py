"""The plan of a grid: its cells, what is stored of them, and how long the rest will take.

The time is that of a simulated run, which hands trials to workers by the same `Schedule` as a real one.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.execution.costs import TRAIN_SIZE_UNKNOWN
from ablations.execution.work import Schedule, Work
from ablations.forecast.sensitivity import SeedCount, Sensitivity
from ablations.forecast.timing import Timing
from ablations.study.grid import Cell, Grid, Trial
from cnnjax.console.tables import Column, Document, Table
from cnnjax.console.terminal import format_seconds
from cnnjax.data.dataset import DatasetInfo
from cnnjax.data.loading import load_data_info
from cnnjax.data.settings import DataConfig
from cnnjax.errors import cut_lines
from cnnjax.models.table import Summary
from cnnjax.runs.record import FINAL
from cnnjax.runs.summary import summarize
from cnnjax.settings.checking import write_count
from cnnjax.settings.schema import shorten_paths
from cnnjax.statistics.measures import ACCURACY
from cnnjax.statistics.planning import PowerPoint
from cnnjax.statistics.verdicts import LEAST_SEEDS, MOST_SEEDS

PLAN_STATUSES = (*FINAL, "failed", "invalid", "waiting")
"""The statuses of a trial in a plan; a trial to run is ``waiting``."""
MOST_ROWS = 50
"""Cells that are shown by default."""
MOST_LINES = 10
"""Notes of a kind that are shown by default."""
_NAMES = {"waiting": "to run"}


@dataclass(frozen=True)
class CellPlan:
    """A cell before it runs.

    Attributes:
        cell: the cell.
        size: the layers of its network; ``None`` if it cannot exist.
        counts: the number of its trials for each of `PLAN_STATUSES`.
        seconds: the time of one of its trials without compilation; ``None`` if unknown.
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
class Forecast:
    """The time of trials: `wall` in seconds from start to end, `work` in seconds summed over workers."""

    wall: float
    work: float


@dataclass(frozen=True)
class Search:
    """The seeds that find a true difference, and what they take.

    Attributes:
        difference: the true difference, of accuracy as a share.
        needed: the seeds that each comparison needs.
        as_planned: the power and the exaggeration at this difference with the seeds of the study; ``None`` if these
            are too few for verdicts.
        trials: the number of trials left to run with the seeds needed; ``None`` if they are too many to plan.
        forecast: the time of these trials; ``None`` if it is not known.
    """

    difference: float
    needed: SeedCount
    as_planned: PowerPoint | None
    trials: int | None
    forecast: Forecast | None


@dataclass(frozen=True)
class Plan:
    """A grid before it runs.

    Attributes:
        title: the question of the study.
        grid: the expanded study.
        cells: the cells, in the grid's order.
        programs: the number of static signatures among the waiting trials; every worker compiles those it meets.
        workers: the number of workers at once.
        forecast: the time of the waiting trials; ``None`` if no timing is known.
        basis: the source of the timing; ``None`` if there is none.
        sensitivity: the difference that a comparison of two cells would find.
        unknown_datasets: the datasets whose number of training examples is assumed.
        search: the seeds that find a difference that was asked for; ``None`` if none was.
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
    search: Search | None = None

    @property
    def counts(self) -> dict[str, int]:
        """The number of trials for each of `PLAN_STATUSES`."""
        return {status: sum(cell.counts[status] for cell in self.cells) for status in PLAN_STATUSES}

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
            "find": self.search and asdict(self.search),
        }


def make_plan(
    title: str, grid: Grid, work: Work, workers: int, timing: Timing | None, sensitivity: Sensitivity
) -> Plan:
    """Returns the plan of a grid.

    Args:
        title: the question of the study.
        grid: the expanded study.
        work: its trials, stored or waiting.
        workers: the number of workers at once.
        timing: the timing of a worker here; ``None`` if unknown.
        sensitivity: the sensitivity of the grid.
    """
    cells = _plan_cells(grid, work, timing)
    return Plan(
        title=title,
        grid=grid,
        cells=cells,
        programs=len({trial.signature for trial in work.waiting if not trial.config.trial}),
        workers=workers,
        forecast=_forecast(cells, work, workers, timing),
        basis=timing.basis if timing else None,
        sensitivity=sensitivity,
        unknown_datasets=tuple(info.name for info in list_infos(grid).values() if info.train_size is None),
    )


def list_infos(grid: Grid) -> dict[DataConfig, DatasetInfo]:
    """Returns the datasets of a grid by their settings, apart from the number of training examples."""
    datasets = dict.fromkeys(cell.config.data.whole for cell in grid.cells if not cell.config.trial)
    return {data: load_data_info(data) for data in datasets}


def _plan_cells(grid: Grid, work: Work, timing: Timing | None) -> tuple[CellPlan, ...]:
    statuses = {**work.statuses, **{trial.key: "waiting" for trial in work.waiting}}
    trials = iter(grid.trials)  # cell by cell
    plans = []
    for cell in grid.cells:
        own = itertools.islice(trials, len(grid.seeds))
        found = ["invalid" if cell.problem else statuses[trial.key] for trial in own]
        plans.append(
            CellPlan(
                cell=cell,
                size=None if cell.problem or cell.config.trial else summarize(cell.config),
                counts={status: found.count(status) for status in PLAN_STATUSES},
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


def forecast(
    trials: Sequence[Trial],
    workers: int,
    run_seconds: Callable[[Trial], float],
    compile_seconds: Callable[[Trial], float],
) -> Forecast:
    """Simulates a run of trials, the longest first.

    Args:
        trials: the trials to run.
        workers: the number of workers at once.
        run_seconds: the time of a trial on a worker that has its programs.
        compile_seconds: the additional time on a worker that has to compile them.
    """
    schedule = Schedule(trials, run_seconds)
    places = [(0.0, number, _Place()) for number in range(workers)]
    work = 0.0
    for _ in trials:
        now, number, place = places[0]
        if place.trial:
            schedule.end(place.trial)
        (place.trial,) = schedule.take(place.signature, 1)
        place.signature = place.trial.signature
        spent = run_seconds(place.trial)
        if place.signature not in place.compiled:
            place.compiled.add(place.signature)
            spent += compile_seconds(place.trial)
        work += spent
        heapq.heapreplace(places, (now + spent, number, place))
    return Forecast(max(now for now, _, _ in places), work)


class _Place:
    """A simulated worker: its trial, the signature of that trial, and all signatures that it has compiled."""

    def __init__(self) -> None:
        self.trial: Trial | None = None
        self.signature = ""
        self.compiled: set[str] = set()


def describe_plan(plan: Plan, complete: bool = False) -> Document:
    """Returns the plan as a document.

    Args:
        plan: any.
        complete: shows every cell and duplicate; otherwise `MOST_ROWS` and `MOST_LINES` of them, and counts the rest.
    """
    grid, counts = plan.grid, plan.counts
    cells, seeds = len(grid.cells), len(grid.seeds)
    facts = (
        f"study {grid.name}",
        f"{write_count(cells, 'cell')} x {write_count(seeds, 'seed')} = {write_count(cells * seeds, 'trial')}",
        *(f"{count:,} {_NAMES.get(status, status)}" for status, count in counts.items() if count),
    )
    shown = plan.cells if complete else plan.cells[:MOST_ROWS]
    tables = (_make_table(plan, shown), _make_curve(plan.sensitivity))
    filled = tuple(table for table in tables if table.rows)
    return Document(plan.title, facts, filled, tuple(_list_notes(plan, complete)))


def _make_table(plan: Plan, cells: Iterable[CellPlan]) -> Table:
    sizes = (Column("parameters", ",", True), Column("FLOPs", ",", True), Column("s a trial", ",.1f", True))
    numbers = () if _calls_function(plan) else sizes
    columns = (*map(Column, shorten_paths(plan.grid.factors).values()), *numbers, Column("trials"))
    return Table(columns, tuple(_make_row(plan, cell) for cell in cells))


def _make_row(plan: Plan, cell: CellPlan) -> tuple[str | int | float | None, ...]:
    size = cell.size
    numbers = (*((size.parameters, size.flops) if size else (None, None)), cell.seconds)
    return (
        *(cell.cell.labels[factor] for factor in plan.grid.factors),
        *(() if _calls_function(plan) else numbers),
        ", ".join(f"{count} {_NAMES.get(status, status)}" for status, count in cell.counts.items() if count),
    )


def _calls_function(plan: Plan) -> bool:
    """Whether the trials call a trial function, which has no size and no programs, and is not timed."""
    return any(cell.cell.config.trial for cell in plan.cells)


def _list_notes(plan: Plan, complete: bool) -> Iterator[str]:
    hidden = 0 if complete else len(plan.cells) - MOST_ROWS
    if hidden > 0:
        yield f"... and {write_count(hidden, 'more cell')}; --all shows them"
    invalid = [f"invalid: {cell.cell.name}: {cell.cell.problem}" for cell in plan.cells if cell.cell.problem]
    duplicates = [f"duplicate: {each.name} runs what {each.kept} runs" for each in plan.grid.duplicates]
    for lines in (invalid, duplicates):
        yield from lines if complete else cut_lines(lines, MOST_LINES, "; --all shows them")
    for name in plan.unknown_datasets:
        yield f"{name} is not prepared: {TRAIN_SIZE_UNKNOWN:,} training examples are assumed"
    if not _calls_function(plan):
        yield f"to compile: {write_count(plan.programs, 'program')}"
    yield f"estimated time here: {_write_time(plan)}"
    yield from _write_sensitivity(plan.sensitivity)
    if plan.search:
        yield from _write_search(plan, plan.search)


def _write_time(plan: Plan) -> str:
    if plan.forecast is None and _calls_function(plan):
        return "not known, for functions are not timed"
    if plan.forecast is None:
        return "not known, for no networks of such sizes were timed here; --calibrate measures it in about 30 s"
    if not plan.counts["waiting"]:
        return "none, there is nothing to run"
    wall, work = (format_seconds(seconds) for seconds in (plan.forecast.wall, plan.forecast.work))
    return f"{wall} on {write_count(plan.workers, 'worker')} ({work} of work), from {plan.basis}"


def _make_curve(sensitivity: Sensitivity) -> Table:
    """Returns the power curve of a comparison; without rows if it is not known."""
    columns = (
        Column("true difference", right=True),
        Column("found", ".0%", True),
        Column("looks like, where found", right=True),
        Column("times as large", ".1f", True),
    )
    rows = (
        (
            _write_points(each.difference),
            each.power,
            _write_points(each.difference * each.exaggeration),
            each.exaggeration,
        )
        for each in sensitivity.curve
    )
    count = write_count(sensitivity.comparisons, "comparison")
    title = f"What each of {count} finds with {sensitivity.seeds} seeds, in percentage points of accuracy"
    return Table(columns, tuple(rows), title)


def _write_points(difference: float) -> str:
    points = ACCURACY.scale * difference
    return f"{points:.2f}" if points >= 0.1 else f"{points:.2g}"


def _write_sensitivity(sensitivity: Sensitivity) -> Iterator[str]:
    if not sensitivity.comparisons:
        yield "one cell: nothing to compare"
        return
    if sensitivity.standard_deviation is None:
        yield "the difference that is found is not known: too few runs of this function with an accuracy are stored"
        return
    spread = f"standard deviation over seeds {sensitivity.standard_deviation:.4f}, {sensitivity.basis}"
    if sensitivity.difference is None:
        yield f"with fewer than {LEAST_SEEDS} seeds no comparison is decided ({spread})"
    else:
        low, high = (_write_points(end or 0.0) for end in (sensitivity.difference_low, sensitivity.difference_high))
        yield (
            f"with {sensitivity.seeds} seeds a true difference of {_write_points(sensitivity.difference)} points of "
            f"accuracy is found with {100 * sensitivity.power:g}% probability in {_write_family(sensitivity)} ({low} "
            f"to {high}, as far as the spread is known; {spread}; arms taken as uncorrelated, which overstates it "
            "where seeds agree)"
        )
    if sensitivity.equivalence:
        yield (
            f"two equal arms are shown to be equivalent, within ±{ACCURACY.write_margin(sensitivity.margin)} points, "
            f"with {100 * sensitivity.power:g}% probability by {_write_needed(sensitivity.equivalence)}"
        )


def _write_family(sensitivity: Sensitivity) -> str:
    count, level = sensitivity.comparisons, f"{100 * sensitivity.alpha:g}%"
    if count > 1:
        return f"each of the {count} comparisons with a baseline, which together err with {level} at most"
    return f"the comparison of the two cells, at a level of {level}"


def _write_needed(needed: SeedCount) -> str:
    if needed.low is None:
        return f"more than {MOST_SEEDS:,} seeds"
    seeds, low, high = (f"{MOST_SEEDS:,} or more" if each is None else f"{each:,}" for each in asdict(needed).values())
    return f"{seeds} seeds ({low} to {high}, as far as the spread is known)"


def _write_search(plan: Plan, search: Search) -> Iterator[str]:
    sensitivity, points = plan.sensitivity, _write_points(search.difference)
    yield (
        f"to find a true difference of {points} points with {100 * sensitivity.power:g}% probability in "
        f"{_write_family(sensitivity)}: {_write_needed(search.needed)}; {_write_search_time(plan, search)}"
    )
    if search.as_planned:
        seen = _write_points(search.difference * search.as_planned.exaggeration)
        power = f"{search.as_planned.power:.0%} probability"
        yield (
            f"with {sensitivity.seeds} seeds, {points} points are found with {power}, "
            f"and look like {seen} on average where they are"
        )


def _write_search_time(plan: Plan, search: Search) -> str:
    if search.trials is None:
        return "more trials than can be planned"
    trials = f"{write_count(search.trials, 'trial')} to run"
    if search.forecast is None:
        return f"{trials}, in a time that is not known"
    wall, work = search.forecast.wall / 3600, search.forecast.work / 3600
    return f"{trials}, {wall:.2g} hours on {write_count(plan.workers, 'worker')} ({work:.2g} hours of work)"
