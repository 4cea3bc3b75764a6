"""TensorBoard: event files in ``<out>/tensorboard/<key>`` with one point per metric and epoch.

Each time a run starts or resumes, it begins a new file with the event of a restart. On that event TensorBoard discards
the points from that epoch on, so an epoch that was repeated after a crash is shown once. When the run has ended, a last
file repeats the whole history from the stored record, whatever the earlier files say.

Events are written at once, by the calling thread. With a writer that has its own thread, a full disk would end that
thread, and the run would wait for it forever.

References:
    https://github.com/lanpa/tensorboardX writes the events, https://github.com/tensorflow/tensorboard reads them.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics, Silence
from cnnjax.runs.trackers.tracking import list_metrics, list_origins, list_results, list_settings

if TYPE_CHECKING:
    from cnnjax.runs.record import Record

EPOCHS, WHOLE = ".epochs", ".whole"
"""Ends of the names of event files: written during training, and written from the stored record."""


class TensorBoardTracker(Silence):
    """Writes the event files of one run."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Takes the output folder and the configuration of the run; writes nothing yet."""
        self._folder = folder / "tensorboard" / config.key[:12]
        self._writer: Any = None

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Writes a point for every metric."""
        if self._writer is None:
            self._open(metrics.epoch, EPOCHS)
        self._write_numbers(list_metrics(metrics), metrics.epoch, time.time())
        self._writer.flush()

    def finish(self, record: "Record") -> None:
        """Writes a file with the whole run: every epoch, the result, the settings, and key, status and provenance.

        Does nothing if no epoch was written by this tracker and the newest file already has the whole run.
        """
        from tensorboardX.summary import hparams, text

        if self._writer is None and self._is_whole():
            return
        self.close()
        self._open(0, WHOLE)
        ended = time.time() - sum(epoch.seconds for epoch in record.history)
        for epoch in record.history:
            ended += epoch.seconds
            self._write_numbers(list_metrics(epoch), epoch.epoch, ended)
        results = list_results(record)
        last = len(record.history)
        self._write_numbers(results, last, ended)
        for summary in hparams(list_settings(record.config), results):
            self._write(last, ended, summary=summary)
        origins = "\n".join(f"    {name}: {value}" for name, value in list_origins(record).items())
        self._write(last, ended, summary=text("record", origins))
        self.close()

    def close(self) -> None:
        """Closes the open file, if any."""
        writer, self._writer = self._writer, None
        if writer:
            writer.close()

    def _is_whole(self) -> bool:
        names = sorted(path.name for path in self._folder.glob("events.*"))
        return bool(names) and names[-1].endswith(WHOLE)

    def _open(self, first_step: int, kind: str) -> None:
        """Begins a new file, and has TensorBoard discard the points of older files from `first_step` on.

        The time comes first in the name of the file, so that files sort by time.
        """
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}{kind}")
        self._write(first_step, time.time(), file_version="brain.Event:2")
        self._write(first_step, time.time(), session_log=SessionLog(status=SessionLog.START))

    def _write_numbers(self, numbers: dict[str, float], step: int, wall_time: float) -> None:
        from tensorboardX.summary import scalar

        for name, value in numbers.items():
            self._write(step, wall_time, summary=scalar(name, value))

    def _write(self, step: int, wall_time: float, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(step=step, wall_time=wall_time, **content))
