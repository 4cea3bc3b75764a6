"""The grid: twelve networks with several seeds each, trained by cnnjax's own command and by the other libraries."""

import contextlib
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cnnjax.console.tables import Column, Table
from cnnjax.errors import UnavailableError
from cnnjax.machine.processes import python_command, python_environment
from cnnjax.runs.store import Store
from experiments.measure.contestants.measuring import Contestant, find_pair, find_reason, make_command
from experiments.measure.contestants.networks import FILTERS, GRID, PADDINGS, WINDOWS, Network
from experiments.measure.contestants.serving import BATCH


def list_trials(seeds: int) -> list[tuple[Network, int]]:
    """Returns the trials of the grid: twelve networks, with this number of seeds each."""
    return [(network, seed) for network in GRID.values() for seed in range(seeds)]


class TrialQueue:
    """Queue of the trials of the grid for several processes.

    A process first gets the remaining seeds of the network that it has compiled, then the most expensive network that
    no process has begun, and finally seeds of a network that another process has begun.

    Args:
        seeds: number of seeds of each network.
    """

    def __init__(self, seeds: int) -> None:
        networks = sorted(GRID.values(), key=Network.count_flops, reverse=True)
        self._left = {network: list(range(seeds)) for network in networks}
        self._begun: set[Network] = set()
        self._lock = threading.Lock()

    def take(self, last: Network | None) -> tuple[Network, int] | None:
        """Returns the next trial for a process whose last network was `last`; ``None`` if no trial is left."""
        with self._lock:
            waiting = [network for network, seeds in self._left.items() if seeds]
            if not waiting:
                return None
            fresh = [network for network in waiting if network not in self._begun]
            network = last if last in waiting else (fresh or waiting)[0]
            assert network is not None
            self._begun.add(network)
            return network, self._left[network].pop(0)


@dataclass(frozen=True)
class GridResult:
    """Measurements of a contestant's grid.

    Attributes:
        name: name of the contestant.
        seconds: seconds from the start to the last result, in every measurement.
        trials: number of trials.
        accuracy: mean test accuracy of all trials.
    """

    name: str
    seconds: tuple[float, ...]
    trials: int
    accuracy: float


def measure_grids(
    contestants: Sequence[Contestant], images: int, seeds: int, repeats: int, on_cpu: bool
) -> list[GridResult]:
    """Times a grid of twelve networks: cnnjax by its own command, the others in a loop, with as many processes.

    Args:
        contestants: installed contestants.
        images: images that each trial trains on, once; a multiple of 100.
        seeds: number of seeds of each network.
        repeats: measurements of each contestant.
        on_cpu: whether to run one process on each of two cores; otherwise one process has the device.

    Raises:
        UnavailableError: one of them cannot train.
    """
    cores: Sequence[int | None] = (on_cpu and find_pair()) or (None,)
    seconds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    accuracies: dict[str, float] = {}
    trials = len(list_trials(seeds))
    for _ in range(repeats):
        for contestant in contestants:
            start = time.perf_counter()
            if contestant.name == "cnnjax":
                found = _run_grid(images, seeds, len(cores))
            else:
                found = _run_trials(contestant, images // BATCH, seeds, cores)
            seconds[contestant.name].append(time.perf_counter() - start)
            if len(found) != trials:
                raise UnavailableError(f"{contestant.name} has results of {len(found)} of {trials} trials")
            accuracies[contestant.name] = sum(found) / trials
    return [GridResult(name, tuple(own), trials, accuracies[name]) for name, own in seconds.items()]


def tabulate_grids(grids: Sequence[GridResult]) -> Table:
    """Returns the table of the grids, with the fastest contestant first."""
    columns = (
        Column("contestant"),
        Column("grid: s", ",.0f", True),
        Column("range", right=True),
        Column("to cnnjax", ".2f", True),
        Column("trials/hour", ",.0f", True),
        Column("mean accuracy", ".4f", True),
    )
    ours = next((statistics.median(grid.seconds) for grid in grids if grid.name == "cnnjax"), None)
    rows = []
    for grid in sorted(grids, key=lambda grid: statistics.median(grid.seconds)):
        seconds = statistics.median(grid.seconds)
        rows.append(
            (
                grid.name,
                seconds,
                f"{min(grid.seconds):,.0f}-{max(grid.seconds):,.0f}",
                ours and seconds / ours,
                3600 * grid.trials / seconds,
                grid.accuracy,
            )
        )
    return Table(columns, tuple(rows), "A grid")


def _run_trials(contestant: Contestant, steps: int, seeds: int, cores: Sequence[int | None]) -> list[float]:
    """Trains the grid with a contestant, in one process per core; returns the test accuracies."""
    queue = TrialQueue(seeds)
    running: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as caches, ThreadPoolExecutor(len(cores)) as pool:
        environment = contestant.make_environment(caches)
        taking = [pool.submit(_run_queue, contestant, core, steps, queue, environment, running) for core in cores]
        try:
            return [accuracy for future in taking for accuracy in future.result()]
        except BaseException:
            for process in running:
                process.kill()
            raise


def _run_queue(
    contestant: Contestant,
    core: int | None,
    steps: int,
    queue: TrialQueue,
    environment: dict[str, str],
    running: list[subprocess.Popen[str]],
) -> list[float]:
    """Trains trials of the queue in one process, which is added to `running`; returns the test accuracies."""
    words = make_command(contestant, core, "--grid", str(steps))
    accuracies: list[float] = []
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process:
            running.append(process)
            assert process.stdin
            assert process.stdout
            trial = queue.take(None)
            with contextlib.suppress(BrokenPipeError):  # of one that has ended, whose exit code tells
                while trial:
                    network, seed = trial
                    print(json.dumps({"network": network.name, "seed": seed}), file=process.stdin, flush=True)
                    line = process.stdout.readline()
                    if not line:
                        break
                    accuracies.append(json.loads(line)["accuracy"])
                    trial = queue.take(network)
                process.stdin.close()
        if process.returncode:
            log.seek(0)
            raise UnavailableError(f"{contestant.name} has ended: {find_reason(log.read())}")
    return accuracies


def _run_grid(images: int, seeds: int, workers: int) -> list[float]:
    """Trains the same grid with cnnjax, by one command as a user would; returns the test accuracies."""
    axes = {"model.filters": FILTERS, "model.kernel_size": WINDOWS, "model.padding": PADDINGS}
    with tempfile.TemporaryDirectory() as folder:
        words = python_command("-m", "ablations.run", "--quiet", "--out", folder, "--seeds", str(seeds))
        words += ["--workers", str(workers)]
        for name, levels in axes.items():
            words += ["--axis", f"{name}={','.join(map(_write, levels))}"]
        words += ["--set", "train.epochs=1", "--set", f"data.train_size={images}"]
        environment = {**python_environment(), "JAX_COMPILATION_CACHE_DIR": f"{folder}/programs"}
        result = subprocess.run(words, capture_output=True, text=True, env=environment)
        if result.returncode:
            raise UnavailableError(f"cnnjax has ended: {find_reason(result.stderr)}")
        accuracies = [record.test_accuracy for record in Store(folder).find_all().values()]
    return [accuracy for accuracy in accuracies if accuracy is not None]


def _write(level: object) -> str:
    return f"[{','.join(map(str, level))}]" if isinstance(level, tuple) else str(level)
