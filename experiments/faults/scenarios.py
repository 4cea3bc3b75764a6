"""What is disturbed while it writes: a run, a grid, rows of a store, a cached dataset and a report.

A scenario is a command, typed into a folder, and what its folder holds afterwards, in a form that can be compared. Two
of them need no training and are played by this module itself::

    python -m experiments.faults.scenarios store FOLDER
    python -m experiments.faults.scenarios cache FOLDER
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.children import python_command
from cnnjax.console import run_command
from cnnjax.dataset_names import parse_name
from cnnjax.datasets import cache
from cnnjax.datasets.arrays import Split, make_dataset
from cnnjax.records import pack_run
from cnnjax.runs import Store
from experiments.faults.samples import make_run

_SMALL = ("train.epochs=2", "train.learning_rate=0.1", "data.train_size=200", "model.filters=[]")
_NETWORK = ["--train.epochs", "2", "--train.learning-rate", "0.1", "--data.train-size", "200", "--model.filters", "[]"]
_GRID = ["--axis", "model.dense=[4],[8]", "--seeds", "1", *(word for s in _SMALL for word in ("--set", s))]
ROWS = 3
"""That ``store`` adds."""


@dataclass(frozen=True)
class Scenario:
    """A command that writes, and what is to come of it.

    Attributes:
        name: in the table of results.
        words: of the command, of which ``{folder}`` is where it writes.
        read: returns what the folder holds, as values that can be compared; raises an error of the product's own where
            it holds what is damaged.
        acknowledged: returns the keys of `read` that the command had said to be stored, from what it printed.
        first: the words of a command that must have been run before.
    """

    name: str
    words: tuple[str, ...]
    read: Callable[[Path], dict[str, Any]]
    acknowledged: Callable[[str, dict[str, Any]], set[str]]
    first: tuple[str, ...] = ()

    def command(self, folder: Path) -> list[str]:
        """Returns the command that writes into a folder."""
        return python_command(*(word.replace("{folder}", str(folder)) for word in self.words))


def read_rows(folder: Path) -> dict[str, Any]:
    """Returns everything of a store's runs but times, by key, and that no checkpoint is half of one."""
    store, rows = Store(folder), {}
    for key in store.list_keys():
        packed = pack_run(store.load(key))
        values = packed.record.to_dict()
        del values["provenance"]
        for timed in (values, *values["history"]):
            del timed["seconds"]
        rows[key] = (values, packed.variables, packed.predictions)
    return rows


def _read_cache(folder: Path) -> dict[str, Any]:
    os.environ["CNNJAX_CACHE_DIR"] = str(folder)
    entries = {}
    for name in ("letters", "digits"):
        entry = cache.find_entry(parse_name(name))
        dataset = cache.load_entry(entry) if entry else None
        if entry and dataset is None:
            raise AssertionError(f"the entry {name} is there and cannot be loaded")
        if dataset:
            entries[name] = dataset.sha256
    return entries


def _read_report(folder: Path) -> dict[str, Any]:
    path = folder / "report.md"
    text = path.read_text() if path.exists() else ""
    if text and not text.endswith("\n"):
        raise AssertionError("half of a report is in the place of a whole one")
    return {"report": re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.+]*", "", text)} if text else {}


def _find_json(printed: str, rows: dict[str, Any]) -> set[str]:
    del rows
    return {json.loads(printed)["key"]} if printed.endswith("\n") else set()


def _find_trials(printed: str, rows: dict[str, Any]) -> set[str]:
    told = re.findall(r"^\[\d+/\d+\] completed model\.dense=\[(\d)\]", printed, re.MULTILINE)
    stored = {str(values["config"]["model"]["dense"][0]): key for key, (values, *_) in rows.items()}
    return {stored.get(width, f"the row of width {width}") for width in told}


def _find_words(printed: str, rows: dict[str, Any]) -> set[str]:
    del rows
    return set(printed.split()) if printed.endswith("\n") else set()


SCENARIOS = (
    Scenario("rows of a store", ("-m", __name__, "store", "{folder}"), read_rows, _find_words),
    Scenario("cached datasets", ("-m", __name__, "cache", "{folder}"), _read_cache, _find_words),
    Scenario(
        "a report",
        (
            "-m",
            "ablations.report",
            *_GRID,
            "--out",
            "{folder}",
            "--format",
            "markdown",
            "--output",
            "{folder}/report.md",
        ),
        _read_report,
        lambda printed, rows: set(),
        first=("-m", "ablations.run", *_GRID, "--out", "{folder}", "--workers", "1", "--quiet"),
    ),
    Scenario(
        "a run with checkpoints",
        *(
            (
                "-m",
                "experiments.train",
                *_NETWORK,
                "--checkpoint-every",
                "1",
                "--resume",
                "--json",
                "--out",
                "{folder}",
            ),
            *(read_rows, _find_json),
        ),
    ),
    Scenario("a grid", ("-m", "ablations.run", *_GRID, "--workers", "1", "--out", "{folder}"), read_rows, _find_trials),
)


def main(argv: list[str]) -> int:
    """Writes into a folder, and prints a line for each thing that is there for good; returns 0.

    Args:
        argv: ``store`` or ``cache``, the folder, and the first seed of the rows that are stored (default 0).
    """
    kind, folder, *first = argv
    if kind == "store":
        start = int(first[0]) if first else 0
        for seed in range(start, start + ROWS):
            run = make_run(dataclasses.replace(make_run().record.config, seed=seed))
            Store(folder).add(run)
            print(run.key, flush=True)
        return 0
    os.environ["CNNJAX_CACHE_DIR"] = folder
    for number, name in enumerate(("letters", "digits"), start=4):
        split = Split(np.full((number, 4, 4, 1), number, np.uint8), np.arange(number, dtype=np.int32))
        if cache.find_entry(parse_name(name)) is None:
            cache.store(make_dataset(name, "1.0.0", split, split, number, "tfds"), (name,))
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
