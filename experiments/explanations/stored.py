"""Which stored run is meant, and the images it saw."""

from collections.abc import Mapping
from pathlib import Path

from cnnjax.datasets import Dataset, load
from cnnjax.errors import InputError, UnavailableError
from cnnjax.records import Run
from cnnjax.runs import Outcome, Store

_LISTED = 3


def find_run(out: Path, key: str | None) -> Run:
    """Returns a completed run with its network.

    Args:
        out: folder of the store.
        key: of the run, or its beginning; ``None`` takes the one completed run where there is only one.

    Raises:
        InputError: there is no such run, none is completed, or several are; the line says how to choose.
        CorruptionError: the store cannot be read.
    """
    store = Store(out)
    run = store.load(_only_key(store) if key is None else key)
    record = run.record
    if record.status != "completed":
        raise InputError(f"--run {run.key[:12]}: is {record.status} ({record.reason}); must be a completed run")
    return run


def load_images(run: Run) -> Dataset:
    """Returns the dataset that a run was trained and tested on.

    Raises:
        UnavailableError: the dataset of that name is another one now.
    """
    data = run.record.config.data
    dataset = load(data.name, manual_dir=data.manual_dir)
    known = run.record.provenance.get("dataset", {}).get("sha256")
    if known != dataset.sha256:
        raise UnavailableError(
            f"data.name={data.name!r}: its images are not those of run {run.key[:12]} (SHA-256 {dataset.sha256[:12]}, "
            f"not {str(known)[:12]}), so nothing can be said of its answers; run it again"
        )
    return dataset


def _only_key(store: Store) -> str:
    completed = {key: outcome for key, outcome in store.list_outcomes().items() if outcome.status == "completed"}
    if not completed:
        raise InputError(f"--out: no completed run is in {store.path}; make one with: python -m experiments.train")
    if len(completed) > 1:
        raise InputError(
            f"--run: {len(completed)} completed runs are in {store.path}; name one by the beginning of its key, such "
            f"as {_list_newest(completed)}"
        )
    return next(iter(completed))


def _list_newest(completed: Mapping[str, Outcome]) -> str:
    newest = sorted(completed.items(), key=lambda entry: entry[1].stored_at)[-_LISTED:]
    return ", ".join(f"{key[:12]} (test accuracy {outcome.test_accuracy:.4f})" for key, outcome in reversed(newest))
