"""One observer for what shows a run and for the trackers told of it besides; a tracker can only harm itself."""

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, Self

from cnnjax.errors import printable
from cnnjax.history import EpochMetrics, Observer, Progress
from cnnjax.logs import hushed

if TYPE_CHECKING:
    from cnnjax.records import Record


class Tracker(Observer, Protocol):
    """Tells another tool of one run: of its epochs from the first, or from a later one where the run is resumed.

    What it raises ends the tracker, and not the run. `close` without `finish` means that the run was stopped.
    """

    def finish(self, record: "Record") -> None:
        """Receives the whole run once it is stored, also one that was stored before and is not run now.

        Afterwards the tool has all its epochs, each once. A tool that has the whole run, and was told of no epoch of it
        now, is left as it is.
        """


class Tracking:
    """An observer that passes all on to what shows the run and to trackers.

    Its `close` closes the display alone, for a run tells its observer that it is over before its record is stored. The
    trackers are closed at the end of a ``with`` statement, after `finish` or without it::

        with Tracking(shown, make_trackers(["tensorboard"], "runs", config)) as tracking:
            tracking.finish(fit(config, "runs", observer=tracking).record)
    """

    def __init__(self, shown: Observer, trackers: Mapping[str, Tracker]) -> None:
        """Takes what shows the run, and is told of failures, and the trackers by their names."""
        self._shown = shown
        self._trackers = dict(trackers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the trackers that have not failed."""
        return (*self._trackers,)

    def note(self, message: str) -> None:
        """Passes the message on."""
        self._shown.note(message)
        self._tell(lambda tracker: tracker.note(message))

    def advance(self, progress: Progress) -> None:
        """Passes the progress on."""
        self._shown.advance(progress)
        self._tell(lambda tracker: tracker.advance(progress))

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Passes the metrics on."""
        self._shown.end_epoch(metrics)
        self._tell(lambda tracker: tracker.end_epoch(metrics))

    def close(self) -> None:
        """Closes the display; the trackers wait for the record."""
        self._shown.close()

    def finish(self, record: "Record") -> None:
        """Gives the trackers the record of the stored run."""
        self._tell(lambda tracker: tracker.finish(record))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._tell(lambda tracker: tracker.close())

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self._trackers.items()]:
            try:
                with hushed():
                    call(tracker)
            except Exception as error:  # whatever goes wrong in another tool must not cost the run
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        tracker = self._trackers.pop(name)
        with contextlib.suppress(Exception), hushed():
            tracker.close()
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        self._shown.note(printable(f"warning: {name}: {reason}; it is told no more, and the run goes on"))
