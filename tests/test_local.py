"""Worker processes: a crash, a hang or too much memory fails one trial, and never the grid."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ablations.execution.coordinator import run_grid
from ablations.execution.local import LocalExecutor, Slot, make_slots
from ablations.execution.ray_cluster import run_remotely
from ablations.execution.work import Ended, Failed, Policy, Returned, Started
from cnnjax import InputError, UnavailableError, fit
from cnnjax.data.loading import load
from cnnjax.runs.record import pack_run
from cnnjax.runs.store import Store
from grid_helpers import TINY, Watcher, make_grid

ROOT = Path(__file__).parent.parent
CPU = {"JAX_PLATFORMS": "cpu"}
FAULTS = """
import os, signal, sys, time
import cnnjax.training.fit as training
train = training.fit
def fit(config, *arguments, **options):
    print("seed", config.seed, "begins")
    if config.seed == 101:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 102:
        time.sleep(1000)
    if config.seed == 103:
        hoard = bytearray(3 * 2**30)
        hoard[::4096] = b"x" * len(hoard[::4096])
        time.sleep(1000)
    if config.seed == 104:
        raise ValueError("a defect\\nin two lines")
    if config.seed == 105:
        os._exit(7)
    return train(config, *arguments, **options)
training.fit = fit
"""
ONCE = Policy(max_retries=0)
SERVE = """
import os, sys, time
from ablations.execution.trials import read_message, write_message
from cnnjax.runs.config import RunConfig
from grid_helpers import make_packed
out = os.fdopen(1, "wb")
write_message(out, {"kind": "ready"})
while (message := read_message(sys.stdin.buffer)) is not None:
"""


def make_fake(folder, program, number=0):
    """Returns a slot in which another program takes the place of the worker."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"import os, sys, time\n{program}\nos._exit(0)\n")
    path = os.pathsep.join([str(folder), os.getcwd(), str(Path(__file__).parent)])
    return Slot(number, None, {"PYTHONPATH": path})


@pytest.fixture
def faulty_slots(tmp_path):
    """Two places for workers in which the trials of some seeds go wrong."""
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    environment = {**CPU, "PYTHONPATH": f"{folder}{os.pathsep}{os.getcwd()}", "PYTHONUNBUFFERED": ""}
    return [Slot(number, None, environment) for number in range(2)]


def run(grid, folder, executor, watcher=None, policy=ONCE):
    try:
        return +run_grid(grid, Store(folder), executor, watcher or Watcher(), policy).counts
    finally:
        executor.close()


def rows(folder):
    """Returns everything of a store's runs but times, by key."""
    store = Store(folder)
    packed = [pack_run(store.load(key)) for key in store.list_keys()]
    return {
        run.record.key: (
            {**run.record.to_dict(), "seconds": None, "history": [{**e, "seconds": None} for e in history]},
            run.variables,
            run.predictions,
        )
        for run in packed
        for history in [run.record.to_dict()["history"]]
    }


def find_workers():
    """Returns the worker processes of this one."""
    return [child for child in psutil.Process().children() if "ablations.execution.worker" in child.cmdline()]


def wait_for(executor, kind, seconds=300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [event for event in executor.poll(0.2) if isinstance(event, kind)]
        if found:
            return found
    raise AssertionError(f"no {kind} in {seconds} s")


@pytest.mark.slow
def test_one_worker_two_workers_and_a_shuffled_grid_give_the_same_rows_as_single_runs(tmp_path):
    grid = make_grid(widths=(8, 16), seeds=range(3), epochs=2)
    shuffled = type(grid)(grid.name, grid.factors, grid.cells[::-1], (2, 0, 1))
    for name, which, workers in (("one", grid, 1), ("two", grid, 2), ("shuffled", shuffled, 2)):
        counts = run(which, tmp_path / name, LocalExecutor(make_slots(workers)))
        assert counts == Counter(completed=6)
    assert rows(tmp_path / "one") == rows(tmp_path / "two") == rows(tmp_path / "shuffled")
    single = fit(grid.trials[0].config, out=None)
    stored = Store(tmp_path / "one").load(grid.trials[0].key)
    assert stored.record.test_accuracy == pytest.approx(single.record.test_accuracy, abs=0.002)
    assert stored.record.provenance["device"]["cpu_threads"] == 1


@pytest.mark.slow
def test_each_kind_of_death_fails_one_trial_and_is_reported(tmp_path, faulty_slots):
    grid = make_grid(widths=(8,), seeds=(0, 101, 1, 102, 2, 103, 3, 104, 4, 105, 5))
    watcher = Watcher()
    executor = LocalExecutor(faulty_slots, timeout=30, memory_limit=2 * 2**30)
    counts = run(grid, tmp_path / "out", executor, watcher)
    assert counts == Counter(completed=6, failed=5)
    records = Store(tmp_path / "out").find_all()
    reasons = {r.config.seed: (r.reason, r.output) for r in records.values() if r.status == "failed"}
    assert reasons[101][0] == "the worker was killed by SIGKILL, perhaps because memory ran out"
    assert reasons[102][0] == "ran longer than 30 s"
    assert re.fullmatch(r"used [23]\.\d\d GiB of memory, more than 2\.00 GiB", reasons[103][0])
    assert reasons[104][0] == "ValueError: a defect"
    assert reasons[105] == ("the worker ended with exit code 7", "seed 105 begins")
    assert "in two lines" in reasons[104][1]
    assert "Traceback" in reasons[104][1]
    assert "seed 0 begins" not in "".join(output or "" for _, output in reasons.values())


@pytest.mark.slow
def test_a_worker_killed_from_outside_is_replaced_and_its_trial_is_run_again(tmp_path):
    grid = make_grid(widths=(8,), seeds=range(6), epochs=3)
    executor = LocalExecutor([Slot(0, None, CPU)])

    class Killer(Watcher):
        def start(self, trial):
            super().start(trial)
            if self.count("start") in (2, 4):
                (worker,) = find_workers()
                worker.kill()

    counts = run(grid, tmp_path, executor, Killer(), Policy(max_retries=1))
    assert counts == Counter(completed=6)
    assert not find_workers()


@pytest.mark.slow
def test_a_diverged_trial_is_a_result_and_not_a_crash(tmp_path):
    grid = make_grid(widths=(8,), seeds=(0, 1), learning_rate=1e30)
    watcher = Watcher()
    assert run(grid, tmp_path, LocalExecutor([Slot(0, None, CPU)]), watcher) == Counter(diverged=2)
    assert watcher.count("retry") == 0
    record = Store(tmp_path).find(grid.trials[0].key)
    assert record.test_accuracy is None
    assert "not finite at step" in record.reason


@pytest.mark.slow
def test_trials_that_a_dead_worker_had_not_started_are_returned(faulty_slots):
    executor = LocalExecutor(faulty_slots[:1], group_size=3)
    group = tuple(make_grid(widths=(8,), seeds=(0, 101, 1)).trials)
    try:
        executor.submit(0, group)
        assert executor.free_slots() == {}
        assert [event.trial for event in wait_for(executor, Ended)] == [group[0]]
        assert [event.trial for event in wait_for(executor, Failed | Returned)] == [group[1], group[2]]
        assert executor.free_slots() == {0: ""}
    finally:
        executor.close()


@pytest.mark.slow
def test_trials_in_one_program_are_all_stored_and_say_so(tmp_path):
    grid = make_grid(widths=(8, 16), seeds=range(3), epochs=2)
    watcher = Watcher()
    counts = run(grid, tmp_path, LocalExecutor([Slot(0, None, CPU)], group_size=2, at_once=2), watcher)
    assert counts == Counter(completed=6)
    assert (watcher.count("start"), watcher.count("end")) == (6, 6)
    executions = Counter(r.provenance["execution"] for r in Store(tmp_path).find_all().values())
    assert executions == Counter({"2 runs in one program": 4, "solo": 2})


@pytest.mark.slow
def test_only_the_trial_that_ends_its_program_fails(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("""
import os
import cnnjax.training.loop as fitting
train = fitting.make_state
def make_state(config, *others):
    if config.seed == 101:
        os._exit(7)
    return train(config, *others)
fitting.make_state = make_state
""")
    slot = Slot(0, None, {**CPU, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"})
    grid, watcher = make_grid(widths=(8,), seeds=(0, 101, 1)), Watcher()
    counts = run(grid, tmp_path / "out", LocalExecutor([slot], group_size=3, at_once=3), watcher)
    assert counts == Counter(completed=2, failed=1)
    assert watcher.count("retry") == 3
    (failed,) = (r for r in Store(tmp_path / "out").find_all().values() if r.status == "failed")
    assert (failed.config.seed, failed.reason) == (101, "the worker ended with exit code 7")


def test_workers_that_cannot_start_end_the_grid_with_their_last_output(tmp_path):
    executor = LocalExecutor([make_fake(tmp_path, "sys.exit('no JAX for this machine')")])
    store = Store(tmp_path / "out")
    with pytest.raises(UnavailableError, match=r"workers cannot start: .*no JAX for this machine"):
        run(make_grid(), tmp_path / "out", executor)
    assert store.list_keys() == []


def test_workers_with_other_source_than_the_coordinator_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ablations.execution.local.hash_source", lambda: "what was there before an edit")
    executor = LocalExecutor([Slot(0, None, CPU)])
    with pytest.raises(UnavailableError, match="this source is not the one that the grid was started with"):
        run(make_grid(), tmp_path / "out", executor)
    assert Store(tmp_path / "out").list_keys() == []


def test_a_node_with_other_source_than_the_coordinator_runs_nothing():
    with pytest.raises(UnavailableError, match="this source is not the one that the grid was started with"):
        run_remotely(TINY.to_json(), load("mnist"), None, (), "what was there before an edit")


@pytest.mark.slow
def test_workers_run_the_packages_of_their_coordinator_wherever_those_are(tmp_path):
    for name in ("ablations", "cnnjax", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "copy/cnnjax/runs/record.py", "a") as file:
        file.write("# another version")
    (tmp_path / "project/ablations").mkdir(parents=True)
    (tmp_path / "project/ablations/__init__.py").touch()
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path / "copy")!r})
from ablations import load_study, run_study
from ablations.execution.local import LocalExecutor
from ablations.execution.local import Slot
settings = {{"train.epochs": 1, "data.train_size": 100, "model.filters": []}}
study = load_study("learning_rate", settings, seeds=1)
print(run_study(study, "out", make_executor=lambda: LocalExecutor([Slot(0, None, {{"JAX_PLATFORMS": "cpu"}})])))
"""
    line = [sys.executable, "-c", program]
    result = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path / "project", timeout=300)
    assert result.returncode == 0, result.stderr
    assert "completed" in result.stdout
    assert "failed" not in result.stdout


@pytest.mark.parametrize("nonsense", ["hello", "5", "[]", "{}", '{"blobs": [-1]}', '{"blobs": [], "kind": "started"}'])
def test_a_worker_that_sends_invalid_messages_is_stopped(tmp_path, nonsense):
    slot = make_fake(tmp_path, f"os.write(1, {nonsense.encode()!r} + b'\\n'); time.sleep(100)")
    with pytest.raises(UnavailableError, match="workers cannot start: the worker sent an invalid message"):
        run(make_grid(), tmp_path / "out", LocalExecutor([slot]))


ANSWER = """
    for values in message[0]["configs"]:
        config = RunConfig.from_dict(values)
        run = make_packed(config)
        write_message(out, {"kind": "started", "key": config.key})
        header = {"kind": "ended", "key": config.key, "record": run.record.to_dict()}
        write_message(out, header, (run.variables, run.predictions))
"""


def test_an_idle_worker_that_dies_fails_no_trial(tmp_path):
    slot = make_fake(tmp_path, f"{SERVE}{ANSWER}    time.sleep(0.02)\n    os._exit(9)")
    counts = run(make_grid(seeds=range(3)), tmp_path / "out", LocalExecutor([slot]))
    assert counts == Counter(completed=6)


def test_a_slot_where_no_worker_can_start_is_given_up_and_the_others_go_on(tmp_path):
    broken = make_fake(tmp_path / "broken", "sys.exit('no JAX on this device')", number=0)
    sound = make_fake(tmp_path / "sound", f"{SERVE}{ANSWER}    time.sleep(0.05)", number=1)
    with pytest.warns(RuntimeWarning, match="the grid goes on with 1: .*no JAX on this device"):
        counts = run(make_grid(seeds=range(10)), tmp_path / "out", LocalExecutor([broken, sound]))
    assert counts == Counter(completed=20)


def test_workers_leave_signals_to_their_coordinator(tmp_path, faulty_slots):
    executor = LocalExecutor(faulty_slots[:1])
    executor.submit(0, tuple(make_grid(widths=(8,), seeds=(102,)).trials))
    try:
        wait_for(executor, Started)
        (worker,) = find_workers()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            worker.send_signal(number)
        assert executor.poll(0.5) == []
        assert worker.is_running()
    finally:
        executor.close()


def test_a_worker_ends_when_its_input_ends_even_in_the_middle_of_a_trial(tmp_path, faulty_slots):
    executor = LocalExecutor(faulty_slots[:1])
    executor.submit(0, tuple(make_grid(widths=(8,), seeds=(102,)).trials))
    wait_for(executor, Started)
    (worker,) = find_workers()
    executor._workers[0]._stdin.close()
    assert worker.wait(10) == 0
    executor.close()


def test_there_is_one_slot_per_core_and_each_is_pinned_to_it(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cores = sorted(os.sched_getaffinity(0))
    assert [slot.core for slot in make_slots()] == cores
    assert [slot.core for slot in make_slots(2 * len(cores))] == cores * 2


def test_a_device_that_jax_cannot_find_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UnavailableError, match=r"JAX cannot start: .*cuda"):
        make_slots()
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert all(slot.is_cpu for slot in make_slots())


def test_accelerators_have_a_slot_each_and_no_more(monkeypatch):
    monkeypatch.setattr("ablations.execution.local._find_accelerators", lambda: ("gpu", 4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0,2")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in make_slots()] == ["3", "1", "0", "2"]
    assert [slot.core for slot in make_slots(2)] == [None, None]
    with pytest.raises(InputError, match="--workers=5: must be <= 4, the number of gpu devices"):
        make_slots(5)
