"""Runs a study: skips stored trials, runs the others, and stores each as it ends.

A shipped study; a form that takes a minute; a grid without a file; the same line again continues an interrupted one::

    python -m ablations.run padding
    python -m ablations.run padding --set train.epochs=1 --set data.train_size=5000 --seeds 2 --out runs/quick
    python -m ablations.run --axis model.padding=valid,same --axis 'model.filters=[16,32],[32,64]' --seeds 0..9

Further seeds, up to 40, only for cells that are undecided against a baseline::

    python -m ablations.run padding --top-up 40 --baseline model.padding=valid

The same, seed by seed, until every comparison with the base of the study is decided::

    python -m ablations.run padding --until-decided 40
"""

import shlex
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ablations.arguments import StudyArguments, read_study
from ablations.execution.launching import run_study
from ablations.execution.local import Workers, make_local_executor
from ablations.execution.ray_cluster import RayExecutor, check_address
from ablations.execution.source_folder import NO_SOURCE, gather_source
from ablations.execution.topping_up import TopUp, describe_other_plans
from ablations.execution.watching import GridObserver, TrackedGridObserver, make_grid_observer
from ablations.execution.work import Budget, Executor, Policy
from ablations.study.grid import choose_cell, expand, find_base_cell
from ablations.study.study import StudyConfig
from cnnjax.console.arguments import ADVANCED, Option, parse_arguments
from cnnjax.console.terminal import format_seconds, run_command, say
from cnnjax.errors import InputError
from cnnjax.machine.files import keep_programs
from cnnjax.machine.native import allow_fast_layers, prepare_layers
from cnnjax.reports.arguments import JudgingArguments, read_rules, refuse_rules
from cnnjax.runs.store import Store
from cnnjax.runs.trackers import TrackerName
from cnnjax.settings.checking import Count, Interval, check

PROG = "python -m ablations.run"


@dataclass(frozen=True)
class RunArguments(JudgingArguments, StudyArguments):
    """Runs a study; skips stored trials::

    python -m ablations.run padding --seeds 3 --set train.epochs=1
    python -m ablations.run --axis model.padding=valid,same --seeds 0..9
    """

    out: Path = Path("runs")
    """Folder of the store."""
    workers: int | None = None
    """Worker processes; by default one per core, or one per device on accelerators."""
    retry_failed: bool = False
    """Run trials again that are stored as failed."""
    fail_fast: bool = False
    """Stop at the first trial that fails at its last attempt; stored failures stop nothing."""
    max_retries: Annotated[int, ADVANCED] = 1
    """Further attempts at a trial that fails."""
    timeout: float | None = None
    """Seconds after which a trial has failed, multiplied by the trials in its program."""
    memory_limit: Annotated[float | None, ADVANCED] = None
    """GiB of memory above which a trial has failed; by default an equal share of 90% of this machine's, at least 2."""
    budget: Budget = "full"
    """halving trains all cells for few epochs and continues with the better half, judged on validation examples."""
    top_up: int | None = None
    """With --baseline: the limit of seeds for cells that are undecided against the baseline."""
    until_decided: int | None = None
    """Run further seeds one by one, up to this many, for cells that are undecided against the baseline. The tests hold
    at any time; the plan is stored before anything is run, and holds."""
    baseline: Annotated[tuple[str, ...], Option(metavar="FACTOR=LABEL")] = ()
    """With --top-up or --until-decided: the cell that the others are compared with; may be given again until one cell
    is left. Left out with --until-decided, the cell that equals the base of the study."""
    at_once: Annotated[int | None, ADVANCED] = None
    """Trials in one program; by default one on a CPU, and as many as fit the memory of an accelerator."""
    executor: Literal["local", "ray"] = "local"
    """Worker processes on this machine, or tasks of a Ray cluster."""
    address: Annotated[str | None, ADVANCED] = None
    """Address of the Ray cluster; by default one is started on this machine."""
    log: tuple[TrackerName, ...] = ()
    """Also log trials with a result to TensorBoard, MLflow or Weights & Biases (offline); may be given again."""
    quiet: bool = False
    """Print only failures and the last line."""
    no_compilation_cache: Annotated[bool, ADVANCED] = False
    """Do not use the user's cache of compiled programs."""
    no_fast_layers: Annotated[bool, ADVANCED] = False
    """Do not use oneDNN's layers on CPU."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, or 1 where trials failed."""
    arguments = parse_arguments(RunArguments, argv, PROG, RunArguments())
    _check(arguments)
    study = read_study(arguments)
    keep_programs(not arguments.no_compilation_cache)
    if arguments.no_fast_layers:
        allow_fast_layers(False)
    if sys.stdout.isatty() and not arguments.quiet:
        say("reading the data and the store, then starting workers ...", sys.stdout)
    known = [grid.name for grid in Store(arguments.out).list_grids()] if arguments.top_up else []
    plans = describe_other_plans(study.name, arguments.top_up, known)
    if plans:
        say(plans, sys.stderr)
    observer = TrackedGridObserver(make_grid_observer(arguments.quiet), arguments.log, arguments.out)
    start = time.monotonic()
    counts = run_study(
        study,
        arguments.out,
        make_executor=lambda: _make_executor(arguments, study, observer),
        policy=Policy(arguments.retry_failed, arguments.fail_fast, arguments.max_retries),
        budget=arguments.budget,
        observer=observer,
        command=shlex.join([*PROG.split(), *argv]).encode(errors="backslashreplace").decode(),
        max_trials=arguments.max_trials,
        top_up=_read_top_up(arguments, study),
    )
    spent = format_seconds(time.monotonic() - start)
    if not arguments.quiet:
        say(f"its report: python -m ablations.report --out {shlex.quote(str(arguments.out))}", sys.stdout)
    say(f"{_describe(counts)} in {arguments.out / 'runs.sqlite'}, after {spent}", sys.stdout)
    return 1 if counts["failed"] else 0


def _check(arguments: RunArguments) -> None:
    check(arguments.workers, Workers, "--workers")
    check(arguments.max_retries, Annotated[int, Interval(0, 1000)], "--max-retries")
    check(arguments.max_trials, Count, "--max-trials")
    check(arguments.timeout, Annotated[float, Interval(0, open_low=True)] | None, "--timeout")
    if arguments.address is not None and arguments.executor != "ray":
        raise InputError(f"--address={arguments.address!r}: needs --executor ray")
    if arguments.address is not None:
        check_address(arguments.address)
    if arguments.memory_limit is not None and arguments.executor == "ray":
        raise InputError(
            f"--memory-limit={arguments.memory_limit:g}: only for local workers; Ray watches its nodes itself"
        )
    if arguments.at_once is not None and arguments.executor == "ray":
        raise InputError(f"--at-once={arguments.at_once}: only for local workers; a task of Ray is one trial")
    check(arguments.at_once, Count | None, "--at-once")
    if arguments.top_up is not None and arguments.until_decided is not None:
        raise InputError("--top-up and --until-decided: give one of them; a study has one plan of looks")
    if arguments.until_decided is None:
        if (arguments.top_up is None) != (not arguments.baseline):
            raise InputError("--top-up and --baseline: each needs the other")
        if arguments.top_up is None:
            refuse_rules(arguments, "--top-up and --baseline, or --until-decided")
    for option, given in (("--top-up", arguments.top_up), ("--until-decided", arguments.until_decided)):
        if given is not None and arguments.budget == "halving":
            raise InputError(f"{option}: needs every cell trained to its end; leave out --budget halving")
    check(arguments.memory_limit, Annotated[float, Interval(0, open_low=True)] | None, "--memory-limit")


def _read_top_up(arguments: RunArguments, study: StudyConfig) -> TopUp | None:
    at_any_time = arguments.until_decided is not None
    most = arguments.until_decided if at_any_time else arguments.top_up
    if most is None:
        return None
    check(most, Count, "--until-decided" if at_any_time else "--top-up")
    grid = expand(study, arguments.max_trials)
    baseline = choose_cell(arguments.baseline, grid, "--baseline") if arguments.baseline else None
    baseline = baseline or find_base_cell(study, grid.cells)
    if baseline is None:
        raise InputError("--until-decided: no cell equals the base of the study; needs --baseline FACTOR=LABEL")
    top_up = TopUp(baseline, most, read_rules(arguments), at_any_time)
    if len(grid.cells) * most > arguments.max_trials:
        raise InputError(
            f"{top_up.option}: may come to {len(grid.cells) * most:,} trials; must be at most "
            f"--max-trials {arguments.max_trials:,}"
        )
    return top_up


def _make_executor(arguments: RunArguments, study: StudyConfig, observer: GridObserver) -> Executor:
    if arguments.executor == "ray":
        source = NO_SOURCE if arguments.address is None else gather_source(expand(study, arguments.max_trials))
        return RayExecutor(arguments.address, workers=arguments.workers, timeout=arguments.timeout, source=source)
    layers = prepare_layers()
    if layers:
        observer.note(layers)
    limit = None if arguments.memory_limit is None else arguments.memory_limit * 2**30
    return make_local_executor(arguments.workers, arguments.timeout, limit, arguments.at_once)


def _describe(counts: Counter[str]) -> str:
    named = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{sum(counts.values())} trials: {named}"


if __name__ == "__main__":
    run_command(main)
