"""Trials on a Ray cluster give the same rows as on this machine alone, whatever happens to workers and nodes."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ablations.execution.local import LocalExecutor, make_slots
from ablations.execution.ray_cluster import Cluster, RayExecutor
from ablations.execution.work import Advanced, Ended, Failed, Started
from cnnjax import InputError, UnavailableError
from cnnjax.data.settings import DataConfig
from cnnjax.runs.store import Store
from grid_helpers import Watcher, make_grid
from test_local import rows, run, wait_for

ROOT = Path(__file__).parent.parent
NETWORK = """
from typing import Any, Callable
import flax.linen as nn
class Net(nn.Module):
    act: Callable = nn.relu
    classes: int = 10
    dtype: Any = None
    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(self.act(nn.Dense(8)(x.reshape(len(x), -1))))
"""
pytestmark = [
    pytest.mark.slow,
    # Ray leaves the pipes and files of the processes that it starts to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Other tests have started JAX in this process, from which Ray forks; a coordinator never does.
    pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*ResourceWarning:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _needs_ray():
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # also for the clusters of these tests: loopback
    pytest.importorskip("ray")


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of a head without CPUs and two nodes of one CPU each."""
    from ray.cluster_utils import Cluster as Nodes

    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # whole, as tasks have folders of their own
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.workers = [nodes.add_node(num_cpus=1) for _ in range(2)]
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


@pytest.fixture
def run_command(tmp_path, two_nodes):
    """Runs a grid of the user's code on two nodes, from a folder that these do not start in."""
    (tmp_path / "here").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "elsewhere")])}

    def run_it(*arguments):
        command = [sys.executable, "-m", "ablations.run", "--executor", "ray", "--address", two_nodes.address]
        result = subprocess.run(
            [*command, "--seeds", "1", "--max-retries", "0", *arguments],
            env=environment,
            cwd=tmp_path / "here",
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return Store(tmp_path / "here" / "runs").find_all().values()

    return run_it


class Doer(Watcher):
    """Does something once, when so many trials have ended."""

    def __init__(self, ended, deed):
        super().__init__()
        self.ended, self.deed = ended, deed

    def end(self, trial, record):
        super().end(trial, record)
        if self.count("end") == self.ended:
            self.deed()


def find_tasks():
    """Returns the processes below this one that run a trial now, which Ray names after what they run."""
    return [p for p in psutil.Process().children(recursive=True) if _command(p) == "ray::run_remotely"]


def _command(process):
    try:
        return next(iter(process.cmdline()), "")
    except psutil.Error:
        return ""


def run_alone(program):
    """Runs a program that finds the environment as it was before these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)


def kill_a_task():
    wait_until(find_tasks)
    find_tasks()[0].kill()


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s"
        time.sleep(0.02)


def test_a_local_worker_and_a_ray_task_give_the_same_rows(tmp_path):
    grid = make_grid(widths=(8, 16), seeds=range(3), epochs=2)
    assert run(grid, tmp_path / "one", LocalExecutor(make_slots(1))) == Counter(completed=6)
    assert run(grid, tmp_path / "two", LocalExecutor(make_slots(2))) == Counter(completed=6)
    watcher = Watcher()
    assert run(grid, tmp_path / "ray", RayExecutor(workers=2), watcher) == Counter(completed=6)
    assert rows(tmp_path / "one") == rows(tmp_path / "two") == rows(tmp_path / "ray")
    provenance = Store(tmp_path / "ray").find(grid.trials[0].key).provenance
    assert provenance["device"]["cpu_threads"] == 1
    assert not find_tasks()


def test_a_grid_survives_the_death_of_a_worker_and_of_a_node(tmp_path, two_nodes):
    grid = make_grid(widths=(8, 16), seeds=range(8), epochs=300)

    def kill_both():
        kill_a_task()
        two_nodes.remove_node(two_nodes.workers.pop(), allow_graceful=False)

    watcher = Doer(3, kill_both)
    assert run(grid, tmp_path, RayExecutor(two_nodes.address), watcher) == Counter(completed=16)
    assert watcher.count("retry") == 0
    assert sorted(key for kind, key in watcher.told if kind == "end") == sorted(trial.key for trial in grid.trials)


def test_nodes_that_join_are_used_and_leaving_ends_what_runs(two_nodes):
    executor = RayExecutor(two_nodes.address)
    try:
        assert len(executor.free_slots()) == 3
        executor.submit(0, make_grid(widths=(8,), seeds=(0,), epochs=10**6).trials)
        (started,) = wait_for(executor, Started)
        (advanced, *_) = wait_for(executor, Advanced)
        assert advanced.trial == started.trial
        assert 0 < advanced.progress.epoch <= advanced.progress.epochs == 10**6
        two_nodes.add_node(num_cpus=3)
        wait_until(lambda: executor.poll(0.2) and len(executor.free_slots()) == 6)
        assert find_tasks()
    finally:
        executor.close()
    wait_until(lambda: not find_tasks())


def test_an_error_in_a_trial_is_a_failure_with_a_reason():
    (fine,) = make_grid(widths=(8,), seeds=(0,)).trials
    (endless,) = make_grid(widths=(8,), seeds=(0,), epochs=10**6).trials

    def change(data):
        return dataclasses.replace(fine, config=dataclasses.replace(fine.config, data=data))

    too_large, unknown = change(DataConfig(train_size=60_001)), change(DataConfig(name="mnits"))
    executor = RayExecutor(workers=2, timeout=30)
    try:
        for trial in (endless, unknown, too_large, fine):
            executor.submit(0, (trial,))
        by_trial = {}
        while len(by_trial) < 4:
            by_trial |= {event.trial.key: event for event in wait_for(executor, Ended | Failed)}
    finally:
        executor.close()
    assert isinstance(by_trial[fine.key], Ended)
    assert "'mnits'" in by_trial[unknown.key].reason
    assert by_trial[endless.key].reason == "ran longer than 30 s"
    assert re.search("train_size=60001.* 60000", by_trial[too_large.key].reason)
    assert "Traceback" in by_trial[too_large.key].output


def test_a_worker_that_dies_at_every_start_is_a_failure(tmp_path):
    executor = RayExecutor(workers=1)
    try:
        executor.submit(0, make_grid(widths=(8,), seeds=(0,), epochs=10**6).trials)
        for _ in range(4):
            wait_for(executor, Advanced)
            kill_a_task()
        (failed,) = wait_for(executor, Failed)
    finally:
        executor.close()
    assert failed.reason == "its worker died at each of 4 starts"


TRIAL = """
import {module}
def trial(seed: int):
    return {{"value": {module}.VALUE, "is_copy": float("working_dir_files" in __file__)}}
"""


def test_nodes_run_the_source_that_the_coordinator_sends_also_after_an_edit(tmp_path, run_command):
    write(tmp_path / "here/sub/trials.py", TRIAL.format(module="helper"))
    write(tmp_path / "here/sub/helper.py", "VALUE = 1.0")
    write(tmp_path / "elsewhere/my_package/__init__.py", "from .parts import VALUE")
    write(tmp_path / "elsewhere/my_package/parts.py", "VALUE = 2.0")
    write(tmp_path / "elsewhere/my_package/trials.py", TRIAL.format(module="my_package"))
    grid = ("--axis", "trial.function=sub/trials.py:trial,my_package.trials:trial")
    assert sorted(run["value"] for run in scores(run_command(*grid), "is_copy")) == [1, 2]
    write(tmp_path / "here/sub/helper.py", "VALUE = 3.0")
    write(tmp_path / "elsewhere/my_package/parts.py", "VALUE = 4.0")
    assert sorted(run["value"] for run in scores(run_command(*grid), "is_copy")) == [1, 2, 3, 4]


def test_nodes_train_a_network_with_functions_that_only_the_coordinator_has(tmp_path, run_command):
    write(tmp_path / "here/nets.py", NETWORK)
    write(tmp_path / "here/blocks/__init__.py", "import jax\ndef double(x): return jax.nn.relu(2 * x)")
    write(tmp_path / "here/metrics.py", "def is_copy(logits, labels): return float('working_dir_files' in __file__)")
    settings = ("model.module=nets.py:Net", "train.metrics=[metrics.py:is_copy]", "data.train_size=200")
    settings = [part for setting in (*settings, "train.epochs=1") for part in ("--set", setting)]
    runs = run_command("--axis", "model.act=flax.linen:relu,blocks:double", *settings)
    assert len(scores(runs, "is_copy")) == 2


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def scores(runs, true):
    """Returns the scores of runs, all of which have 1 for the score `true`."""
    assert all(run.scores[true] == 1 for run in runs)
    return [run.scores for run in runs]


def test_the_death_of_the_cluster_ends_the_grid_in_one_line(tmp_path, two_nodes):
    executor = RayExecutor(two_nodes.address)
    short, endless = make_grid((8,), (0,)), make_grid((16,), (0,), epochs=10**6)
    grid = dataclasses.replace(short, cells=short.cells + endless.cells)
    watcher = Doer(1, two_nodes.head_node.kill_gcs_server)
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"the Ray cluster at \S+ is gone; the trials that had ended are stored"):
        run(grid, tmp_path, executor, watcher)
    assert time.monotonic() - start < 120
    assert len(Store(tmp_path).list_keys()) == watcher.count("end") == 1


def test_a_ray_started_here_listens_on_the_loopback_interface_only_and_prints_nothing():
    program = """
import psutil
from ablations.execution.ray_cluster import RayExecutor
executor = RayExecutor(workers=1)
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
listening = {c.laddr.ip for p in processes for c in p.net_connections() if c.status == "LISTEN"}
executor.close()
assert len(processes) > 3
assert all(ip.removeprefix("::ffff:").startswith("127.") or ip == "::1" for ip in listening), listening
assert not [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
"""
    result = run_alone(program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("address", ["somewhere", "ray://10.0.0.1:10001", "host:0", "host:99999", ":6379"])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(InputError, match=rf"--address={re.escape(repr(address))}: must be host:port"):
        Cluster(address)


def test_an_address_that_does_not_answer_is_reported_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnavailableError, match=f"Ray cannot be joined at {address}: nothing answers there"):
        RayExecutor(address)


def test_a_server_that_is_not_ray_is_refused_in_time(monkeypatch):
    monkeypatch.setattr("ablations.execution.ray_cluster.HEALTH_SECONDS", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"Ray cannot be joined at {address}: what answers there is no Ray"):
            RayExecutor(address)


def test_a_ray_started_here_that_others_could_reach_is_stopped():
    program = """
import ray
from cnnjax import UnavailableError
from ablations.execution.ray_cluster import RayExecutor
try:
    RayExecutor(workers=1)
except UnavailableError as error:
    print(ray.is_initialized(), error)
"""
    result = run_alone(program)
    assert result.stdout.startswith("False Ray cannot be started on this machine: it would be open to others")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_grid_on_ray_in_order(tmp_path, number):
    command = ["-m", "ablations.run", "--axis", "model.dense=[8],[16]", "--set", "model.filters=[]"]
    command += ["--set", "train.epochs=100000", "--executor", "ray", "--workers", "1", "--out", str(tmp_path)]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(find_tasks)
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert "interrupted: 0 trials are stored, 10 are left; the same command goes on" in errors
    wait_until(lambda: not find_tasks())


def test_a_missing_cluster_is_reported():
    with pytest.raises(UnavailableError, match="Ray cannot be joined at auto: Could not find any running Ray"):
        RayExecutor("auto")


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnavailableError, match=re.escape("--executor ray needs Ray: pip install -e '.[ray]'")):
        RayExecutor()
