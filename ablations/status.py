"""Shows the progress of the grids in a store, also while one runs.

The default store; another one; one JSON object::

    python -m ablations.status
    python -m ablations.status --out /data/runs
    python -m ablations.status --json

The JSON object has ``store``, ``running`` (the process that runs a grid now, or null), ``grids`` (the newest first,
with counts by status, trials remaining, rate, time left and last failures) and ``other_runs`` (runs outside all grids,
by status).
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from ablations.execution.costs import training_flops
from ablations.execution.locking import Owner, read_owner
from ablations.study.grid import expand
from ablations.study.reading import read_toml
from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import Column, Document, Table, write_terminal
from cnnjax.console.terminal import find_width, format_seconds, run_command, say
from cnnjax.errors import CnnjaxError
from cnnjax.runs.record import LOST, STATUSES
from cnnjax.runs.store import RunStatus, Store, StoredGrid

PROG = "python -m ablations.status"
RECENT = 20
"""Trials that the rate is measured over."""
SHOWN_FAILURES = 5


@dataclass(frozen=True)
class FailedTrial:
    """A trial without a result, and why it has none."""

    trial: str
    status: str
    reason: str | None


@dataclass(frozen=True)
class GridProgress:
    """The progress of a grid.

    Attributes:
        name: the name of its study.
        command: the command that ran it last.
        started_at: when that started, ISO 8601, UTC.
        running: whether it runs now.
        counts: the number of its stored trials by status.
        remaining: the number of trials that are not stored.
        trials_per_hour: the rate over its last trials; ``None`` if none ended since it was started.
        seconds_left: the estimated time until it ends, if time stays proportional to FLOPs; ``None`` if it does not
            run, or no trial has ended.
        failures: the last trials that failed or diverged, the newest first.
    """

    name: str
    command: str
    started_at: str
    running: bool
    counts: Mapping[str, int]
    remaining: int
    trials_per_hour: float | None
    seconds_left: float | None
    failures: tuple[FailedTrial, ...]

    @property
    def total(self) -> int:
        """The number of trials."""
        return sum(self.counts.values()) + self.remaining

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        failures = [vars(failure) for failure in self.failures]
        return {**vars(self), "total": self.total, "counts": dict(self.counts), "failures": failures}


@dataclass(frozen=True)
class StoreProgress:
    """The progress of all grids in a store, the newest first, and the number of runs outside all grids by status."""

    grids: tuple[GridProgress, ...]
    other_runs: Mapping[str, int]


def measure_progress(store: Store, is_running: bool) -> StoreProgress:
    """Returns the progress of the grids in a store.

    Args:
        store: a store, which need not exist.
        is_running: whether a grid runs now; it is the one that was started last.
    """
    grids = store.list_grids()
    statuses = store.list_statuses()
    known = {key for grid in grids for key in grid.trials}
    others = Counter(run.status for key, run in statuses.items() if key not in known)
    progress = [_measure(store, grid, statuses, is_running and grid is grids[-1]) for grid in reversed(grids)]
    return StoreProgress(tuple(progress), dict(others))


def measure_rate(times: Sequence[datetime], started_at: datetime) -> float | None:
    """Returns the number of trials per hour that were stored recently.

    Args:
        times: when trials were stored, in any order; trials from before the start do not count.
        started_at: when the grid was started last.

    Returns:
        The rate over the last `RECENT` trials; ``None`` without any.
    """
    recent = sorted([started_at, *(time for time in times if time > started_at)])[-RECENT - 1 :]
    spent = (recent[-1] - recent[0]) / timedelta(hours=1)
    return (len(recent) - 1) / spent if spent else None


def _measure(store: Store, grid: StoredGrid, statuses: Mapping[str, RunStatus], running: bool) -> GridProgress:
    stored = {key: statuses[key] for key in grid.trials if key in statuses}
    remaining = len(grid.trials) - len(stored)
    times = [datetime.fromisoformat(run.stored_at) for run in stored.values() if run.status != "invalid"]
    rate = measure_rate(times, datetime.fromisoformat(grid.started_at))
    return GridProgress(
        name=grid.name,
        command=grid.command,
        started_at=grid.started_at,
        running=running,
        counts=Counter(run.status for run in stored.values()),
        remaining=remaining,
        trials_per_hour=rate,
        seconds_left=_estimate_rest(grid, stored) if running else None,
        failures=_find_failures(store, grid, stored),
    )


def _estimate_rest(grid: StoredGrid, stored: Mapping[str, RunStatus]) -> float | None:
    """Returns the seconds until a running grid ends, if time stays proportional to FLOPs."""
    costs = _find_costs(grid)
    started_at = datetime.fromisoformat(grid.started_at)
    times = {key: datetime.fromisoformat(run.stored_at) for key, run in stored.items()}
    ended = [key for key, time in times.items() if time > started_at and stored[key].status != "invalid"]
    if not ended:
        return None
    spent = (max(times[key] for key in ended) - started_at).total_seconds()
    left = sum(costs.get(key, 1.0) for key in grid.trials if key not in stored)
    return spent * left / sum(costs.get(key, 1.0) for key in ended)


def _find_costs(grid: StoredGrid) -> dict[str, float]:
    """Returns the training FLOPs of trials by run key, as far as the stored study tells."""
    try:
        study = read_toml(grid.study, grid.name)
        trials = expand(study, len(grid.trials)).trials
        return {trial.key: training_flops(trial.config) for trial in trials if trial.cell.problem is None}
    except CnnjaxError:
        return {}


def _find_failures(store: Store, grid: StoredGrid, stored: Mapping[str, RunStatus]) -> tuple[FailedTrial, ...]:
    failed = [key for key, run in stored.items() if run.status in LOST]
    newest = sorted(failed, key=lambda key: stored[key].stored_at, reverse=True)[:SHOWN_FAILURES]
    records = store.find_all(newest)
    return tuple(
        FailedTrial(grid.trials[key], records[key].status, records[key].reason) for key in newest if key in records
    )


@dataclass(frozen=True)
class StatusArguments:
    """Shows the progress of the grids in a store, also while one runs::

    python -m ablations.status --out runs
    """

    out: Path = Path("runs")
    """Folder of the store."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(StatusArguments, argv, PROG, StatusArguments())
    store = Store(arguments.out)
    owner = read_owner(arguments.out)
    progress = measure_progress(store, owner is not None)
    if arguments.json:
        say(json.dumps(_to_dict(store, owner, progress), allow_nan=False), sys.stdout)
    else:
        say(write_terminal(_describe(store, owner, progress), find_width()), sys.stdout)
    return 0


def _to_dict(store: Store, owner: Owner | None, progress: StoreProgress) -> dict[str, object]:
    return {
        "store": str(store.path),
        "running": owner and asdict(owner),
        "grids": [grid.to_dict() for grid in progress.grids],
        "other_runs": dict(progress.other_runs),
    }


def _describe(store: Store, owner: Owner | None, progress: StoreProgress) -> Document:
    facts = [f"running now: {owner}" if owner else "no grid runs now"]
    if not store.path.exists():
        facts.append("there is no store yet")
    notes = [note for grid in progress.grids for note in _list_notes(grid)]
    if progress.other_runs:
        notes.append(f"runs of no grid: {', '.join(f'{n} {status}' for status, n in progress.other_runs.items())}")
    tables = (_make_table(progress),) if progress.grids else ()
    return Document(str(store.path), tuple(facts), tables, tuple(notes))


def _make_table(progress: StoreProgress) -> Table:
    found = [status for status in STATUSES[1:] if any(grid.counts.get(status) for grid in progress.grids)]
    counts = ("completed", *found, "remaining", "trials")
    columns = (Column("grid"), *(Column(name, ",", True) for name in counts), Column("trials/h", ",.1f", True))
    rows = (
        (
            grid.name,
            *(grid.counts.get(status, 0) for status in ("completed", *found)),
            grid.remaining,
            grid.total,
            grid.trials_per_hour,
            _write_time_left(grid),
        )
        for grid in progress.grids
    )
    return Table((*columns, Column("time left", right=True)), tuple(rows))


def _write_time_left(grid: GridProgress) -> str | None:
    if grid.seconds_left is None:
        return "running" if grid.running else None
    return format_seconds(grid.seconds_left)


def _list_notes(grid: GridProgress) -> list[str]:
    return [f"{grid.name}: {each.status}: {each.trial}: {each.reason}" for each in grid.failures]


if __name__ == "__main__":
    run_command(main)
