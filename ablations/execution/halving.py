"""Successive halving: every cell gets a small budget, the better half goes on with twice as much, and so on.

The budget is epochs. A rung is a grid of its own, whose trials are ordinary runs of fewer epochs with keys of their
own, so they are stored, skipped and resumed as any other. Cells are ranked by their mean validation accuracy over the
seeds of the study, never by test accuracy. Trials of cells that do not reach their full epochs are stored as
``pruned``.

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
        cell: with its full epochs.
        runs: what the store has of it at the epochs of the rung, by seed.
        accuracy: mean validation accuracy after the last epoch, over the seeds that completed; NaN where none did.
    """

    cell: Cell
    runs: Mapping[int, Record | None]
    accuracy: float

    def count(self, status: str) -> int:
        """Returns how many of its seeds ended so."""
        return sum(run is not None and run.status == status for run in self.runs.values())


def check_halving(grid: Grid) -> None:
    """Raises `InputError` where the cells do not all have the same validation examples to be judged by."""
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
        grid: the study.
        store: holds what `run` has run.
        run: runs a grid into the store; no further rung follows one that a failure stopped.

    Returns:
        How many trials of the grid, or of the rung that a failure stopped, are now in which status. A trial that
        failed in a rung after which its cell was pruned has ``failed``.

    Raises:
        InputError: there are no validation examples.
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
        losers = [
            run for place in range(kept, len(standings)) for run in _record_losers(standings, place, kept, divisor)
        ]
        store.add_all(losers)
        outcomes = store.list_outcomes()  # in which a trial that a full run has completed stays so
        dropped.update(outcomes[run.record.key].status for run in losers)
        survivors = {standing.cell.config.key for standing in standings[:kept]}
        grid = replace(grid, cells=tuple(c for c in grid.cells if c.problem or c.config.key in survivors))
    return run(grid).counts + dropped


def rank(grid: Grid, rung: Grid, store: Store) -> list[Standing]:
    """Returns the valid cells of a grid, the best first, by what the same cells of a rung have in the store.

    Cells none of whose seeds completed come last. Fewer seeds that diverged come first, then the higher accuracy, then
    the study's order; seeds that failed, which is no fault of the cell, do not count.
    """
    records = store.find_all(trial.key for trial in rung.trials)
    standings = []
    for cell, tried in zip(grid.cells, rung.cells, strict=True):
        if cell.problem is None:
            runs = {seed: records.get(tried.seeded(seed).key) for seed in grid.seeds}
            accuracies = [a for a in map(_validation_accuracy, runs.values()) if a is not None]
            standings.append(Standing(cell, runs, statistics.fmean(accuracies) if accuracies else math.nan))
    # Where no seed completed, the accuracy is NaN, which compares with nothing.
    return sorted(standings, key=lambda s: (math.isnan(s.accuracy), s.count("diverged"), -s.accuracy))


def _divisors(grid: Grid) -> list[int]:
    """Returns by how much the epochs are divided in every rung but the last: halving leaves one cell, or one epoch."""
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
    """Returns what is stored of the trials of a cell that does not go on: pruned, or failed where they failed."""
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
