"""Weights & Biases: an offline run in ``<out>/wandb``, which ``wandb sync`` can upload.

If several offline runs have the same name, the one uploaded last replaces the others. So a resumed run is not written
from where it continues: all of its epochs are written when it has ended, under the name of the run that was stopped.

References:
    https://docs.wandb.ai/models/support/save_metrics_offline_sync_them_wb_later
    https://github.com/wandb/wandb/issues/3841 on offline runs that share a name
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics, Silence
from cnnjax.runs.trackers.tracking import list_metrics, list_origins, list_results, list_settings

if TYPE_CHECKING:
    from cnnjax.runs.record import Record

PROJECT = "cnnjax"
RECORD = "record.json"
"""File in the folder of a finished run; no other file tells that a run is complete."""


class WandbTracker(Silence):
    """Writes one offline run."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Takes the output folder and the configuration of the run; writes nothing yet."""
        self._folder = folder.resolve()
        self._config = config
        self._run: Any = None
        self._is_told = False

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Writes the metrics of the epoch, unless the run is resumed: then `finish` writes all epochs."""
        self._is_told = True
        if metrics.epoch == 1:
            self._open()
        self._write(metrics)

    def finish(self, record: "Record") -> None:
        """Writes the result, after all epochs if they were not written during training."""
        if self._run is None:
            if not self._is_told and self._is_whole():
                return
            self._open()
            for epoch in record.history:
                self._write(epoch)
        self._run.summary.update({**list_results(record), **list_origins(record)})
        Path(self._run.dir, RECORD).write_text(json.dumps(record.to_dict()))
        self._end(0 if record.status == "completed" else 1)

    def close(self) -> None:
        """Ends the W&B run as failed, unless it has finished."""
        self._end(1)

    def _is_whole(self) -> bool:
        runs = self._folder.glob(f"wandb/offline-run-*-{self._config.key[:12]}")
        newest = max(runs, default=None)  # the time comes first in the name
        return newest is not None and (newest / "files" / RECORD).exists()

    def _open(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb reads this when it is imported
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)  # wandb writes elsewhere if its folder does not exist
        self._run = wandb.init(
            mode="offline",
            dir=self._folder,
            project=PROJECT,
            id=self._config.key[:12],
            name=self._config.key[:12],
            config=list_settings(self._config),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
        )

    def _write(self, epoch: EpochMetrics) -> None:
        if self._run is not None:
            self._run.log(list_metrics(epoch), step=epoch.epoch)

    def _end(self, exit_code: int) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=exit_code)
