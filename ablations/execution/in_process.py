"""Runs trials one after the other in the calling process.

Code of a notebook is known to the process of the notebook alone, so trials of a network that is defined in one cannot
be run by workers.
"""

import functools
import signal
import traceback
from collections.abc import Iterator

from ablations.execution.local import TAIL_BYTES
from ablations.execution.trials import describe_error, run_trials
from ablations.execution.work import Ended, Event, Failed, Returned, Started
from ablations.study.grid import Trial
from cnnjax.data.loading import load_data
from cnnjax.errors import Interrupted
from cnnjax.runs.history import Silence


class InProcessExecutor:
    """Runs trials in the calls of `poll`; a trial is neither timed out nor limited in its memory."""

    group_size = 1

    def __init__(self) -> None:
        self._signature = ""
        self._events: Iterator[Event] | None = None
        self._load = functools.lru_cache(maxsize=1)(load_data)

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
        yield Started(trial)
        self._events = None
        try:
            (run,) = run_trials([trial.config], self._load, lambda config: Silence())
        except Interrupted as stop:
            signal.raise_signal(stop.exit_code - 128)  # for the coordinator, which says what is stored
            yield Returned(trial)
        except Exception as error:
            yield Failed(trial, describe_error(error), traceback.format_exc()[-TAIL_BYTES:])
        else:
            yield Ended(trial, run)
