"""Kills a grid at random moments, while it starts or at its work, and types the same command again each time."""

import random
import re
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from cnnjax.machine.processes import python_command, python_environment
from cnnjax.runs.store import Store
from experiments.measure.faults.disturbances import read_rows

_SETTINGS = ("model.filters=[]", "train.epochs=100", "train.learning_rate=0.1", "data.train_size=1000")
_WIDTHS = (8, 16, 24, 32)
_SEEDS_PER_KILL = 2
"""Seeds of each width: enough trials that some are left after the last kill."""
_SHOWN = re.compile(r"^\[\d+/\d+\] completed model\.dense=\[(\d+)\], seed=(\d+): test accuracy (\d\.\d{4})", re.M)
_PATIENCE = 600
"""Seconds that a command may take for its next result."""

Trial = tuple[str, str]
"""Width and seed, as a grid prints them."""


def kill_grid(kills: int) -> list[str]:
    """Kills a grid this many times, lets it end, and compares its store with that of a grid that nobody killed.

    Returns:
        The faults found: a result that was printed is lost, has another value or was trained again; a worker outlives
        its grid; the same command does not end with what there should be.
    """
    chance = random.Random(7)
    printed: dict[Trial, str] = {}
    with tempfile.TemporaryDirectory() as place:
        folder, whole = Path(place) / "killed", Path(place) / "whole"
        command = _make_command(kills * _SEEDS_PER_KILL)
        for kill in range(kills):
            shown, orphans = _kill_once([*command, str(folder)], Path(place) / "log", chance, at_work=kill % 2 == 0)
            moment = f"kill {kill + 1}"
            if orphans:
                return [f"{moment}: {orphans} workers outlive it"]
            if again := shown.keys() & printed.keys():
                return [f"{moment}: {sorted(again)} were stored and are trained again"]
            printed |= shown
            stored = _read_accuracies(folder)
            if lost := {trial: text for trial, text in printed.items() if stored.get(trial) != text}:
                return [f"{moment}: {lost} were printed, and are stored as {[*map(stored.get, lost)]}"]
        trials = kills * _SEEDS_PER_KILL * len(_WIDTHS)
        if not kills / 2 <= len(printed) < trials:
            return [f"{len(printed)} of {trials} trials were printed before the last kill, so too little was tried"]
        for target in (folder, whole):
            ended = subprocess.run(
                [*command, str(target)], capture_output=True, text=True, env=_make_environment(), timeout=3600
            )
            if ended.returncode:
                return [f"the same command again ends with {ended.returncode}: {ended.stderr.strip()[-200:]}"]
        rows, expected = read_rows(folder), read_rows(whole)
        return [] if rows == expected and len(rows) == trials else ["the results are not those of a grid without kills"]


def _make_command(seeds: int) -> list[str]:
    """Returns the command line of the grid, to which the folder must be added."""
    axis = f"model.dense={','.join(f'[{width}]' for width in _WIDTHS)}"
    settings = (word for setting in _SETTINGS for word in ("--set", setting))
    words = ("--axis", axis, "--seeds", str(seeds), *settings, "--workers", "2", "--out")
    return python_command("-m", "ablations.run", *words)


def _make_environment() -> dict[str, str]:
    return {**python_environment(), "JAX_PLATFORMS": "cpu"}


def _kill_once(command: list[str], log: Path, chance: random.Random, at_work: bool) -> tuple[dict[Trial, str], int]:
    """Starts the grid and kills it; returns the accuracies that it printed, and how many workers outlived it."""
    with log.open("w") as output:
        grid = subprocess.Popen(command, stdout=output, stderr=output, env=_make_environment())
        try:
            if at_work:
                _wait(grid, log, chance.randint(1, 3))
                time.sleep(chance.uniform(0.0, 0.3))
            else:
                time.sleep(chance.uniform(0.1, 3.0))
            workers = psutil.Process(grid.pid).children()
        finally:
            grid.kill()
            grid.wait()
    return _read_log(log), len(psutil.wait_procs(workers, timeout=60)[1])


def _wait(grid: "subprocess.Popen[bytes]", log: Path, trials: int) -> None:
    """Waits until the grid has printed this number of results.

    Raises:
        AssertionError: it has ended, or nothing comes.
    """
    deadline = time.monotonic() + _PATIENCE
    while len(_read_log(log)) < trials:
        if grid.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the grid has not printed {trials} results: {log.read_text()[-1000:]}")
        time.sleep(0.02)


def _read_log(log: Path) -> dict[Trial, str]:
    return {(width, seed): accuracy for width, seed, accuracy in _SHOWN.findall(log.read_text())}


def _read_accuracies(folder: Path) -> dict[Trial, str]:
    """Returns the accuracies in the store, as a grid prints them."""
    return {
        (str(record.config.to_dict()["model"]["dense"][0]), str(record.config.seed)): f"{record.test_accuracy:.4f}"
        for record in Store(folder).find_all().values()
    }
