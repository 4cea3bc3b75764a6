"""The outside of contestants: which there are, their processes, and what they are asked to do in turn."""

import contextlib
import importlib.util
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from cnnjax.children import python_command, python_environment
from cnnjax.errors import UnavailableError
from cnnjax.runs import Store
from experiments.contestants.networks import FILTERS, PADDINGS, WINDOWS, TrialQueue


@dataclass(frozen=True)
class Contestant:
    """A library, or a way of using it.

    Attributes:
        name: as the table shows it.
        module: of this package, which is run.
        needs: packages that must be installed.
        options: for the module.
        environment: beyond that of this process.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def is_installed(self) -> bool:
        """Whether all packages are there."""
        return all(importlib.util.find_spec(package) for package in self.needs)


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("cnnjax", "cnnjax_network", ("cnnjax",)),
        Contestant("flax", "flax_network", ("flax",)),
        Contestant(
            "keras-tensorflow", "keras_network", ("keras", "tensorflow"), environment={"KERAS_BACKEND": "tensorflow"}
        ),
        Contestant("keras-jax", "keras_network", ("keras",), environment={"KERAS_BACKEND": "jax"}),
        Contestant("torch", "torch_network", ("torch",)),
        Contestant("torch-channels-last", "torch_network", ("torch",), ("--channels-last",)),
    )
}


class Process:
    """A contestant's process, ready to train.

    Args:
        contestant: whose.
        core: the only one to run on, with one thread; ``None`` leaves it all of them.

    Attributes:
        device: what it trains on.
        start_seconds: from the start of the process to the end of its first step.

    Raises:
        UnavailableError: it cannot start; its last words are told.
    """

    def __init__(self, contestant: Contestant, core: int | None = None) -> None:
        self.name = contestant.name
        words = _make_command(contestant, core)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        start = time.perf_counter()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**python_environment(), **contestant.environment},
        )
        try:
            self.device: str = self.receive()["device"]
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start

    def ask(self, steps: int) -> None:
        """Has it begin that many steps."""
        assert self._process.stdin
        print(steps, file=self._process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        """Waits for its answer."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise UnavailableError(f"{self.name} has ended: {_find_last_line(self._log.read())}")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


@contextlib.contextmanager
def started(contestants: Sequence[Contestant], cores: Sequence[int | None] = (None,)) -> Iterator[list[list[Process]]]:
    """Starts a process on each of the cores for every contestant, one after the other, and ends them all."""
    with contextlib.ExitStack() as stack:
        yield [
            [stack.enter_context(contextlib.closing(Process(contestant, core))) for core in cores]
            for contestant in contestants
        ]


def run_trials(contestant: Contestant, steps: int, seeds: int, cores: Sequence[int | None]) -> list[float]:
    """Has a contestant train the grid of `networks.list_trials`, a process on each core; returns the accuracies.

    Raises:
        UnavailableError: a process has ended badly.
    """
    queue = TrialQueue(seeds)
    running: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(len(cores)) as pool:
        environment = {**python_environment(), **contestant.environment, "JAX_COMPILATION_CACHE_DIR": cache}
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
    """Has one process, added to those `running`, train what it takes from the queue; returns the accuracies."""
    words = [*_make_command(contestant, core), "--grid", str(steps)]
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
                    print(json.dumps({**asdict(network), "seed": seed}), file=process.stdin, flush=True)
                    line = process.stdout.readline()
                    if not line:
                        break
                    accuracies.append(json.loads(line)["accuracy"])
                    trial = queue.take(network)
                process.stdin.close()
        if process.returncode:
            log.seek(0)
            raise UnavailableError(f"{contestant.name} has ended: {_find_last_line(log.read())}")
    return accuracies


def run_grid(images: int, seeds: int, workers: int) -> list[float]:
    """Has cnnjax train the same grid as a user would, by one command; returns the accuracies.

    Raises:
        UnavailableError: the command has ended badly.
    """
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
            raise UnavailableError(f"cnnjax has ended: {_find_last_line(result.stderr)}")
        accuracies = [record.test_accuracy for record in Store(folder).find_all().values()]
    return [accuracy for accuracy in accuracies if accuracy is not None]


def _find_last_line(log: str) -> str:
    return (log.strip().splitlines() or ["without a word"])[-1]


def _write(level: object) -> str:
    return f"[{','.join(map(str, level))}]" if isinstance(level, tuple) else str(level)


def _make_command(contestant: Contestant, core: int | None) -> list[str]:
    words = python_command("-m", f"experiments.contestants.{contestant.module}", *contestant.options)
    return words if core is None else [*words, "--core", str(core)]


def measure_dot() -> float:
    """Returns the floating-point operations a second of a large matrix product in JAX, in a process of its own."""
    words, environment = python_command("-m", "experiments.contestants.dot_peak"), python_environment()
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return float(json.loads(result.stdout))
