"""Shows what running a study would take and could find; trains nothing, writes nothing, and answers in seconds.

A shipped study; the same with changes, as for ``ablations.run``; a calibration, by two short runs that are not stored;
the seeds and hours that it takes to find a difference of 0.5 percentage points; every cell of a large study; Markdown;
one JSON object::

    python -m ablations.plan padding
    python -m ablations.plan padding --set train.epochs=20 --seeds 10 --workers 8
    python -m ablations.plan padding --calibrate
    python -m ablations.plan padding --find 0.5 --power 0.8
    python -m ablations.plan large.toml --all
    python -m ablations.plan padding --markdown
    python -m ablations.plan padding --json

The JSON object has ``study``, ``title``, ``seeds``, ``factors``, ``trials`` (how many), ``counts`` (of trials by
status), ``cells``, ``duplicates`` (``name``, ``kept``), ``programs`` (to compile), ``workers``, ``forecast`` (``wall``
and ``work``, the seconds of all workers together; or null), ``basis`` (of the forecast, or null), ``sensitivity``
(``standard_deviation``, ``freedom``, ``basis``, ``seeds``, ``comparisons`` with a baseline, ``alpha`` of all of them,
``level`` of each, ``power``, ``margin``, the ``difference`` that each finds, of accuracy as a share, with
``difference_low`` and ``difference_high`` as far as the spread is known, ``curve`` (by ``difference``: ``power``,
``exaggeration``), and ``equivalence``, the ``seeds`` that show it, ``low`` to ``high``; what is not known is null),
``find`` (``difference``, ``needed`` seeds, ``as_planned``, ``trials``, ``forecast``; or null) and
``unknown_datasets`` (whose size is assumed). A cell has ``name``, ``labels`` (by factor), ``problem`` (why it cannot
exist, or null), ``parameters``, ``flops``, ``activation_bytes``, ``counts`` and ``seconds`` (a trial, or null).
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from ablations.arguments import StudyArguments, read_study
from ablations.execution.costs import check_memory_of
from ablations.execution.local import make_slots, share_memory
from ablations.execution.topping_up import extend_seeds
from ablations.execution.work import find_work
from ablations.forecast.plans import Plan, Search, describe_plan, list_infos, make_plan
from ablations.forecast.sensitivity import find_sensitivity
from ablations.forecast.timing import Timing, calibrate, find_timing, learn_timing, read_precedents
from ablations.study.grid import Grid, expand
from ablations.study.study import StudyConfig
from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import write_markdown, write_terminal
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.errors import InputError
from cnnjax.machine.processes import count_cores, may_have_accelerators
from cnnjax.reports.rules import make_rules
from cnnjax.runs.store import Store
from cnnjax.settings.checking import Interval, check
from cnnjax.statistics.verdicts import MARGIN

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
    find: float | None = None
    """A true difference, in percentage points of accuracy: say how many seeds find it, and how long they take."""
    power: float = 0.8
    """Probability with which a true difference is to be found, and equal arms are to be shown equivalent."""
    alpha: float = 0.05
    """Probability of any false claim among all comparisons."""
    margin: float = 100 * MARGIN
    """Smaller differences count as none, in percentage points."""
    all: bool = False
    """Show all cells and duplicates."""
    markdown: bool = False
    """Print Markdown."""
    json: bool = False
    """Print one JSON object and nothing else on stdout."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(PlanArguments, argv, PROG, PlanArguments())
    check(arguments.workers, Annotated[int, Interval(1, 4096)] | None, "--workers")
    if arguments.json and arguments.markdown:
        raise InputError("--json and --markdown: give one of them")
    plan = read_plan(arguments)
    if arguments.json:
        say(json.dumps(plan.to_dict(), allow_nan=False), sys.stdout)
    elif arguments.markdown:
        say(write_markdown(describe_plan(plan, arguments.all)), sys.stdout)
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
    points = Annotated[float, Interval(0, 100, open_low=True, open_high=True)]
    check(arguments.find, points | None, "--find")
    rules = make_rules(alpha=arguments.alpha, margin=arguments.margin, power=arguments.power, called="--{}".format)
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
    plan = make_plan(study.title, grid, work, workers, timing, find_sensitivity(grid, records, rules))
    if arguments.find is None:
        return plan
    return replace(plan, search=_search(arguments.find / 100, study, store, plan, timing, arguments.max_trials))


def _search(
    difference: float, study: StudyConfig, store: Store, plan: Plan, timing: Timing | None, max_trials: int
) -> Search:
    """Returns the seeds that find a true difference, and the time of the trials of that many seeds."""
    if plan.sensitivity.spread is None or not plan.sensitivity.comparisons:
        why = "the spread of the accuracy is not known" if plan.sensitivity.comparisons else "the study has one cell"
        raise InputError(f"--find {100 * difference:g}: {why}, so there is nothing to plan")
    needed, as_planned = plan.sensitivity.find(difference)
    seeds = needed.seeds
    if seeds is None or seeds * len(plan.grid.cells) > max_trials:
        return Search(difference, needed, as_planned, None, None)
    grid = expand(replace(study, seeds=extend_seeds(study.seeds, seeds)[:seeds]), max_trials)
    work = find_work(grid, store)
    larger = make_plan(study.title, grid, work, plan.workers, timing, plan.sensitivity)
    return Search(difference, needed, as_planned, len(work.waiting), larger.forecast)


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
