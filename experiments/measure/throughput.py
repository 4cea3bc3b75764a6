"""Measures how many trials per second the coordinator and the store can handle, and the memory that they need.

The trials end at once, with made-up results of the same size as those of the default network on MNIST, so the time is
that of the coordinator and the store alone. The commands: 10,000 trials in a temporary folder; the same with one commit
per trial; fewer trials, in a store on the disk of a given folder::

    python -m experiments.measure.throughput
    python -m experiments.measure.throughput --slots 1
    python -m experiments.measure.throughput --trials 500 --out .
"""

import dataclasses
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil

from ablations.execution.coordinator import run_grid
from ablations.execution.watching import FailureObserver
from ablations.execution.work import Ended, Event, Started
from ablations.study.grid import Cell, Grid, Trial
from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.terminal import run_command, say
from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.record import PackedRun, Record, Run, pack_run
from cnnjax.runs.store import Store
from cnnjax.runs.summary import summarize
from cnnjax.settings.checking import Count, check

PROG = "python -m experiments.measure.throughput"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class ThroughputArguments:
    """Measures how many trials per second the coordinator and the store can handle::

    python -m experiments.measure.throughput
    python -m experiments.measure.throughput --trials 500 --out .
    """

    trials: int = 10_000
    """Number of trials."""
    slots: int = 64
    """Number of trials that end together, and are stored by one commit."""
    out: Path | None = None
    """Folder for the store, which is deleted afterwards; by default the system's temporary folder."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


@dataclass(frozen=True)
class Throughput:
    """The measurements: trials, seconds, and resident memory in bytes before, halfway and after."""

    trials: int
    seconds: float
    memory: tuple[int, int, int]

    def __str__(self) -> str:
        rate = f"{self.trials:,} trials stored in {self.seconds:.1f} s: {self.trials / self.seconds:,.0f} a second"
        before, halfway, after = (f"{used / MEBIBYTE:,.0f} MiB" for used in self.memory)
        return f"{rate}\nresident memory {before} before, {halfway} halfway, {after} after"


class InstantExecutor:
    """An executor whose trials end at once; it notes the memory used when half of them have ended."""

    group_size = 1

    def __init__(self, result: PackedRun, trials: int, slots: int) -> None:
        self._slots = slots
        self._result, self._halfway, self._ended = result, trials // 2, 0
        self._waiting: deque[Trial] = deque()
        self.memory_halfway = 0

    def free_slots(self) -> dict[int, str]:
        """Returns the free slots."""
        return dict.fromkeys(range(self._slots - len(self._waiting)), "")

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Accepts a trial."""
        self._waiting.extend(group)

    def poll(self, seconds: float) -> list[Event]:
        """Returns the results of the accepted trials."""
        if self._ended <= self._halfway < self._ended + len(self._waiting):
            self.memory_halfway = _measure_memory()
        self._ended += len(self._waiting)
        events: list[Event] = []
        while self._waiting:
            trial = self._waiting.popleft()
            run = dataclasses.replace(
                self._result, record=dataclasses.replace(self._result.record, config=trial.config)
            )
            events += [Started(trial), Ended(trial, run)]
        return events

    def close(self) -> None:
        """Does nothing."""


def measure_throughput(trials: int, slots: int, out: Path) -> Throughput:
    """Runs a grid of instant trials.

    Args:
        trials: how many.
        slots: how many end at a time.
        out: folder of an empty store.

    Raises:
        UnavailableError: the store cannot be written.
    """
    config = RunConfig()
    grid = Grid("throughput", (), (Cell({}, config),), tuple(range(trials)))
    executor, store = InstantExecutor(make_result(config), trials, slots), Store(out)
    before, start = _measure_memory(), time.perf_counter()
    run_grid(grid, store, executor, FailureObserver())
    seconds = time.perf_counter() - start
    return Throughput(trials, seconds, (before, executor.memory_halfway, _measure_memory()))


def make_result(config: RunConfig) -> PackedRun:
    """Returns a made-up result of the size of a real one on MNIST."""
    summary = summarize(config, (28, 28, 1), 10)
    random = np.random.default_rng(0)
    history = [EpochMetrics(epoch + 1, 0.1, 0.97, None, None, 8.0) for epoch in range(config.train.epochs)]
    seconds = {"load": 0.1, "compile": 2.0, "train": 40.0, "evaluate": 1.0, "total": 43.1}
    provenance = {"packages": {f"package-{index}": "1.0.0" for index in range(9)}, "python": "3.11", "git": {}}
    size = summary.parameters, summary.flops
    record = Record(config, "completed", None, *size, 0.05, 0.99, tuple(history), seconds, provenance)
    params = {"weights": random.normal(size=summary.parameters).astype(np.float32)}
    return pack_run(Run(record, params, {}, random.integers(10, size=10_000, dtype=np.uint8)))


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(ThroughputArguments, argv, PROG, ThroughputArguments())
    check(arguments.trials, Count, "--trials")
    check(arguments.slots, Count, "--slots")
    if arguments.out and not arguments.out.is_dir():
        raise InputError(f"--out {arguments.out}: must be a folder")
    # What was never trained must not stay where it could be taken for a result.
    with tempfile.TemporaryDirectory(prefix="cnnjax-", dir=arguments.out) as temporary:
        say(str(measure_throughput(arguments.trials, arguments.slots, Path(temporary))), sys.stdout)
    return 0


def _measure_memory() -> int:
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    run_command(main)
