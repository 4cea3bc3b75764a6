"""One grid a store at a time: a lock that the operating system releases whatever happens to its holder.

Beside the lock lies a note of who holds it, for the messages of those who find it taken.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ablations.execution.coordinator import run_grid
from ablations.execution.halving import check_halving, run_halving
from ablations.execution.local import LocalExecutor, make_local_executor
from ablations.execution.topping_up import TopUp, check_top_up, run_topping_up
from ablations.execution.watching import FailureObserver, GridObserver
from ablations.execution.work import Budget, Ending, Executor, Policy, find_work
from ablations.study.grid import MOST_TRIALS, Grid, expand
from ablations.study.study import Study
from cnnjax.data.dataset import Dataset
from cnnjax.data.loading import identify, keep_given, load_data, read_dataset
from cnnjax.errors import InputError, UnavailableError
from cnnjax.runs.store import Store, StoredGrid


@dataclass(frozen=True)
class Owner:
    """The process that runs a grid: its number, host, command line and time of start (ISO 8601, UTC)."""

    pid: int
    host: str
    command: str
    started_at: str

    def __str__(self) -> str:
        return f"{self.command!r} (process {self.pid} on {self.host}, since {self.started_at})"


@contextlib.contextmanager
def hold_store(out: Path, command: str) -> Iterator[None]:
    """Holds the lock of the store in `out`, an existing folder, while the context lasts.

    Raises:
        UnavailableError: another process holds it, by name; or the folder cannot be written.
    """
    owner = Owner(os.getpid(), socket.gethostname(), command, datetime.now(UTC).isoformat(timespec="seconds"))
    lock = FileLock(_lock_path(out))
    try:
        lock.acquire(timeout=1)  # more than the moment for which a reader takes it, to see whether it is free
        _note_path(out).write_text(json.dumps(asdict(owner)), encoding="utf-8")
    except Timeout:
        holder = read_owner(out) or "another process"
        raise UnavailableError(f"{out} is in use by {holder}; wait for it, or give another --out") from None
    except OSError as error:
        raise UnavailableError(f"cannot write in the output folder {out}: {error.strerror}") from None
    try:
        yield
    finally:
        _note_path(out).unlink(missing_ok=True)
        lock.release()


def read_owner(out: Path) -> Owner | None:
    """Returns the process that runs a grid on the store in `out` now, or ``None``; creates nothing."""
    if not _is_held(_lock_path(out)):
        return None
    try:
        return Owner(**json.loads(_note_path(out).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return Owner(0, "this machine", "another process", "a moment ago")


def _is_held(lock: Path) -> bool:
    """Whether a process holds the lock, found without writing, so that whoever may read the store may ask."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lock_path(out: Path) -> Path:
    return out / "grid.lock"


def _note_path(out: Path) -> Path:
    return out / "grid.owner.json"


def run_study(
    study: Study,
    out: str | os.PathLike[str] = "runs",
    *,
    dataset: Dataset | Sequence[Any] | None = None,
    make_executor: Callable[[], Executor] | None = None,
    policy: Policy | None = None,
    budget: Budget = "full",
    observer: GridObserver | None = None,
    command: str = "run_study",
    max_trials: int = MOST_TRIALS,
    top_up: TopUp | None = None,
) -> Counter[str]:
    """Runs a study into a store; what the store holds already is skipped, so the same call goes on where one stopped.

    Args:
        study: what to run.
        out: folder of the store.
        dataset: the images of all cells, as for `cnnjax.fit`; a copy is kept in the cache, from where the workers,
            and later commands, load them.
        make_executor: makes what runs the trials; left out, a worker process a core or a device.
        policy: of failures.
        budget: ``full`` trains every cell to its end, ``halving`` prunes the worse half at 1/2, 1/4, ... of the epochs.
        observer: is told what happens; left out, failures are shown on stderr.
        command: what other processes that find the store taken are told.
        max_trials: the most trials to accept.
        top_up: runs further seeds of the cells of which it is undecided whether they differ from a baseline.

    Returns:
        How many trials are now ``completed``, ``diverged``, ``failed``, ``invalid``, ``pruned`` and ``waiting``.

    Raises:
        InputError: the study cannot be run; all that is wrong is listed, and nothing has been written.
        CorruptionError: a dataset or the store is damaged.
        UnavailableError: the store is in use or cannot be written, no worker can start, or cells need more memory than
            a worker has; all of them are listed, and nothing has been written.
        Interrupted: a signal arrived; what had ended is stored.
    """
    if dataset is not None:
        study = _hand_over(study, dataset)
    grid = expand(study, max_trials)
    if budget == "halving":
        check_halving(grid)
    if top_up:
        check_top_up(grid, top_up)
    store, policy, observer = Store(out), policy or Policy(), observer or FailureObserver()
    for data in sorted({cell.config.data.whole for cell in grid.cells}, key=str):
        load_data(data)  # once, before the workers; the error of a damaged one is ours
    waiting = find_work(grid, store, policy.retry_failed).waiting
    left = budget == "halving" or top_up or waiting
    with contextlib.ExitStack() as stack:
        executor = (make_executor or make_local_executor)() if left else LocalExecutor([])
        stack.callback(executor.close)
        if isinstance(executor, LocalExecutor):
            executor.check_memory(waiting)
        store.create()
        stack.enter_context(hold_store(Path(out), command))

        def run(part: Grid) -> Ending:
            # The last part of halving is what is left of the grid, which is kept whole; a rung, as a look of topping
            # up, is no study of its own.
            is_rung = part.name != grid.name
            store.add_grid(_describe("" if is_rung else study.to_toml(), part if is_rung else grid, command))
            return run_grid(part, store, executor, observer, policy)

        if top_up:
            return run_topping_up(grid, top_up, store, run)
        return run_halving(grid, store, run) if budget == "halving" else run(grid).counts


def _hand_over(study: Study, dataset: Dataset | Sequence[Any]) -> Study:
    """Returns the study of these images, of which a copy is kept where its name alone does not mean them."""
    if any(path.startswith("data.") for path in _list_varied(study) if path != "data.train_size"):
        raise InputError("dataset: the study varies which images it is of; leave dataset out, or the factor")
    images = read_dataset(dataset, study.base.data.name)
    data = identify(study.base.data, images)
    keep_given(data, images)
    if data.sha256 is None:
        return study
    return replace(study, settings={**study.settings, "data.sha256": data.sha256})


def _list_varied(study: Study) -> set[str]:
    return {path for sweep in study.sweeps for factor in sweep.factors for path in factor.paths}


def _describe(study: str, grid: Grid, command: str) -> StoredGrid:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return StoredGrid(grid.name, study, command, now, {trial.key: trial.name for trial in grid.trials})
