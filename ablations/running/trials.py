"""One trial, wherever it runs: the same call as a single run's, without a store."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from cnnjax.config import RunConfig
from cnnjax.datasets import Dataset
from cnnjax.errors import CnnjaxError
from cnnjax.experiment import fit
from cnnjax.history import Observer, Progress, Silence
from cnnjax.many import fit_many
from cnnjax.records import PackedRun, pack_run


def run_trial(config: RunConfig, dataset: Dataset | None = None, observer: Observer | None = None) -> PackedRun:
    """Trains the network of a run on one device; arguments and errors are those of `cnnjax.fit`."""
    return pack_run(fit(config, out=None, dataset=dataset, observer=observer, devices=1))


def run_trials(
    configs: Sequence[RunConfig], dataset: Dataset, make_observer: Callable[[RunConfig], Observer]
) -> list[PackedRun]:
    """Trains the networks of one or several runs, of one static signature, in one program on one device."""
    if len(configs) == 1:
        return [run_trial(configs[0], dataset, make_observer(configs[0]))]
    runs = fit_many(configs, None, dataset=dataset, at_once=len(configs), make_observer=make_observer)
    return [pack_run(run) for run in runs]


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
