"""Successive halving: all cells train for a few epochs, the better half for twice as many, and so on.

A rung is a grid whose trials are ordinary runs with fewer epochs, so they have their own keys and are stored, skipped
and resumed like others. Cells are ranked by their mean validation accuracy over the seeds of the study, never by test
accuracy. Trials of cells that do not reach their full epochs are stored as ``pruned``.

Reference: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ablations.execution.work import Ending
from ablations.study.grid import Cell, Grid
from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.record import PackedRun, Record
from cnnjax.runs.store import Store


@dataclass(frozen=True)
class Standing:
    """A cell at the end of a rung.

    Attributes:
        cell: the cell, with its full epochs.
        runs: its stored runs at the epochs of the rung, by seed.
        accuracy: mean validation accuracy after the last epoch over the completed seeds; NaN if there are none.
    """

    cell: Cell
    runs: Mapping[int, Record | None]
    accuracy: float

    def count(self, status: str) -> int:
        """Returns how many of its seeds have this status."""
        return sum(run is not None and run.status == status for run in self.runs.values())


def check_halving(grid: Grid) -> None:
    """Raises `InputError` unless all cells have the same validation examples."""
    judges = {(cell.config.data.source, cell.config.train.validation_split) for cell in grid.cells}
    if len(judges) > 1:
        raise InputError(
            "--budget halving: the cells differ in data.name or train.validation_split, so in the examples that would "
            "judge them; must be the same for all"
        )
    if any(cell.config.train.validation_split == 0 for cell in grid.cells):
        raise InputError(
            "--budget halving: train.validation_split=0.0 leaves no examples to select on; must be > 0 for every cell, "
            "such as --set train.validation_split=0.1"
        )


def run_halving(grid: Grid, store: Store, run: Callable[[Grid], Ending]) -> Counter[str]:
    """Runs a grid by successive halving.

    Args:
        grid: the cells at their full epochs.
        store: has the results of `run`.
        run: runs a grid into the store; if a failure stops it, no further rung follows.

    Returns:
        The number of trials by status, of the grid or of the rung that a failure stopped. A trial that failed in a rung
        is ``failed`` if its cell was pruned after it.

    Raises:
        InputError: the cells do not share their validation examples.
    """
    check_halving(grid)
    dropped: Counter[str] = Counter()
    for divisor in _divisors(grid):
        rung = _make_rung(grid, divisor)
        ending = run(rung)
        if ending.stopped:
            return ending.counts
        standings = rank(grid, rung, store)
        kept = min(math.ceil(len(standings) / 2), sum(not math.isnan(standing.accuracy) for standing in standings))
        places = range(kept, len(standings))
        losers = [loser for place in places for loser in _record_losers(standings, place, kept, divisor)]
        store.add_all(losers)
        outcomes = store.list_outcomes()  # a trial with a completed full run stays completed
        dropped.update(outcomes[loser.record.key].status for loser in losers)
        survivors = {standing.cell.config.key for standing in standings[:kept]}
        grid = replace(grid, cells=tuple(c for c in grid.cells if c.problem or c.config.key in survivors))
    return run(grid).counts + dropped


def rank(grid: Grid, rung: Grid, store: Store) -> list[Standing]:
    """Returns the valid cells of a grid by their stored results in a rung, the best first.

    The order is: cells with a completed seed, fewer diverged seeds, higher accuracy, the study's order. Failed seeds,
    which say nothing about the cell, do not count.
    """
    records = store.find_all(trial.key for trial in rung.trials)
    standings = []
    for cell, tried in zip(grid.cells, rung.cells, strict=True):
        if cell.problem is None:
            runs = {seed: records.get(tried.seeded(seed).key) for seed in grid.seeds}
            accuracies = [a for a in map(_validation_accuracy, runs.values()) if a is not None]
            standings.append(Standing(cell, runs, statistics.fmean(accuracies) if accuracies else math.nan))
    # NaN compares with nothing, so cells without an accuracy are put last by the first key.
    return sorted(standings, key=lambda s: (math.isnan(s.accuracy), s.count("diverged"), -s.accuracy))


def _divisors(grid: Grid) -> list[int]:
    """Returns the divisors of the epochs, rung by rung, without the last; no rung has less than one epoch."""
    valid = [cell for cell in grid.cells if cell.problem is None]
    epochs = max((cell.config.train.epochs for cell in valid), default=1)
    rungs = int(math.log2(max(min(len(valid), epochs), 1)))
    return [2**rung for rung in range(rungs, 0, -1)]


def _make_rung(grid: Grid, divisor: int) -> Grid:
    cells = tuple(replace(cell, config=_shorten(cell, divisor)) for cell in grid.cells)
    return replace(grid, name=f"{grid.name} at 1/{divisor} of the epochs", cells=cells)


def _shorten(cell: Cell, divisor: int) -> RunConfig:
    epochs = max(cell.config.train.epochs // divisor, 1)
    return replace(cell.config, train=replace(cell.config.train, epochs=epochs))


def _validation_accuracy(record: Record | None) -> float | None:
    return record.history[-1].val_accuracy if record and record.status == "completed" else None


def _record_losers(standings: Sequence[Standing], place: int, kept: int, divisor: int) -> list[PackedRun]:
    """Returns the runs to store for a cell that is dropped: ``pruned``, or ``failed`` for seeds that failed."""
    standing = standings[place]
    cell = standing.cell
    epochs = f"{_shorten(cell, divisor).train.epochs} of {cell.config.train.epochs} epochs"
    found = f"mean validation accuracy {standing.accuracy:.4f}"
    if math.isnan(standing.accuracy):
        found = "no seed completed"
    elif standing.count("completed") < len(standing.runs):
        found += (
            f" of {standing.count('completed')} of {len(standing.runs)} seeds, {standing.count('diverged')} diverged"
        )
    pruned = f"dropped after {epochs}: {found}, place {place + 1} of {len(standings)}, of which {kept} went on"
    packed = []
    for seed, run in standing.runs.items():
        status, reason, output = "pruned", pruned, None
        if run and run.status == "failed":
            status, reason, output = "failed", f"at {epochs}: {run.reason}", run.output
        packed.append(PackedRun(Record.without_result(cell.seeded(seed).config, status, reason, output=output)))
    return packed
