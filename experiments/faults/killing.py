"""A command killed at every write, sync, rename, truncation and removal; then the same command again.

A library in C is put before the C library, as SQLite and the arrays of checkpoints are written by code that is not
Python. Afterwards nothing that was told is lost, nothing is there twice, every value is that of an undisturbed run, and
nothing that is half is taken for whole.
"""

import importlib.resources
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnjax.children import python_command, python_environment
from cnnjax.errors import CnnjaxError, UnavailableError
from experiments.faults.scenarios import Scenario

HOWS = ("before", "torn", "after", "full")
TIMEOUT = 300


@dataclass
class KillTally:
    """What came of a command that was disturbed.

    Attributes:
        scenario: its name.
        operations: how many writes and the like it does undisturbed.
        tried: how often it was disturbed, by how.
        faults: what was wrong afterwards, each with where and how the command was disturbed.
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
        source = importlib.resources.files("experiments.faults").joinpath("shim.c").read_text()
        library = Path(folder) / "shim.so"
        words = [compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library)]
        built = subprocess.run(words, input=source, text=True, capture_output=True)
        if built.returncode:
            raise UnavailableError(f"the C compiler fails: {(built.stderr.splitlines() or ['no reason given'])[0]}")
        yield library


def disturb(scenario: Scenario, shim: Path, points: int | None = None) -> KillTally:
    """Disturbs a command at each of its operations, or at so many of them, spread evenly, in every way."""
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
    """Returns what an undisturbed command leaves, and the kinds of its operations, a letter each."""
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
    """Returns what is wrong after a command was disturbed and typed again; ``None`` where nothing is."""
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
    """Runs a command on one core; compiled programs are kept for the next one."""
    own = {"JAX_PLATFORMS": "cpu", "CNNJAX_CACHE_DIR": str(place / "user's cache")}
    environment = {**python_environment(), **own, **setting}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=TIMEOUT, check=False)
