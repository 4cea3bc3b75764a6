"""Runs trials one after the other in the calling process.

Code of a notebook is known to the process of the notebook alone, so trials of a network that is defined in one cannot
be run by workers.
"""

import functools
import signal
from collections.abc import Callable, Iterator
from typing import Any

from ablations.execution.trials import Failure, Reporter, run_trial
from ablations.execution.work import Ended, Event, Failed, Returned, Started
from ablations.study.grid import Trial
from cnnjax.data.loading import load_data
from cnnjax.errors import Interrupted
from cnnjax.runs.history import Progress

PROGRESS_SECONDS = 0.2
"""Shortest time between two calls with the progress of a trial."""


class InProcessExecutor:
    """Runs trials in the calls of `poll`; a trial is neither timed out nor limited in its memory.

    Args:
        advance: receives the progress of a trial while `poll` runs it, which therefore returns no `Advanced`.
    """

    group_size = 1

    def __init__(self, advance: Callable[[Trial, Progress], None] = lambda trial, progress: None) -> None:
        self._signature = ""
        self._events: Iterator[Event] | None = None
        self._load = functools.lru_cache(maxsize=1)(load_data)
        self._advance = advance

    def free_slots(self) -> dict[int, str]:
        """Returns the only slot, unless a trial was submitted that has not ended."""
        return {} if self._events else {0: self._signature}

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Takes a trial, which the next calls of `poll` run."""
        self._signature, self._events = group[0].signature, self._run(group[0])

    def poll(self, seconds: float) -> list[Event]:
        """Returns the next event of the trial: that it has started, or, after it was run, how it ended."""
        assert self._events
        return [next(self._events)]

    def close(self) -> None:
        """Does nothing: no trial runs outside `poll`."""

    def _run(self, trial: Trial) -> Iterator[Event]:
        def send(progress: dict[str, Any]) -> None:
            self._advance(trial, Progress(**progress))

        yield Started(trial)
        self._events = None
        try:
            run = run_trial(trial.config, self._load, Reporter(send, PROGRESS_SECONDS))
        except Interrupted as stop:
            signal.raise_signal(stop.exit_code - 128)  # for the coordinator, which says what is stored
            yield Returned(trial)
        else:
            yield Failed(trial, run.reason, run.output) if isinstance(run, Failure) else Ended(trial, run)
