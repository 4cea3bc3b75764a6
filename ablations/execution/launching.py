"""Runs a study into a store: checks it as a whole, then runs its trials while the store is locked."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations.execution.coordinator import run_grid
from ablations.execution.halving import check_halving, run_halving
from ablations.execution.in_process import InProcessExecutor
from ablations.execution.local import LocalExecutor, Workers, make_local_executor
from ablations.execution.locking import hold_store
from ablations.execution.topping_up import TopUp, check_other_plans, check_top_up, run_topping_up
from ablations.execution.watching import FailureObserver, GridObserver
from ablations.execution.work import Budget, Ending, Executor, Policy, find_work
from ablations.study.grid import MOST_TRIALS, Grid, expand
from ablations.study.study import StudyConfig
from cnnjax.data.dataset import Dataset
from cnnjax.data.loading import identify, keep_given, load_data, read_dataset
from cnnjax.data.settings import CHOOSING
from cnnjax.errors import InputError
from cnnjax.machine.native import prepare_layers
from cnnjax.machine.processes import may_have_accelerators
from cnnjax.reports.plans import find_plans
from cnnjax.runs.config import RunConfig
from cnnjax.runs.splits import take_splits
from cnnjax.runs.store import Store, StoredGrid
from cnnjax.settings.checking import check
from cnnjax.settings.references import find_notebook_name


def run_study(
    study: StudyConfig,
    out: str | os.PathLike[str] = "runs",
    *,
    dataset: Dataset | Sequence[Any] | None = None,
    workers: int | None = None,
    make_executor: Callable[[], Executor] | None = None,
    policy: Policy | None = None,
    budget: Budget = "full",
    observer: GridObserver | None = None,
    command: str = "run_study",
    max_trials: int = MOST_TRIALS,
    top_up: TopUp | None = None,
) -> Counter[str]:
    """Runs a study into a store; skips stored trials, so that the same call continues an interrupted one.

    Args:
        study: the study.
        out: the output folder with the store.
        dataset: the images of all cells, as for `cnnjax.fit`; a copy is kept in the cache, from which workers and later
            commands load them.
        workers: the number of worker processes on this machine; by default, one per core or device. Trials of a network
            that is defined in a notebook run in this process.
        make_executor: makes another executor, instead of these workers.
        policy: what to do about failures.
        budget: ``full`` trains every cell to its end, ``halving`` prunes the worse half at 1/2, 1/4, ... of the epochs.
        observer: receives every event; by default, failures are shown on stderr.
        command: the name of this call in the error of other processes that find the store in use.
        max_trials: the largest number of trials that is allowed.
        top_up: how many further seeds to run of the cells that are undecided against a baseline; ``None`` for none.

    Returns:
        The numbers of trials that are now ``completed``, ``diverged``, ``failed``, ``invalid``, ``pruned`` and
        ``waiting``.

    Raises:
        InputError: the study has mistakes; the message lists all of them, and nothing has been written.
        CorruptionError: a dataset or the store is damaged.
        UnavailableError: the store is in use or cannot be written; no worker can start; or cells need more memory than
            a worker has: the message lists them, and nothing has been written.
        Interrupted: a signal arrived; all trials that had ended are stored.
    """
    if dataset is not None:
        study = hand_over(study, dataset)
    grid = expand(study, max_trials)
    if budget == "halving":
        check_halving(grid)
    if top_up:
        check_top_up(grid, top_up)
        check_other_plans(grid, top_up, Store(out))
    store, policy, observer = Store(out), policy or Policy(), observer or FailureObserver()
    _check_runs([cell.config for cell in grid.cells if cell.problem is None])
    make_executor = make_executor or _choose_executor(grid, workers, observer)
    waiting = find_work(grid, store, policy.retry_failed).waiting
    left = budget == "halving" or top_up or waiting
    with contextlib.ExitStack() as stack:
        executor = make_executor() if left else LocalExecutor([])
        stack.callback(executor.close)
        if isinstance(executor, LocalExecutor):
            executor.check_memory(waiting)
        store.create()
        stack.enter_context(hold_store(Path(out), command))
        if top_up:
            _settle_plan(grid, top_up, store)
        parts: dict[str, dict[str, str]] = {}

        def run(part: Grid) -> Ending:
            # A rung of halving and a look of topping up have names of their own, and are stored without a study. The
            # last rung of halving has only the cells that are left, but the study's name: the whole grid is stored.
            # All looks at any time have one name, so that there is not a grid for every seed.
            is_part = part.name != grid.name
            described = _describe("" if is_part else study.to_toml(), part if is_part else grid, command)
            trials = parts.setdefault(part.name, {})
            trials |= described.trials
            store.add_grid(replace(described, trials=trials))
            return run_grid(part, store, executor, observer, policy)

        if top_up:
            return run_topping_up(grid, top_up, store, run)
        return run_halving(grid, store, run) if budget == "halving" else run(grid).counts


def _settle_plan(grid: Grid, top_up: TopUp, store: Store) -> None:
    """Stores the plan of a study that is run until it is decided, before its first trial; the first plan holds."""
    check_other_plans(grid, top_up, store)  # again, as another process may have stored one before the store was held
    plan = top_up.plan(grid)
    if plan and not find_plans([*plan.arms.values()], store):
        store.add_plan(plan.to_json())


def _check_runs(configs: Iterable[RunConfig]) -> None:
    """Checks by the images, and by trying the user's functions, what would fail in every worker otherwise.

    Raises:
        InputError: training or validation examples lack a class, or a function does not return what it must.
        CorruptionError: a dataset is damaged.
    """
    trained = [config for config in configs if not config.trial]
    datasets = {data: load_data(data) for data in sorted({config.data.whole for config in trained}, key=str)}
    splits = {(config.data, config.train.validation_split): config for config in trained}
    for config in splits.values():
        take_splits(config, datasets[config.data.whole])
    functions = {(config.data.whole, config.train) for config in trained if config.train.functions}
    if functions:
        from cnnjax.training.own_functions import check_functions

        for data, train in functions:
            check_functions(train, datasets[data].info, run_metrics=not may_have_accelerators())


def _choose_executor(grid: Grid, workers: int | None, observer: GridObserver) -> Callable[[], Executor]:
    """Returns what makes the executor: local workers, or this process if only it has the code of the networks."""
    check(workers, Workers, "workers")
    name = find_notebook_name(json.dumps([cell.config.to_dict() for cell in grid.cells]))
    if name is None:
        return lambda: _make_local_executor(workers, observer)
    if workers and workers > 1:
        raise InputError(
            f"workers={workers}: {name} is defined in a notebook, so its trials run in this process; "
            f"leave out workers, or define {name} in a file"
        )
    return lambda: InProcessExecutor(observer.advance)


def _make_local_executor(workers: int | None, observer: GridObserver) -> Executor:
    layers = prepare_layers()
    if layers:
        observer.note(layers)
    return make_local_executor(workers)


def hand_over(study: StudyConfig, dataset: Dataset | Sequence[Any]) -> StudyConfig:
    """Returns the study with these images as its dataset; caches a copy of them unless they can be loaded by name.

    Raises:
        InputError: the study has a factor that changes the images, or another dataset in its base.
        UnavailableError: the cache cannot be written.
    """
    varied = {path for sweep in study.sweeps for factor in sweep.factors for path in factor.paths}
    if any(path.startswith("data.") for path in varied - CHOOSING):
        raise InputError("dataset: the study has a factor that changes the images; leave out dataset or that factor")
    images = read_dataset(dataset, study.base.data.name)
    data = identify(study.base.data, images)
    keep_given(data, images)
    if data.sha256 is None:
        return study
    return replace(study, settings={**study.settings, "data.sha256": data.sha256})


def _describe(study: str, grid: Grid, command: str) -> StoredGrid:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return StoredGrid(grid.name, study, command, now, {trial.key: trial.name for trial in grid.trials})
