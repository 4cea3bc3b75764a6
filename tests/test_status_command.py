"""The status command: the progress of every grid in a store, without disturbing the grids that run."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.execution.costs import training_flops
from ablations.execution.locking import Owner, hold_store
from ablations.status import RECENT, main, measure_progress, measure_rate
from ablations.study.grid import expand
from ablations.study.reading import read_toml
from cnnjax import CorruptionError
from cnnjax.runs.record import PackedRun, Record
from cnnjax.runs.store import Store, StoredGrid
from grid_helpers import make_grid, make_packed, tiny

ROOT = Path(__file__).parent.parent
START = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
OWNER = Owner(1, "here", "run tiny", START.isoformat())


def add_grid(store, grid, started_at=START):
    trials = {trial.key: trial.name for trial in grid.trials}
    store.add_grid(StoredGrid(grid.name, "", f"run {grid.name}", started_at.isoformat(), trials))


@pytest.fixture
def store(tmp_path):
    """A grid of six trials: two completed, one failed, one diverged, one pruned, one not run."""
    store, grid = Store(tmp_path), make_grid(widths=(8, 16), seeds=(0, 1, 2))
    add_grid(store, grid)
    first, second, third, fourth, fifth, _ = (trial.config for trial in grid.trials)
    store.add_all(
        [
            make_packed(first, 0.9),
            make_packed(second, 0.95),
            PackedRun(Record.without_result(third, "failed", "out of memory")),
            make_packed(fourth, status="diverged"),
            PackedRun(Record.without_result(fifth, "pruned", "worse than half")),
        ]
    )
    return store


def test_every_trial_of_a_grid_is_counted_once(store):
    (grid,) = measure_progress(store, False).grids
    assert grid.counts == {"completed": 2, "failed": 1, "diverged": 1, "pruned": 1}
    assert (grid.remaining, grid.total, grid.running, grid.seconds_left) == (1, 6, False, None)
    assert {(failure.trial, failure.status, failure.reason) for failure in grid.failures} == {
        ("model.dense=8, seed=2", "failed", "out of memory"),
        ("model.dense=16, seed=0", "diverged", "loss not finite at step 3"),
    }


def test_runs_of_no_grid_are_counted_apart(store):
    store.add_all([make_packed(tiny(seed=50)), make_packed(tiny(seed=51))])
    progress = measure_progress(store, False)
    assert progress.other_runs == {"completed": 2}
    assert progress.grids[0].total == 6


def test_the_newest_grid_comes_first_and_is_the_one_that_runs(store):
    add_grid(store, make_grid(widths=(32,), seeds=(0, 1)).__class__("later", (), (), ()), START + timedelta(hours=1))
    later, earlier = measure_progress(store, True).grids
    assert (later.name, later.running, later.total, later.trials_per_hour) == ("later", True, 0, None)
    assert (earlier.name, earlier.running) == ("tiny", False)


def test_the_time_left_is_what_remains_at_the_rate_so_far(store):
    (grid,) = measure_progress(store, True).grids
    assert grid.trials_per_hour > 0
    assert grid.seconds_left == pytest.approx(3600 / grid.trials_per_hour)


@given(st.integers(1, 50), st.floats(1, 1e4), st.randoms())
def test_the_rate_of_a_steady_grid_is_its_pace(trials, seconds, random):
    times = [START + timedelta(seconds=seconds) * (index + 1) for index in range(trials)]
    random.shuffle(times)
    assert measure_rate(times, START) == pytest.approx(3600 / seconds, rel=1e-3)


def test_the_rate_follows_the_last_trials_and_forgets_those_before_the_start():
    before = [START - timedelta(days=1)] * 5
    slow = [START + timedelta(hours=hour) for hour in range(1, 30)]
    fast = [slow[-1] + timedelta(minutes=minute) for minute in range(1, RECENT + 1)]
    assert measure_rate(before + slow + fast, START) == pytest.approx(60)
    assert measure_rate(before, START) is None
    assert measure_rate([], START) is None


def test_the_table_shows_the_grids_and_the_notes_what_stands_out(store, tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    above, table, notes = capsys.readouterr().out.rstrip().split("\n\n")
    assert above == f"{tmp_path / 'runs.sqlite'}\nno grid runs now"
    heading, _, row = table.splitlines()
    assert heading.split()[:7] == ["grid", "completed", "diverged", "failed", "pruned", "remaining", "trials"]
    assert row.split()[:7] == ["tiny", "2", "1", "1", "1", "1", "6"]
    assert "0.95" not in notes  # the best of several trials is no finding
    assert "tiny: failed: model.dense=8, seed=2: out of memory" in notes


def test_json_is_one_object_and_nothing_else(store, tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"store", "running", "grids", "other_runs"}
    (grid,) = found["grids"]
    assert set(grid) == {
        "name", "command", "started_at", "running", "counts", "remaining", "total", "trials_per_hour", "seconds_left",
        "failures",
    }  # fmt: skip
    assert (found["running"], found["other_runs"]) == (None, {})


def test_a_running_grid_is_named(store, tmp_path, capsys):
    with hold_store(tmp_path, "run tiny"):
        assert main(["--out", str(tmp_path)]) == 0
        assert "running now: 'run tiny' (process" in capsys.readouterr().out
        assert main(["--out", str(tmp_path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
    assert found["running"]["pid"] == os.getpid()
    assert found["grids"][0]["running"]


def test_a_missing_store_is_reported_and_not_created(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "nowhere")]) == 0
    assert "no grid runs now, there is no store yet" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_read(store, tmp_path, capsys):
    tmp_path.chmod(0o555)
    try:
        assert main(["--out", str(tmp_path)]) == 0
    finally:
        tmp_path.chmod(0o755)
    assert "tiny" in capsys.readouterr().out


def test_reading_writes_nothing(store, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    main(["--out", str(tmp_path)])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_store_is_refused(tmp_path):
    (tmp_path / "runs.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(CorruptionError, match=r"runs.sqlite: not a readable store"):
        main(["--out", str(tmp_path)])


def test_the_command_starts_without_jax(tmp_path):
    code = "import sys; from ablations.status import main; main(sys.argv[1:]); assert 'jax' not in sys.modules"
    arguments = [sys.executable, "-c", code, "--out", str(tmp_path)]
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, timeout=300)


@pytest.mark.parametrize(
    ("optimizer", "commands"),
    [
        ("optax:lion", ("status", "report", "plan")),
        ("optax.contrib:muon", ("status", "report", "plan")),
        ("optax:adafactor(decay_rate=0.7)", ("status",)),  # what is typed with arguments is imported to check them
    ],
)
def test_a_study_with_functions_of_a_package_is_read_without_importing_it(tmp_path, optimizer, commands):
    text = f"title = 'optimizers'\nseeds = 1\n[sweep.grid]\ntrain.optimizer = ['sgd', '{optimizer}']\n"
    (tmp_path / "optimizers.toml").write_text(text)
    store, grid = Store(tmp_path), expand(read_toml(text, "optimizers"))
    trials = {trial.key: trial.name for trial in grid.trials}
    store.add_grid(StoredGrid("optimizers", text, "run optimizers", START.isoformat(), trials))
    store.add_all([make_packed(trial.config) for trial in grid.trials])
    for command in commands:
        code = f"import sys; from ablations.{command} import main; main(sys.argv[1:]); print('optax' in sys.modules)"
        study = ["optimizers.toml"] if command == "plan" else []
        arguments = [sys.executable, "-c", code, *study, "--out", str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
        assert b"optimizers" in done.stdout
        assert done.stdout.split()[-1] == b"False"


def test_the_time_left_follows_the_cost_of_the_trials(tmp_path):
    text = """
    title = "small and large"
    seeds = 1
    base.model.filters = []
    [sweep.grid]
    model.dense = [[800], [8]]
    """
    grid = expand(read_toml(text, "sizes"))
    store, (large, small) = Store(tmp_path), grid.trials
    started = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    store.add_grid(StoredGrid("sizes", text, "run sizes", started, {large.key: "large", small.key: "small"}))
    store.add_all([make_packed(large.config)])
    (progress,) = measure_progress(store, True).grids
    expected = 100 * training_flops(small.config) / training_flops(large.config)
    assert progress.seconds_left == pytest.approx(expected, rel=0.05)
    assert progress.seconds_left < 2
