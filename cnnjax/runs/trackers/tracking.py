"""The observer that passes the progress of a run to trackers, and the flat tables that trackers write.

The names in these tables are those of the store.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from cnnjax.errors import printable
from cnnjax.machine.processes import hushed
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics, Observer, Progress
from cnnjax.runs.provenance import list_code

if TYPE_CHECKING:
    from cnnjax.runs.record import Record

Value = str | bool | int | float
EPOCH_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Flattens nested tables to dotted names; lists become JSON, and ``None`` becomes ``none``.

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
    """Returns the metrics of an epoch by name, without those of validation if there is none."""
    values = {name: getattr(epoch, name) for name in EPOCH_METRICS}
    return {name: value for name, value in values.items() if value is not None}


def list_results(record: "Record") -> dict[str, float]:
    """Returns the numbers of a run that has ended: test loss and accuracy if it has them, its size, and its times."""
    numbers = {name: getattr(record, name) for name in ("test_loss", "test_accuracy", "parameters", "flops")}
    times = {f"seconds.{phase}": spent for phase, spent in record.seconds.items()}
    return {name: float(value) for name, value in (numbers | times).items() if value is not None}


def list_origins(record: "Record") -> dict[str, Value]:
    """Returns key, status and reason of a run that has ended, and its provenance without the texts of its code."""
    provenance = dict(record.provenance)
    provenance.pop("functions", None)
    provenance["code"] = {
        reference: {name: value for name, value in code.items() if name != "files"}
        for reference, code in list_code(provenance).items()
    }
    return flatten({"key": record.key, "status": record.status, "reason": record.reason, "provenance": provenance})


class Tracker(Observer, Protocol):
    """An observer that writes one run for another tool.

    The first epoch that it receives is a later one than the first if the run is resumed. `close` without `finish` means
    that the run was stopped. If a method raises, the tracker is dropped, and the run goes on.
    """

    def finish(self, record: "Record") -> None:
        """Receives the record of the run once it is stored, or if it was stored before and is not trained again.

        Afterwards the tool has every epoch exactly once. If the tracker has received no epoch and the tool already has
        the whole run, nothing is written.
        """


class Tracking:
    """An observer that passes everything on to a display and to trackers.

    Its `close` closes only the display, because a run closes its observer before its record is stored. The trackers are
    closed at the end of a ``with`` statement, with or without a call of `finish` before::

        with Tracking(shown, make_trackers(["tensorboard"], "runs", config)) as tracking:
            tracking.finish(fit(config, "runs", observer=tracking).record)
    """

    def __init__(self, shown: Observer, trackers: Mapping[str, Tracker]) -> None:
        """Takes the display, which also shows warnings of trackers that fail, and the trackers by their names."""
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
        """Closes the display; the trackers stay open until the ``with`` statement ends."""
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
            except Exception as error:  # no error of another tool may end the run
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        tracker = self._trackers.pop(name)
        with contextlib.suppress(Exception), hushed():
            tracker.close()
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        self._shown.note(printable(f"warning: {name}: {reason}; nothing more is written there, and the run goes on"))
