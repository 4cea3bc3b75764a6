"""MLflow: each run becomes a run of the experiment ``cnnjax`` in ``<out>/mlflow/mlflow.db``, without a server.

Training that starts at the first epoch creates a new MLflow run. Resumed training continues the MLflow run that was
stopped: epochs that it already has are not written again, and epochs that it lacks are written from the final record.
An epoch that a killed process had written after its last checkpoint is trained again with the same loss and accuracy;
MLflow keeps the seconds of the first time.

References:
    https://mlflow.org/docs/latest/self-hosting/architecture/backend-store
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics, Silence
from cnnjax.runs.trackers.tracking import Value, list_metrics, list_origins, list_results, list_settings

if TYPE_CHECKING:
    from cnnjax.runs.record import Record

EXPERIMENT = "cnnjax"
MOST_AT_ONCE = 1000
"""Most metrics that MLflow takes in one call."""


class MlflowTracker(Silence):
    """Writes one run into the database."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Takes the output folder and the configuration of the run; writes nothing yet."""
        self._folder = folder.resolve() / "mlflow"
        self._config = config
        self._client: Any = None
        self._run: str | None = None
        self._logged: set[int] = set()

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Writes the metrics of the epoch."""
        if self._run is None:
            self._open(is_new=metrics.epoch == 1)
        self._write_epochs([metrics])

    def finish(self, record: "Record") -> None:
        """Writes the epochs that are missing, the result, and the key, status and provenance as tags."""
        if self._run is None:
            self._connect()
            newest = self._find_newest()
            if newest and "status" in newest.data.tags:
                return
            self._open(is_new=False)
        self._write_epochs(record.history)
        self._write_numbers({len(record.history): list_results(record)})
        self._client.log_batch(self._run, tags=self._make_tags(list_origins(record)))
        self._end("FINISHED" if record.status == "completed" else "FAILED")

    def close(self) -> None:
        """Marks the MLflow run as killed, unless it has finished."""
        if self._run is not None:
            self._end("KILLED")

    def _connect(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads this when it is imported
        from mlflow import MlflowClient

        self._folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{self._folder / 'mlflow.db'}"
        self._client = self._client or MlflowClient(tracking_uri=uri, registry_uri=uri)

    def _open(self, is_new: bool) -> None:
        from mlflow.entities import Param

        self._connect()
        stopped = None if is_new else self._find_newest()
        if stopped and "status" not in stopped.data.tags:
            self._run = stopped.info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._logged = {point.step for point in self._client.get_metric_history(self._run, "loss")}
            return
        key = self._config.key
        self._run = self._client.create_run(self._find_experiment(), run_name=key[:12], tags={"key": key}).info.run_id
        params = [Param(name, str(value)) for name, value in list_settings(self._config).items()]
        self._client.log_batch(self._run, params=params)

    def _find_experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, (self._folder / "artifacts").as_uri()))

    def _find_newest(self) -> Any:
        """Returns the newest MLflow run with this run key, or ``None``."""
        wanted = f"tags.key = '{self._config.key}'"
        newest = ["attributes.start_time DESC"]
        return next(iter(self._client.search_runs([self._find_experiment()], wanted, order_by=newest)), None)

    def _write_epochs(self, epochs: Iterable[EpochMetrics]) -> None:
        missing = {epoch.epoch: list_metrics(epoch) for epoch in epochs if epoch.epoch not in self._logged}
        self._write_numbers(missing)
        self._logged |= missing.keys()

    def _write_numbers(self, numbers: dict[int, dict[str, float]]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        metrics = [Metric(name, value, now, step) for step, row in numbers.items() for name, value in row.items()]
        for start in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[start : start + MOST_AT_ONCE])

    def _make_tags(self, words: dict[str, Value]) -> list[Any]:
        from mlflow.entities import RunTag

        return [RunTag(name, str(value)) for name, value in words.items()]

    def _end(self, status: str) -> None:
        run, self._run = self._run, None
        self._client.set_terminated(run, status=status)
