"""A grid runs every trial once, and stores every result before it is reported."""

import os
import signal
import sqlite3
from collections import Counter

import pytest

from ablations.execution.coordinator import run_grid
from ablations.execution.work import Policy, find_work
from cnnjax import Interrupted, UnavailableError
from cnnjax.runs.store import Store
from grid_helpers import ScriptedExecutor, Watcher, make_grid, make_packed


def run(grid, store, script=make_packed, policy=None, watcher=None, **executor):
    executor = ScriptedExecutor(script, **executor)
    ending = run_grid(grid, store, executor, watcher or Watcher(), policy)
    return +ending.counts, executor


def test_every_trial_is_stored_once_before_it_is_reported(tmp_path):
    store, grid = Store(tmp_path), make_grid(widths=(8, 16, 32), seeds=range(5))

    class Auditor(Watcher):
        def end(self, trial, record):
            super().end(trial, record)
            assert store.find(trial.key) == record

    watcher = Auditor()
    counts, executor = run(grid, store, watcher=watcher)
    assert counts == Counter(completed=15)
    assert sorted(store.list_keys()) == sorted(trial.key for trial in grid.trials)
    assert sorted(trial.key for (trial,) in executor.given) == sorted(trial.key for trial in grid.trials)
    assert (watcher.count("end"), watcher.count("close")) == (15, 1)


def test_what_is_stored_is_not_run_again(tmp_path):
    store, grid = Store(tmp_path), make_grid(seeds=range(3))
    store.add_all([make_packed(grid.trials[0].config), make_packed(grid.trials[1].config, status="diverged")])
    counts, executor = run(grid, store)
    assert counts == Counter(completed=5, diverged=1)
    assert {trial.key for (trial,) in executor.given} == {trial.key for trial in grid.trials[2:]}
    assert run(grid, store)[1].given == []


def test_invalid_cells_are_stored_with_their_reason_and_never_run(tmp_path):
    store, grid = Store(tmp_path), make_grid(widths=(8,), problems=(999,))
    counts, executor = run(grid, store)
    assert counts == Counter(completed=2, invalid=2)
    assert len(executor.given) == 2
    record = store.find(grid.trials[-1].key)
    assert (record.status, record.reason, record.test_accuracy, record.parameters) == (
        "invalid",
        "too wide",
        None,
        None,
    )
    before = store.list_statuses()
    run(grid, store)
    assert store.list_statuses() == before


def test_a_failing_trial_is_tried_again_and_then_recorded_while_the_others_go_on(tmp_path):
    store, grid, watcher = Store(tmp_path), make_grid(seeds=range(3)), Watcher()
    bad = grid.trials[1].config

    def script(config):
        return ("the worker was killed by SIGSEGV", "last words") if config == bad else make_packed(config)

    counts, executor = run(grid, store, script, Policy(max_retries=2), watcher)
    assert counts == Counter(completed=5, failed=1)
    assert sum(trial.config == bad for (trial,) in executor.given) == 3
    assert watcher.count("retry") == 2
    record = store.find(bad.key)
    assert record.reason == "the worker was killed by SIGSEGV, at the last of 3 attempts"
    assert (record.output, record.test_accuracy, record.parameters) == ("last words", None, 6370)


def test_failures_stay_until_they_are_retried(tmp_path):
    store, grid = Store(tmp_path), make_grid(widths=(8,), seeds=range(2))
    run(grid, store, lambda config: ("no luck",), Policy(max_retries=0))
    counts, executor = run(grid, store)
    assert (counts, executor.given) == (Counter(failed=2), [])
    counts, executor = run(grid, store, policy=Policy(retry_failed=True))
    assert counts == Counter(completed=2)


def test_a_trial_that_fails_once_and_then_ends_is_completed(tmp_path):
    tried = Counter()

    def script(config):
        tried[config.key] += 1
        return ("no luck",) if tried[config.key] == 1 else make_packed(config)

    counts, _ = run(make_grid(), Store(tmp_path), script)
    assert counts == Counter(completed=4)


def test_fail_fast_stops_at_the_first_failure_for_good(tmp_path):
    grid = make_grid(seeds=range(20))
    counts, executor = run(
        grid, Store(tmp_path), lambda c: ("no luck",), Policy(fail_fast=True, max_retries=0), slots=1
    )
    assert counts == Counter(failed=1, waiting=39)
    assert len(executor.given) == 1


def test_trials_returned_before_they_started_are_given_out_again(tmp_path):
    returned = set()

    def script(config):
        if config.key in returned:
            return make_packed(config)
        returned.add(config.key)
        return "return"

    counts, _ = run(make_grid(seeds=range(4)), Store(tmp_path), script, group_size=3)
    assert counts == Counter(completed=8)
    assert len(returned) == 8


def test_a_group_shares_a_static_signature(tmp_path):
    _, executor = run(make_grid(widths=(8, 16), seeds=range(5)), Store(tmp_path), group_size=3)
    assert sorted(len(group) for group in executor.given) == [2, 2, 3, 3]
    assert all(len({trial.config.model for trial in group}) == 1 for group in executor.given)


def test_a_signal_stops_the_grid_and_what_has_ended_is_stored(tmp_path):
    store, grid = Store(tmp_path), make_grid(seeds=range(5))

    class Interrupter(Watcher):
        def end(self, trial, record):
            super().end(trial, record)
            if self.count("end") == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    watcher = Interrupter()
    with pytest.raises(Interrupted, match="3 trials are stored, 7 are left; the same command goes on") as stop:
        run(grid, store, watcher=watcher, slots=1)
    assert stop.value.exit_code == 143
    assert len(store.list_keys()) == 3
    assert run(grid, store)[0] == Counter(completed=10)


def test_a_store_that_can_no_longer_be_written_stops_the_grid_and_keeps_its_results(tmp_path, monkeypatch):
    store, grid = Store(tmp_path), make_grid(seeds=range(5))
    add_all = store.add_all

    def fill_up(runs):
        if len(store.list_keys()) >= 4:
            raise UnavailableError("runs.sqlite: database or disk is full")
        add_all(runs)

    monkeypatch.setattr(store, "add_all", fill_up)
    watcher = Watcher()
    with pytest.raises(UnavailableError, match="disk is full"):
        run(grid, store, watcher=watcher)
    assert len(store.list_keys()) == watcher.count("end") == 4
    monkeypatch.undo()
    assert run(grid, store)[0] == Counter(completed=10)


def test_without_a_store_all_trials_are_left_and_nothing_is_created(tmp_path):
    grid = make_grid(problems=(3,))
    work = find_work(grid, Store(tmp_path / "nowhere"))
    assert (len(work.waiting), len(work.invalid), work.stored) == (4, 2, Counter())
    assert not (tmp_path / "nowhere").exists()


def test_a_result_is_never_replaced_by_a_failure(tmp_path):
    store, grid = Store(tmp_path), make_grid(widths=(8,), seeds=(0,))
    trial = grid.trials[0]

    def script(config):
        store.add_all([make_packed(config, accuracy=0.75)])  # another process was faster
        return ("no luck",)

    run(grid, store, script, Policy(max_retries=0))
    assert store.find(trial.key).test_accuracy == 0.75


def test_stored_rows_are_those_of_the_trials_in_any_order(tmp_path):
    grid = make_grid(widths=(8, 16, 32), seeds=range(3))
    shuffled = type(grid)(grid.name, grid.factors, grid.cells[::-1], (2, 0, 1))
    rows = []
    for name, which in (("a", grid), ("b", shuffled)):
        run(which, Store(tmp_path / name))
        with sqlite3.connect(tmp_path / name / "runs.sqlite") as connection:
            rows.append(connection.execute("SELECT key, status, test_accuracy FROM runs ORDER BY key").fetchall())
    assert rows[0] == rows[1]
    assert len(rows[0]) == 9


def test_a_signal_as_the_last_trial_ends_still_interrupts(tmp_path):
    class Interrupter(Watcher):
        def end(self, trial, record):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="1 trials are stored, 0 are left"):
        run(make_grid(widths=(8,), seeds=(0,)), Store(tmp_path), watcher=Interrupter())


def test_an_observer_that_fails_loses_no_result(tmp_path):
    class Broken(Watcher):
        def start(self, trial):
            raise OSError("the terminal is gone")

    store = Store(tmp_path)
    with pytest.raises(OSError, match="the terminal is gone"):
        run(make_grid(widths=(8,), seeds=(0,)), store, watcher=Broken())
    assert len(store.list_keys()) == 1
