"""What a tracker says of a run: flat tables of numbers and words, under the names that the store uses."""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from cnnjax.errors import printable
from cnnjax.machine.processes import hushed
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics, Observer, Progress

if TYPE_CHECKING:
    from cnnjax.runs.record import Record

Value = str | bool | int | float
EPOCH_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Returns the values of nested tables under dotted names; lists as JSON, and ``None`` as ``none``.

    Example:
        >>> flatten({"model": {"filters": [32, 64], "dropout": 0.0}, "seed": 1})
        {'model.filters': '[32, 64]', 'model.dropout': 0.0, 'seed': 1}
    """
    flat: dict[str, Value] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is None:
            flat[prefix + name] = "none"
        else:
            flat[prefix + name] = value if isinstance(value, str | bool | int | float) else json.dumps(value)
    return flat


def list_settings(config: RunConfig) -> dict[str, Value]:
    """Returns every setting of a run by its path, such as ``train.learning_rate``."""
    return flatten(config.to_dict())


def list_metrics(epoch: EpochMetrics) -> dict[str, float]:
    """Returns the metrics of an epoch, those of validation where there are any."""
    values = {name: getattr(epoch, name) for name in EPOCH_METRICS}
    return {name: value for name, value in values.items() if value is not None}


def list_results(record: "Record") -> dict[str, float]:
    """Returns the numbers of a whole run: test loss and accuracy where it has them, its size, and its times."""
    numbers = {name: getattr(record, name) for name in ("test_loss", "test_accuracy", "parameters", "flops")}
    times = {f"seconds.{phase}": spent for phase, spent in record.seconds.items()}
    return {name: float(value) for name, value in (numbers | times).items() if value is not None}


def list_origins(record: "Record") -> dict[str, Value]:
    """Returns the words of a whole run: its key, its status with the reason, and its provenance."""
    return flatten(
        {"key": record.key, "status": record.status, "reason": record.reason, "provenance": record.provenance}
    )


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
