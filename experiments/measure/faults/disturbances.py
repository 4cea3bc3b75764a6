"""Disturbs commands that write: kills at every write, full disks, concurrent processes, missing permission."""

import dataclasses
import importlib.resources
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.console.terminal import run_command
from cnnjax.data import cache
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.data.settings import parse_name
from cnnjax.errors import CnnjaxError, UnavailableError
from cnnjax.machine.processes import python_command, python_environment
from cnnjax.runs.record import pack_run
from cnnjax.runs.store import Store
from experiments.measure.faults import make_run

_SMALL = ("train.epochs=2", "train.learning_rate=0.1", "data.train_size=200", "model.filters=[]")
_NETWORK = ["--train.epochs", "2", "--train.learning-rate", "0.1", "--data.train-size", "200", "--model.filters", "[]"]
_GRID = ["--axis", "model.dense=[4],[8]", "--seeds", "1", *(word for s in _SMALL for word in ("--set", s))]
ROWS = 3
"""Number of rows that the command ``store`` adds."""


@dataclass(frozen=True)
class Scenario:
    """A command that writes, and how to check what it wrote.

    Attributes:
        name: name in the table of results.
        words: arguments of the command; ``{folder}`` stands for the folder that it writes into.
        read: returns the content of the folder as values that can be compared; raises a `CnnjaxError` if it is damaged.
        acknowledged: returns the keys of `read` that the command reported as stored, from its output.
        first: arguments of a command that must be run before.
    """

    name: str
    words: tuple[str, ...]
    read: Callable[[Path], dict[str, Any]]
    acknowledged: Callable[[str, dict[str, Any]], set[str]]
    first: tuple[str, ...] = ()

    def command(self, folder: Path) -> list[str]:
        """Returns the command line for a folder."""
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
    """Writes into a folder, and prints one line for every item once it is stored; returns 0.

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


HOWS = ("before", "torn", "after", "full")
TIMEOUT = 300


@dataclass
class KillTally:
    """Results of disturbing a command.

    Attributes:
        scenario: name of the scenario.
        operations: number of writes, syncs, renames, truncations and removals of the undisturbed command.
        tried: number of disturbances, by kind.
        faults: the faults found, each with the operation and the kind of the disturbance.
    """

    scenario: str
    operations: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@contextmanager
def built_shim() -> Iterator[Path]:
    """Compiles the library that disturbs a command.

    Raises:
        UnavailableError: there is no C compiler, or this is not Linux.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not Path("/proc/self/fd").is_dir():
        raise UnavailableError("killing at every write needs Linux and a C compiler (gcc)")
    with tempfile.TemporaryDirectory() as folder:
        source = importlib.resources.files("experiments.measure.faults").joinpath("shim.c").read_text()
        library = Path(folder) / "shim.so"
        words = [compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library)]
        built = subprocess.run(words, input=source, text=True, capture_output=True)
        if built.returncode:
            raise UnavailableError(f"the C compiler fails: {(built.stderr.splitlines() or ['no reason given'])[0]}")
        yield library


def disturb(scenario: Scenario, shim: Path, points: int | None = None) -> KillTally:
    """Disturbs a command in every way at each of its operations, or at `points` operations that are spread evenly."""
    tally = KillTally(scenario.name)
    with tempfile.TemporaryDirectory() as place:
        expected, kinds = _play_undisturbed(scenario, shim, Path(place))
        tally.operations = len(kinds)
        for at, how in _choose(kinds, points):
            folder = Path(place) / f"{at}-{how}"
            _prepare(scenario, Path(place), folder)
            tally.tried[how] += 1
            fault = _disturb_once(scenario, shim, folder, at, how, expected)
            if fault:
                tally.faults.append(f"operation {at} ({kinds[at - 1]}), {how}: {fault}")
            shutil.rmtree(folder)
    return tally


def _play_undisturbed(scenario: Scenario, shim: Path, place: Path) -> tuple[dict[str, Any], str]:
    """Runs the command undisturbed; returns what it stored, and the kinds of its operations, one letter each."""
    if scenario.first:
        first = [word.replace("{folder}", str(place / "first")) for word in scenario.first]
        _run(python_command(*first), place, {})
    folder, log = place / "undisturbed", place / "log"
    _prepare(scenario, place, folder)
    ended = _run(scenario.command(folder), place, _set_shim(shim, folder, FAULT_LOG=str(log)))
    if ended.returncode:
        raise UnavailableError(f"{scenario.name}: the undisturbed command fails: {ended.stderr.strip()[-300:]}")
    return scenario.read(folder), log.read_text()


def _prepare(scenario: Scenario, place: Path, folder: Path) -> None:
    if scenario.first:
        shutil.copytree(place / "first", folder)
    else:
        folder.mkdir()


def _choose(kinds: str, points: int | None) -> Iterator[tuple[int, str]]:
    all_points = [(at, how) for at, kind in enumerate(kinds, 1) for how in HOWS if kind == "w" or how[0] in "ba"]
    number = len(all_points) if points is None else min(points, len(all_points))
    yield from (all_points[index * len(all_points) // number] for index in range(number))


def _disturb_once(
    scenario: Scenario, shim: Path, folder: Path, at: int, how: str, expected: dict[str, Any]
) -> str | None:
    """Disturbs the command once and runs it again; returns the fault found, or ``None``."""
    setting = _set_shim(shim, folder, FAULT_AT=str(at), FAULT_HOW=how)
    disturbed = _run(scenario.command(folder), folder.parent, setting)
    if how == "full" and disturbed.returncode not in (0, 4) and "Error" in disturbed.stderr:
        return f"exit code {disturbed.returncode} on a full disk: {disturbed.stderr.strip()[-200:]}"
    for moment in ("after it", "after the same command again"):
        try:
            found = scenario.read(folder)
        except (CnnjaxError, AssertionError) as error:
            return f"{moment} {error}"
        lost = scenario.acknowledged(disturbed.stdout, found) - found.keys()
        if lost:
            return f"{moment} {sorted(lost)} is lost"
        if any(found[key] != expected.get(key) for key in found):
            return f"{moment} a value is another"
        if moment == "after it":
            again = _run(scenario.command(folder), folder.parent, {})
            if again.returncode or "corrupt" in again.stderr:
                return f"the same command again ends with {again.returncode}: {again.stderr.strip()[-200:]}"
    return None if found.keys() == expected.keys() else "the same command again does not end with what there should be"


def _set_shim(shim: Path, folder: Path, **settings: str) -> dict[str, str]:
    return {"LD_PRELOAD": str(shim), "FAULT_FOLDER": str(folder), **settings}


def _run(words: list[str], place: Path, setting: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Runs a command on one core; compiled programs are cached for the next one."""
    own = {"JAX_PLATFORMS": "cpu", "CNNJAX_CACHE_DIR": str(place / "user's cache")}
    environment = {**python_environment(), **own, **setting}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=TIMEOUT, check=False)


PROCESSES = 16
_PLAY = ("-m", "experiments.measure.faults.disturbances", "store")


def crowd() -> list[str]:
    """Lets `PROCESSES` processes store rows in one new store at once, each row twice; returns the faults found."""
    with tempfile.TemporaryDirectory() as folder:
        started = [_start(folder, str(index // 2 * ROWS)) for index in range(PROCESSES)]  # two of each
        ended = [(process.communicate(timeout=300), process.returncode) for process in started]
        faults = [f"a process ends with {code}: {errors.strip()[-200:]}" for (_, errors), code in ended if code]
        told = {key for (printed, _), _ in ended for key in printed.split()}
        keys = Store(folder).list_keys()
        if len(keys) != PROCESSES // 2 * ROWS or {*keys} != told:
            faults.append(f"{len(told)} rows were told to be stored, {len(keys)} are there")
    return faults


def write_protected() -> list[str]:
    """Runs a command on a store that can be read but not written; returns the faults found.

    The store is on a file system that is mounted read-only, which even root cannot write.

    Raises:
        PermissionError: this process may not mount a file system.
    """
    with tempfile.TemporaryDirectory() as folder, _mounted(Path(folder)):
        _start(folder).communicate(timeout=300)
        before = Store(folder).find_all()
        _mount("-o", "remount,ro", folder)
        process = _start(folder, str(ROWS))
        printed, errors = process.communicate(timeout=300)
        faults = []
        if process.returncode != 4 or printed or errors.count("\n") != 1:
            faults.append(f"exit code {process.returncode} where nothing can be written: {errors.strip()[-200:]}")
        if Store(folder).find_all() != before:
            faults.append("the rows are not those that were there")
    return faults


def _start(*words: str) -> "subprocess.Popen[str]":
    command = python_command(*_PLAY, *words)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=python_environment()
    )


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    _mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(*words: str) -> None:
    try:
        ended = subprocess.run(["mount", *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise PermissionError("there is no mount") from None
    if ended.returncode:
        raise PermissionError(ended.stderr.strip())
