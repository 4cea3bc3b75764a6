"""Trackers of a grid: every trial with a result is told to them as a whole, once it is stored.

The coordinator tells them, so that workers need none of their packages, and their databases have one writer.
"""

import os
from collections.abc import Iterable

from ablations.language.grids import Trial
from ablations.running.watching import GridObserver
from ablations.running.work import Work
from cnnjax.console import NoteObserver
from cnnjax.history import Progress
from cnnjax.records import FINAL, Record
from cnnjax.trackers import Tracking, check_trackers, make_trackers


class TrackedGridObserver:
    """Passes all on to what shows the grid, and tells trackers of the trials that end."""

    def __init__(self, shown: GridObserver, names: Iterable[str], folder: str | os.PathLike[str]) -> None:
        """Takes what shows the grid, the names of the trackers, and the output folder.

        Raises:
            InputError, UnavailableError: as `cnnjax.trackers.check_trackers`.
        """
        self._names = tuple(names)
        check_trackers(self._names)
        self._shown, self._folder = shown, folder

    def begin(self, work: Work) -> None:
        """Passes it on."""
        self._shown.begin(work)

    def start(self, trial: Trial) -> None:
        """Passes it on."""
        self._shown.start(trial)

    def advance(self, trial: Trial, progress: Progress) -> None:
        """Passes it on."""
        self._shown.advance(trial, progress)

    def retry(self, trial: Trial, reason: str) -> None:
        """Passes it on."""
        self._shown.retry(trial, reason)

    def end(self, trial: Trial, record: Record) -> None:
        """Passes it on, and tells the trackers; one that fails is told of no further trial."""
        self._shown.end(trial, record)
        if record.status not in FINAL:
            return
        with Tracking(NoteObserver(), make_trackers(self._names, self._folder, trial.config)) as tracking:
            tracking.finish(record)
        self._names = tracking.names

    def close(self) -> None:
        """Passes it on."""
        self._shown.close()
