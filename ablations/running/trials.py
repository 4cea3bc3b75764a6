"""One trial, wherever it runs: the same call as a single run's, without a store."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cnnjax.config import RunConfig
from cnnjax.datasets import Dataset
from cnnjax.errors import CnnjaxError
from cnnjax.experiment import fit
from cnnjax.history import Observer, Progress, Silence
from cnnjax.many import iterate_chunk
from cnnjax.records import PackedRun, pack_run


def run_trial(config: RunConfig, dataset: Dataset | None = None, observer: Observer | None = None) -> PackedRun:
    """Trains the network of a run on one device; arguments and errors are those of `cnnjax.fit`."""
    return pack_run(fit(config, out=None, dataset=dataset, observer=observer, devices=1))


def run_trials(
    configs: Sequence[RunConfig], dataset: Dataset, make_observer: Callable[[RunConfig], Observer]
) -> Iterator[PackedRun]:
    """Trains the networks of runs of one static signature in one program on one device; yields each as it ends."""
    if len(configs) == 1:
        yield run_trial(configs[0], dataset, make_observer(configs[0]))
    else:
        yield from map(pack_run, iterate_chunk(configs, dataset, make_observer))


def describe_error(error: BaseException) -> str:
    """Returns one line that says why a trial failed."""
    if isinstance(error, CnnjaxError):
        return str(error)
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class Reporter(Silence):
    """Sends the progress of a trial to the coordinator, now and then.

    Args:
        send: takes the progress as JSON values.
        seconds: the least time between two of them.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self._sent = float("-inf")

    def advance(self, progress: Progress) -> None:
        """Sends the progress, unless some was sent a moment ago."""
        if time.monotonic() - self._sent >= self._seconds:
            self._sent = time.monotonic()
            self._send(dataclasses.asdict(progress))
