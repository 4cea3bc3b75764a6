"""Trials as tasks of a Ray cluster: a CPU each, or a GPU each, begun again by Ray where a worker or a node dies.

The dataset is put into the cluster's memory once. The coordinator keeps a few more trials in flight than there is
room for, so that no slot waits for it, and a cluster that can grow sees a reason to.
"""

import json
import os
import time
from dataclasses import dataclass
from typing import Any

from ablations.language.grids import Trial
from ablations.running.cluster import Cluster, describe_ray_error
from ablations.running.events import Advanced, Ended, Event, Failed, Returned, Started
from ablations.running.remote import Note, Notes, run_remotely
from ablations.running.source import hash_source
from ablations.running.trials import describe_error
from cnnjax.config import DataConfig
from cnnjax.datasets import load_data
from cnnjax.errors import CnnjaxError, UnavailableError
from cnnjax.history import Progress
from cnnjax.processors import ONE_THREAD
from cnnjax.records import PackedRun, Record

RAY_RETRIES = 3
"""Further times that Ray itself begins a trial whose worker or node died."""
NOTE_SECONDS = 1.0
FETCH_SECONDS = 60.0


@dataclass
class _Flight:
    """A trial on the cluster, and when it was last known to begin, which is not before there is room for it."""

    trial: Trial
    began: float | None = None


class RayExecutor:
    """Runs trials as Ray tasks.

    Args:
        address: ``host:port`` of a cluster that this machine belongs to; ``auto`` finds it; ``None`` starts a Ray of
            this machine's own, which ends with the executor.
        gpus: whether a trial takes a GPU; left out, where the cluster has any.
        workers: the most trials at once; left out, as many as the cluster has room for.
        timeout: seconds after which a trial has failed; ``None`` for ever.

    Raises:
        InputError: no such address can be.
        UnavailableError: Ray is not installed, or cannot be started, or does not answer; from `poll`, where the cluster
            is gone or its nodes cannot run trials.
    """

    group_size = 1

    def __init__(
        self,
        address: str | None = None,
        *,
        gpus: bool | None = None,
        workers: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._cluster = Cluster(address, cpus=workers)
        self._ray = self._cluster.ray
        wanted = os.environ.get("JAX_PLATFORMS") != "cpu" and self._cluster.count("GPU") > 0
        self._resource = "GPU" if (wanted if gpus is None else gpus) else "CPU"
        self._workers, self._timeout = workers, timeout
        needs = {"num_cpus": 0, "num_gpus": 1} if self._resource == "GPU" else {"num_cpus": 1}
        self._run: Any = self._ray.remote(max_retries=RAY_RETRIES, **needs)(run_remotely)
        self._environment = _choose_environment(self._resource)
        self._notes = self._make_notes()
        self._asked: Any = None
        self._noted = 0.0
        self._datasets: dict[DataConfig, Any] = {}
        self._flights: dict[Any, _Flight] = {}
        self._refused: list[Event] = []
        self._error: UnavailableError | None = None

    def free_slots(self) -> dict[int, str]:
        """Returns `""` for every trial that there is room for, and for a few that will wait on the cluster."""
        slots = self._cluster.count(self._resource)
        room = slots + 1 + slots // 4 if self._workers is None else self._workers
        return dict.fromkeys(range(room - len(self._flights)), "")

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Hands a trial to Ray, which finds a place for it."""
        (trial,) = group
        try:
            dataset = self._put(trial.config.data)
        except CnnjaxError as error:
            self._refused.append(Failed(trial, describe_error(error)))
            return
        task = self._run.remote(trial.config.to_json(), dataset, self._notes, self._environment, hash_source())
        self._flights[task] = _Flight(trial)

    def poll(self, seconds: float) -> list[Event]:
        """Returns what has happened, after waiting at most so long for something to happen."""
        if self._error:
            raise self._error
        self._cluster.check()
        events, self._refused = self._refused, []
        if self._flights:
            tasks = [*self._flights]
            self._ray.wait(tasks, timeout=0 if events else seconds)
            ended, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
            events += self._read_notes() + [self._land(task) for task in ended]
        return events + self._stop_late()

    def close(self) -> None:
        """Ends every trial, and a Ray of one's own."""
        self._flights.clear()
        self._datasets.clear()
        self._cluster.leave()

    def _put(self, data: DataConfig) -> Any:
        if data.whole not in self._datasets:
            self._datasets[data.whole] = self._ray.put(load_data(data))
        return self._datasets[data.whole]

    def _land(self, task: Any) -> Event:
        """Returns what the end of a task means for its trial."""
        trial = self._flights.pop(task).trial
        try:
            text, *blobs = self._ray.get(task, timeout=FETCH_SECONDS)
        except self._ray.exceptions.RayTaskError as error:
            cause = describe_ray_error(error.cause or error)
            self._error = UnavailableError(f"the nodes of the cluster cannot run trials: {cause}")
            return Returned(trial)
        except self._ray.exceptions.RayError as error:
            return Failed(trial, _explain(error))
        header = json.loads(text)
        if header["kind"] == "ended":
            return Ended(trial, PackedRun(Record.from_dict(header["record"]), *blobs))
        if header["kind"] == "failed":
            return Failed(trial, header["reason"], header["output"])
        return Returned(trial)

    def _stop_late(self) -> list[Event]:
        if self._timeout is None:
            return []
        last = time.monotonic() - self._timeout
        late = [task for task, flight in self._flights.items() if flight.began is not None and flight.began < last]
        for task in late:
            self._ray.cancel(task, force=True)
        return [Failed(self._flights.pop(task).trial, f"ran longer than {self._timeout:g} s") for task in late]

    def _make_notes(self) -> Any:
        """Starts the actor, on the coordinator's own node, which the grid cannot outlive anyway."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=True)
        return self._ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Notes).remote()

    def _read_notes(self) -> list[Event]:
        """Asks the actor now and then, and takes its answer when it is there; without one there is no progress."""
        if self._asked is None:
            if time.monotonic() - self._noted >= NOTE_SECONDS:
                self._noted, self._asked = time.monotonic(), self._notes.take.remote()
            return []
        if not self._ray.wait([self._asked], timeout=0)[0]:
            return []
        asked, self._asked = self._asked, None
        try:
            notes: list[Note] = self._ray.get(asked, timeout=FETCH_SECONDS)
        except self._ray.exceptions.RayError:
            return []
        flights = {flight.trial.key: flight for flight in self._flights.values()}
        return [_read_note(flights[key], progress) for key, progress in notes if key in flights]


def _read_note(flight: _Flight, progress: dict[str, Any] | None) -> Event:
    if progress is None or flight.began is None:
        flight.began = time.monotonic()
    return Started(flight.trial) if progress is None else Advanced(flight.trial, Progress(**progress))


def _choose_environment(resource: str) -> tuple[tuple[str, str], ...]:
    """Returns what JAX is to start with on the nodes: the settings of this process, as local workers have them."""
    chosen = {name: value for name, value in os.environ.items() if name == "XLA_FLAGS" or name.startswith("JAX_")}
    if resource == "CPU":
        chosen |= {"JAX_PLATFORMS": "cpu", **ONE_THREAD}
    return tuple(sorted(chosen.items()))


def _explain(error: Exception) -> str:
    """Returns one line that says why Ray has no result of a trial."""
    deaths = {
        "WorkerCrashedError": "its worker died",
        "NodeDiedError": "its node died",
        "LocalRayletDiedError": "its node died",
        "OutOfMemoryError": "its node had too little memory",
    }
    death = deaths.get(type(error).__name__)
    return f"{death} at each of {RAY_RETRIES + 1} starts" if death else describe_error(error)
