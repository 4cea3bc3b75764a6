"""No result that was reported is lost: after kill -9 at any moment, on a full disk, with two runs at once."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cnnjax.runs.record import pack_run
from cnnjax.runs.store import Store
from experiments.measure.faults.kills import kill_grid

STUDY = """
title = "Many small trials"
seeds = 100
[base]
model.filters = []
train = { epochs = 100, learning_rate = 0.1 }
data.train_size = 1000
[sweep.grid]
model.dense = [[8], [16], [24], [32]]
"""
SHOWN = re.compile(r"^\[\d+/\d+\] completed (.*?): test accuracy (0\.\d{4})", re.MULTILINE)


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "many.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def start():
    """Starts grids, of which none outlives its test."""
    started = []

    def start(study, out, log, *options):
        words = [sys.executable, "-m", "ablations.run", str(study), "--out", str(out), *options]
        started.append(subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "JAX_PLATFORMS": "cpu"}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def finish(study, out, *options):
    words = [sys.executable, "-m", "ablations.run", str(study), "--out", str(out), *options]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment)


def table(out):
    """Returns everything of a store's runs but times, by key, arrays as their bytes."""
    store, rows = Store(out), {}
    for key in store.list_keys():
        packed = pack_run(store.load(key))
        values = packed.record.to_dict()
        for timed in (values, *values["history"]):
            del timed["seconds"]
        rows[key] = (values, packed.variables, packed.predictions)
    return rows


def shown(log):
    return dict(SHOWN.findall(Path(log).read_text()))


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_repeat_nothing():
    assert kill_grid(12) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_grid_and_its_workers_and_loses_no_stored_result(tmp_path, study, start, number, code):
    log_path = tmp_path / "log"
    with open(log_path, "w") as log:
        process = start(study, tmp_path / "out", log)
        while not shown(log_path) and process.poll() is None:
            time.sleep(0.1)
        workers = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert process.wait(300) == code
    assert re.search(r"error: interrupted: \d+ trials are stored, \d+ are left; the same command", log_path.read_text())
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert set(shown(log_path)) <= {
        f"model.dense={[*r.config.model.dense]}, seed={r.config.seed}"
        for r in Store(tmp_path / "out").find_all().values()
    }


@pytest.mark.slow
def test_the_second_run_on_a_store_is_refused_and_the_first_is_named(tmp_path, study, start):
    out = tmp_path / "out"
    with open(tmp_path / "log", "w") as log:
        first = start(study, out, log)
        while not (out / "grid.owner.json").exists() and first.poll() is None:
            time.sleep(0.05)
        second = finish(study, out)
        first.kill()
        first.wait()
    assert second.returncode == 4
    message = rf"{out} is in use by 'python -m ablations.run {study} --out {out}' \(process {first.pid} on "
    assert re.search(message, second.stderr)
    assert second.stderr.count("\n") == 1
    assert finish(study, out, "--seeds", "1").returncode == 0


@pytest.mark.slow
def test_a_full_disk_ends_the_grid_in_one_line_and_the_same_command_goes_on(tmp_path, study):
    disk, out = tmp_path / "disk", tmp_path / "disk" / "out"
    disk.mkdir()
    options, trials = ("--seeds", "20"), 80  # five megabytes
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        full = finish(study, out, *options)
        assert full.returncode == 4, full.stdout
        assert re.search(r"error: .*runs.sqlite: .*(disk is full|disk I/O error)", full.stderr.splitlines()[-1])
        told = dict(SHOWN.findall(full.stdout))
        assert 3 < len(told) == len(Store(out).list_keys())
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert finish(study, out, *options).returncode == 0
        assert len(Store(out).list_keys()) == trials
    finally:
        subprocess.run(["umount", str(disk)], check=True)


IN_PARTS = """
title = "Undecided for long"
seeds = 2
[base]
model.filters = []
train = { epochs = 4, learning_rate = 0.1, validation_split = 0.1 }
data.train_size = 1000
[sweep.grid]
model.dense = [[16], [17]]
"""


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--top-up", "--until-decided"])
def test_the_same_command_continues_a_run_stopped_in_any_look(tmp_path, start, option):
    options = (option, "8", "--baseline", "model.dense=[16]")
    study = tmp_path / "parts.toml"
    study.write_text(IN_PARTS)
    whole = finish(study, tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr
    trials = len(dict(SHOWN.findall(whole.stdout)))
    assert trials >= 6
    for stop, number in ((1, signal.SIGKILL), (trials // 2, signal.SIGTERM), (trials - 1, signal.SIGKILL)):
        out, log_path = tmp_path / f"stopped-at-{stop}", tmp_path / "log"
        with open(log_path, "w") as log:
            process = start(study, out, log, *options)
            while len(shown(log_path)) < stop and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(number)
            process.wait(300)
        last = finish(study, out, *options)
        assert last.returncode == 0, last.stderr
        assert not shown(log_path).keys() & dict(SHOWN.findall(last.stdout)).keys()
        assert table(out) == table(tmp_path / "whole")
