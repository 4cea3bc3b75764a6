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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from ablations.execution.locking import Owner, read_owner
from ablations.results.progress import GridProgress, StoreProgress, measure_progress
from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import Column, Document, Table, write_terminal
from cnnjax.console.terminal import find_width, format_seconds, run_command, say
from cnnjax.runs.record import STATUSES
from cnnjax.runs.store import Store

PROG = "python -m ablations.status"


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
