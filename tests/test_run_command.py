"""The command runs a study, refuses what it cannot run before anything is written, and a grid point is a single run."""

import dataclasses
import io
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from ablations import run
from ablations.execution.watching import GridLineObserver, GridLiveObserver, make_grid_observer
from ablations.execution.work import Work
from cnnjax import InputError
from cnnjax.runs.history import Progress
from cnnjax.runs.store import Store
from grid_helpers import make_grid, make_packed

DENSE = "--set model.filters=[] --set data.train_size=300 --set train.epochs=1"
WIDTHS = f"--axis model.dense=[8],[16] {DENSE}"


def type_in(words, folder, module="ablations.run"):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", module, *shlex.split(words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "padding"),
        ("paddin", "did you mean 'padding'"),
        ("padding --workers 0", "--workers=0: must be >= 1 and <= 4096"),
        ("padding --max-retries -1", "--max-retries=-1: must be >= 0"),
        ("padding --timeout 0", "--timeout=0.0: must be > 0"),
        ("padding --memory-limit -2", "--memory-limit=-2.0: must be > 0"),
        ("padding --max-trials 3", "--max-trials 3"),
        ("padding --address 10.0.0.1:6379", "--address='10.0.0.1:6379': needs --executor ray"),
        ("padding --at-once 0", "--at-once=0: must be >= 1"),
        ("padding --executor ray --at-once 2", "--at-once=2: only for local workers"),
        ("padding --executor ray --memory-limit 3", "--memory-limit=3: only for local workers"),
        ("padding --executor ray --address somewhere", "--address='somewhere': must be host:port"),
        ("padding --executor slurm", "executor"),
        ("padding --budget halving", "validation_split=0.0"),
        ("padding --budgt halving", "budgt"),
        ("--axis model.padding=valid,sam", "sam"),
        ("--axis model.paddin=valid", "did you mean 'padding'"),
    ],
)
def test_bad_input_is_refused_in_a_line_and_nothing_is_written(tmp_path, words, message):
    with pytest.raises(InputError) as refusal:
        run.main([*shlex.split(words), "--out", str(tmp_path / "new")])
    assert message in str(refusal.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_same_command_runs_nothing_again_and_more_seeds_run_only_the_new_ones(tmp_path):
    first = type_in(f"{WIDTHS} --seeds 2", tmp_path)
    assert first.returncode == 0, first.stderr
    assert "4 trials: 4 completed in runs/runs.sqlite" in first.stdout.splitlines()[-1]
    again = type_in(f"{WIDTHS} --seeds 2", tmp_path)
    assert again.stdout.splitlines()[0] == "4/4 trials: 4 completed; 0 to run"
    more = type_in(f"{WIDTHS} --seeds 3", tmp_path)
    assert "4/6 trials: 4 completed; 2 to run" in more.stdout.splitlines()[:2]
    assert len(re.findall(r"^\[\d/6\] completed", more.stdout, re.MULTILINE)) == 2


@pytest.mark.slow
def test_a_grid_point_and_a_single_run_are_the_same_run(tmp_path):
    single = "--model.filters '[]' --model.dense '[8]' --data.train-size 300 --train.epochs 1 --seed 1"
    assert type_in(single, tmp_path, "experiments.train").returncode == 0
    grid = type_in(f"{WIDTHS} --seeds 0..1", tmp_path)
    assert "1/4 trials: 1 completed; 3 to run" in grid.stdout.splitlines()[:2]
    again = type_in(f"{single} --seed 0", tmp_path, "experiments.train")
    assert "is already in runs/runs.sqlite" in again.stderr


@pytest.mark.slow
def test_a_failure_ends_with_1_and_is_reported_in_a_line(tmp_path):
    result = type_in(f"{WIDTHS} --seeds 1 --timeout 0.001 --max-retries 0", tmp_path)
    assert result.returncode == 1
    assert sorted(result.stderr.splitlines()) == [
        f"failed model.dense=[{width}], seed=0: ran longer than 0.001 s" for width in (16, 8)
    ]
    assert "2 trials: 2 failed" in result.stdout
    assert type_in(f"{WIDTHS} --seeds 1", tmp_path).returncode == 1
    assert type_in(f"{WIDTHS} --seeds 1 --retry-failed", tmp_path).returncode == 0


@pytest.mark.slow
def test_halving_runs_to_its_end_and_resumes(tmp_path):
    words = f"{WIDTHS} --seeds 2 --set train.epochs=2 --set train.validation_split=0.2 --budget halving"
    words = words.replace("--set train.epochs=1 ", "")
    result = type_in(words, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "4 trials: 2 completed, 2 pruned" in result.stdout.splitlines()[-1]
    rung, grid = Store(tmp_path / "runs").list_grids()
    assert rung.name == f"{grid.name} at 1/2 of the epochs"
    assert type_in(words, tmp_path).stdout.splitlines()[-1].startswith("4 trials: 2 completed, 2 pruned")


def watch(observer, grid):
    """Lets an observer see a grid of which one trial fails, and one is under way."""
    first, second, third, _ = grid.trials
    observer.begin(Work(stored=Counter(), invalid=(), waiting=grid.trials))
    observer.start(first)
    observer.advance(first, Progress(1, 2, 100, 300, 1.5, 0.5, 0.1))
    observer.end(first, make_packed(first.config, accuracy=0.875).record)
    observer.start(second)
    observer.retry(second, "the worker was killed by SIGKILL")
    observer.start(third)
    observer.advance(third, Progress(2, 2, 150, 300, 1.5, 0.625, 0.1))


def test_every_trial_has_a_line(capsys):
    watch(GridLineObserver(), make_grid())
    out, err = capsys.readouterr()
    assert "0/4 trials: none yet; 4 to run" in out.splitlines()[:2]
    assert out.splitlines()[1].startswith(
        "[1/4] completed model.dense=8, seed=0: test accuracy 0.8750 in 0.7 s; ETA 0:00"
    )
    assert err == "retrying model.dense=8, seed=1: the worker was killed by SIGKILL\n"


def show_live(grid, width=80):
    from rich.console import Console

    observer = GridLiveObserver()
    console = Console(file=io.StringIO(), width=width)
    observer.begin(Work(stored=Counter(), invalid=(), waiting=grid.trials))
    console.print(observer._render())
    watch(observer, grid)
    console.print(observer._render())
    observer.close()
    return console.file.getvalue()


def test_the_live_view_shows_counts_speed_and_running_trials():
    text = show_live(make_grid())
    before, after = text.split("workers are starting")
    assert "0/4 trials: none yet" in before
    assert "1/4 trials: 1 completed" in after
    assert re.search(r"[\d,]+ trials/h, 0:\d\d:\d\d left", after)
    assert re.search(r"dense=16, seed=0\s+epoch 2/2\s+50%\s+accuracy 0.6250", after)
    assert "0.8750" not in text  # the best of several trials is no finding


def test_a_notebook_shows_the_live_view_in_one_output_that_is_replaced(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown, updates = [], []

    class Output:
        def update(self, data, raw):
            updates.append(data["text/plain"])

    monkeypatch.setattr(display, "display", lambda *data, **options: shown.append(data) or Output())
    monkeypatch.setattr("ablations.execution.watching.REFRESH_SECONDS", 0)
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    observer = make_grid_observer(quiet=False)
    watch(observer, make_grid())
    observer.close()
    assert len(shown) == 1
    assert re.search(r"dense=16, seed=0 +epoch 2/2 +50% +accuracy 0.6250", "".join(updates))
    assert "1/4 trials: 1 completed" in updates[-1]
    assert "\x1b" not in "".join(updates)


def test_running_trials_are_named_by_the_factors_that_vary():
    grid = make_grid()
    common = {f"model.common_{index}": "something-long" for index in range(9)}
    cells = tuple(dataclasses.replace(cell, labels={**common, **cell.labels}) for cell in grid.cells)
    assert re.search(r"^  dense=16, seed=0  ", show_live(dataclasses.replace(grid, cells=cells)), re.MULTILINE)
