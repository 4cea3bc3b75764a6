"""Which stored run is meant, and the images it saw."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax.console import say
from cnnjax.datasets import Dataset, load_data
from cnnjax.errors import InputError, UnavailableError
from cnnjax.records import Record, Run
from cnnjax.runs import Store
from cnnjax.setting_paths import flatten, write_literal
from experiments.selectors import list_differences


def find_run(out: Path, key: str | None, settings: Mapping[str, Any] | None = None, seed: int | None = None) -> Run:
    """Returns a completed run with its network: the one that is named, or the newest of those with these settings.

    Args:
        out: folder of the store.
        key: of the run, or its beginning.
        settings: values that the configuration has, by path; used where there is no key.
        seed: of the run; used where there is no key.

    Raises:
        InputError: there is no such run, or none that is completed; the line says what there is.
        CorruptionError: the store cannot be read.
    """
    store = Store(out)
    run = store.load(_choose(store, settings or {}, seed) if key is None else key)
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
    dataset = load_data(data)
    known = run.record.provenance.get("dataset", {}).get("sha256")
    if known != dataset.sha256:
        raise UnavailableError(
            f"data.name={data.name!r}: its images are not those of run {run.key[:12]} (SHA-256 {dataset.sha256[:12]}, "
            f"not {str(known)[:12]}), so nothing can be said of its answers; run it again"
        )
    return dataset


def _choose(store: Store, settings: Mapping[str, Any], seed: int | None) -> str:
    outcomes = store.list_outcomes()
    completed = {key: record for key, record in store.find_all().items() if record.status == "completed"}
    if not completed:
        raise InputError(f"--out: no completed run is in {store.path}; make one with: python -m experiments.train")
    wanted = {path: write_literal(value) for path, value in settings.items()}
    fitting = [key for key, record in completed.items() if _has(record, wanted, seed)]
    if not fitting:
        raise InputError(
            f"--where, --seed: no completed run in {store.path} has these; there are {_list_choices(completed)}"
        )
    if len(fitting) > 1:
        others = _list_choices({key: completed[key] for key in fitting})
        say(f"the newest of {len(fitting)} completed runs; --where and --seed choose among {others}", sys.stderr)
    return max(fitting, key=lambda key: outcomes[key].stored_at)


def _has(record: Record, wanted: Mapping[str, str], seed: int | None) -> bool:
    values = flatten(record.config)
    is_wanted = all(write_literal(values[path]) == text for path, text in wanted.items())
    return is_wanted and seed in (None, record.config.seed)


def _list_choices(records: Mapping[str, Record]) -> str:
    configs = [record.config for record in records.values()]
    seeds = ", ".join(map(str, sorted({config.seed for config in configs})))
    return "; ".join(filter(None, (list_differences(configs), f"seed ({seeds})")))
