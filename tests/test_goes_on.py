"""A command that is stopped in any phase and run again ends with the result of one that was never stopped."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ablations import load_study, run_study
from ablations.execution.work import Policy
from cnnjax.runs.record import FINAL, pack_run
from cnnjax.runs.store import Store
from grid_helpers import ScriptedExecutor

pytestmark = pytest.mark.slow

SMALL = "--set model.filters=[] --set train.learning_rate=0.1 --set data.train_size=2000"
TRAINING = re.compile(r"^training .*, seed=\d+$", re.MULTILINE)
BEGUN = re.compile(r"^\d+/\d+ trials: ", re.MULTILINE)
COMPLETED = re.compile(r"^\[\d+/\d+\] completed (.*?): ", re.MULTILINE)


def find_trainers(process):
    """Returns the processes below one that train for it; agents of Ray may outlive a kill by minutes."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                found += [child] if "ablations.execution.worker" in words or "ray::run_remotely" in words[:1] else []
    return found


class Terminal:
    """Where lines are typed, in a folder of their own; every process ends with the test."""

    def __init__(self, folder):
        self.folder, self.store = folder, Store(folder / "runs")
        self.environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        self.environment = {name: value for name, value in self.environment.items() if not name.startswith("RAY_")}
        folder.mkdir(exist_ok=True)

    def finish(self, line):
        """Types a line, which must end well; returns what it prints."""
        return self._type(line, lambda printed: False, None, 0.0)

    def stop(self, line, pattern, count, number, delay=0.0):
        """Types a line, and stops it when it has printed so many matches of a pattern; returns what it has printed."""

        def is_time(printed):
            return len(pattern.findall(printed)) >= count

        return self._type(line, is_time, number, delay)

    def _type(self, line, is_time, number, delay):
        log = self.folder / "log"
        with open(log, "w") as file:
            words = [sys.executable, "-m", *shlex.split(line)]
            process = subprocess.Popen(words, stdout=file, stderr=file, cwd=self.folder, env=self.environment)
        try:
            deadline = time.monotonic() + 400
            while process.poll() is None and not is_time(log.read_text()):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.01)
            time.sleep(delay)
            trainers = find_trainers(process) if number is not None else []
            if number is not None:
                process.send_signal(number)
            code = process.wait(60)
            assert psutil.wait_procs(trainers, timeout=60)[1] == []
        finally:
            process.kill()
            process.wait()
        assert code in {None: (0,), signal.SIGTERM: (143,), signal.SIGKILL: (-9,)}[number], log.read_text()
        return log.read_text()

    def read(self):
        """Returns everything that the store holds but times: runs by key, and grids in their order."""
        runs = {}
        for key, record in self.store.find_all().items():
            values = record.to_dict()
            for timed in (values, *values["history"]):
                del timed["seconds"]
            packed = pack_run(self.store.load(key)) if record.status in FINAL else None
            runs[key] = (values, packed and packed.variables, packed and packed.predictions)
        return runs, [(grid.name, grid.study, grid.trials) for grid in self.store.list_grids()]


@pytest.fixture
def whole(tmp_path):
    """Where commands are not stopped."""
    return Terminal(tmp_path / "whole")


@pytest.fixture
def stopped(tmp_path):
    """Where commands are stopped."""
    return Terminal(tmp_path / "stopped")


HALVING = (
    f"ablations.run --axis model.dense=[8],[16],[24],[32] --seeds 2 --budget halving --workers 1 {SMALL} "
    "--set train.epochs=4 --set train.validation_split=0.2"
)
"""Of 8 trials in the first rung, 4 in the second and 2 in the last."""


def test_halving_stopped_in_every_rung_continues_to_the_same_result(whole, stopped):
    total = len(COMPLETED.findall(whole.finish(HALVING)))
    assert total == 14
    shown = []
    stops = [(COMPLETED, 2, signal.SIGTERM), (BEGUN, 2, signal.SIGTERM), (BEGUN, 3, signal.SIGKILL)]
    for rung, (pattern, count, number) in enumerate(stops, 1):
        shown += COMPLETED.findall(stopped.stop(HALVING, pattern, count, number))
        assert len(stopped.store.list_grids()) == rung
    shown += COMPLETED.findall(stopped.finish(HALVING))
    assert total - 1 <= len(shown) <= total  # one may have been stored, and killed before it was shown
    assert stopped.read() == whole.read()
    assert [record.status for record in stopped.store.find_all().values()].count("pruned") == 6


def test_a_run_stopped_within_an_epoch_continues_to_the_same_result(whole, stopped):
    line = (
        "experiments.train --train.epochs 10 --train.batch-size 4 --data.train-size 10000 --model.filters '[]' "
        "--model.dense '[8]' --model.dropout 0.2 --train.momentum 0.5 --train.validation-split 0.1 --resume"
    )
    whole.finish(line)
    for _ in range(4):  # as a signal may come just where an epoch ends
        printed = stopped.stop(line, re.compile(r"^epoch \d+/", re.MULTILINE), 1, signal.SIGTERM)
        (step,) = map(int, re.findall(r"interrupted after step (\d+); saved", printed))
        if step % 2250:
            break
    assert step % 2250
    assert f"resuming after step {step} from" in stopped.finish(line)
    assert stopped.read() == whole.read()
    assert not (stopped.folder / "runs" / "checkpoints").exists()


FAILING = """
title = "Every trial has failed"
seeds = 4
[base]
model.filters = []
train = { epochs = 2, learning_rate = 0.1 }
data.train_size = 2000
[sweep.grid]
model.dense = [[8], [16]]
"""


def fail_all():
    return ScriptedExecutor(lambda config: ("out of luck",))


def test_retries_of_failures_that_are_stopped_continue_to_the_same_result(whole, stopped):
    for terminal in (whole, stopped):
        (terminal.folder / "failing.toml").write_text(FAILING)
        study = load_study(str(terminal.folder / "failing.toml"))
        counts = run_study(study, terminal.folder / "runs", make_executor=fail_all, policy=Policy(max_retries=0))
        assert counts["failed"] == 8
    line = "ablations.run failing.toml --retry-failed --workers 1"
    whole.finish(line)
    shown = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        shown += COMPLETED.findall(stopped.stop(line, COMPLETED, 2, number))
        statuses = [run.status for run in stopped.store.list_statuses().values()]
        assert {*statuses} == {"completed", "failed"}
        assert len(shown) <= statuses.count("completed")
    shown += COMPLETED.findall(stopped.finish(line))
    assert len({*shown}) == len(shown) >= 7
    assert stopped.read() == whole.read()


def test_a_stopped_grid_continues_to_the_same_result_on_ray_and_on_local_workers(whole, stopped):
    pytest.importorskip("ray")
    line = f"ablations.run --axis model.dense=[8],[16] --seeds 3 {SMALL} --set train.epochs=20 --workers 1"
    whole.finish(line)
    shown = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        shown += COMPLETED.findall(stopped.stop(f"{line} --executor ray", COMPLETED, 1, number))
    shown += COMPLETED.findall(stopped.finish(f"{line} --executor ray"))
    assert len({*shown}) == len(shown) >= 5
    assert stopped.read() == whole.read()


def test_a_comparison_stopped_while_it_trains_continues_to_the_same_result(whole, stopped):
    line = (
        "experiments.compare --a model.dense=[8] --b model.dense=[16] --run --seeds 2 --set model.filters=[] "
        "--set train.epochs=4 --set train.batch_size=2 --set data.train_size=10000 --format json"
    )
    whole.finish(line)
    checkpoints = stopped.folder / "runs" / "checkpoints"
    for attempt in range(10):  # the first ones may be stopped before there is anything to save
        printed = stopped.stop(line, TRAINING, 1, signal.SIGTERM, delay=0.5 * attempt)
        if checkpoints.exists():
            break
    (saved,) = re.findall(r"interrupted after step (\d+); saved .*; the same command goes on$", printed, re.MULTILINE)
    assert printed.count("resuming") == 0
    assert f"resuming after step {saved} from" in stopped.finish(line)
    assert stopped.read() == whole.read()
    assert not checkpoints.exists()
