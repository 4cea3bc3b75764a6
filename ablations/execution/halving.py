"""Successive halving: all cells train for a few epochs, the better half for twice as many, and so on.

Each round, called a rung, is a grid of ordinary runs with fewer epochs. They have their own keys, and are stored,
skipped and resumed like other runs. Cells are ranked by their mean validation accuracy over the seeds of the study,
never by test accuracy. The trials of cells that are dropped before their full epochs are stored as ``pruned``.

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
    """The results of a cell in a rung.

    Attributes:
        cell: the cell, with its full number of epochs.
        runs: the records of its runs in the rung, by seed; ``None`` for a run that is not stored.
        accuracy: mean validation accuracy after the last epoch, over the completed seeds; NaN if there are none.
    """

    cell: Cell
    runs: Mapping[int, Record | None]
    accuracy: float

    def count(self, status: str) -> int:
        """Returns the number of seeds whose run has this status."""
        return sum(run is not None and run.status == status for run in self.runs.values())


def check_halving(grid: Grid) -> None:
    """Raises `InputError` unless all cells have the same validation examples."""
    if any(cell.config.trial for cell in grid.cells):
        raise InputError("--budget halving: a function of yours has no epochs to cut; leave it out")
    judges = {(cell.config.data.source, cell.config.train.validation_split) for cell in grid.cells}
    if len(judges) > 1:
        raise InputError(
            "--budget halving: the cells differ in data.name or train.validation_split, so they would be ranked on "
            "different validation examples; must be the same for all"
        )
    if any(cell.config.train.validation_split == 0 for cell in grid.cells):
        raise InputError(
            "--budget halving: train.validation_split=0.0 leaves no validation examples to rank cells on; must be > 0 "
            "for every cell, such as --set train.validation_split=0.1"
        )


def run_halving(grid: Grid, store: Store, run: Callable[[Grid], Ending]) -> Counter[str]:
    """Runs a grid by successive halving.

    Args:
        grid: the cells with their full numbers of epochs.
        store: the store that `run` writes to.
        run: runs a grid into the store. If a failure stops it, no further rung is run.

    Returns:
        The number of trials by status, of the grid, or of the rung that a failure stopped. A trial of a pruned cell is
        ``failed`` if it failed in the last rung of its cell.

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
        statuses = store.list_statuses()  # a trial with a completed full run stays completed
        dropped.update(statuses[loser.record.key].status for loser in losers)
        survivors = {standing.cell.config.key for standing in standings[:kept]}
        grid = replace(grid, cells=tuple(c for c in grid.cells if c.problem or c.config.key in survivors))
    return run(grid).counts + dropped


def rank(grid: Grid, rung: Grid, store: Store) -> list[Standing]:
    """Returns the valid cells of a grid with their stored results in a rung, the best first.

    Cells with a completed seed come first, then those with fewer diverged seeds, then those with higher accuracy, then
    those that come first in the study. Failed seeds do not count, as they say nothing about the cell.
    """
    records = store.find_all(trial.key for trial in rung.trials)
    standings = []
    for cell, tried in zip(grid.cells, rung.cells, strict=True):
        if cell.problem is None:
            runs = {seed: records.get(tried.seeded(seed).key) for seed in grid.seeds}
            accuracies = [a for a in map(_validation_accuracy, runs.values()) if a is not None]
            standings.append(Standing(cell, runs, statistics.fmean(accuracies) if accuracies else math.nan))
    # NaN cannot be ordered, so the first key puts the cells without an accuracy last.
    return sorted(standings, key=lambda s: (math.isnan(s.accuracy), s.count("diverged"), -s.accuracy))


def _divisors(grid: Grid) -> list[int]:
    """Returns the divisor of the epochs for each rung, such as 4 and 2, without the last rung, which has all epochs.

    There are so few rungs that none has less than one epoch.
    """
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
    """Returns the runs to store for a dropped cell: ``failed`` for seeds that failed in the rung, else ``pruned``."""
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
