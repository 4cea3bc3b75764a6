"""Measures contestants in turn, many times, so that other load on the machine affects all alike."""

import contextlib
import importlib.util
import json
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnjax.errors import UnavailableError
from cnnjax.machine.processes import list_cores, python_command, python_environment
from experiments.measure.contestants.networks import TEXTBOOK, Network, Precision


@dataclass(frozen=True)
class Contestant:
    """A library, or a way of using it.

    Attributes:
        name: name in the tables.
        module: module of this package that is run.
        needs: packages that must be installed.
        options: command-line options of the module.
        environment: additional environment variables.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def is_installed(self) -> bool:
        """Whether all packages that it needs are installed."""
        return all(importlib.util.find_spec(package) for package in self.needs)

    def make_environment(self, caches: str) -> dict[str, str]:
        """Returns the environment variables of its process, which keeps compiled programs in the folder `caches`."""
        folders = {"JAX_COMPILATION_CACHE_DIR": f"{caches}/jax", "TORCHINDUCTOR_CACHE_DIR": f"{caches}/torch"}
        return {**python_environment(), **self.environment, **folders}


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
        Contestant("torch-compiled", "torch_network", ("torch",), ("--channels-last", "--compiled")),
    )
}


@dataclass(frozen=True)
class Case:
    """A network and the precision of its arithmetic."""

    network: Network = TEXTBOOK
    precision: Precision = "float32"

    def __str__(self) -> str:
        return f"{self.network.name}, {self.precision}"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        steps: steps of a measurement.
        seconds: most seconds of a measurement; contestants that need more make fewer steps.
        repeats: number of measurements of a contestant.
    """

    steps: int = 100
    seconds: float = 10
    repeats: int = 5


@dataclass(frozen=True)
class Result:
    """Measurements of a contestant.

    Attributes:
        name: name of the contestant.
        network: name of the network.
        precision: arithmetic of the layers.
        device: name of the device that it trained on.
        parameters: number of parameters of its network.
        compile_seconds: seconds of its first step, with empty caches, less those of a later step.
        start_seconds: seconds from the start of its process to the end of its first step, with its caches filled.
        steps: seconds per step in every measurement, in one process with all cores or one device.
        pair_steps: seconds per step in every measurement of two processes side by side, each on its own core; a step
            of both counts as two. Empty where this was not measured.
        memory: peak resident memory of the one process, in bytes.
        loss: loss of its last batch, which shows that it has learnt.
    """

    name: str
    network: str
    precision: Precision
    device: str
    parameters: int
    compile_seconds: float
    start_seconds: float
    steps: tuple[float, ...]
    pair_steps: tuple[float, ...]
    memory: int
    loss: float


@dataclass(frozen=True)
class Failure:
    """A contestant that could not train a network, with the reason."""

    name: str
    network: str
    precision: Precision
    reason: str


class Process:
    """A contestant's process, ready to train.

    Args:
        contestant: the contestant to start.
        case: what it trains.
        caches: folder where it keeps compiled programs.
        core: core to run on, with one thread; ``None`` allows all cores.

    Attributes:
        start_seconds: seconds from the start of the process to the end of its first call of `Trainer.train`.
        first: its first answer, as `experiments.measure.contestants.serving` says.

    Raises:
        UnavailableError: the process cannot start; the message ends with the reason in its log.
    """

    def __init__(self, contestant: Contestant, case: Case, caches: str, core: int | None = None) -> None:
        self.name = contestant.name
        words = make_command(contestant, core, "--network", case.network.name, "--precision", case.precision)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        start = time.perf_counter()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=contestant.make_environment(caches),
        )
        try:
            self.first = self.receive()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start

    def ask(self, steps: int) -> None:
        """Requests a number of steps, without waiting for them."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # of one that has ended, of which `receive` tells
            print(steps, file=self._process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        """Waits for the next answer, and returns it."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise UnavailableError(f"{self.name} has ended: {find_reason(self._log.read())}")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


class Measuring:
    """Measures all contestants on one network at one precision, and puts aside those that fail.

    Args:
        contestants: installed contestants.
        case: what they train.
        plan: how much is measured.

    Attributes:
        failures: the contestants that failed.
    """

    def __init__(self, contestants: Sequence[Contestant], case: Case, plan: Plan) -> None:
        self.failures: list[Failure] = []
        self._case, self._plan = case, plan
        self._left = {contestant.name: contestant for contestant in contestants}

    def run(self) -> list[Result]:
        """Returns the measurements of those that did not fail."""
        with tempfile.TemporaryDirectory() as caches:
            with self._started(caches) as cold:  # a first start, which fills the caches
                firsts = {name: process.first for name, (process,) in cold.items()}
            with self._started(caches) as alone:
                answers = self._repeat(alone)
            pairs: dict[str, list[dict[str, Any]]] = {}
            if self._case == Case() and find_pair() and all(first["device"] == "cpu" for first in firsts.values()):
                with self._started(caches, find_pair()) as beside:
                    pairs = self._repeat(beside)
        return [
            self._summarize(firsts[name], alone[name][0], answers[name], pairs.get(name, [])) for name in self._left
        ]

    @contextlib.contextmanager
    def _started(self, caches: str, cores: Sequence[int | None] = (None,)) -> Iterator[dict[str, list[Process]]]:
        """Starts one process per contestant and core, one after the other; kills them all at the end."""
        with contextlib.ExitStack() as stack:
            groups: dict[str, list[Process]] = {}
            for contestant in [*self._left.values()]:
                with self._putting_aside(contestant.name):
                    groups[contestant.name] = [
                        stack.enter_context(contextlib.closing(Process(contestant, self._case, caches, core)))
                        for core in cores
                    ]
            yield groups

    def _repeat(self, groups: Mapping[str, list[Process]]) -> dict[str, list[dict[str, Any]]]:
        """Returns the answers of every group; their seconds are those until all of its processes have answered."""
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in groups}
        steps = {}
        for name, group in groups.items():
            with self._putting_aside(name):
                least = group[0].first["least"]
                _ask(group, least)  # a library may compile again at its second step
                fitting = int(self._plan.seconds / _ask(group, least)["seconds"])  # pieces of `least` steps
                steps[name] = least * max(min(fitting, self._plan.steps // least), 1)
                _ask(group, steps[name])
        for _ in range(self._plan.repeats):
            for name in steps:
                with self._putting_aside(name):
                    answers[name].append(_ask(groups[name], steps[name]))
        return answers

    @contextlib.contextmanager
    def _putting_aside(self, name: str) -> Iterator[None]:
        """Notes that a contestant has failed, if it does."""
        try:
            yield
        except UnavailableError as error:
            if self._left.pop(name, None):
                self.failures.append(Failure(name, self._case.network.name, self._case.precision, str(error)))

    def _summarize(
        self, cold: dict[str, Any], process: Process, answers: list[dict[str, Any]], pairs: list[dict[str, Any]]
    ) -> Result:
        steps = tuple(answer["seconds"] / answer["steps"] for answer in answers)
        step, least = statistics.median(steps), cold["least"]
        return Result(
            process.name,
            self._case.network.name,
            self._case.precision,
            cold["device"],
            cold["parameters"],
            max(cold["seconds"] - least * step, 0.0),
            process.start_seconds - (least - 1) * step,
            steps,
            tuple(answer["seconds"] / answer["steps"] / 2 for answer in pairs),
            max(answer["memory"] for answer in answers),
            answers[-1]["loss"],
        )


def make_command(contestant: Contestant, core: int | None, *options: str) -> list[str]:
    """Returns the command of a contestant's process, on one core or on all."""
    module = f"experiments.measure.contestants.{contestant.module}"
    pinned = () if core is None else ("--core", str(core))
    return python_command("-m", module, *contestant.options, *options, *pinned)


def find_pair() -> Sequence[int]:
    """Returns two cores that processes can be pinned to; empty if there are not two."""
    cores = [core for core in list_cores() if core is not None][:2]
    return cores if len(cores) == 2 else ()


def find_reason(log: str) -> str:
    """Returns why a process has ended: the last exception in its log, or else the last line.

    Example:
        >>> find_reason("Traceback ...\\nValueError: no compiler\\nHint: install one")
        'ValueError: no compiler'
    """
    lines = log.strip().splitlines() or ["without a word"]
    exceptions = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (exceptions or lines)[-1]


def _ask(group: list[Process], steps: int) -> dict[str, Any]:
    """Requests a number of steps of all processes of a group at once, and waits for them."""
    start = time.perf_counter()
    for process in group:
        process.ask(steps)
    last = [process.receive() for process in group][-1]
    return {**last, "steps": steps, "seconds": time.perf_counter() - start}
