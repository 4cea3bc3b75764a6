"""Halving prunes the worse half by validation accuracy, says so, and never looks at the test set."""

from collections import Counter

import pytest

from ablations.execution.coordinator import run_grid
from ablations.execution.halving import run_halving
from ablations.execution.work import Policy
from cnnjax import InputError
from cnnjax.runs.store import Store
from grid_helpers import ScriptedExecutor, Watcher, make_grid, make_packed


def by_width(config):
    """The wider the better, on validation; the test accuracy says the opposite."""
    width = config.model.dense[0]
    run = make_packed(config, accuracy=width / 100)
    object.__setattr__(run.record, "test_accuracy", 1 - width / 100)
    return run


def halve(grid, store, script=by_width, fail_fast=False):
    executors, policy = [], Policy(fail_fast=fail_fast, max_retries=0)

    def run(part):
        executors.append(ScriptedExecutor(script))
        return run_grid(part, store, executors[-1], Watcher(), policy)

    counts = run_halving(grid, store, run)
    return +counts, [[trial for group in executor.given for trial in group] for executor in executors]


def test_each_rung_keeps_the_better_half_for_twice_the_epochs(tmp_path):
    grid = make_grid(widths=(1, 2, 3, 4, 5, 6), seeds=(0, 1), epochs=5, validation_split=0.5)
    counts, rungs = halve(grid, Store(tmp_path))
    widths = [sorted({trial.config.model.dense[0] for trial in rung}) for rung in rungs]
    assert widths == [[1, 2, 3, 4, 5, 6], [4, 5, 6], [5, 6]]
    assert [{trial.config.train.epochs for trial in rung} for rung in rungs] == [{1}, {2}, {5}]
    assert counts == Counter(completed=4, pruned=8)


def test_pruned_trials_say_so_and_have_no_accuracy(tmp_path):
    grid, store = make_grid(widths=(10, 20, 30, 40), epochs=4, validation_split=0.5), Store(tmp_path)
    halve(grid, store)
    record = store.find(grid.trials[0].key)
    assert (record.status, record.test_accuracy) == ("pruned", None)
    assert record.reason == (
        "dropped after 1 of 4 epochs: mean validation accuracy 0.1000, place 4 of 4, of which 2 went on"
    )


def test_every_rung_is_stored_and_skipped_the_next_time(tmp_path):
    grid, store = make_grid(widths=(10, 20, 30, 40), epochs=4, validation_split=0.5), Store(tmp_path)
    first, _ = halve(grid, store)
    again, rungs = halve(grid, store)
    assert first == again
    assert rungs == [[], [], []]


def test_a_full_run_completes_the_pruned_trials(tmp_path):
    grid, store = make_grid(widths=(10, 20, 30, 40), epochs=4, validation_split=0.5), Store(tmp_path)
    halve(grid, store)
    assert +run_grid(grid, store, ScriptedExecutor(by_width), Watcher()).counts == Counter(completed=8)


def test_a_trial_completed_by_a_full_run_stays_completed(tmp_path):
    grid, store = make_grid(widths=(10, 20, 30, 40), epochs=4, validation_split=0.5), Store(tmp_path)
    run_grid(grid, store, ScriptedExecutor(by_width), Watcher())
    counts, _ = halve(grid, store)
    assert counts == Counter(completed=8)


def test_cells_without_results_come_last(tmp_path):
    def script(config):
        return make_packed(config, status="diverged") if config.model.dense[0] == 40 else by_width(config)

    grid, store = make_grid(widths=(10, 20, 30, 40), epochs=2, validation_split=0.5), Store(tmp_path)
    _, rungs = halve(grid, store, script)
    assert {trial.config.model.dense[0] for trial in rungs[-1]} == {20, 30}
    assert "no seed completed, place 4 of 4" in store.find(grid.trials[-1].key).reason


def test_invalid_cells_stay_invalid(tmp_path):
    grid = make_grid(widths=(10, 20), problems=(99,), epochs=2, validation_split=0.5)
    counts, _ = halve(grid, Store(tmp_path))
    assert counts == Counter(completed=2, pruned=2, invalid=2)


def test_halving_without_validation_examples_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match=r"validation_split=0.0 .* must be > 0 for every cell, such as --set"):
        halve(make_grid(epochs=4), Store(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def one_fails(config):
    return ("the worker ended", "last words") if config.model.dense == (10,) and config.seed else by_width(config)


def test_a_failure_in_a_rung_is_counted_and_stored_with_its_reason(tmp_path):
    grid, store = make_grid(widths=(10, 20, 30, 40), epochs=2, validation_split=0.5), Store(tmp_path)
    counts, _ = halve(grid, store, one_fails)
    assert counts == Counter(completed=4, pruned=3, failed=1)
    record = store.find(grid.trials[1].key)
    assert (record.status, record.reason, record.output) == (
        "failed",
        "at 1 of 2 epochs: the worker ended",
        "last words",
    )
    other = store.find(grid.trials[0].key)
    assert other.status == "pruned"
    assert "mean validation accuracy 0.1000 of 1 of 2 seeds, 0 diverged, place 4 of 4" in other.reason


def test_a_crash_does_not_prune_the_best_cell_and_a_divergence_does(tmp_path):
    def with_trouble(outcome):
        def script(config):
            is_hit = config.model.dense == (40,) and config.seed and config.train.epochs == 1
            return outcome(config) if is_hit else by_width(config)

        return script

    grid = make_grid(widths=(10, 20, 30, 40), epochs=2, validation_split=0.5)
    counts, rungs = halve(grid, Store(tmp_path / "crash"), with_trouble(lambda config: ("the worker ended",)))
    assert {trial.config.model.dense[0] for trial in rungs[-1]} == {30, 40}
    assert counts == Counter(completed=4, pruned=4)
    diverge = with_trouble(lambda config: make_packed(config, status="diverged"))
    _, rungs = halve(grid, Store(tmp_path / "divergence"), diverge)
    assert {trial.config.model.dense[0] for trial in rungs[-1]} == {20, 30}


def test_cells_with_different_validation_examples_are_refused(tmp_path):
    grid = make_grid(epochs=2, validation_split=0.5)
    other = make_grid(epochs=2, validation_split=0.1)
    mixed = type(grid)("mixed", grid.factors, (*grid.cells, *other.cells), grid.seeds)
    with pytest.raises(InputError, match=r"the cells differ in data.name or train.validation_split"):
        halve(mixed, Store(tmp_path))


def test_fail_fast_starts_no_further_rung(tmp_path):
    grid = make_grid(widths=(10, 20, 30, 40), epochs=4, validation_split=0.5)
    counts, rungs = halve(grid, Store(tmp_path), one_fails, fail_fast=True)
    assert counts["failed"] == 1
    assert len(rungs) == 1


def test_fail_fast_ignores_earlier_failures(tmp_path):
    grid = make_grid(widths=(10, 20, 30, 40), epochs=4, validation_split=0.5)
    whole, _ = halve(grid, Store(tmp_path / "whole"), one_fails)
    halve(grid, Store(tmp_path / "stopped"), one_fails, fail_fast=True)
    again, rungs = halve(grid, Store(tmp_path / "stopped"), one_fails, fail_fast=True)
    assert again == whole
    assert len(rungs) == 3
    assert all(trial.config.model.dense != (10,) or not trial.config.seed for trial in rungs[0])
