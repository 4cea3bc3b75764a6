"""What the benchmark measures: contestants in turn, again and again, so that what else the machine does meets all."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnjax.errors import UnavailableError
from cnnjax.processors import list_cores
from experiments.contestants.networks import list_trials
from experiments.contestants.processes import Contestant, Process, run_grid, run_trials, started
from experiments.contestants.serving import BATCH

EPOCH = 60_000
"""Images."""


@dataclass(frozen=True)
class Result:
    """What was measured of a contestant.

    Attributes:
        name: of the contestant.
        device: it trained on.
        start_seconds: from the start of its process to the end of its first step, with what it keeps of earlier ones.
        epochs: seconds an epoch, of each measurement, in one process with all cores or one device.
        pair_epochs: seconds an epoch of each measurement of two processes side by side, each with a core of its own;
            an epoch of both counts as two. Empty without two cores, or on an accelerator.
        memory: most bytes resident in the one process.
        loss: of its last batch, which shows that it has learnt.
    """

    name: str
    device: str
    start_seconds: float
    epochs: tuple[float, ...]
    pair_epochs: tuple[float, ...]
    memory: int
    loss: float


@dataclass(frozen=True)
class GridResult:
    """What was measured of a contestant's grid.

    Attributes:
        name: of the contestant.
        seconds: from its start to its last result, of each measurement.
        trials: how many there were.
        accuracy: mean over all trials on the test set.
    """

    name: str
    seconds: tuple[float, ...]
    trials: int
    accuracy: float


def measure(contestants: Sequence[Contestant], steps: int, repeats: int) -> list[Result]:
    """Measures the training of one network.

    Args:
        contestants: which are installed.
        steps: of a measurement.
        repeats: measurements of each.

    Raises:
        UnavailableError: one of them cannot train.
    """
    with started(contestants):
        pass  # what a library compiles or caches at its first start is there at the second
    with started(contestants) as alone:
        answers = _repeat(alone, steps, repeats)
        devices = [process.device for (process,) in alone]
        starts = [process.start_seconds for (process,) in alone]
    pairs: list[list[dict[str, Any]]] = [[] for _ in contestants]
    cores = _find_pair()
    if cores and all(device == "cpu" for device in devices):
        with started(contestants, cores) as beside:
            pairs = _repeat(beside, steps, repeats)
    to_epoch = EPOCH / (steps * BATCH)
    return [
        Result(
            contestant.name,
            device,
            start,
            tuple(answer["seconds"] * to_epoch for answer in each),
            tuple(answer["seconds"] * to_epoch / 2 for answer in pair),
            max(answer["memory"] for answer in each),
            each[-1]["loss"],
        )
        for contestant, device, start, each, pair in zip(contestants, devices, starts, answers, pairs, strict=True)
    ]


def measure_grids(
    contestants: Sequence[Contestant], images: int, seeds: int, repeats: int, on_cpu: bool
) -> list[GridResult]:
    """Measures a grid of twelve networks: cnnjax's by its own command, the others' in a loop in as many processes.

    Args:
        contestants: which are installed.
        images: that each trial trains on, once; a multiple of 100.
        seeds: of each network.
        repeats: measurements of each.
        on_cpu: a process on each of two cores; otherwise one process has the device.

    Raises:
        UnavailableError: one of them cannot train.
    """
    cores: Sequence[int | None] = (on_cpu and _find_pair()) or (None,)
    seconds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    accuracies: dict[str, float] = {}
    trials = len(list_trials(seeds))
    for _ in range(repeats):
        for contestant in contestants:
            start = time.perf_counter()
            if contestant.name == "cnnjax":
                found = run_grid(images, seeds, len(cores))
            else:
                found = run_trials(contestant, images // BATCH, seeds, cores)
            seconds[contestant.name].append(time.perf_counter() - start)
            if len(found) != trials:
                raise UnavailableError(f"{contestant.name} has results of {len(found)} of {trials} trials")
            accuracies[contestant.name] = sum(found) / trials
    return [GridResult(name, tuple(own), trials, accuracies[name]) for name, own in seconds.items()]


def _find_pair() -> Sequence[int]:
    """Returns two cores, where there are two that a process can be pinned to."""
    cores = [core for core in list_cores() if core is not None][:2]
    return cores if len(cores) == 2 else ()


def _repeat(groups: list[list[Process]], steps: int, repeats: int) -> list[list[dict[str, Any]]]:
    """Returns the answers of every group, the seconds being those until all of its processes have answered."""
    answers: list[list[dict[str, Any]]] = [[] for _ in groups]
    for repeat in range(repeats + 1):
        for group, own in zip(groups, answers, strict=True):
            start = time.perf_counter()
            for process in group:
                process.ask(steps)
            last = [process.receive() for process in group][-1]
            if repeat:  # the first compiles
                own.append({**last, "seconds": time.perf_counter() - start})
    return answers
