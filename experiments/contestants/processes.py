"""The outside of contestants: which there are, their processes, and what they are asked to do in turn."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnjax.errors import UnavailableError


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
        words = [sys.executable, "-m", f"experiments.contestants.{contestant.module}", *contestant.options]
        words += [] if core is None else ["--core", str(core)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        start = time.perf_counter()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **contestant.environment},
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
            last = (self._log.read().strip().splitlines() or ["without a word"])[-1]
            raise UnavailableError(f"{self.name} has ended: {last}")
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


def measure_dot() -> float:
    """Returns the floating-point operations a second of a large matrix product in JAX, in a process of its own."""
    words = [sys.executable, "-m", "experiments.contestants.dot_peak"]
    return float(json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout))
