"""Shows what running a study would take and could find; trains nothing, writes nothing, and answers in seconds.

A shipped study; the same with changes, as for ``ablations.run``; a calibration, by two short runs that are not stored;
every cell of a large study; one JSON object::

    python -m ablations.plan padding
    python -m ablations.plan padding --set train.epochs=20 --seeds 10 --workers 8
    python -m ablations.plan padding --calibrate
    python -m ablations.plan large.toml --all
    python -m ablations.plan padding --json

The JSON object has ``study``, ``title``, ``seeds``, ``factors``, ``trials`` (how many), ``counts`` (of trials by
status), ``cells``, ``duplicates`` (``name``, ``kept``), ``programs`` (to compile), ``workers``, ``forecast`` (``wall``
and ``work``, the seconds of all workers together; or null), ``basis`` (of the forecast, or null), ``sensitivity``
(``standard_deviation``, ``basis``, ``seeds``, ``comparisons`` with a baseline, and ``difference`` that each of these
finds: of accuracy as a share, or null; the first two are null for a trial function with too few stored runs) and
``unknown_datasets`` (whose size is assumed). A cell has ``name``, ``labels`` (by factor), ``problem`` (why it cannot
exist, or null), ``parameters``, ``flops``, ``activation_bytes``, ``counts`` and ``seconds`` (a trial, or null).
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ablations.arguments import StudyArguments, read_study
from ablations.execution.costs import check_memory_of
from ablations.execution.local import make_slots, share_memory
from ablations.execution.work import find_work
from ablations.forecast.plans import Plan, describe_plan, list_infos, make_plan
from ablations.forecast.sensitivity import find_sensitivity
from ablations.forecast.timing import Timing, calibrate, find_timing, learn_timing, read_precedents
from ablations.study.grid import Grid, expand
from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import write_terminal
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.errors import InputError
from cnnjax.machine.processes import count_cores, may_have_accelerators
from cnnjax.runs.store import Store
from cnnjax.settings.checking import Interval, check

PROG = "python -m ablations.plan"


@dataclass(frozen=True)
class PlanArguments(StudyArguments):
    """Shows what running a study would take and could find; trains nothing::

    python -m ablations.plan padding --seeds 10
    """

    out: Path = Path("runs")
    """Folder of the store."""
    workers: int | None = None
    """Worker processes to plan for; by default one per core, or a single one with accelerators."""
    calibrate: bool = False
    """Measure the speed of this machine by two short runs, instead of from the store; takes about 30 s."""
    all: bool = False
    """Show all cells and duplicates."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(PlanArguments, argv, PROG, PlanArguments())
    check(arguments.workers, Annotated[int, Interval(1, 4096)] | None, "--workers")
    plan = read_plan(arguments)
    if arguments.json:
        say(json.dumps(plan.to_dict(), allow_nan=False), sys.stdout)
    else:
        say(write_terminal(describe_plan(plan, arguments.all), find_width()), sys.stdout)
    return 0


def read_plan(arguments: PlanArguments) -> Plan:
    """Returns the plan that the arguments ask for.

    Raises:
        InputError: lists all mistakes of the study.
        CorruptionError: the store cannot be read.
        UnavailableError: cells need more memory than a worker has, or no worker can start for a calibration.
    """
    study, store = read_study(arguments), Store(arguments.out)
    grid = expand(study, arguments.max_trials)
    work = find_work(grid, store)
    records = read_precedents(grid, store, work.statuses)
    accelerated = may_have_accelerators()
    workers = arguments.workers or (1 if accelerated else count_cores())
    if not accelerated:
        check_memory_of(work.waiting, share_memory(workers))
    timing = find_timing(grid, records.values(), accelerated, str(store.path))
    if arguments.calibrate and work.waiting:
        workers, timing = _calibrate(grid, arguments.workers)
    return make_plan(study.title, grid, work, workers, timing, find_sensitivity(grid, records))


def _calibrate(grid: Grid, workers: int | None) -> tuple[int, Timing]:
    if any(cell.config.trial for cell in grid.cells):
        raise InputError("--calibrate: times networks, and this study calls a function; leave it out")
    for info in list_infos(grid).values():
        if info.train_size is None:
            raise InputError(f"--calibrate: the dataset {info.name} is not prepared; the first run on it does that")
    slots = make_slots(workers)
    say("calibrating: the smallest and the largest network train for a few seconds, about 30 s in all", sys.stderr)
    return len(slots), learn_timing(calibrate(grid, slots[0]), "a calibration just now")


if __name__ == "__main__":
    run_command(main)
