"""Runs trials as tasks of a Ray cluster, either a running cluster or one that is started on this machine.

The `Cluster` is the connection, `run_remotely` is the task that a node runs, and the `RayExecutor` submits the tasks. A
cluster on this machine is started for a grid and ends with it. Anyone who can reach a Ray cluster can run code on it,
so such a cluster listens on the loopback interface only. No other module imports Ray.
"""

import contextlib
import functools
import importlib
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ablations.execution.source_folder import NO_SOURCE, SourceFolder
from ablations.execution.trials import Failure, Reporter, check_source, describe_error, hash_source, run_trial
from ablations.execution.work import Advanced, Ended, Event, Failed, Returned, Started
from ablations.study.grid import Trial
from cnnjax.data.loading import load_data
from cnnjax.data.settings import DataConfig
from cnnjax.errors import CnnjaxError, InputError, Interrupted, UnavailableError
from cnnjax.machine.native import SWITCH
from cnnjax.machine.processes import ONE_THREAD, count_cores
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import Progress
from cnnjax.runs.record import PackedRun, Record

ANSWER_SECONDS = 5.0
"""Time limit for a cluster to accept a connection."""
HEALTH_SECONDS = 30.0
"""Time limit for Ray's health check."""
CHECK_SECONDS = 5.0
"""Interval between two checks of the cluster."""
SILENT_CHECKS = 3
"""Number of failed checks in a row after which the cluster counts as lost."""
PROGRESS_SECONDS = 1.0
"""Shortest time between two notes on the progress of a trial."""
NOTE_SECONDS = 1.0
"""Interval at which the coordinator asks for notes."""
FETCH_SECONDS = 60.0
"""Time limit for a result to arrive."""
RAY_RETRIES = 3
"""How often Ray starts a trial again whose worker or node has died."""
Note = tuple[str, dict[str, Any] | None]
"""Run key and progress; the progress is ``None`` when the trial starts."""
Result = tuple[str, bytes | None, bytes | None]
"""Header as JSON, then variables and predictions."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "3",  # without it, Ray retries a task forever for which a node has too little memory
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # the source of the study is sent also from `ray job submit --working-dir`
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # keeps Ray on the loopback interface, also on Linux
_claims: list[FileLock] = []
"""Locks of the core that this process has claimed."""


def check_address(address: str) -> None:
    """Raises `InputError` unless the address is ``host:port`` or ``auto``."""
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise InputError(f"--address={address!r}: must be host:port; run the command on a machine of the cluster")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--address={address!r}: must be host:port, such as 10.0.0.1:6379, or auto")


class Cluster:
    """A connection to a cluster; a process can have one.

    Args:
        address: ``host:port`` of a cluster that this machine belongs to; ``auto`` finds it; ``None`` starts one here.
        cpus: number of CPUs of a cluster that is started here; one per core by default.
        source: files that every task finds in its current folder; with none, tasks start in a folder of their node's.

    Raises:
        InputError: the address is malformed.
        UnavailableError: Ray is not installed, cannot be started, or does not answer.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None, source: SourceFolder = NO_SOURCE) -> None:
        if address not in (None, "auto"):
            check_address(address)
            if not _answers(address):
                raise UnavailableError(f"Ray cannot be joined at {address}: nothing answers there")
        self.ray = _import_ray(alone=address is None)
        if address not in (None, "auto"):
            _check_health(address)
        own: dict[str, Any] = {"num_cpus": cpus or count_cores(), "include_dashboard": False} if address is None else {}
        try:
            with _signals_kept(), tempfile.TemporaryDirectory() as folder:
                if source.files:  # which Ray copies to the head now, and to a node when a task starts there
                    source.write(Path(folder))
                    own["runtime_env"] = {"working_dir": folder}
                self.ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:
            where = f"joined at {address}" if address else "started on this machine"
            raise UnavailableError(f"Ray cannot be {where}: {describe_ray_error(error)}") from None
        self.address: str = self.ray.get_runtime_context().gcs_address
        if address is None and not _is_loopback(self.address):
            self.leave()
            raise UnavailableError(
                "Ray cannot be started on this machine: it would be open to others; it was imported "
                "before; set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before that"
            )
        self._resources: dict[str, float] = self.ray.cluster_resources()
        self._checked = time.monotonic()
        self._silent = 0

    def count(self, resource: str) -> int:
        """Returns the units of a resource, such as ``CPU``, that the nodes had at the last check."""
        return int(self._resources.get(resource, 0))

    def check(self) -> None:
        """Counts the resources of the nodes again, unless the last check is recent.

        Raises:
            UnavailableError: the head of the cluster has not answered `SILENT_CHECKS` times in a row.
        """
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._silent = 0 if _answers(self.address) else self._silent + 1
        if self._silent == SILENT_CHECKS:  # soon after this, Ray would end this process
            raise UnavailableError(f"the Ray cluster at {self.address} is gone; the trials that had ended are stored")
        if not self._silent:
            self._resources = self.ray.cluster_resources()
        self._checked = time.monotonic()

    def leave(self) -> None:
        """Ends the tasks of this process, and the cluster if it was started here."""
        with contextlib.suppress(Exception):
            self.ray.shutdown()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _import_ray(alone: bool) -> Any:
    for name, value in {**_QUIET, **(_LOOPBACK if alone else {})}.items():
        os.environ.setdefault(name, value)  # read when Ray is imported, and by the processes that it starts
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UnavailableError("--executor ray needs Ray: pip install -e '.[ray]'") from None


def _check_health(address: str) -> None:
    """Raises `UnavailableError` if no healthy Ray cluster answers; Ray itself would try to join for a long time."""
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        result = subprocess.run(check, capture_output=True, text=True, timeout=HEALTH_SECONDS)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"Ray cannot be joined at {address}: what answers there is no Ray cluster") from None
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["it is not healthy"])[-1]
        raise UnavailableError(f"Ray cannot be joined at {address}: {reason}")


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restores the handler of SIGTERM, which Ray replaces with one that ends the process."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise Interrupted("interrupted while Ray was starting", signal.SIGTERM) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback


def describe_ray_error(error: BaseException) -> str:
    """Returns the first line of an error from Ray, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__


def run_remotely(
    config: str,
    dataset: Any,
    notes: Any,
    environment: tuple[tuple[str, str], ...],
    source: str,
    roots: tuple[str, ...] = (),
) -> Result:
    """Runs a trial on a node of the cluster.

    Args:
        config: the run as JSON.
        dataset: its images; ``None`` for a function.
        notes: handle of a `Notes` actor.
        environment: variables to set before JAX starts.
        source: hash of the coordinator's source.
        roots: folders below the current one that the user's modules are imported from.

    Returns:
        A header as JSON, and the arrays of a run that ended. The header has a ``kind``: ``ended`` with a ``record``;
        ``failed`` with a ``reason`` and the ``output``; or ``interrupted`` if the process of the node got a signal.

    Raises:
        UnavailableError: the source on this node differs from the coordinator's.
    """
    check_source(source)
    run_config = RunConfig.from_json(config)

    def send(progress: dict[str, Any] | None) -> None:
        with contextlib.suppress(Exception):  # the trial goes on if its progress cannot be reported
            notes.add.options(num_returns=0).remote(run_config.key, progress)

    send(None)
    _prepare(environment, roots)
    try:
        run = run_trial(run_config, lambda _: dataset, Reporter(send, PROGRESS_SECONDS))
    except Interrupted:
        return json.dumps({"kind": "interrupted"}), None, None
    if isinstance(run, Failure):
        return json.dumps({"kind": "failed", "reason": run.reason, "output": run.output}), None, None
    return json.dumps({"kind": "ended", "record": run.record.to_dict()}), run.variables, run.predictions


@functools.cache
def _prepare(environment: tuple[tuple[str, str], ...], roots: tuple[str, ...]) -> None:
    """Sets the variables and import paths of a worker and, on CPU, pins it to a core; once, before JAX starts."""
    os.environ.update(environment)
    sys.path[:0] = map(os.path.abspath, roots)
    if ("JAX_PLATFORMS", "cpu") in environment and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {_claim_core()})


def _claim_core() -> int:
    """Returns a core that no other trial on this machine uses, and claims it until this process ends."""
    cores = sorted(os.sched_getaffinity(0))
    folder = Path(tempfile.gettempdir()) / f"cnnjax-cores-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        for core in cores:
            lock = FileLock(folder / f"{core}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                _claims.append(lock)
                return core
    return cores[os.getpid() % len(cores)]


class Notes:
    """A Ray actor that collects notes on the progress of trials until the coordinator asks for them."""

    def __init__(self) -> None:
        self._notes: list[Note] = []

    def add(self, key: str, progress: dict[str, Any] | None) -> None:
        """Adds the progress of the run with this key; ``None`` means that it has started."""
        self._notes.append((key, progress))

    def take(self) -> list[Note]:
        """Returns the notes added since the last call."""
        notes, self._notes = self._notes, []
        return notes


@dataclass
class _Flight:
    """A trial on the cluster, and when it started; ``None`` while it waits for a free node."""

    trial: Trial
    began: float | None = None


class RayExecutor:
    """Runs trials as Ray tasks.

    Args:
        address: ``host:port`` of a cluster that this machine belongs to; ``auto`` finds it; ``None`` starts one on this
            machine, which ends with the executor.
        gpus: whether each trial takes a GPU; by default, if the cluster has any.
        workers: the largest number of trials at once; by default, as many as the cluster has room for.
        timeout: time limit of a trial in seconds; ``None`` for no limit.
        source: the source of the user's code that the trials run, by `gather_source`, where nodes may lack it.

    Raises:
        InputError: the address is malformed.
        UnavailableError: Ray is not installed, cannot be started, or does not answer; from `poll`, when the cluster is
            gone or its nodes cannot run trials.
    """

    group_size = 1

    def __init__(
        self,
        address: str | None = None,
        *,
        gpus: bool | None = None,
        workers: int | None = None,
        timeout: float | None = None,
        source: SourceFolder = NO_SOURCE,
    ) -> None:
        self._cluster = Cluster(address, workers, source)
        self._ray = self._cluster.ray
        wanted = os.environ.get("JAX_PLATFORMS") != "cpu" and self._cluster.count("GPU") > 0
        self._resource = "GPU" if (wanted if gpus is None else gpus) else "CPU"
        self._workers, self._timeout, self._roots = workers, timeout, source.roots
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

    def _make_notes(self) -> Any:
        """Starts the `Notes` actor on the coordinator's own node, without which the grid could not go on anyway."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=True)
        return self._ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Notes).remote()

    def free_slots(self) -> dict[int, str]:
        """Returns a slot for every trial that the cluster has room for, and a few more, whose trials wait in Ray."""
        slots = self._cluster.count(self._resource)
        room = slots + 1 + slots // 4 if self._workers is None else self._workers
        return dict.fromkeys(range(room - len(self._flights)), "")

    def submit(self, slot: int, group: tuple[Trial, ...]) -> None:
        """Submits a trial to Ray, which finds a node for it."""
        (trial,) = group
        try:
            dataset = None if trial.config.trial else self._put(trial.config.data)
        except CnnjaxError as error:
            self._refused.append(Failed(trial, describe_error(error)))
            return
        task = self._run.remote(
            trial.config.to_json(), dataset, self._notes, self._environment, hash_source(), self._roots
        )
        self._flights[task] = _Flight(trial)

    def _put(self, data: DataConfig) -> Any:
        if data.whole not in self._datasets:
            self._datasets[data.whole] = self._ray.put(load_data(data))
        return self._datasets[data.whole]

    def poll(self, seconds: float) -> list[Event]:
        """Returns the events since the last call; waits up to `seconds` for the first."""
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

    def _read_notes(self) -> list[Event]:
        """Asks the actor for notes without waiting, and returns the events of an answer that has arrived."""
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

    def _land(self, task: Any) -> Event:
        """Returns the event of a task that has ended."""
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

    def close(self) -> None:
        """Ends every trial, and a cluster that was started here."""
        self._flights.clear()
        self._datasets.clear()
        self._cluster.leave()


def _read_note(flight: _Flight, progress: dict[str, Any] | None) -> Event:
    if progress is None or flight.began is None:
        flight.began = time.monotonic()
    return Started(flight.trial) if progress is None else Advanced(flight.trial, Progress(**progress))


def _choose_environment(resource: str) -> tuple[tuple[str, str], ...]:
    """Returns the environment variables for the nodes that JAX and the layers read: those of this process."""
    chosen = {
        name: value for name, value in os.environ.items() if name in ("XLA_FLAGS", SWITCH) or name.startswith("JAX_")
    }
    if resource == "CPU":
        chosen |= {"JAX_PLATFORMS": "cpu", **ONE_THREAD}
    return tuple(sorted(chosen.items()))


def _explain(error: Exception) -> str:
    """Returns the reason why Ray has no result of a trial, in one line."""
    deaths = {
        "WorkerCrashedError": "its worker died",
        "NodeDiedError": "its node died",
        "LocalRayletDiedError": "its node died",
        "OutOfMemoryError": "its node had too little memory",
    }
    death = deaths.get(type(error).__name__)
    return f"{death} at each of {RAY_RETRIES + 1} starts" if death else describe_error(error)
